//! What outlives this process: when a sidecar was last here, and that the application is fenced.
//!
//! Two small files in the state directory. `alive` is overwritten in place once a second, always with the
//! same number of bytes, so that no reader sees half of it; `fenced` is there while the fence is closed. Both
//! count only within one boot of the machine: with it the clock begins anew, and so did the application.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tracing::warn;

use super::{Absence, listeners::Listeners};

/// Different after each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// More than either file has even with thousands of listeners.
const MAX_FILE: u64 = 1024 * 1024;

/// What an earlier process of this boot wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// Its last beat, in milliseconds of the clock.
    pub(super) beat: Option<u64>,
    /// That the application was fenced.
    pub(super) absence: Option<Arc<Absence>>,
}

/// The state directory, or none where it cannot be used.
#[derive(Debug)]
pub(super) struct StateDir(Option<Open>);

#[derive(Debug)]
struct Open {
    boot: String,
    alive: File,
    fenced: PathBuf,
    failed: AtomicBool,
}

impl StateDir {
    /// Opens or makes the directory. One that cannot be written to is a warning, and nothing in it counts:
    /// what it says is as old as the fault.
    pub(super) fn open(directory: &Path) -> (Self, Remembered) {
        match Open::at(directory) {
            Ok((open, remembered)) => (Self(Some(open)), remembered),
            Err(error) => {
                warn!(
                    %error, directory = %directory.display(),
                    "fence: the state directory cannot be used: how long the sidecar was away will not be known after \
                     a restart of it, so a restart that takes too long cannot be fenced"
                );
                (Self(None), Remembered::default())
            }
        }
    }

    /// Notes that a sidecar was here at `beat`.
    pub(super) fn beat(&self, beat: u64) {
        let Some(open) = &self.0 else { return };
        let written = open.alive.write_all_at(alive_text(&open.boot, beat).as_bytes(), 0);
        let failed = written.is_err();
        if let Err(error) = written
            && !open.failed.load(Ordering::Relaxed)
        {
            warn!(%error, "fence: the heartbeat cannot be written: a restart of the sidecar may be fenced without need");
        }
        open.failed.store(failed, Ordering::Relaxed);
    }

    /// Notes that the application is fenced.
    pub(super) fn remember(&self, absence: &Absence) {
        let Some(open) = &self.0 else { return };
        let partial = open.fenced.with_extension("partial");
        let text = fenced_text(&open.boot, absence);
        let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, &open.fenced));
        if let Err(error) = written {
            warn!(%error, "fence: not written down: a restart of the sidecar would open it");
        }
    }

    /// Notes that it is no longer fenced.
    pub(super) fn forget(&self) {
        let Some(open) = &self.0 else { return };
        match fs::remove_file(&open.fenced) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // Harmless: its listeners are gone, which the next start sees.
            Err(error) => warn!(%error, "fence: what was written down cannot be removed"),
        }
    }
}

impl Open {
    fn at(directory: &Path) -> io::Result<(Self, Remembered)> {
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        fs::create_dir_all(directory)?;
        let alive = directory.join("alive");
        let alive = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(alive)?;
        let fenced = directory.join("fenced");
        let remembered = Remembered {
            beat: parse_alive(&boot, &read(&alive)?),
            absence: match File::open(&fenced) {
                Ok(file) => parse_fenced(&boot, &read(&file)?).map(Arc::new),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        Ok((Self { boot, alive, fenced, failed: AtomicBool::new(false) }, remembered))
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a later version writes besides.
const MORE: &str = if cfg!(feature = "next-schema") { " version=next" } else { "" };

/// Twenty digits hold every number of milliseconds.
fn alive_text(boot: &str, beat: u64) -> String {
    format!("{boot} {beat:020}{MORE}\n")
}

fn parse_alive(boot: &str, text: &str) -> Option<u64> {
    match &words(boot, text)?[..] {
        [beat] => beat.parse().ok(),
        _ => None,
    }
}

/// The words of the first line after the boot. Another version of the sidecar may have been here before: its
/// `<name>=<value>` is passed over, and so is what is left of a longer file that was overwritten.
fn words<'t>(boot: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let (line, _) = text.split_once('\n')?;
    let words = line.strip_prefix(boot)?.strip_prefix(' ')?.split(' ');
    Some(words.filter(|word| !word.contains('=')).collect())
}

fn fenced_text(boot: &str, absence: &Absence) -> String {
    let mut text = format!("{boot} {}{MORE}", absence.away.as_millis());
    for (inode, port) in &absence.listeners.0 {
        text.push_str(&format!(" {inode}:{port}"));
    }
    text.push('\n');
    text
}

fn parse_fenced(boot: &str, text: &str) -> Option<Absence> {
    let mut fields = words(boot, text)?.into_iter();
    let away = Duration::from_millis(fields.next()?.parse().ok()?);
    let listener = |field: &str| {
        let (inode, port) = field.split_once(':')?;
        Some((inode.parse().ok()?, port.parse().ok()?))
    };
    let listeners = fields.map(listener).collect::<Option<_>>()?;
    Some(Absence { away, listeners: Listeners(listeners) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "7d4bd7c8-59c5-4b2d-95a8-ed5c5a4a5d2a";

    fn absence() -> Absence {
        Absence { away: Duration::from_millis(15_250), listeners: Listeners([(7, 47500), (9, 10800)].into()) }
    }

    #[test]
    fn what_is_written_is_read_again_within_the_same_boot_alone() {
        let alive = alive_text(BOOT, 123_456);
        assert_eq!(alive.len(), alive_text(BOOT, u64::MAX).len());
        assert_eq!(parse_alive(BOOT, &alive), Some(123_456));
        assert_eq!(parse_fenced(BOOT, &fenced_text(BOOT, &absence())), Some(absence()));
        let another = "00000000-0000-0000-0000-000000000000";
        assert_eq!(parse_alive(another, &alive), None);
        assert_eq!(parse_fenced(another, &fenced_text(BOOT, &absence())), None);
    }

    #[test]
    fn a_file_that_is_not_whole_counts_for_nothing() {
        for text in
            ["", "\n", BOOT, &alive_text(BOOT, 7)[..50], &format!("{BOOT} -7\n"), &format!("{BOOT} 7 8\n")]
        {
            assert_eq!(parse_alive(BOOT, text), None, "{text:?}");
        }
        for fields in ["", " ", " x", " 7 8", " 7 8:x", " 7 8:70000", " 7  8:80"] {
            assert_eq!(parse_fenced(BOOT, &format!("{BOOT}{fields}\n")), None, "{fields:?}");
        }
    }

    #[test]
    fn what_another_version_wrote_besides_is_passed_over() {
        let longer = format!("{BOOT} 7 version=2 reason=none\n");
        assert_eq!(parse_alive(BOOT, &longer), Some(7));
        let alive = alive_text(BOOT, 9);
        assert_eq!(parse_alive(BOOT, &format!("{alive}{}", "x\n".repeat(9))), Some(9));
        let fenced = fenced_text(BOOT, &absence()).replace(" 7:", " version=2 7:");
        assert_eq!(parse_fenced(BOOT, &fenced), Some(absence()));
    }

    #[test]
    fn a_directory_is_made_and_remembers_until_told_to_forget() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state");
        let (state, remembered) = StateDir::open(&directory);
        assert_eq!(remembered, Remembered::default());
        state.beat(5);
        state.beat(7);
        state.remember(&absence());
        let (again, remembered) = StateDir::open(&directory);
        assert_eq!(remembered, Remembered { beat: Some(7), absence: Some(Arc::new(absence())) });
        again.forget();
        again.forget();
        assert_eq!(StateDir::open(&directory).1, Remembered { beat: Some(7), absence: None });
    }

    #[test]
    fn a_directory_that_cannot_be_used_remembers_nothing_and_harms_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (state, remembered) = StateDir::open(file.path());
        assert_eq!(remembered, Remembered::default());
        state.beat(7);
        state.remember(&absence());
        state.forget();
    }
}
