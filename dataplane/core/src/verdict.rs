//! What became of a frame. Each received frame ends in exactly one verdict, and each verdict is exactly one counter (P5).

/// The end of one received frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Sent to a server (as one frame, or as several when it had to be segmented).
    Transmit,
    /// Kept until its connection's record is committed.
    Held,
    /// Answered in place: an ARP request for a VIP, or an echo request to it.
    Answered,
    /// Too big for the tunnel: the sender was told with fragmentation-needed (RFC 1191).
    FragmentationNeeded,
    /// Not ours; the host's own stack keeps it.
    Host,
    /// Thrown away.
    Drop(DropReason),
}

/// Why a frame was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Lengths or fields that contradict one another.
    Malformed(Malformed),
    /// For a VIP, but this ATM is a backup.
    NotActive,
    /// For a VIP, but this ATM's lease has run out.
    LeaseExpired,
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
    /// The record was not committed in time.
    HoldExpired,
    /// The server's Ethernet address is not known (yet); it was asked for.
    NoNeighbour,
    /// Segmentation of a kind this program cannot do.
    UnsupportedOffload,
    /// IP fragment that cannot be steered.
    Fragment,
    /// A protocol the VIP does not serve.
    UnsupportedProtocol,
    /// ICMP was due but its rate limit was reached.
    IcmpLimited,
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
    /// The offload description points outside the frame.
    Offload,
}
