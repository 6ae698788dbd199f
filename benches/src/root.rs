//! What measures needs root, and says so before it does anything.

use anyhow::{Result, ensure};
use nix::unistd::Uid;

/// # Errors
/// The caller is somebody else.
pub(crate) fn needed() -> Result<()> {
    let who = Uid::effective();
    ensure!(who.is_root(), "network namespaces and captures need root, this is user {who}");
    Ok(())
}
