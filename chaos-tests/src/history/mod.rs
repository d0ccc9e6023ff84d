//! What happened in a run: every operation with its outcome, every fault, and what was seen of the cluster, on one time axis.
//!
//! A history is a file of JSON lines, one [`Event`] each, written by a [`Recorder`] while the run goes on and read by
//! [`History::read`] afterwards; the checkers judge it and the report draws it. All times are
//! nanoseconds of CLOCK_MONOTONIC of the harness ([`monotonic_ns`]), or of the simulated time.
//!
//! Reading and writing are all it does: what an event means for a promise is the checkers' business.

mod event;
mod facts;
mod file;
mod observed;
mod op;
mod pairs;
mod recorder;

pub use event::{Event, HARNESS, Kind};
pub use facts::{
    Contradiction, FaultStart, Flow, Heard, Lease, Link, Listing, Observation, Probe, Speech,
    Tenure, TwoVoices, Voice,
};
pub use file::{EVENTS_MAX, History, HistoryError, LINE_BYTES_MAX};
pub use observed::Observed;
pub use op::Op;
pub use pairs::{Operation, Outcome, PairError, pairs};
pub use recorder::{RecordError, Recorder, Summary, monotonic_ns};
