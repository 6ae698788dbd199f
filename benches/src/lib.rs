//! Ringmail beside the proxies that a user could pick instead: every candidate carries the same load on the same
//! path, one after another within a round, so that what is compared is a ratio and not a machine.
//!
//! - `results`: what a run leaves behind, and what the report is made from.
//! - `candidates`: how each is set up, and how it is made sure that it does what its name says.
//! - `run`: the rounds, and the figures that they fill.
//! - `load`: what is put on them, by this same binary in the two pods.
//! - `relay`: the candidate of our own, which is the floor.
//! - `cost`: CPU time and memory of processes.
//! - `crowd`: more connections at once than a load has.
//! - `ignite`: real rings of Ignite.
//! - `handshake`: what resumption would save.
//! - `root`: who may measure.
//! - `folders`: what of a machine is left out of results.
//! - `report`: the page, its plots, and the table in README.

#![forbid(unsafe_code)]

pub mod candidates;
pub mod cost;
pub mod crowd;
mod folders;
pub mod handshake;
pub mod ignite;
pub mod load;
pub mod relay;
pub mod report;
pub mod results;
mod root;
pub mod run;
