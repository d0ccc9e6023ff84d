//! Frames by step, as a file: what one side gets or gives.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use dataplane::offline::{CaptureWriter, Resolution};
use serde::{Deserialize, Serialize};

/// Between the frames of a capture, nanoseconds, so that their order can be seen.
pub(crate) const FRAME_INTERVAL: u64 = 1_000_000;
/// Time of the first frame: 2001-09-09, so that no tool takes it for missing.
pub(crate) const FIRST_FRAME: u64 = 1_000_000_000_000_000_000;

/// Frames of each step, in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic(Vec<Vec<String>>);

impl Traffic {
    /// Frames by step.
    pub(crate) fn new(steps: &[Vec<Vec<u8>>]) -> Self {
        let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(
            steps
                .iter()
                .map(|frames| frames.iter().map(hex).collect())
                .collect(),
        )
    }

    /// The frames, by step.
    ///
    /// # Errors
    /// Something that is no pair of digits.
    pub(crate) fn frames(&self) -> io::Result<Vec<Vec<Vec<u8>>>> {
        let steps = self.0.iter();
        steps
            .map(|frames| frames.iter().map(|frame| bytes(frame)).collect())
            .collect()
    }

    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    /// Writes it whole or not at all, and beside it the same as a capture for people.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let file = BufWriter::new(File::create(path.with_extension("pcap"))?);
        let mut capture = CaptureWriter::new(file, Resolution::Nanos)?;
        let frames = self.frames()?.into_iter().flatten();
        for (time, frame) in (0..).map(|n| FIRST_FRAME + n * FRAME_INTERVAL).zip(frames) {
            capture.frame(time, &frame)?;
        }
        capture.flush()?;
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        fs::rename(part, path)
    }
}

fn bytes(frame: &str) -> io::Result<Vec<u8>> {
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no hexadecimal digits: {frame}"),
        )
    };
    let pairs = (0..frame.len()).step_by(2);
    pairs
        .map(|at| {
            frame
                .get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<_>>()
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let steps = vec![
            vec![vec![0, 1, 0xff], vec![]],
            vec![],
            vec![vec![0x5a; 1514]],
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent.json");
        Traffic::new(&steps).write(&path).unwrap();
        assert_eq!(Traffic::read(&path).unwrap().frames().unwrap(), steps);
        assert!(Traffic(vec![vec!["0x".to_owned()]]).frames().is_err());
        assert!(Traffic(vec![vec!["012".to_owned()]]).frames().is_err());
    }
}
