//! Servers and clients: small TCP stacks that notice every loss.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use dataplane_core::MacAddr;

use super::clock::{MS, True};
use super::network::{ATM, CLIENT, SERVER};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// The service whose first packets wait for a quorum.
pub(crate) const QUORUM_PORT: u16 = 80;
/// The service that may lose connections with its ATM.
pub(crate) const ASYNC_PORT: u16 = 81;

/// ConnectionTimeout of every simulated configuration.
pub(crate) const CONNECTION_TIMEOUT_S: u64 = 2;
/// A connection whose packets were apart by more than this may have been idle by a fast clock.
pub(crate) const IDLE_MAX: True = 1_600 * MS;

pub(crate) fn mac(host: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(host).unwrap_or(u8::MAX)])
}

/// The host of an Ethernet address.
pub(crate) fn host_of(mac: MacAddr) -> Option<usize> {
    let [2, 0, 0, 0, 0, host] = mac.0 else {
        return None;
    };
    Some(usize::from(host))
}

pub(crate) fn address(host: usize) -> Ipv4Addr {
    let number = match host {
        0..SERVER => 1 + host - ATM,
        SERVER..CLIENT => 11 + host - SERVER,
        _ => 200 + host - CLIENT,
    };
    Ipv4Addr::new(10, 1, 0, u8::try_from(number).unwrap_or(u8::MAX))
}

/// The host of an address.
pub(crate) fn host_at(address: Ipv4Addr) -> Option<usize> {
    let [10, 1, 0, last] = address.octets() else {
        return None;
    };
    match usize::from(last) {
        last @ 1..=8 => Some(ATM + last - 1),
        last @ 11..=18 => Some(SERVER + last - 11),
        last @ 200..=207 => Some(CLIENT + last - 200),
        _ => None,
    }
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    /// It is down until then.
    pub(crate) down_until: True,
    pub(crate) connections: BTreeSet<(Ipv4Addr, u16)>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) vip_mac: Option<MacAddr>,
    pub(crate) connections: BTreeMap<u16, Connection>,
    pub(crate) next_port: u16,
    pub(crate) asked: True,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) service: u16,
    pub(crate) state: State,
    /// Who answered the SYN.
    pub(crate) server: Option<usize>,
    /// The client's next packet.
    pub(crate) due: True,
    /// The client says FIN then.
    pub(crate) ends: True,
    /// When the last packet of it was forwarded.
    pub(crate) forwarded: True,
    /// It was acknowledged, replicated by quorum, and nothing happened since that may end it.
    pub(crate) protected: bool,
    /// Packets since the last answer.
    pub(crate) unanswered: u32,
    /// The last answer.
    pub(crate) answered: True,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    Closing,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            vip_mac: None,
            connections: BTreeMap::new(),
            next_port: 40_000,
            asked: 0,
        }
    }

    /// A port that was not used before.
    pub(crate) fn connect(&mut self, service: u16, now: True, ends: True) {
        let port = self.next_port;
        self.next_port = port.wrapping_add(1).max(1024);
        let connection = Connection {
            service,
            state: State::Connecting,
            server: None,
            due: now,
            ends,
            forwarded: now,
            protected: false,
            unanswered: 0,
            answered: now,
        };
        self.connections.insert(port, connection);
    }
}

impl Connection {
    /// Must its next packet still find its server?
    pub(crate) fn must_live(&self, now: True) -> bool {
        self.protected && now - self.forwarded < IDLE_MAX
    }

    /// A packet of it was forwarded.
    pub(crate) fn was_forwarded(&mut self, now: True) {
        if now - self.forwarded >= IDLE_MAX {
            self.protected = false;
        }
        self.forwarded = now;
    }
}
