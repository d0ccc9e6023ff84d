//! What becomes of a frame: every decision of the packet path, and none of its input or output.
//!
//! Pure: no socket, thread, clock or task. Time is an argument ([`model::Instant`]); output goes to a [`Sink`].

mod answers;
mod compile;
mod conflicts;
mod connections;
mod counters;
mod forward;
mod fragments;
mod frame;
mod gate;
mod group;
mod limiter;
mod neighbours;
mod path_mtus;
mod resets;
mod rewrite;
mod routes;
mod scheduler;
mod sink;
mod speaker;
mod table;
mod tally;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod verdict;
mod wire;

pub use conflicts::Conflict;
pub use counters::{Counters, Event};
pub use forward::{About, FRAME_AGE_MAX, Forwarder};
pub use frame::{Checksum, Frame, Gso, MacAddr, Offload};
pub use group::{Claimant, OtherAtms};
pub use model::lease::Lease;
pub use sink::Sink;
pub use table::{ForwardingTable, Interface, Limits, NextHop, Real, VirtualService};
pub use tally::Tallied;
pub use verdict::{DropReason, Malformed, Verdict};
