//! Capture of a pod's TCP traffic: the rules that send it through the sidecar, and the proof that they do.
//!
//! Read the rooms in the order data flows: [`config`] turns flags into [`config::Settings`], [`rules`] turns
//! those into a [`rules::RuleSet`] without touching the machine, [`render`] writes it as text for
//! `iptables-restore`, [`backend`] finds the tool that speaks to this kernel and [`readback`] what it already
//! holds, [`apply`] closes the difference in one atomic restore, and [`verify`] proves the result. [`run`]
//! tells that story once per IP family and chooses the exit code.

#![forbid(unsafe_code)]

pub mod apply;
pub mod backend;
pub mod config;
pub mod diagnose;
pub mod pod;
pub mod readback;
pub mod render;
pub mod rules;
pub mod run;
pub mod verify;
