//! One line of a history.

use serde::{Deserialize, Serialize};

use super::op::Op;

/// The process of everything no client invoked: faults, observations, marks.
pub const HARNESS: u64 = 0;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds. An invocation is stamped before anything is sent, a completion after everything was received.
    pub t_ns: u64,
    /// Who: a logical process does one operation at a time. [`HARNESS`] invokes nothing.
    pub process: u64,
    /// What of the operation.
    pub kind: Kind,
    /// The operation; its result, too, if it completes.
    pub op: Op,
}

/// Which part of an operation an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect, between its invocation and here.
    Ok,
    /// It did not take effect and never will.
    Fail,
    /// Of a client's operation: nobody knows whether it took, or will take, effect. Of the harness: a fact.
    Info,
}
