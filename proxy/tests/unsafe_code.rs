//! Where the compiler is told to believe us: counted, in one file, and each time with its reason.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringmail_evidence::shown;

/// The one file, from the repository's root.
const PLACE: &str = "proxy/src/sys.rs";
/// Blocks in it. A further one needs a reason why no kept crate does the same.
const BLOCKS: usize = 5;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The words of a line's code: neither of its comment nor of its texts.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"')
        .step_by(2)
        .flat_map(|code| code.split(|letter: char| !letter.is_alphanumeric() && letter != '_'))
}

#[test]
fn unsafe_code_is_five_calls_in_one_file_each_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut blocks, mut lines) = (0, 0);
    let word = "unsafe";
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let all: Vec<&str> = text.lines().collect();
        lines += all.len();
        for (at, line) in all.iter().enumerate() {
            if !words(line).any(|used| used == word) {
                continue;
            }
            assert!(file.ends_with(PLACE), "{}:{}: {line}", file.display(), at + 1);
            let mut before = all[..at].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            assert!(before.any(|line| line.contains("// SAFETY: ")), "{}: no reason", at + 1);
            blocks += 1;
        }
    }
    assert_eq!(blocks, BLOCKS);
    shown!("S5", "unsafe blocks, each with its reason, all in proxy/src/sys.rs", blocks, "exactly");
    shown!("S5", "lines of Rust that were looked through", lines, "> 50,000");
    assert!(lines > 50_000, "{lines}");
}
