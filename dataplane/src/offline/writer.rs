//! Writes what is sent as classic pcap, Ethernet, little endian: what every tool reads.

use std::io::{self, Write};

use super::capture::{FRAME_BYTES_MAX, Resolution};

/// A capture in the making.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    output: W,
    nanos_per_unit: u64,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the header. `output` is written in small pieces: give a buffered one.
    pub fn new(mut output: W, resolution: Resolution) -> io::Result<Self> {
        let (magic, nanos_per_unit) = match resolution {
            Resolution::Micros => (0xa1b2_c3d4_u32, 1000),
            Resolution::Nanos => (0xa1b2_3c4d, 1),
        };
        output.write_all(&magic.to_le_bytes())?;
        // Version 2.4, two reserved words, snap length, LINKTYPE_ETHERNET.
        output.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        output.write_all(&FRAME_BYTES_MAX.to_le_bytes())?;
        output.write_all(&1_u32.to_le_bytes())?;
        Ok(Self {
            output,
            nanos_per_unit,
        })
    }

    /// Writes a frame; `time` in nanoseconds since 1970, up to the year 2106, where the format ends.
    pub fn frame(&mut self, time: u64, bytes: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(time / 1_000_000_000).unwrap_or(u32::MAX);
        let fraction = time % 1_000_000_000 / self.nanos_per_unit;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        for field in [
            seconds,
            u32::try_from(fraction).unwrap_or_default(),
            length,
            length,
        ] {
            self.output.write_all(&field.to_le_bytes())?;
        }
        self.output.write_all(bytes)
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capture, Captured};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (resolution, time) in [
            (Resolution::Micros, 1_700_000_000_123_456_000),
            (Resolution::Nanos, 1_700_000_000_123_456_789),
        ] {
            let mut file = Vec::new();
            let mut writer = CaptureWriter::new(&mut file, resolution).unwrap();
            writer.frame(1_700_000_000_123_456_789, b"frame").unwrap();
            writer.flush().unwrap();
            let mut capture = Capture::new(&*file).unwrap();
            let mut bytes = Vec::new();
            let captured = Captured {
                index: 1,
                time,
                length: 5,
            };
            assert_eq!(capture.next(&mut bytes).unwrap(), Some(captured));
            assert_eq!((&*bytes, capture.resolution()), (&b"frame"[..], resolution));
            assert_eq!(capture.next(&mut bytes).unwrap(), None);
        }
    }
}
