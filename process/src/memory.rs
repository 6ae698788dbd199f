//! Keys and tokens are in memory, and stay there.
//!
//! A process of the same user may otherwise read another's memory by `/proc/<pid>/mem` and `ptrace`, and a crash writes all of
//! it to wherever the node keeps core dumps. Whoever has CAP_SYS_PTRACE can still read it: the node is trusted.

use nix::{
    errno::Errno,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
};

/// Closes this process's memory to other processes and to core dumps. A child that is a program of its own has to do it
/// again, so call it first of all.
///
/// # Errors
/// What the kernel reports; a program that cannot keep its secrets must not start.
pub fn keep_private() -> Result<(), Errno> {
    prctl::set_dumpable(false)?;
    // The second lock of the two: whoever makes itself dumpable again still leaves no file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}
