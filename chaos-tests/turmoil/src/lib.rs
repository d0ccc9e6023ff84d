//! The real node library (openraft, gRPC, log store, lease, replicator, API) on a simulated network, disk and clock: one
//! thread, everything from one seed, the same faults and promises as the other rungs.
//!
//! Empty without `--cfg atm_sim`; `make sim-node` builds it.
#![cfg(atm_sim)]

mod chance;
pub mod command;
mod configuration;
mod connections;
mod fault;
mod frames;
mod judge;
mod operators;
mod run;

pub use fault::{Fault, Schedule, Step};
pub use judge::Violation;
pub use run::{Plan, Summary, run};
