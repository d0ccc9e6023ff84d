//! The observer: who spoke for a VIP, and when, as the wire saw it.
//!
//! It stands in the client's namespace and gets a copy of every ARP and IP frame the ATMs send, taken where the frame leaves
//! the ATM: frames that a cut link then swallows are seen as well. What it saw is judged by pure code ([`overlaps`]).
//!
//! An observation proves something only while ATMs have a reason to speak: keep a client sending, or a [`Prober`] asking.

mod capture;
mod event;
mod probe;
mod raw;
mod voices;

pub use capture::{EVENTS_MAX, Observation, Observer, Verdict};
pub use event::{Event, Flow, Kind, Mac, Scope, classify};
pub use probe::{PROBER_MAC, Prober, arp_request, gratuitous_arp};
pub use raw::RawPort;
pub(crate) use raw::link_address;
pub use voices::{
    Contradiction, OVERLAPS_MAX, Rules, TENURE_MIN, TwoVoices, Voice, overlaps, voices,
};
