//! The record layer against the standard's own vectors and against rustls.

mod differential;
mod floods;
mod peer;
mod refusals;
mod session;
mod updates;
mod vectors;
