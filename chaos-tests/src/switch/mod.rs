//! A switch in userspace, in place of the lab's bridge: it can also delay frames, and let them overtake one another.
//!
//! One thread reads every bridge-side port (AF_PACKET with virtio-net headers, so that large frames stay whole), asks the
//! pure [`Core`] what becomes of each frame, and sends what is due. For kernels without netem.
//!
//! Invariant: what is left to chance on the way from one port to another follows from the switch's seed and the order of
//! the frames on that way; every frame that is not delivered has a name and a counter ([`Lost`]).

mod core;
mod counters;
mod frame;
mod mac_table;
mod run;
mod socket;

pub use self::core::{Core, PortId, QUEUE_BYTES_MAX, QUEUE_FRAMES_MAX};
pub use counters::{Counters, Lost};
pub use frame::{Frame, VNET_HEADER_LEN};
pub use mac_table::{MACS_MAX, MacTable};
pub use run::Switch;
