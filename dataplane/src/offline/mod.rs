//! Captures through the core, offline: what an active ATM with a configuration would do with each frame of a file.
//!
//! `capture` reads pcap and pcapng, `setup` makes the state and the interface of the ATM, `driver` plays the engine and the
//! cluster around the core, `network` the hosts on the wire, `vlan` the tags there, `writer` keeps what is sent.
//! No decision is made here.

mod capture;
mod driver;
mod input;
mod network;
mod pcapng;
mod setup;
mod vlan;
mod writer;

pub use capture::{Capture, CaptureError, Captured, FRAME_BYTES_MAX, Resolution};
pub use driver::{Emit, Explained, Offline, Outcome};
pub use setup::{Setup, SetupError};
pub use writer::CaptureWriter;
