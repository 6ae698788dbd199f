//! The kubelet's probes of the application, asked by the sidecar in its place.
//!
//! The kubelet has no identity, so a STRICT port refuses it; to open the port for it would open it to everybody. The
//! injector therefore sends its probes here, and tells in the environment what each of them asked. Only what stands
//! there is ever asked: no request can name an address, a port or a path.
//!
//! - `table`: what may be asked, read once from the settings.
//! - `ask`: one question to the application, and its answer.

mod ask;
mod table;

pub(crate) use ask::ask;
pub(crate) use table::is_liveness;
pub use table::{Handler, Probe, Probes};
