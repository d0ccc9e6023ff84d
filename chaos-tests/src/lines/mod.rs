//! Numbered lines: the workload that proves that connections survive, unbroken and in order.
//!
//! Both sides of each connection send numbered lines at an interval, so a line that is lost, repeated or out of
//! order is seen at once, and so is the time in which nothing came. The protocol, one line per message:
//!
//! | from | line | meaning |
//! |---|---|---|
//! | client | `HELLO <token> <interval_ms>` | first; the token names the connection |
//! | server | `WELCOME <server>` | the answer; who serves this connection |
//! | server | `S <token> <n>` | numbered from 0, one per interval |
//! | client | `C <token> <n>` | numbered from 0 |
//! | server | `A <n>` | seen `C <token> <n>`; sent once for each time it was seen, in that order |
//! | client | `BYE <token> <n>` | the end: `n` lines were sent |
//! | server | `END <sent> <seen>` | the last line: so many `S` lines were sent, so many `C` lines seen |
//!
//! [`Client`] runs many such connections and checks them while they live; [`Churn`] opens short ones without end.

mod churn;
mod client;
mod connection;
mod link;
mod protocol;
mod report;
mod run;
mod sequence;
mod server;

pub use churn::{Churn, ChurnOptions, ChurnReport};
pub use client::{Client, Clock, Options, realtime_ns, tcp_connector};
pub use report::{ConnectionReport, LineEvent, LineKind, Report, Silence, longest_silence};
pub use server::{LinesError, Server, ServerArgs, ServerStats, serve};
