//! Reads captures: classic pcap (draft-ietf-opsawg-pcap) in both byte orders, with microseconds or nanoseconds, and
//! pcapng (`pcapng`).
//!
//! A reader of our own, because no crate does all of what is needed: pcap-parser 0.17 reads neither a binary
//! `if_tsresol` nor a big-endian `if_tsoffset`; pcap-file 2.0 does not get past a record longer than the header's snap
//! length, which real captures have, and its 3.0 is a release candidate. Neither says where in the file an error is.
//!
//! Memory is bounded by [`FRAME_BYTES_MAX`] and by the number of interfaces, whatever the file says.

use std::io::{self, Read};

use super::input::{Input, Order};
use super::pcapng::Section;

/// Bytes of a frame at most: what libpcap and Wireshark take for Ethernet (MAXIMUM_SNAPLEN).
pub const FRAME_BYTES_MAX: u32 = 262_144;
/// The latest time of a frame, nanoseconds: half of what 64 bits hold, so that sums of two never overflow.
pub(super) const TIME_MAX: u64 = u64::MAX / 2;

/// A capture that cannot be read, or not to its end. `packet` counts from 1; `offset` is that of the record or block,
/// in bytes from the begin of the file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Neither format's magic number.
    #[error("not a capture: it begins with neither the magic number of pcap nor that of pcapng")]
    NotACapture,
    /// A version of the format that nobody writes.
    #[error("at offset {offset}: version {major}.{minor} of the format is not known")]
    Version {
        /// Where.
        offset: u64,
        /// Major.
        major: u16,
        /// Minor.
        minor: u16,
    },
    /// Not Ethernet.
    #[error(
        "packet {packet} at offset {offset}: link type {link_type}{}, only Ethernet (1) can be explained: capture on one Ethernet interface, not on `any`",
        link_type_name(*.link_type)
    )]
    LinkType {
        /// Which.
        packet: u64,
        /// Where.
        offset: u64,
        /// What it is instead.
        link_type: u16,
    },
    /// The file ends within a header, record or block.
    #[error("packet {packet} at offset {offset}: the file ends in the middle of it")]
    Truncated {
        /// Which.
        packet: u64,
        /// Where.
        offset: u64,
    },
    /// Longer than any frame.
    #[error(
        "packet {packet} at offset {offset}: {length} bytes, at most {FRAME_BYTES_MAX} can be: the file is damaged here or before"
    )]
    TooLong {
        /// Which.
        packet: u64,
        /// Where.
        offset: u64,
        /// What its header says.
        length: u32,
    },
    /// A block of pcapng that contradicts itself or what came before.
    #[error("packet {packet} at offset {offset}: {what}: the file is damaged here or before")]
    Block {
        /// The packet that it is, or that would have come next.
        packet: u64,
        /// Where.
        offset: u64,
        /// How.
        what: &'static str,
    },
    /// The system.
    #[error("packet {packet} at offset {offset}: {source}")]
    Io {
        /// Which.
        packet: u64,
        /// Where.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
}

fn link_type_name(link_type: u16) -> &'static str {
    match link_type {
        0 => " (BSD loopback)",
        101 => " (raw IP)",
        105 | 127 => " (IEEE 802.11)",
        113 | 276 => " (Linux cooked)",
        _ => "",
    }
}

/// What a capture says about one frame; its bytes are in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// From 1, as Wireshark counts.
    pub index: u64,
    /// Nanoseconds since 1970, at most 2^63.
    pub time: u64,
    /// Bytes that the frame had on the wire; more than there are when it was cut off.
    pub length: u32,
}

/// How finely a capture tells time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// Microseconds, or coarser.
    #[default]
    Micros,
    /// Nanoseconds, or anything else that microseconds cannot tell.
    Nanos,
}

/// A capture that is being read.
#[derive(Debug)]
pub struct Capture<R> {
    input: Input<R>,
    format: Format,
    resolution: Resolution,
}

#[derive(Debug)]
enum Format {
    Classic { order: Order },
    Next(Section),
}

impl<R: Read> Capture<R> {
    /// Recognises the format. `reader` is read in small pieces: give a buffered one.
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut input = Input::new(reader);
        let mut magic = [0; 4];
        if input.fill(&mut magic)? < magic.len() {
            return Err(CaptureError::NotACapture);
        }
        let (order, resolution) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, Resolution::Micros),
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, Resolution::Micros),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, Resolution::Nanos),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, Resolution::Nanos),
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                let section = Section::begin(&mut input)?;
                return Ok(Self {
                    input,
                    format: Format::Next(section),
                    resolution: Resolution::default(),
                });
            }
            _ => return Err(CaptureError::NotACapture),
        };
        let header: [u8; 20] = input.take()?;
        let (major, minor) = (order.u16(header, 0), order.u16(header, 2));
        // 2.3 and before had the two lengths of a record in the other order.
        if (major, minor) != (2, 4) {
            return Err(CaptureError::Version {
                offset: 0,
                major,
                minor,
            });
        }
        // The upper half may say that frames end in their checksum: what follows the packet is left alone anyway.
        let [.., low, high] = order.u32(header, 16).to_be_bytes();
        input.ethernet(u16::from_be_bytes([low, high]))?;
        Ok(Self {
            input,
            format: Format::Classic { order },
            resolution,
        })
    }

    /// How finely the frames read so far tell time.
    pub const fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// Reads the next frame into `bytes`, at most [`FRAME_BYTES_MAX`]; `None` at the end. Not to be called again after
    /// an error.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Captured>, CaptureError> {
        let Self {
            input,
            format,
            resolution,
        } = self;
        let found = match format {
            Format::Classic { order } => record(input, *order, *resolution, bytes)?,
            Format::Next(section) => section.next(input, bytes)?.map(|(time, length, finer)| {
                if finer {
                    *resolution = Resolution::Nanos;
                }
                (time, length)
            }),
        };
        Ok(found.map(|(time, length)| {
            Captured {
                index: input.count(),
                time,
                // More captured than there was: some writers say so of frames that they padded.
                length: length.max(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            }
        }))
    }
}

/// A record of the classic format: time and original length.
fn record<R: Read>(
    input: &mut Input<R>,
    order: Order,
    resolution: Resolution,
    bytes: &mut Vec<u8>,
) -> Result<Option<(u64, u32)>, CaptureError> {
    let Some(header) = input.take_or_end::<16>()? else {
        return Ok(None);
    };
    let nanos_per_unit = match resolution {
        Resolution::Micros => 1000,
        Resolution::Nanos => 1,
    };
    let seconds = u64::from(order.u32(header, 0));
    let time = seconds * 1_000_000_000 + u64::from(order.u32(header, 4)) * nanos_per_unit;
    input.frame(order.u32(header, 8), bytes)?;
    Ok(Some((time.min(TIME_MAX), order.u32(header, 12))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the classic format, in the byte order that `number` writes.
    fn classic(
        magic: u32,
        number: fn(u32) -> [u8; 4],
        records: &[(u32, u32, &[u8], u32)],
    ) -> Vec<u8> {
        let version = number(if number(1) == [1, 0, 0, 0] {
            0x0004_0002
        } else {
            0x0002_0004
        });
        let mut file = [
            number(magic),
            version,
            [0; 4],
            [0; 4],
            number(64),
            number(1),
        ]
        .concat();
        for (seconds, fraction, bytes, length) in records {
            let captured = u32::try_from(bytes.len()).unwrap();
            for field in [*seconds, *fraction, captured, *length] {
                file.extend(number(field));
            }
            file.extend(*bytes);
        }
        file
    }

    pub(super) fn read(file: &[u8]) -> Result<Vec<(Captured, Vec<u8>)>, CaptureError> {
        let mut capture = Capture::new(file)?;
        let mut frames = Vec::new();
        let mut bytes = Vec::new();
        while let Some(captured) = capture.next(&mut bytes)? {
            frames.push((captured, bytes.clone()));
        }
        Ok(frames)
    }

    #[test]
    fn both_byte_orders_and_both_resolutions() {
        let records: [(u32, u32, &[u8], u32); 2] = [(5, 7, &[1, 2, 3], 3), (6, 0, &[4], 1500)];
        for (magic, unit) in [(0xa1b2_c3d4, 1000), (0xa1b2_3c4d, 1)] {
            for number in [u32::to_le_bytes, u32::to_be_bytes] {
                let frames = read(&classic(magic, number, &records)).unwrap();
                let first = Captured {
                    index: 1,
                    time: 5_000_000_000 + 7 * unit,
                    length: 3,
                };
                let second = Captured {
                    index: 2,
                    time: 6_000_000_000,
                    length: 1500,
                };
                assert_eq!(frames, [(first, vec![1, 2, 3]), (second, vec![4])]);
            }
        }
    }

    #[test]
    fn a_record_longer_than_the_snap_length_is_read() {
        let frames = read(&classic(
            0xa1b2_c3d4,
            u32::to_le_bytes,
            &[(0, 0, &[9; 100], 100)],
        ));
        assert_eq!(frames.unwrap()[0].1.len(), 100);
    }

    #[test]
    fn errors_say_which_packet_and_where() {
        let good = classic(
            0xa1b2_c3d4,
            u32::to_le_bytes,
            &[(0, 0, &[1; 4], 4), (0, 0, &[2; 4], 4)],
        );
        for cut in 1..20 {
            let error = read(&good[..good.len() - cut]).unwrap_err();
            assert!(
                matches!(
                    error,
                    CaptureError::Truncated {
                        packet: 2,
                        offset: 44
                    }
                ),
                "{cut}: {error:?}"
            );
        }
        let mut long = good.clone();
        long[52..56].copy_from_slice(&(FRAME_BYTES_MAX + 1).to_le_bytes());
        assert_eq!(
            read(&long).unwrap_err().to_string(),
            "packet 2 at offset 44: 262145 bytes, at most 262144 can be: the file is damaged here or before"
        );
        let mut cooked = good.clone();
        cooked[20] = 113;
        assert_eq!(
            read(&cooked).unwrap_err().to_string(),
            "packet 1 at offset 0: link type 113 (Linux cooked), only Ethernet (1) can be explained: capture on one Ethernet interface, not on `any`"
        );
        let mut old = good;
        old[6] = 3;
        assert!(matches!(
            read(&old).unwrap_err(),
            CaptureError::Version {
                offset: 0,
                major: 2,
                minor: 3
            }
        ));
        for file in [&b""[..], b"\xd4\xc3", b"hello, world, this is text"] {
            assert!(matches!(read(file).unwrap_err(), CaptureError::NotACapture));
        }
    }
}
