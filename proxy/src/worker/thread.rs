//! A thread with a runtime of its own, which tells when it is gone.

use std::{io, mem, thread};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
};

use crate::cgroup;

/// Runs `work` on a thread and a runtime of its own; it is made there and never leaves.
pub(super) fn spawn<F: Future<Output = ()>>(
    name: String,
    farewells: &mpsc::UnboundedSender<String>,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let farewell = Farewell { name: name.clone(), farewells: farewells.clone() };
    let (begun, begins) = std::sync::mpsc::channel();
    let started = thread::Builder::new().name(name).spawn(move || {
        let _farewell = farewell;
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                // Whoever waits for this is there: it is the caller.
                let _ = begun.send(Ok(()));
                runtime.block_on(work());
            }
            Err(error) => drop(begun.send(Err(error))),
        }
    });
    started.map_err(cgroup::explain)?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended before it had begun")))
}

/// Tells the name of a thread when it ends, in whatever way.
struct Farewell {
    name: String,
    farewells: mpsc::UnboundedSender<String>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens any more where the process is ending.
        let _ = self.farewells.send(mem::take(&mut self.name));
    }
}
