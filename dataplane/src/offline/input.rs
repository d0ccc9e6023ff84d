//! The bytes of a capture in their order, and where each record or block stands, for errors that say so.

use std::io::{self, Read};

use super::capture::{CaptureError, FRAME_BYTES_MAX};

/// LINKTYPE_ETHERNET (https://www.tcpdump.org/linktypes.html).
const ETHERNET: u16 = 1;
/// Byte order of a file or section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// The number at `at`, which lies within.
    pub(super) fn u16<const N: usize>(self, bytes: [u8; N], at: usize) -> u16 {
        let word = [bytes[at], bytes[at + 1]];
        match self {
            Self::Little => u16::from_le_bytes(word),
            Self::Big => u16::from_be_bytes(word),
        }
    }

    /// The number at `at`, which lies within.
    pub(super) fn u32<const N: usize>(self, bytes: [u8; N], at: usize) -> u32 {
        let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        match self {
            Self::Little => u32::from_le_bytes(word),
            Self::Big => u32::from_be_bytes(word),
        }
    }
}

/// The file, and how far it is read.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    offset: u64,
    /// Where the record or block that is being read begins.
    start: u64,
    /// Frames read.
    packets: u64,
}

impl<R: Read> Input<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            offset: 0,
            start: 0,
            packets: 0,
        }
    }

    /// A frame is read; returns which.
    pub(super) const fn count(&mut self) -> u64 {
        self.packets += 1;
        self.packets
    }

    /// Reads as much as there is; returns how much.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, CaptureError> {
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(CaptureError::Io {
                        packet: self.packet(),
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
        self.offset += have as u64;
        Ok(have)
    }

    /// Begins a record or block with `N` bytes; `None`: the file ends before it.
    pub(super) fn take_or_end<const N: usize>(&mut self) -> Result<Option<[u8; N]>, CaptureError> {
        self.start = self.offset;
        let mut bytes = [0; N];
        match self.fill(&mut bytes)? {
            0 => Ok(None),
            have if have == N => Ok(Some(bytes)),
            _ => Err(self.truncated()),
        }
    }

    /// Goes on with `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], CaptureError> {
        let mut bytes = [0; N];
        if self.fill(&mut bytes)? == N {
            Ok(bytes)
        } else {
            Err(self.truncated())
        }
    }

    /// Goes on with the bytes of a frame.
    pub(super) fn frame(&mut self, length: u32, bytes: &mut Vec<u8>) -> Result<(), CaptureError> {
        if length > FRAME_BYTES_MAX {
            return Err(CaptureError::TooLong {
                packet: self.packet(),
                offset: self.start,
                length,
            });
        }
        self.bytes(length, bytes)
    }

    /// Goes on with `length` bytes; the caller has bounded them.
    pub(super) fn bytes(&mut self, length: u32, bytes: &mut Vec<u8>) -> Result<(), CaptureError> {
        bytes.clear();
        bytes.resize(length as usize, 0);
        if self.fill(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(self.truncated())
        }
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, length: u32) -> Result<(), CaptureError> {
        let mut sink = [0; 4096];
        let mut left = length as usize;
        while left > 0 {
            let now = left.min(sink.len());
            if self.fill(&mut sink[..now])? < now {
                return Err(self.truncated());
            }
            left -= now;
        }
        Ok(())
    }

    /// Whether this link type can be explained.
    pub(super) fn ethernet(&self, link_type: u16) -> Result<(), CaptureError> {
        if link_type == ETHERNET {
            return Ok(());
        }
        Err(CaptureError::LinkType {
            packet: self.packet(),
            offset: self.start,
            link_type,
        })
    }

    /// The block that is being read contradicts itself.
    pub(super) fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Block {
            packet: self.packet(),
            offset: self.start,
            what,
        }
    }

    pub(super) fn version(&self, major: u16, minor: u16) -> CaptureError {
        CaptureError::Version {
            offset: self.start,
            major,
            minor,
        }
    }

    fn truncated(&self) -> CaptureError {
        CaptureError::Truncated {
            packet: self.packet(),
            offset: self.start,
        }
    }

    fn packet(&self) -> u64 {
        self.packets + 1
    }
}
