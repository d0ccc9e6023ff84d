//! Workloads that use a running cluster in every way it promises to withstand, and record what they did and saw as a
//! [history](crate::history).
//!
//! | workload | promise it can refute |
//! |---|---|
//! | register: reads and compare-and-set of the configuration at every ATM | acknowledged changes are linearizable |
//! | set: elements added to the configuration | no acknowledged change is lost |
//! | connections: opened all the time, and right before each fault | an acknowledged connection keeps its server; its bytes flow |
//! | voices: a passive observer, and a prober | at most one ATM speaks |
//! | leases: each ATM's own trace | at most one ATM may speak; epochs grow |
//! | digests of every ATM's state | same index, same state |
//! | probes: a connection every few milliseconds | availability |
//!
//! Nothing is repeated without saying so, every call has a deadline, and an outcome that nobody knows is recorded as that.

mod all;
mod asking;
mod connections;
mod document;
mod leases;
mod members;
mod pace;
mod probe;
mod register;
mod set;
mod thinning;
mod voice;

pub use all::{Options, Progress, Workloads};
pub use document::{Document, NoValues, Part, Register};
pub(crate) use leases::LOG_FILTER;
pub use pace::Chance;
pub use probe::{PATIENCE, Probed, Probes};
