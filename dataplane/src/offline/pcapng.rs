//! The blocks of pcapng (draft-ietf-opsawg-pcapng): sections, interfaces and packets are read, all others passed over.

use std::io::Read;

use super::capture::{CaptureError, TIME_MAX};
use super::input::{Input, Order};

/// Block types (§11.1 of the draft).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// Obsolete, and still in old files: an enhanced packet whose interface has 16 bits.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type, length, and the length once more at the end.
const BLOCK_OVERHEAD: u32 = 12;
/// Interface, time, captured and original length.
const PACKET_HEADER: u32 = 20;
/// Interfaces of one section: a merged capture has one per file, and nobody merges thousands.
const INTERFACES_MAX: usize = 4096;
/// What describes an interface, options included: they are a few names and addresses.
const INTERFACE_BYTES_MAX: u32 = 65_536;

/// What is known of the section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<Interface>,
    /// The time of the last packet, for those that have none.
    time: u64,
}

/// An interface, as far as its packets depend on it.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u16,
    /// Bytes kept of each packet; 0: no limit.
    snap_length: u32,
    /// `if_tsresol`: the unit of time is 10^-n s, or 2^-n s when the highest bit is set.
    resolution: u8,
    /// `if_tsoffset`, seconds.
    offset: i64,
}

/// Time in nanoseconds, original length, and whether microseconds cannot tell the time.
type Packet = (u64, u32, bool);

impl Section {
    /// The first section, whose type is read already.
    pub(super) fn begin<R: Read>(input: &mut Input<R>) -> Result<Self, CaptureError> {
        let length = input.take()?;
        Self::header(input, length, 0)
    }

    /// A section header from its byte-order magic on; `length` as it stands there.
    fn header<R: Read>(
        input: &mut Input<R>,
        length: [u8; 4],
        time: u64,
    ) -> Result<Self, CaptureError> {
        let order = match input.take()? {
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            _ => return Err(input.damaged("a section without byte order")),
        };
        let length = block_length(input, order.u32(length, 0))?;
        let version: [u8; 4] = input.take()?;
        let (major, minor) = (order.u16(version, 0), order.u16(version, 2));
        // §4.1: 1.0, and 1.2 which means the same.
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(input.version(major, minor));
        }
        end(input, order, length, 8)?;
        Ok(Self {
            order,
            interfaces: Vec::new(),
            time,
        })
    }

    /// Reads blocks up to the next packet; `None` at the end.
    pub(super) fn next<R: Read>(
        &mut self,
        input: &mut Input<R>,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Packet>, CaptureError> {
        while let Some([a, b, c, d, length @ ..]) = input.take_or_end::<8>()? {
            // The same in both byte orders, which may change here.
            if u32::from_be_bytes([a, b, c, d]) == SECTION_HEADER {
                *self = Self::header(input, length, self.time)?;
                continue;
            }
            let length = block_length(input, self.order.u32(length, 0))?;
            let packet = match self.order.u32([a, b, c, d], 0) {
                kind @ (PACKET | ENHANCED_PACKET) => {
                    self.packet(input, length, kind == PACKET, bytes)?
                }
                SIMPLE_PACKET => self.simple_packet(input, length, bytes)?,
                INTERFACE => {
                    self.interface(input, length)?;
                    continue;
                }
                _ => {
                    end(input, self.order, length, 0)?;
                    continue;
                }
            };
            self.time = packet.0;
            return Ok(Some(packet));
        }
        Ok(None)
    }

    fn packet<R: Read>(
        &self,
        input: &mut Input<R>,
        length: u32,
        narrow: bool,
        bytes: &mut Vec<u8>,
    ) -> Result<Packet, CaptureError> {
        let room = length
            .checked_sub(PACKET_HEADER)
            .ok_or_else(|| input.damaged("a packet block without room for its header"))?;
        let header: [u8; 20] = input.take()?;
        let number = if narrow {
            u32::from(self.order.u16(header, 0))
        } else {
            self.order.u32(header, 0)
        };
        let interface = self.described(input, number)?;
        let (high, low) = (self.order.u32(header, 4), self.order.u32(header, 8));
        let captured = self.order.u32(header, 12);
        if captured > room {
            return Err(input.damaged("a packet longer than its block"));
        }
        input.frame(captured, bytes)?;
        end(input, self.order, length, PACKET_HEADER + captured)?;
        let time = interface.nanos(u64::from(high) << 32 | u64::from(low));
        let finer = !matches!(interface.resolution, 0..=6);
        Ok((time, self.order.u32(header, 16), finer))
    }

    /// A packet without a time: it is given that of the packet before.
    fn simple_packet<R: Read>(
        &self,
        input: &mut Input<R>,
        length: u32,
        bytes: &mut Vec<u8>,
    ) -> Result<Packet, CaptureError> {
        let room = length
            .checked_sub(4)
            .ok_or_else(|| input.damaged("a packet block without room for its header"))?;
        let interface = self.described(input, 0)?;
        let original = self.order.u32(input.take::<4>()?, 0);
        let captured = match interface.snap_length {
            0 => original,
            limit => original.min(limit),
        };
        if captured > room {
            return Err(input.damaged("a packet longer than its block"));
        }
        input.frame(captured, bytes)?;
        end(input, self.order, length, 4 + captured)?;
        Ok((self.time, original, false))
    }

    /// The interface of a packet: known, and Ethernet.
    fn described<R: Read>(&self, input: &Input<R>, number: u32) -> Result<Interface, CaptureError> {
        let interface = usize::try_from(number)
            .ok()
            .and_then(|number| self.interfaces.get(number))
            .copied()
            .ok_or_else(|| input.damaged("a packet of an interface that is not described"))?;
        input.ethernet(interface.link_type)?;
        Ok(interface)
    }

    fn interface<R: Read>(
        &mut self,
        input: &mut Input<R>,
        length: u32,
    ) -> Result<(), CaptureError> {
        if self.interfaces.len() >= INTERFACES_MAX {
            return Err(input.damaged("more interfaces than anybody merges"));
        }
        let options = length
            .checked_sub(8)
            .ok_or_else(|| input.damaged("an interface block without room for its header"))?;
        if options > INTERFACE_BYTES_MAX {
            return Err(input.damaged("an interface with too long a description"));
        }
        let header: [u8; 8] = input.take()?;
        let mut interface = Interface {
            link_type: self.order.u16(header, 0),
            snap_length: self.order.u32(header, 4),
            resolution: 6,
            offset: 0,
        };
        let mut bytes = Vec::new();
        input.bytes(options, &mut bytes)?;
        end(input, self.order, length, length)?;
        interface.describe(&bytes, self.order);
        self.interfaces.push(interface);
        Ok(())
    }
}

impl Interface {
    /// Takes the options that matter (§3.5, §4.2); what does not fit the form of options ends them.
    fn describe(&mut self, mut options: &[u8], order: Order) {
        const END: u16 = 0;
        const RESOLUTION: u16 = 9;
        const OFFSET: u16 = 14;
        while let Some((header, rest)) = options.split_first_chunk::<4>() {
            let (code, length) = (order.u16(*header, 0), order.u16(*header, 2));
            let length = usize::from(length);
            let Some(value) = rest.get(..length).filter(|_| code != END) else {
                return;
            };
            match (code, value) {
                (RESOLUTION, [resolution]) => self.resolution = *resolution,
                (OFFSET, [a, b, c, d, e, f, g, h]) => {
                    let value = [*a, *b, *c, *d, *e, *f, *g, *h];
                    self.offset = match order {
                        Order::Little => i64::from_le_bytes(value),
                        Order::Big => i64::from_be_bytes(value),
                    };
                }
                _ => {}
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// Nanoseconds since 1970 of a time in this interface's units; what lies outside is moved to the nearest end.
    fn nanos(self, units: u64) -> u64 {
        const NANOS: u128 = 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let nanos = if self.resolution & 0x80 != 0 {
            (u128::from(units) * NANOS) >> exponent
        } else {
            10_u128
                .checked_pow(exponent)
                .map_or(0, |per_second| u128::from(units) * NANOS / per_second)
        };
        let offset = i128::from(self.offset) * 1_000_000_000;
        // Both are far from the ends of 128 bits: 64 bits times 10^9.
        let nanos = i128::try_from(nanos)
            .unwrap_or(i128::MAX)
            .saturating_add(offset);
        u64::try_from(nanos.max(0)).map_or(TIME_MAX, |nanos| nanos.min(TIME_MAX))
    }
}

/// Bytes of a block's body. Its length counts everything and is a multiple of 4 (§3.1).
fn block_length<R>(input: &Input<R>, total: u32) -> Result<u32, CaptureError>
where
    R: Read,
{
    match total.checked_sub(BLOCK_OVERHEAD) {
        Some(body) if total.is_multiple_of(4) => Ok(body),
        _ => Err(input.damaged("a block with a length that cannot be")),
    }
}

/// Passes over what is left of a block's body after `read` bytes, and compares the length at its end.
fn end<R: Read>(
    input: &mut Input<R>,
    order: Order,
    body: u32,
    read: u32,
) -> Result<(), CaptureError> {
    let left = body
        .checked_sub(read)
        .ok_or_else(|| input.damaged("a block without room for its header"))?;
    input.skip(left)?;
    if order.u32(input.take::<4>()?, 0) == body + BLOCK_OVERHEAD {
        Ok(())
    } else {
        Err(input.damaged("a block whose two lengths differ"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capture, Captured, Resolution};
    use super::*;

    type Number = fn(u32) -> [u8; 4];

    /// A block: `words` in the file's byte order, then bytes, padded.
    fn block(number: Number, kind: u32, words: &[u32], bytes: &[u8]) -> Vec<u8> {
        let body = words.len() * 4 + bytes.len().next_multiple_of(4);
        let total = number(u32::try_from(body).unwrap() + 12);
        let mut block = [number(kind), total].concat();
        block.extend(words.iter().flat_map(|word| number(*word)));
        block.extend(bytes);
        block.resize(8 + body, 0);
        block.extend(total);
        block
    }

    fn is_little(number: Number) -> bool {
        number(1) == [1, 0, 0, 0]
    }

    fn section(number: Number) -> Vec<u8> {
        let version = if is_little(number) { 1 } else { 0x0001_0000 };
        block(
            number,
            SECTION_HEADER,
            &[0x1a2b_3c4d, version, u32::MAX, u32::MAX],
            &[],
        )
    }

    /// An interface of a link type, with options.
    fn interface(number: Number, link_type: u32, options: &[u8]) -> Vec<u8> {
        let link_type = if is_little(number) {
            link_type
        } else {
            link_type << 16
        };
        block(number, INTERFACE, &[link_type, 0], options)
    }

    fn option(number: Number, code: u32, value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap();
        let header = if is_little(number) {
            length << 16 | code
        } else {
            code << 16 | length
        };
        let mut option = [&number(header)[..], value].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    type Frames = Vec<(Captured, Vec<u8>)>;

    fn read(file: &[u8]) -> (Frames, Resolution, Option<CaptureError>) {
        let mut frames = Vec::new();
        let mut bytes = Vec::new();
        let mut capture = match Capture::new(file) {
            Ok(capture) => capture,
            Err(error) => return (frames, Resolution::default(), Some(error)),
        };
        loop {
            match capture.next(&mut bytes) {
                Ok(Some(captured)) => frames.push((captured, bytes.clone())),
                Ok(None) => return (frames, capture.resolution(), None),
                Err(error) => return (frames, capture.resolution(), Some(error)),
            }
        }
    }

    fn times(file: &[u8]) -> Vec<u64> {
        let (frames, _, error) = read(file);
        assert!(error.is_none(), "{error:?}");
        frames.iter().map(|(captured, _)| captured.time).collect()
    }

    #[test]
    fn every_kind_of_packet_in_both_byte_orders_with_blocks_between_them() {
        for number in [u32::to_le_bytes as Number, u32::to_be_bytes] {
            let file = [
                section(number),
                interface(number, 1, &[]),
                block(number, 5, &[0, 0], b"statistics"),
                block(number, ENHANCED_PACKET, &[0, 0, 1_000_001, 5, 60], b"hello"),
                block(number, 0x4000_1234, &[], b"a block of somebody else"),
                block(number, SIMPLE_PACKET, &[3], b"abc"),
                block(number, PACKET, &[0, 0, 2_000_000, 2, 2], b"xy"),
            ]
            .concat();
            let (frames, resolution, error) = read(&file);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(resolution, Resolution::Micros);
            let expected = [
                (1_000_001_000, 60, "hello"),
                (1_000_001_000, 3, "abc"),
                (2_000_000_000, 2, "xy"),
            ];
            let expected: Vec<_> = (1..)
                .zip(expected)
                .map(|(index, (time, length, bytes))| {
                    (
                        Captured {
                            index,
                            time,
                            length,
                        },
                        bytes.as_bytes().to_vec(),
                    )
                })
                .collect();
            assert_eq!(frames, expected);
        }
    }

    #[test]
    fn time_is_read_in_the_units_and_from_the_offset_of_its_interface() {
        for (number, offset) in [
            (u32::to_le_bytes as Number, 100_i64.to_le_bytes()),
            (u32::to_be_bytes, 100_i64.to_be_bytes()),
        ] {
            let packet = |interface, high, low| {
                block(number, ENHANCED_PACKET, &[interface, high, low, 0, 0], &[])
            };
            let file = [
                section(number),
                interface(number, 1, &option(number, 9, &[9])),
                interface(
                    number,
                    1,
                    &[option(number, 2, b"eth0"), option(number, 9, &[0x8a])].concat(),
                ),
                interface(number, 1, &option(number, 14, &offset)),
                interface(number, 1, &option(number, 9, &[127])),
                packet(0, 0, 1_000_000_007),
                packet(1, 0, 1536),
                packet(2, 0, 5),
                packet(3, 1, 1),
                packet(2, u32::MAX, u32::MAX),
            ]
            .concat();
            assert_eq!(
                times(&file),
                [1_000_000_007, 1_500_000_000, 100_000_005_000, 0, TIME_MAX]
            );
            assert_eq!(read(&file).1, Resolution::Nanos);
        }
    }

    #[test]
    fn a_second_section_may_have_another_byte_order_and_begins_without_interfaces() {
        let (le, be): (Number, Number) = (u32::to_le_bytes, u32::to_be_bytes);
        let packet = |number| block(number, ENHANCED_PACKET, &[0, 0, 1, 1, 1], b"x");
        let first = [section(le), interface(le, 1, &[]), packet(le)].concat();
        let second = [section(be), interface(be, 1, &[]), packet(be)].concat();
        assert_eq!(times(&[first.clone(), second].concat()).len(), 2);
        let (frames, _, error) = read(&[first.clone(), section(be), packet(be)].concat());
        assert_eq!(frames.len(), 1);
        let at = first.len() + section(be).len();
        assert_eq!(
            error.unwrap().to_string(),
            format!(
                "packet 2 at offset {at}: a packet of an interface that is not described: the file is damaged here or before"
            )
        );
    }

    #[test]
    fn what_is_damaged_is_named_with_its_place() {
        let number: Number = u32::to_le_bytes;
        let begin = [section(number), interface(number, 1, &[])].concat();
        let with = |block: &[u8]| {
            let (frames, _, error) = read(&[&begin, block].concat());
            assert!(frames.is_empty());
            error.unwrap().to_string()
        };
        let at = begin.len();
        let good = block(number, ENHANCED_PACKET, &[0, 0, 1, 1, 1], b"x");
        for cut in 1..good.len() {
            assert_eq!(
                with(&good[..cut]),
                format!("packet 1 at offset {at}: the file ends in the middle of it")
            );
        }
        for (change, what) in [
            ((4, 0), "a block with a length that cannot be"),
            ((4, 37), "a block with a length that cannot be"),
            ((4, 16), "a packet block without room for its header"),
            ((20, 5), "a packet longer than its block"),
            ((8, 1), "a packet of an interface that is not described"),
            ((32, 40), "a block whose two lengths differ"),
        ] {
            let mut bad = good.clone();
            bad[change.0] = change.1;
            // There is more of the file, so that no end of it comes first.
            bad.resize(bad.len() + 64, 0);
            assert_eq!(
                with(&bad),
                format!("packet 1 at offset {at}: {what}: the file is damaged here or before")
            );
        }
        let wifi = [section(number), interface(number, 127, &[])].concat();
        assert!(
            read(&wifi).2.is_none(),
            "an interface without packets disturbs nobody"
        );
        let error = read(&[wifi, good].concat()).2.unwrap();
        assert!(
            matches!(
                error,
                CaptureError::LinkType {
                    packet: 1,
                    link_type: 127,
                    ..
                }
            ),
            "{error}"
        );
    }
}
