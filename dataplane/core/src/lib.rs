//! What becomes of a frame: every decision of the packet path, and none of its input or output.
//!
//! Pure: no socket, thread, clock or task. Time is an argument ([`model::Instant`]); output goes to a [`Sink`].

mod frame;
mod sink;
mod table;
mod verdict;

pub use frame::{Checksum, Frame, Gso, MacAddr, Offload};
pub use sink::Sink;
pub use table::{ForwardingTable, Interface, Limits, Real, VirtualService};
pub use verdict::{DropReason, Malformed, Verdict};
