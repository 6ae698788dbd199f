//! The size of the program that stands beside every application.

use std::fs;

use anyhow::{Context, Result};

use super::arguments::Group;
use super::figures::Head;
use super::recorder::Recorder;
use crate::candidates::{Candidate, Programs};
use crate::results::Better;

/// Takes it once. Those of peers are no figures: some are packed with debug information, and some with libraries beside
/// them. What each has is told with its version.
pub(super) fn take(candidates: &[Candidate], programs: &Programs, recorder: &mut Recorder) {
    let head = Head {
        id: "binary-size".to_owned(),
        group: Group::Size.name(),
        title: "size of the program".to_owned(),
        unit: "MB",
        better: Better::Lower,
    };
    let own = [Candidate::Ringmail, Candidate::RingmailBaseline];
    for candidate in candidates.iter().copied().filter(|candidate| own.contains(candidate)) {
        match megabytes(candidate, programs) {
            Ok(size) => recorder.sample(&head, candidate, 0, size),
            Err(error) => recorder.missing(&format!("{}: size", candidate.name()), &format!("{error:#}")),
        }
    }
}

fn megabytes(candidate: Candidate, programs: &Programs) -> Result<f64> {
    let program = programs.proxy_of(candidate)?.context("it has no program")?;
    let file = fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?;
    Ok(file.len() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_size_of_ringmail_s_proxy_is_a_figure_and_that_of_others_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ringmail-proxy"), vec![0; 2_500_000]).unwrap();
        let mut programs = Programs::find("/bin/true".into(), Some(folder.path().to_owned())).unwrap();
        programs.envoy = Some("/bin/true".into());
        let mut recorder = Recorder::new(BTreeMap::new(), Instant::now());
        take(
            &[Candidate::Plain, Candidate::Envoy, Candidate::Ringmail, Candidate::RingmailBaseline],
            &programs,
            &mut recorder,
        );
        let results = recorder.finish();
        assert_eq!(results.figures.len(), 1);
        assert_eq!(results.figures[0].samples, [("ringmail".to_owned(), vec![Some(2.5)])].into());
        assert!(results.missing["ringmail-baseline: size"].contains("--baseline"), "{:?}", results.missing);
    }
}
