//! A test that fails takes back what it told.
//!
//! Figures are told where they are seen, which may be before their own bound or another one of the same test is asserted. None of
//! a test that did not hold may stand on the page, so the panic that ends a test removes the files of its thread.

use std::cell::RefCell;
use std::fs;
use std::panic;
use std::path::PathBuf;
use std::sync::Once;

thread_local! {
    static TOLD: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
}

/// Remembers that this thread's test told the figure in the file at `path`.
pub(crate) fn told(path: PathBuf) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            take_back();
            before(info);
        }));
    });
    TOLD.with_borrow_mut(|files| files.push(path));
}

fn take_back() {
    // Whatever cannot be had within a panic is left as it is: another one here would hide the first one's words.
    let files = TOLD.try_with(|files| files.try_borrow_mut().map(|mut files| std::mem::take(&mut *files)));
    for file in files.into_iter().flatten().flatten() {
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::told;

    #[test]
    fn a_failed_test_takes_back_its_figures_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, lost] = ["kept", "lost"].map(|name| folder.path().join(name));
        for path in [&kept, &lost] {
            fs::write(path, "a figure").unwrap();
        }
        let (fails, holds) = (lost.clone(), kept.clone());
        thread::spawn(move || told(holds)).join().unwrap();
        let failed = thread::spawn(move || {
            told(fails);
            panic!("a bound does not hold");
        });
        failed.join().unwrap_err();
        assert!(kept.exists(), "a figure of a test that held");
        assert!(!lost.exists(), "a figure of a test that failed");
    }
}
