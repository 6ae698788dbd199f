//! Whether connections can be served, and if not, what is missing and why.

use std::fmt;

use super::State;

/// What is missing. `Display` is the body of the answer: one line per missing thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    missing: Vec<String>,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for missing in &self.missing {
            writeln!(f, "not ready: {missing}")?;
        }
        Ok(())
    }
}

/// Ready once credentials are held and the first complete set of policies is in, and while the fence is open.
///
/// # Errors
/// [`NotReady`], which names what is missing with the last error about it.
pub fn readiness(state: &State) -> Result<(), NotReady> {
    let mut missing = Vec::new();
    if state.credentials.borrow().is_none() {
        let error = state.identity_status.last_error().map(|error| error.to_string());
        missing.push(because("no certificate is held yet", error));
    }
    if state.snapshots.borrow().is_none() {
        let error = state.discovery_status.last_error().map(|error| error.text);
        missing.push(because("the first complete set of policies is not in yet", error));
    }
    if let Some(absence) = state.fence.closed() {
        missing.push(format!("fenced: {absence}"));
    }
    if missing.is_empty() { Ok(()) } else { Err(NotReady { missing }) }
}

fn because(missing: &str, error: Option<String>) -> String {
    match error {
        Some(error) => format!("{missing}; last error: {error}"),
        None => format!("{missing}; no error so far"),
    }
}
