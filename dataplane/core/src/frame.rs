//! A received Ethernet frame and what the sender's stack left undone in it.

use std::fmt;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00
    pub const ZERO: Self = Self([0; 6]);

    /// Broadcast or multicast: the first bit on the wire is set (IEEE 802-2014 §8.2.2).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A frame as a port received it, from the Ethernet header on (a VLAN tag, if any, in place).
#[derive(Debug)]
pub struct Frame<'a> {
    /// The bytes. Up to 64 KiB plus headers when `offload` carries GSO.
    pub bytes: &'a mut [u8],
    /// What the sending stack left to be done (virtio-net header, VIRTIO 1.2 §5.1.6).
    pub offload: Offload,
}

/// Work that a sending stack left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Segmentation still to be done.
    pub gso: Gso,
}

/// State of the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// As it stands in the frame.
    #[default]
    Complete,
    /// The field holds the pseudo-header sum only: the sum from `start` on must be put at `start + offset` (both from the frame's first byte).
    Partial {
        /// First byte to sum.
        start: u16,
        /// Where the checksum field is, counted from `start`.
        offset: u16,
    },
}

/// Segmentation still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    #[default]
    None,
    /// TCP: cut the payload into segments of at most this many bytes.
    Tcp {
        /// Payload bytes per segment.
        segment: u16,
    },
    /// UDP: cut the payload into datagrams of at most this many bytes, each with its own header.
    Udp {
        /// Payload bytes per datagram.
        segment: u16,
    },
    /// A kind this program cannot segment (virtio `gso_type`).
    Other(u8),
}
