//! One connection: its key, how far it is, and how long it may be silent.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use model::Instant;
use model::conf::Protocol;
use model::connections::{ConnectionKey, Pin};
use model::ids::VirtualServiceId;

use super::held::Place;
use super::peers::Peer;
use crate::MacAddr;

/// How long a first packet waits for its record: a client sends its SYN again after 1 s (RFC 6298 §2.1), and that one
/// starts over.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// Silence after which a connection that only showed SYNs is given up. The client that has its SYN-ACK counts on it, and when
/// its ACK is lost it sends another with each SYN-ACK that its server repeats: 1, 3, 7 and 15 s after the first (RFC 6298 §2.1
/// and §5.5). So its way to here may be broken for that long.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(16);
/// Silence after which a connection that showed one datagram is given up: most are a question that is answered in one, and there are
/// many. Longer than a resolver waits before it asks again from the same port (5 s, resolv.conf(5)), as its second datagram goes where
/// the first went.
const ONE_DATAGRAM_TIMEOUT: Duration = Duration::from_secs(6);
/// Silence after the client's FIN: its ACK of the server's FIN must still get through, and that FIN is sent again
/// after 0.2, 0.4, ... 6.4 s when it was lost.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after the client's RST. Not zero: an RST that was forged or outside the window ends nothing, and the true
/// client's next packet makes the connection an established one again.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection's key in three words, quick to hash: client address (IPv4 mapped, RFC 4291 §2.5.5.2), client port and virtual
/// service. Mapped and true IPv6 addresses cannot meet in one service: it has one VIP, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    high: u64,
    low: u64,
    /// Port and service, in the lower half. Three words of one size: they are read as they were written (`forward` says why).
    end: u64,
}

impl Flow {
    pub(crate) fn new(client: IpAddr, port: u16, service: VirtualServiceId) -> Self {
        let bytes = match client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        }
        .octets();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
            end: u64::from(port) << 16 | u64::from(service.0),
        }
    }

    pub(crate) fn from_key(key: &ConnectionKey) -> Self {
        Self::new(key.client, key.port, key.service)
    }

    pub(crate) const fn service(self) -> VirtualServiceId {
        let [.., a, b] = self.end.to_be_bytes();
        VirtualServiceId(u16::from_be_bytes([a, b]))
    }

    pub(crate) fn client(self) -> IpAddr {
        let bits = u128::from(self.high) << 64 | u128::from(self.low);
        Ipv6Addr::from_bits(bits).to_canonical()
    }

    pub(crate) const fn port(self) -> u16 {
        let [.., a, b, _, _] = self.end.to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    pub(crate) fn key(self) -> ConnectionKey {
        ConnectionKey {
            client: self.client(),
            port: self.port(),
            service: self.service(),
        }
    }
}

/// How far a connection is, as far as the packets from client to server tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its record is not committed; the first packet is held.
    Pending,
    /// Only SYNs, or one datagram, were seen.
    HalfOpen,
    Established,
    /// The client's FIN was seen.
    Closing,
    /// The client's RST was seen.
    Reset,
}

impl State {
    /// How long a connection in this state may be silent; `timeout` is `ConnectionTimeout`.
    pub(super) fn silence(self, protocol: Protocol, timeout: Duration) -> Duration {
        match (self, protocol) {
            (Self::Pending, _) => HOLD_MAX,
            (Self::HalfOpen, Protocol::Tcp) => HALF_OPEN_TIMEOUT.min(timeout),
            (Self::HalfOpen, Protocol::Udp) => ONE_DATAGRAM_TIMEOUT.min(timeout),
            (Self::Established, _) => timeout,
            (Self::Closing, _) => CLOSING_TIMEOUT.min(timeout),
            (Self::Reset, _) => RESET_TIMEOUT.min(timeout),
        }
    }

    /// The state after a packet that said this.
    pub(super) const fn after(self, sign: Sign) -> Self {
        match (sign, self) {
            (_, Self::Pending) => Self::Pending,
            (Sign::Finish, _) => Self::Closing,
            (Sign::Reset, _) => Self::Reset,
            (Sign::Open, Self::Closing | Self::Reset | Self::HalfOpen) => Self::HalfOpen,
            (Sign::Data, Self::Closing) => Self::Closing,
            (Sign::Open | Sign::Data, _) => Self::Established,
        }
    }
}

/// What the replicated table knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Nothing, and it will not be told.
    Local,
    /// Its opening was asked for.
    Asked,
    Committed,
}

/// What a packet says about its connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Open,
    Data,
    Finish,
    Reset,
}

/// One connection, in one line of the cache: with many of them a packet's decision is mostly waiting for memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) flow: Flow,
    pub(crate) pin: Pin,
    /// How its server knows it, where the server's answers pass here. Boxed: most connections have none, and a packet of the client
    /// never needs it.
    pub(super) peer: Option<Box<Peer>>,
    /// The Ethernet address that the client's last packet of this tenure came from, where the server's answers pass here.
    pub(super) way_back: Option<MacAddr>,
    pub(super) protocol: Protocol,
    pub(super) state: State,
    pub(crate) record: Record,
    /// The tenure in which this ATM last saw a packet of it; what it knows from an earlier one is out of date.
    pub(super) tenure: u32,
    pub(super) seen: Instant,
    /// The record of its end was asked for.
    pub(super) close_asked: bool,
    pub(super) held: Option<Place>,
    /// Set by the pass of `retain_marked` that is under way.
    pub(super) marked: bool,
}

const _: () = assert!(size_of::<Entry>() == 64, "one line of the cache");

impl Entry {
    /// Its record is not committed, and its first packet is held.
    pub(crate) fn waits(&self) -> bool {
        self.state == State::Pending
    }

    /// It has a held packet (which it keeps for a moment after its record was committed).
    pub(crate) const fn has_held(&self) -> bool {
        self.held.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_packet_makes_of_each_state() {
        use State::{Closing, Established, HalfOpen, Pending, Reset};
        let states = [Pending, HalfOpen, Established, Closing, Reset];
        for (sign, after) in [
            (
                Sign::Open,
                [Pending, HalfOpen, Established, HalfOpen, HalfOpen],
            ),
            (
                Sign::Data,
                [Pending, Established, Established, Closing, Established],
            ),
            (Sign::Finish, [Pending, Closing, Closing, Closing, Closing]),
            (Sign::Reset, [Pending, Reset, Reset, Reset, Reset]),
        ] {
            assert_eq!(states.map(|state| state.after(sign)), after, "{sign:?}");
        }
    }

    #[test]
    fn no_state_outlasts_the_configured_timeout_but_the_hold() {
        let timeout = Duration::from_millis(500);
        for state in [
            State::HalfOpen,
            State::Established,
            State::Closing,
            State::Reset,
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(state.silence(protocol, timeout), timeout);
            }
        }
        assert_eq!(State::Pending.silence(Protocol::Udp, timeout), HOLD_MAX);
    }

    #[test]
    fn a_flow_is_its_key() {
        for client in ["192.0.2.255", "2001:db8:1:2:3:4:5:6", "::1"] {
            let key = ConnectionKey {
                client: client.parse().unwrap(),
                port: 65_535,
                service: VirtualServiceId(0x0102),
            };
            assert_eq!(Flow::from_key(&key).key(), key);
        }
    }
}
