//! Scenarios on a real Kubernetes: the mesh from its own manifests, grids from theirs, and what `kubectl` says of both.
//!
//! `scripts/e2e-kube.sh` brings a cluster, loads the images and runs them. All share one mesh and have namespaces
//! of their own; what takes a part of the mesh away is in the module `alone`, and nothing runs on the same cluster beside it.

pub mod grid;
pub mod load;
pub mod metrics;
pub mod place;
pub mod process;
pub mod stage;
pub mod succession;
pub mod toolbox;
pub mod unbroken;

pub use grid::{Grid, GridSettings};
pub use load::GridLoad;
pub use place::{Place, STRICT};
pub use stage::{Stage, stage};
pub use succession::Held;
pub use toolbox::Toolbox;
