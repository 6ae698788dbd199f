//! The CA as its callers meet it: the real program, real sockets, real TLS, a real gRPC client.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends at the first thing that is not as it must be"
)]

mod crash;
mod disk;
mod floods;
mod hostile;
mod issuing;
mod kube_bundle;
mod kube_real;
mod kube_root;
mod kube_rotation;
mod kube_tokens;
mod lifecycle;
mod load;
mod log_storm;
mod reference_page;
mod refusals;
mod rotation;
mod serve_names;
mod support;
