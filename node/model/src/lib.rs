//! Vocabulary and replicated state of the cluster: what every ATM must agree on, and the rules by which they do.
//!
//! Pure: no clock, socket, task, file or source of randomness. Time is an argument ([`Instant`]).

mod changes;
pub mod command;
pub mod conf;
pub mod connections;
pub mod health;
pub mod ids;
pub mod invariants;
pub mod lease;
mod numbering;
pub mod planted;
pub mod server;
mod sharded;
pub mod snapshot;
pub mod source_ports;
pub mod state;
pub mod sticky;
pub mod suspicion;
pub mod tenure;
mod time;
mod version;

pub use time::Instant;
