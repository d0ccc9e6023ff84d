//! What became of a frame. Each received frame ends in exactly one verdict, and each verdict is exactly one counter (P5).

/// The end of one received frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Sent to a server, or a server's answer to its client (as one frame, or as several when it had to be segmented).
    Transmit,
    /// Given to the host's own stack: its server is this very host (as one tunnel packet, or as several).
    Deliver,
    /// Kept until its connection's record is committed.
    Held,
    /// Answered in place: an ARP request or a neighbour solicitation for a VIP, or an echo request to it.
    Answered,
    /// Too big for the way to the server: the sender was told with fragmentation-needed (RFC 1191) or packet-too-big (RFC 4443).
    FragmentationNeeded,
    /// Its TTL or hop limit ends here, between a client and a server behind NAT: the sender was told (RFC 792, RFC 4443 §3.3).
    TimeExceeded,
    /// A client's segment to a server that is down: the client was told with a reset (`on-down=reset`).
    Reset,
    /// For a VIP, or of a server behind NAT, while this ATM is a backup: passed to the active one.
    Relayed,
    /// Not ours; the host's own stack keeps it.
    Host,
    /// Thrown away.
    Drop(DropReason),
}

/// Why a frame was thrown away: at once, or after it had been held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Lengths or fields that contradict one another.
    Malformed(Malformed),
    /// For a VIP, or of a server behind NAT, but this ATM is a backup.
    NotActive,
    /// Likewise, but this ATM's lease has run out.
    LeaseExpired,
    /// Likewise, to be passed to the active ATM, but there were too many of these.
    RelayLimited,
    /// Waited in the socket longer than the age limit (the process was stopped).
    Stale,
    /// No virtual service at this address, protocol and port.
    NoService,
    /// The service has no server that takes new connections.
    NoServer,
    /// Not a first packet, and no connection is known.
    NoConnection,
    /// `NumConnections` is reached.
    TableFull,
    /// Too many connections wait for their record.
    PendingFull,
    /// Too many half-open connections.
    HalfOpenFull,
    /// The replicator takes no more.
    ReplicatorFull,
    /// A packet of a connection whose record is not committed and which already holds one frame.
    AlreadyHeld,
    /// Held, but the record was not committed in time.
    HoldExpired,
    /// Held, but the record was refused by the replicated state.
    RecordRefused,
    /// The server's Ethernet address is not known (yet); it was asked for.
    NoNeighbour,
    /// The tunnel to the server is over IPv6, and this ATM has no IPv6 address to be its source.
    NoOwnAddress,
    /// The server is this very host, by an address that is no ATM's in the configuration, and not by tunnel: there is no way to it.
    NotByTunnel,
    /// The connection's server is not in the forwarding table.
    UnknownServer,
    /// The TTL or hop limit of an ICMP error or of a later fragment ends here: with NAT this ATM is a router on the way, and about
    /// these nobody is told.
    TtlExpired,
    /// The client has a connection with the same port to the same server behind NAT already, through another VIP: the server could not
    /// tell the two apart.
    NatCollision,
    /// Every port of a full NAT source address is taken towards this server.
    NatPortsExhausted,
    /// Segmentation of a kind this program cannot do.
    UnsupportedOffload,
    /// IP fragment that contradicts itself or could write over a transport header (RFC 1858, RFC 3128), or of a message that is not
    /// for a service.
    Fragment,
    /// IP fragment whose first has not come, and too many are held already.
    FragmentFull,
    /// IP fragment that was held for its first, which did not come in time.
    FragmentExpired,
    /// IP fragment that was held, and gave way to newer ones.
    FragmentDisplaced,
    /// A protocol the VIP does not serve.
    UnsupportedProtocol,
    /// An ICMP message that asks nothing of us and is about no packet of a connection.
    UnsupportedIcmp,
    /// ICMP was due but its rate limit was reached.
    IcmpLimited,
    /// A first packet larger than the interface's MTU: it is not held.
    FirstPacketTooBig,
    /// May be fragmented, but the path is too narrow for even the smallest fragment.
    PathTooNarrow,
    /// Unicast IP in a broadcast or multicast frame (RFC 1812 §5.3.4).
    LinkBroadcast,
    /// Wants to be sent on from here by a routing header (RFC 5095).
    SourceRoute,
    /// A source address that no host can have (RFC 1812 §5.3.7), or a VIP as source.
    Martian,
    /// Another Ethernet address claims a VIP while this ATM holds the lease.
    ForeignClaim,
}

/// How a frame contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than its headers.
    Truncated,
    /// IP version field.
    Version,
    /// IP or TCP header length field.
    HeaderLength,
    /// IP total length field.
    TotalLength,
    /// IP header checksum.
    Checksum,
    /// ARP fields.
    Arp,
    /// A neighbour solicitation or advertisement that RFC 4861 forbids to believe.
    NeighbourDiscovery,
    /// The offload description points outside the frame.
    Offload,
}

impl Verdict {
    /// Why, in one short sentence for an operator: without a capital at its begin and a full stop at its end.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Transmit => "sent on to the other end of its connection",
            Self::Deliver => "given to this host's own stack: its server is the active ATM itself",
            Self::Held => "waits until its connection is recorded, or for the first fragment",
            Self::Answered => "a request to the VIP itself was answered",
            Self::FragmentationNeeded => {
                "too big for the path to the server, and the sender was told the MTU that fits"
            }
            Self::Relayed => "for a VIP, and this ATM is a backup: passed to the active ATM",
            Self::Reset => "its server is down, and the client was sent a reset to connect anew",
            Self::TimeExceeded => "its TTL ends here, a router on the way, and the sender was told",
            Self::Host => {
                "not for a VIP at this ATM's Ethernet address, so it is left to the host's kernel"
            }
            Self::Drop(reason) => reason.why(),
        }
    }
}

impl DropReason {
    const fn why(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.why(),
            Self::NotActive => "for a VIP, but this ATM is a backup",
            Self::LeaseExpired => "for a VIP, but the lease of this ATM has run out",
            Self::RelayLimited => "for a VIP, but too many are passed to the active ATM already",
            Self::Stale => "waited too long in the socket",
            Self::NoService => "no service of the VIP has this protocol and port",
            Self::NoServer => "the service has no server that takes new connections",
            Self::NoConnection => "not a first packet, and its connection is not known",
            Self::TableFull => "NumConnections is reached",
            Self::PendingFull => "too many connections wait for their record",
            Self::HalfOpenFull => "too many connections have not gone beyond their first packet",
            Self::ReplicatorFull => "too many records wait to be replicated",
            Self::AlreadyHeld => "its connection waits for its record and holds a packet already",
            Self::HoldExpired => "its connection's record was not committed in time",
            Self::RecordRefused => "its connection's record was refused",
            Self::NoNeighbour => "the Ethernet address of the next hop to the server is not known",
            Self::NoOwnAddress => "the tunnel is over IPv6, and this ATM has no IPv6 address",
            Self::NotByTunnel => "its server is this very host, which is reached by tunnel only",
            Self::UnknownServer => "its connection's server is not in the forwarding table",
            Self::TtlExpired => {
                "an error or a later fragment whose TTL ends here, at a router on the way"
            }
            Self::NatCollision => "its server has a connection from this client and port already",
            Self::NatPortsExhausted => "every port of the source address is taken at its server",
            Self::UnsupportedOffload => "needs a kind of segmentation that is not there",
            Self::Fragment => "a fragment that contradicts itself, or of a message to no service",
            Self::FragmentFull => "a fragment without its first, and too many are held already",
            Self::FragmentExpired => "a fragment whose first did not come in time",
            Self::FragmentDisplaced => "a fragment without its first gave way to newer ones",
            Self::UnsupportedProtocol => "a protocol that a VIP does not serve",
            Self::UnsupportedIcmp => "ICMP that asks nothing and is about no connection",
            Self::IcmpLimited => {
                "too big for the path, and the sender was not told to keep a limit"
            }
            Self::FirstPacketTooBig => "a first packet that is larger than the MTU is not held",
            Self::PathTooNarrow => "too big for the path to the server, and nobody can be told",
            Self::LinkBroadcast => "unicast IP in a broadcast or multicast frame",
            Self::SourceRoute => "wants to be sent on from here by a routing header",
            Self::Martian => "a source address that no client can have",
            Self::ForeignClaim => "another Ethernet address claims the VIP",
        }
    }
}

impl Malformed {
    const fn why(self) -> &'static str {
        match self {
            Self::Truncated => "shorter than its headers say",
            Self::Version => "the IP version is not that of its Ethernet type",
            Self::HeaderLength => "a header length that cannot be",
            Self::TotalLength => "an IP length that cannot be",
            Self::Checksum => "the checksum of the IP header is wrong",
            Self::Arp => "ARP with fields that cannot be",
            Self::NeighbourDiscovery => "neighbour discovery with fields that cannot be",
            Self::Offload => "what is left to be done points outside the frame",
        }
    }
}

/// Makes array and matches out of one row per verdict, so that its name is written once.
macro_rules! verdicts {
    (
        $($verdict:ident $name:literal)+;
        $($malformed:ident $malformed_name:literal)+;
        $($reason:ident $reason_name:literal)+
    ) => {
        impl Verdict {
            /// All verdicts, each at its [`index`](Self::index).
            pub const ALL: [Self; Self::COUNT] = [
                $(Self::$verdict,)+
                $(Self::Drop(DropReason::Malformed(Malformed::$malformed)),)+
                $(Self::Drop(DropReason::$reason),)+
            ];
            /// How many verdicts there are.
            pub const COUNT: usize = [$($name,)+ $($malformed_name,)+ $($reason_name,)+].len();

            /// The place of this verdict in arrays of counters, `0..COUNT`.
            pub const fn index(self) -> usize {
                self.row() as usize
            }

            /// The verdict's name in telemetry: kebab-case, and never given to another verdict.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$verdict => $name,)+
                    $(Self::Drop(DropReason::Malformed(Malformed::$malformed)) => $malformed_name,)+
                    $(Self::Drop(DropReason::$reason) => $reason_name,)+
                }
            }

            const fn row(self) -> Row {
                match self {
                    $(Self::$verdict => Row::$verdict,)+
                    $(Self::Drop(DropReason::Malformed(Malformed::$malformed)) => Row::$malformed,)+
                    $(Self::Drop(DropReason::$reason) => Row::$reason,)+
                }
            }
        }

        /// The order of the rows; the compiler numbers them.
        #[derive(Clone, Copy)]
        enum Row {
            $($verdict,)+
            $($malformed,)+
            $($reason,)+
        }
    };
}

verdicts! {
    Transmit "transmit"
    Deliver "deliver"
    Held "held"
    Answered "answered"
    FragmentationNeeded "fragmentation-needed"
    TimeExceeded "time-exceeded"
    Reset "reset"
    Relayed "relayed"
    Host "host";
    Truncated "malformed-truncated"
    Version "malformed-version"
    HeaderLength "malformed-header-length"
    TotalLength "malformed-total-length"
    Checksum "malformed-checksum"
    Arp "malformed-arp"
    NeighbourDiscovery "malformed-neighbour-discovery"
    Offload "malformed-offload";
    NotActive "not-active"
    LeaseExpired "lease-expired"
    RelayLimited "relay-limited"
    Stale "stale"
    NoService "no-service"
    NoServer "no-server"
    NoConnection "no-connection"
    TableFull "table-full"
    PendingFull "pending-full"
    HalfOpenFull "half-open-full"
    ReplicatorFull "replicator-full"
    AlreadyHeld "already-held"
    HoldExpired "hold-expired"
    RecordRefused "record-refused"
    NoNeighbour "no-neighbour"
    NoOwnAddress "no-own-address"
    NotByTunnel "not-by-tunnel"
    UnknownServer "unknown-server"
    TtlExpired "ttl-expired"
    NatCollision "nat-collision"
    NatPortsExhausted "nat-ports-exhausted"
    UnsupportedOffload "unsupported-offload"
    Fragment "fragment"
    FragmentFull "fragment-full"
    FragmentExpired "fragment-expired"
    FragmentDisplaced "fragment-displaced"
    UnsupportedProtocol "unsupported-protocol"
    UnsupportedIcmp "unsupported-icmp"
    IcmpLimited "icmp-limited"
    FirstPacketTooBig "first-packet-too-big"
    PathTooNarrow "path-too-narrow"
    LinkBroadcast "link-broadcast"
    SourceRoute "source-route"
    Martian "martian"
    ForeignClaim "foreign-claim"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verdict_is_at_its_index() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(verdict.index(), index, "{verdict:?}");
        }
    }

    #[test]
    fn names_are_kebab_case_and_unique() {
        let names: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
        assert_eq!(names.len(), Verdict::COUNT);
        assert!(
            names
                .iter()
                .all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')),
            "{names:?}"
        );
    }

    #[test]
    fn every_why_is_one_short_sentence_of_its_own() {
        let all: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.why()).collect();
        assert_eq!(all.len(), Verdict::COUNT);
        for why in all {
            assert!(
                why.len() <= 90 && !why.contains('\n') && !why.ends_with('.'),
                "{why}"
            );
        }
    }
}
