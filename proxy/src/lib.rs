//! The data plane of the mesh: a sidecar that carries opaque TCP in mutual TLS.
//!
//! One file per step of a connection's life, in the order data flows:
//! `listen` (accept) → `orig_dst` → `route` (outbound) or `mode` (inbound) → `connect` → `tls` →
//! authorize (the policy crate) → `copy` (through a `slab`) → `record`. `outbound` and `inbound` are mirror images that
//! hold only that story. Around them: `worker` (threads and their connections), `drain`, `limits`, `fence`
//! (an application that was cut off for too long stays so), `probe` (a bare connect learns of a refusal), `discovery` and `credentials` (what the story is
//! decided by; `control_plane` reaches the servers that tell both), `admin`, `metrics` and `access_log` (what others can see), `config` (every setting, in one
//! table), `data_plane` (how all of it is put together) and `parent` (the small process that keeps the
//! sockets while a crashed data plane is started again). `memory` gives back what is not needed any more, and `budget` says how much may be held, by what `cgroup` reads of the
//! container.

pub mod access_log;
pub mod admin;
pub mod app_probe;
pub mod black_hole;
pub mod budget;
pub mod cgroup;
pub mod config;
pub mod connect;
mod control_plane;
pub mod copy;
pub mod credentials;
pub mod data_plane;
pub mod discovery;
pub mod drain;
pub mod ending;
pub mod fence;
pub mod inbound;
mod introduce;
pub mod keepalive;
pub mod ledger;
pub mod limits;
mod line_queue;
pub mod listen;
pub mod memory;
pub mod metrics;
pub mod mode;
pub mod orig_dst;
pub mod outbound;
mod outside;
pub mod parent;
pub mod probe;
pub mod reason;
pub mod record;
pub mod refusal;
pub mod registry;
pub mod relay;
pub mod route;
pub mod slab;
pub mod snapshot;
mod sync;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod wait;
pub mod watched_file;
pub mod worker;
