//! The packet path's input and output: ports, the engine thread that drives the core, and the node's handle on it.
//!
//! Every decision is made by `dataplane-core`; this crate moves bytes, reads clocks and looks at the lease.
//! Never imports: openraft, tonic.

mod clock;
mod engine;
mod guard;
mod handle;
mod lease_cell;
mod multicast;
pub mod offline;
mod offload;
mod outlet;
mod own_stack;
mod port;
#[cfg(atm_sim)]
pub mod simulation;
mod stats;
mod summary;
mod trace;
mod wake;

pub use clock::boottime;
pub use dataplane_core::MacAddr;
pub use engine::{Ended, Snapshot};
pub use guard::{Guard, GuardError, Guarded};
pub use handle::{EngineConfig, Gone, Handle, StartError, start};
pub use lease_cell::LeaseCell;
pub use multicast::{GroupError, SolicitedNodes, solicited_node};
pub use outlet::Event;
pub use port::{
    Addresses6, InterfaceError, PortKind, ReceiveCounters, UnknownPort, addresses6, interface_names,
};
pub use stats::{Count, Stats};
pub use summary::Summary;
pub use trace::{BadPrefix, Decision, Prefix, TRACES_MAX, Trace, TraceError, TraceFilter, Traced};
