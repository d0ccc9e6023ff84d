//! The deterministic simulator: model, lease rules, tenure rules and packet path of several ATMs, with servers and clients,
//! on a simulated network and disks, in one thread. Everything follows from one seed, bit for bit.
//!
//! What is real: [`model`] (commands, state, snapshots, lease, tenure) and [`dataplane_core`] (gate, speaker, connections,
//! scheduler, forwarding). What is simulated: consensus (a small Raft), time, network, disks, hosts; and, line for line as
//! the daemon has them, the few hands in between (`keeper`, `outlet`, `tenure`, `consensus`, `engine`).

mod atm;
mod chance;
pub mod cli;
mod clock;
mod consensus;
mod disk;
mod engine;
mod event;
mod faults;
mod hosts;
#[cfg(feature = "planted")]
mod hunt;
mod judge;
mod keeper;
mod log;
mod machine;
mod network;
mod outlet;
mod packets;
mod raft;
mod run;
mod schedule;
mod shrink;
mod stacks;
mod tenure;
mod timing;
mod violation;
mod world;

pub use chance::Digest;
#[cfg(feature = "planted")]
pub use hunt::{BUGS, Found, hunt};
pub use judge::Tally;
pub use run::{Outcome, Story, run};
pub use schedule::{Fault, Planned, Schedule, Weather, Who, Wires};
pub use shrink::shrink;
pub use violation::Violation;
