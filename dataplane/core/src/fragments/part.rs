//! What a fragment's header says of its place, and whether it may be believed.

/// Offsets count units of 8 bytes (RFC 791 §3.1, RFC 8200 §4.5).
const UNIT: usize = 8;
/// The most that a length field can say of a whole datagram.
const DATAGRAM_LEN_MAX: usize = 65_535;
/// TCP's protocol number (RFC 9293).
const TCP: u8 = 6;
/// The fixed header of TCP (RFC 9293 §3.1): ports, and the flags that tell a first packet.
const TCP_HEADER_LEN: usize = 20;
/// The header of UDP (RFC 768), and that of ICMP up to the identifier of an echo (RFC 792).
const HEADER_LEN: usize = 8;

/// A packet's place in its datagram, as its header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Of the IPv4 header, or of the IPv6 fragment header.
    pub(crate) protocol: u8,
    /// In units of 8 bytes, 0..=8191.
    pub(crate) offset: u16,
    /// More fragments follow.
    pub(crate) more: bool,
    /// Bytes after the IPv4 header, or after the IPv6 fragment header.
    pub(crate) len: usize,
    /// Bytes before these that the length of the whole datagram will count: the IPv4 header, or the IPv6 extension headers
    /// before the fragment header.
    pub(crate) header_len: usize,
}

/// What a packet is of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All of it. An IPv6 packet may say so with a fragment header, and then it has nothing to do with others of its
    /// identification (RFC 6946 §4).
    Whole,
    /// The first of several, with all that is needed to steer it.
    First,
    Later,
}

/// Why a fragment is not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// Has no data.
    Empty,
    /// More follow, but its data does not end where another one can begin (RFC 791 §3.2, RFC 8200 §4.5).
    Unaligned,
    /// Reaches beyond the longest datagram (RFC 8200 §4.5; the "ping of death").
    TooLong,
    /// The first, without its whole transport header (RFC 1858 §3, RFC 7112 §5).
    TinyFirst,
    /// Would write over the flags of the TCP header (RFC 1858 §4, RFC 3128).
    OverlapsHeader,
}

impl Part {
    /// What it is, or why it has to be dropped.
    ///
    /// The decision of a director is made by the first 8 bytes of UDP and ICMP and the first 20 of TCP. A first fragment must
    /// have them: RFC 1858 §3.2.1 asks for 16 of TCP, of which we read all that is fixed. Then the only fragment
    /// that can write over ports is another first, which is decided by its own. In TCP one of offset 1 could write
    /// over the flags, by which a first packet is told; no honest sender makes one (RFC 3128). An IPv6 sender could hide such a
    /// one by naming another protocol in it, to no avail: there overlaps make the receiver discard the datagram.
    pub(crate) const fn place(self) -> Result<Place, Suspect> {
        if self.offset == 0 && !self.more {
            return Ok(Place::Whole);
        }
        if self.len == 0 {
            return Err(Suspect::Empty);
        }
        if self.more && !self.len.is_multiple_of(UNIT) {
            return Err(Suspect::Unaligned);
        }
        if self.header_len + self.offset as usize * UNIT + self.len > DATAGRAM_LEN_MAX {
            return Err(Suspect::TooLong);
        }
        let header_len = if self.protocol == TCP {
            TCP_HEADER_LEN
        } else {
            HEADER_LEN
        };
        match self.offset {
            0 if self.len < header_len => Err(Suspect::TinyFirst),
            0 => Ok(Place::First),
            1 if self.protocol == TCP => Err(Suspect::OverlapsHeader),
            _ => Ok(Place::Later),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UDP: u8 = 17;
    const ICMP: u8 = 1;

    fn part(protocol: u8, offset: u16, more: bool, len: usize) -> Part {
        Part {
            protocol,
            offset,
            more,
            len,
            header_len: 20,
        }
    }

    #[test]
    fn what_is_believed() {
        use Place::{First, Later, Whole};
        use Suspect::{Empty, OverlapsHeader, TinyFirst, TooLong, Unaligned};
        for (name, part, place) in [
            ("not fragmented", part(TCP, 0, false, 3), Ok(Whole)),
            ("not fragmented, empty", part(UDP, 0, false, 0), Ok(Whole)),
            ("first", part(UDP, 0, true, 1480), Ok(First)),
            (
                "first of UDP, header alone",
                part(UDP, 0, true, 8),
                Ok(First),
            ),
            (
                "first of ICMP, header alone",
                part(ICMP, 0, true, 8),
                Ok(First),
            ),
            (
                "first of TCP, header alone",
                part(TCP, 0, true, 24),
                Ok(First),
            ),
            (
                "first of TCP, ports alone",
                part(TCP, 0, true, 8),
                Err(TinyFirst),
            ),
            (
                "first of TCP, flags but no more",
                part(TCP, 0, true, 16),
                Err(TinyFirst),
            ),
            ("first without data", part(UDP, 0, true, 0), Err(Empty)),
            (
                "first of odd length",
                part(UDP, 0, true, 1479),
                Err(Unaligned),
            ),
            ("middle", part(UDP, 185, true, 1480), Ok(Later)),
            (
                "middle of odd length",
                part(UDP, 185, true, 1),
                Err(Unaligned),
            ),
            ("last of odd length", part(UDP, 185, false, 1), Ok(Later)),
            ("last without data", part(UDP, 185, false, 0), Err(Empty)),
            (
                "over the flags",
                part(TCP, 1, false, 8),
                Err(OverlapsHeader),
            ),
            (
                "over the flags, more",
                part(TCP, 1, true, 16),
                Err(OverlapsHeader),
            ),
            ("after the ports of UDP", part(UDP, 1, false, 8), Ok(Later)),
            ("after the flags", part(TCP, 2, false, 8), Ok(Later)),
            ("to the end", part(UDP, 8189, false, 3), Ok(Later)),
            ("over the end", part(UDP, 8189, false, 4), Err(TooLong)),
            (
                "far over the end",
                part(ICMP, 8191, false, 65_515),
                Err(TooLong),
            ),
        ] {
            assert_eq!(part.place(), place, "{name}");
        }
    }

    proptest! {
        /// The reason for all of it: no fragment that is believed and is not decided by itself touches what decides.
        #[test]
        fn only_a_first_has_what_decides(
            protocol in prop_oneof![Just(TCP), Just(UDP), Just(ICMP), any::<u8>()],
            offset in 0u16..8192,
            more in any::<bool>(),
            len in 0usize..65_536,
        ) {
            let decides = if protocol == TCP { 14 } else { 4 };
            match part(protocol, offset, more, len).place() {
                Ok(Place::Later) => prop_assert!(usize::from(offset) * 8 >= decides),
                Ok(Place::First) => prop_assert!(offset == 0 && more && len >= decides),
                Ok(Place::Whole) => prop_assert!(offset == 0 && !more),
                Err(_) => prop_assert!(offset > 0 || more),
            }
        }
    }
}
