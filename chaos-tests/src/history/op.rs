//! What can be done or seen: the vocabulary of all workloads and observers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::facts::{
    FaultStart, Flow, Heard, Lease, Link, Listing, Observation, Probe, Tenure, TwoVoices, Voice,
};

/// An operation or a fact. In a file it is an object whose field `f` names the variant in kebab-case; variants and fields are
/// only ever added, and fields that a reader does not know are passed over.
///
/// *Client operations* are invoked by a process and completed by the same one. Results (`value`, `swapped`, `elements`,
/// `server`, ..) are absent on invocation and count on completion. *Facts* are [`Info`](super::Kind::Info) of the
/// [`HARNESS`](super::HARNESS).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "kebab-case")]
pub enum Op {
    /// Client operation: reads a register.
    RegisterRead {
        /// Which register; registers are independent of each other.
        key: u64,
        /// Result; absent if the register was never written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    },
    /// Client operation: writes a register.
    RegisterWrite {
        /// Which register.
        key: u64,
        /// What is written.
        value: u64,
    },
    /// Client operation: writes a register if it holds the expected value.
    RegisterCas {
        /// Which register.
        key: u64,
        /// What it must hold.
        expected: u64,
        /// What is written then.
        new: u64,
        /// Result: whether it was written. `false` claims that the register held something else at that time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        swapped: Option<bool>,
    },
    /// Client operation: adds an element to the set. An element is added at most once in a run.
    SetAdd {
        /// The element.
        element: u64,
    },
    /// Client operation: reads the whole set, as it is at some time between invocation and completion.
    SetRead {
        /// Result.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        elements: Vec<u64>,
    },
    /// Client operation: opens a connection. [`Ok`](super::Kind::Ok) as soon as the client has its SYN-ACK.
    ConnectionOpen {
        /// Result: which connection it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<Link>,
        /// Result: the server that answered, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<String>,
    },
    /// Client operation: closes a connection. From the invocation on it may be gone from any table.
    ConnectionClose {
        /// Which connection.
        connection: Link,
    },
    /// Client operation: asks an ATM for its connection table.
    ConnectionListing(Box<Listing>),
    /// Fact: what has become of one connection so far, or at its end.
    ConnectionFlow(Box<Flow>),
    /// Fact: one frame that spoke for a VIP. Where there are too many, [`Voice`] and [`TwoVoices`] sum them up.
    Heard(Heard),
    /// Fact: consecutive frames of one ATM for one VIP, as [`voices`](crate::observer::voices) sums them up.
    Voice(Box<Voice>),
    /// Fact: two ATMs spoke for one VIP, as [`overlaps`](crate::observer::overlaps) found.
    TwoVoices(Box<TwoVoices>),
    /// Fact: how well the observer saw.
    Observation(Observation),
    /// Fact: an interval in which an ATM held the lease, from its own trace.
    Lease(Lease),
    /// Fact: an epoch as the replicated state has it.
    Epoch {
        /// Its number.
        epoch: u64,
        /// The ATM whose tenure it is.
        atm: String,
        /// Log index of its BeginEpoch.
        index: u64,
        /// The ATM that said so.
        seen_by: String,
    },
    /// Fact: how a tenure began, from the timeline of the ATM that holds it.
    Tenure(Box<Tenure>),
    /// Fact: the digest of an ATM's replicated state at one applied index.
    Digest {
        /// The ATM.
        atm: String,
        /// The index.
        applied: u64,
        /// The digest, in whatever writing; two of the same state are the same text.
        digest: String,
    },
    /// Client operation without invocation: one sample of availability. [`Ok`](super::Kind::Ok) answered, [`Fail`](super::Kind::Fail) not.
    Probe(Probe),
    /// Fact: a fault begins.
    FaultStart(Box<FaultStart>),
    /// Fact: a fault is over.
    FaultStop {
        /// The number it began with.
        id: u64,
    },
    /// Fact: something worth a line in the report, such as `all healed`.
    Mark {
        /// What.
        text: String,
    },
}

impl Op {
    /// Whether clients invoke it, so that it is paired with a completion; see [`pairs`](super::pairs).
    #[must_use]
    pub const fn is_invoked(&self) -> bool {
        matches!(
            self,
            Self::RegisterRead { .. }
                | Self::RegisterWrite { .. }
                | Self::RegisterCas { .. }
                | Self::SetAdd { .. }
                | Self::SetRead { .. }
                | Self::ConnectionOpen { .. }
                | Self::ConnectionClose { .. }
                | Self::ConnectionListing(_)
        )
    }

    /// Whether `self` may complete `invoked`: the same operation with the same arguments. Results are not compared, nor the
    /// connection of a [`ConnectionOpen`](Op::ConnectionOpen), whose port the kernel chooses.
    #[must_use]
    pub fn completes(&self, invoked: &Self) -> bool {
        match (self, invoked) {
            (Self::RegisterRead { key: a, .. }, Self::RegisterRead { key: b, .. }) => a == b,
            (
                Self::RegisterWrite { key: a, value: v },
                Self::RegisterWrite { key: b, value: w },
            ) => (a, v) == (b, w),
            (
                Self::RegisterCas {
                    key: a,
                    expected: e,
                    new: n,
                    ..
                },
                Self::RegisterCas {
                    key: b,
                    expected: f,
                    new: m,
                    ..
                },
            ) => (a, e, n) == (b, f, m),
            (Self::SetAdd { element: a }, Self::SetAdd { element: b }) => a == b,
            (Self::SetRead { .. }, Self::SetRead { .. })
            | (Self::ConnectionOpen { .. }, Self::ConnectionOpen { .. }) => true,
            (Self::ConnectionClose { connection: a }, Self::ConnectionClose { connection: b }) => {
                a == b
            }
            (Self::ConnectionListing(a), Self::ConnectionListing(b)) => a.atm == b.atm,
            _ => false,
        }
    }

    /// An invocation of a read.
    #[must_use]
    pub const fn read(key: u64) -> Self {
        Self::RegisterRead { key, value: None }
    }

    /// An invocation of a compare-and-set.
    #[must_use]
    pub const fn cas(key: u64, expected: u64, new: u64) -> Self {
        Self::RegisterCas {
            key,
            expected,
            new,
            swapped: None,
        }
    }

    /// An invocation of opening a connection, from whatever port the kernel chooses.
    #[must_use]
    pub const fn open() -> Self {
        Self::ConnectionOpen {
            connection: None,
            server: None,
        }
    }

    /// The outcome of opening a connection.
    #[must_use]
    pub const fn opened(client: SocketAddr, service: SocketAddr, server: Option<String>) -> Self {
        Self::ConnectionOpen {
            connection: Some(Link { client, service }),
            server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, HARNESS, Kind, Speech};

    /// The file format is a contract: histories of older runs stay readable.
    #[test]
    fn the_form_in_files_is_fixed() {
        let link = Link {
            client: "10.1.0.9:40000".parse().unwrap(),
            service: "10.1.0.100:7000".parse().unwrap(),
        };
        let heard = Heard {
            vip: "10.1.0.100".parse().unwrap(),
            atm: "atm1".to_owned(),
            what: Speech::GratuitousArp,
            epoch: None,
        };
        for (kind, op, form) in [
            (
                Kind::Invoke,
                Op::read(3),
                r#"{"f":"register-read","key":3}"#,
            ),
            (
                Kind::Ok,
                Op::RegisterRead {
                    key: 3,
                    value: Some(u64::MAX),
                },
                r#"{"f":"register-read","key":3,"value":18446744073709551615}"#,
            ),
            (
                Kind::Ok,
                Op::RegisterCas {
                    key: 1,
                    expected: 2,
                    new: 3,
                    swapped: Some(false),
                },
                r#"{"f":"register-cas","key":1,"expected":2,"new":3,"swapped":false}"#,
            ),
            (
                Kind::Fail,
                Op::ConnectionClose { connection: link },
                r#"{"f":"connection-close","connection":{"client":"10.1.0.9:40000","service":"10.1.0.100:7000"}}"#,
            ),
            (
                Kind::Info,
                Op::Heard(heard),
                r#"{"f":"heard","vip":"10.1.0.100","atm":"atm1","what":"gratuitous-arp"}"#,
            ),
            (
                Kind::Info,
                Op::FaultStop { id: 7 },
                r#"{"f":"fault-stop","id":7}"#,
            ),
        ] {
            let event = Event {
                t_ns: 5,
                process: HARNESS,
                kind,
                op,
            };
            let word = serde_json::to_value(kind).unwrap();
            let line = format!(r#"{{"t_ns":5,"process":0,"kind":{word},"op":{form}}}"#);
            assert_eq!(serde_json::to_string(&event).unwrap(), line);
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let line = r#"{"f":"set-add","element":4,"colour":"red"}"#;
        assert_eq!(
            serde_json::from_str::<Op>(line).unwrap(),
            Op::SetAdd { element: 4 }
        );
    }
}
