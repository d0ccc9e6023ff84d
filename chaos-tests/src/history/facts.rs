//! The data of larger operations and facts. Absent optional fields are left out of the file.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Which connection: both its ends, as the client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The VIP and the service's port.
    pub service: SocketAddr,
}

/// The connection table of one ATM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The ATM that is asked.
    pub atm: String,
    /// Result: an index that the ATM had certainly applied when it made the listing.
    #[serde(default)]
    pub applied: u64,
    /// Result: the latest index it can have applied by then; absent: `applied` is the exact index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_max: Option<u64>,
    /// Result: whether the ATM had applied everything that was committed when it was asked (a linearizable read).
    #[serde(default)]
    pub barrier: bool,
    /// Result: every connection and its server.
    #[serde(default)]
    pub connections: Vec<(Link, String)>,
}

/// What has become of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Which.
    pub connection: Link,
    /// The server that answers on it.
    pub server: String,
    /// Whether it lives, or ended because its client closed it.
    pub alive: bool,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Numbered lines sent to the server.
    #[serde(default)]
    pub sent: u64,
    /// Of those, acknowledged by the server.
    #[serde(default)]
    pub acknowledged: u64,
    /// Numbered lines received.
    #[serde(default)]
    pub received: u64,
    /// Lines, both ways, that never came although a later one did.
    #[serde(default)]
    pub lost: u64,
    /// Lines, both ways, that came twice.
    #[serde(default)]
    pub repeated: u64,
    /// Lines, both ways, that came after a later one.
    #[serde(default)]
    pub out_of_order: u64,
    /// Lines of another connection.
    #[serde(default)]
    pub foreign: u64,
    /// Longest time without a line, in nanoseconds.
    #[serde(default)]
    pub longest_stall_ns: u64,
}

/// What a frame says for a VIP; the words of [`observer::Kind`](crate::observer::Kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speech {
    /// "The VIP is at my address", unasked.
    GratuitousArp,
    /// "The VIP is at my address", asked.
    ArpAnswer,
    /// A question in the VIP's name.
    ArpQuestion,
    /// A packet for the VIP inside IPIP, to a server.
    Tunnelled,
    /// A packet for the VIP, not encapsulated, to a server.
    Direct,
    /// A packet for the VIP to another ATM: not a voice.
    Relayed,
}

/// One frame that spoke for a VIP, at the time of its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The ATM that sent it.
    pub atm: String,
    /// What it said.
    pub what: Speech,
    /// In which epoch, if that is known (a simulator knows).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// Consecutive frames of one ATM for one VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voice {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The ATM; the MAC address of something that is none.
    pub atm: String,
    /// Its first frame, in nanoseconds.
    pub first_ns: u64,
    /// Its last frame.
    pub last_ns: u64,
    /// Its first gratuitous ARP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_claim_ns: Option<u64>,
    /// Its first forwarded packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_forward_ns: Option<u64>,
    /// Its last forwarded packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_forward_ns: Option<u64>,
    /// Number of its frames.
    pub frames: u64,
}

/// Two ATMs spoke for one VIP, at the time of the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwoVoices {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// Who held it.
    pub holder: String,
    /// Who spoke.
    pub other: String,
    /// What it did.
    pub how: Contradiction,
}

/// How two voices were noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contradiction {
    /// A frame of this kind from an ATM that does not hold the VIP.
    Spoke(Speech),
    /// A takeover by the ATM that lost the VIP only this many nanoseconds before.
    Alternated(u64),
}

/// How well an observer saw the time from `from_ns` to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// When it began.
    pub from_ns: u64,
    /// Frames it recorded.
    pub frames: u64,
    /// Frames beyond its memory.
    #[serde(default)]
    pub overflow: u64,
    /// Frames the kernel dropped because it was too slow.
    #[serde(default)]
    pub missed: u64,
    /// Whether it heard its end mark.
    pub complete: bool,
}

/// An interval `from_ns..until_ns` in which an ATM was allowed to speak. An extended lease is one interval or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The ATM.
    pub atm: String,
    /// The tenure.
    pub epoch: u64,
    /// Its begin.
    pub from_ns: u64,
    /// The deadline, exclusive.
    pub until_ns: u64,
    /// When the ATM gave it up before the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ns: Option<u64>,
}

impl Lease {
    /// The end that counts, exclusive.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.revoked_ns
            .map_or(self.until_ns, |at| at.min(self.until_ns))
    }
}

/// How a tenure began, all instants as the ATM itself noted them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The ATM.
    pub atm: String,
    /// The tenure.
    pub epoch: u64,
    /// Log index of its BeginEpoch.
    pub index: u64,
    /// When the ATM had applied that index.
    pub applied_ns: u64,
    /// The index that its forwarding table held at `table_ns`.
    pub table_index: u64,
    /// When its forwarding table held that.
    pub table_ns: u64,
    /// When its lease began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_ns: Option<u64>,
    /// When it first spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoke_ns: Option<u64>,
}

/// One sample of availability. The event's time is when the answer came, or when waiting for it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which series it belongs to, such as `ping` or `connect`.
    pub probe: String,
    /// From sending to the event's time, in nanoseconds.
    pub latency_ns: u64,
}

/// A fault that begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStart {
    /// Its number in this run; [`FaultStop`](super::Op::FaultStop) has the same.
    pub id: u64,
    /// Its kind in a word or two, such as `kill` or `cut-peers`: outages are summed up by it.
    pub fault: String,
    /// On whom, such as `atm1`; empty: the whole cluster.
    #[serde(default)]
    pub target: String,
    /// Parameters, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub with: BTreeMap<String, String>,
}
