//! Lines and blocks over one TCP connection, each with a deadline: servers and clients share it.
//!
//! Invariant: no call outlives its deadline, and the buffer never holds more than a line and one read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest line in bytes, its end included. RFC 5321 §4.5.3.1.6 asks for 1000, RFC 2683 §3.2.1.5 advises IMAP
/// servers to take 8000; the next power of two holds both.
pub const LINE_BYTES_MAX: usize = 8192;

/// Bytes of an overlong line that are skipped in search of its end before the connection is given up.
const SKIPPED_BYTES_MAX: usize = 1 << 20;

/// One read from the socket: holds several pipelined commands or eleven Ethernet frames.
const READ_BYTES: usize = 16 * 1024;

/// A peer that takes no byte for this long is gone; it only keeps a thread.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);

/// Why a line or block did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the deadline passed")]
    Deadline,
    /// The line was skipped to its end: the next one can be read.
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("a line does not end within {SKIPPED_BYTES_MAX} bytes")]
    LineEndless,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A line without its end.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) bytes: Vec<u8>,
    /// The line ended in LF alone instead of CRLF.
    pub(crate) bare: bool,
}

impl Line {
    /// The line as text; bytes that are not UTF-8 become U+FFFD, which no command holds.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// One connection with its read buffer.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: Arc<TcpStream>) -> Result<Self, WireError> {
        stream.set_nonblocking(false)?;
        // Replies are whole: waiting for more to send only delays the peer.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// The next line, until `by`.
    pub(crate) fn line(&mut self, by: Instant) -> Result<Line, WireError> {
        let mut searched = 0;
        loop {
            let unseen = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                return self.take_line(searched + at);
            }
            searched = self.buffer.len();
            if searched >= LINE_BYTES_MAX {
                return Err(self.skip_line(by));
            }
            self.fill(by)?;
        }
    }

    /// Exactly `length` bytes, until `by`; the caller bounds `length`.
    pub(crate) fn block(&mut self, length: usize, by: Instant) -> Result<Vec<u8>, WireError> {
        while self.buffer.len() < length {
            self.fill(by)?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Whether there is something to read within `wait`.
    pub(crate) fn readable_within(&mut self, wait: Duration) -> Result<bool, WireError> {
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        match self.fill(Instant::now() + wait) {
            Ok(()) => Ok(true),
            Err(WireError::Deadline) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends all of `bytes`; a peer that stalls longer than a minute is an error.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.send_by(bytes, None)
    }

    /// Sends all of `bytes`, at the latest until `by`.
    pub(crate) fn send_by(&mut self, bytes: &[u8], by: Option<Instant>) -> Result<(), WireError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let wait = match by {
                Some(by) => left(by)?.min(WRITE_STALL_MAX),
                None => WRITE_STALL_MAX,
            };
            self.stream.set_write_timeout(Some(wait))?;
            match (&*self.stream).write(rest) {
                Ok(0) => return Err(WireError::Closed),
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(error)),
            }
        }
        Ok(())
    }

    fn take_line(&mut self, newline: usize) -> Result<Line, WireError> {
        let rest = self.buffer.split_off(newline + 1);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        if bytes.len() > LINE_BYTES_MAX {
            return Err(WireError::LineTooLong);
        }
        bytes.pop();
        let bare = bytes.last() != Some(&b'\r');
        if !bare {
            bytes.pop();
        }
        Ok(Line { bytes, bare })
    }

    fn skip_line(&mut self, by: Instant) -> WireError {
        let mut skipped = 0;
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                self.buffer.drain(..=at);
                return WireError::LineTooLong;
            }
            skipped += self.buffer.len();
            self.buffer.clear();
            if skipped > SKIPPED_BYTES_MAX {
                return WireError::LineEndless;
            }
            if let Err(error) = self.fill(by) {
                return error;
            }
        }
    }

    fn fill(&mut self, by: Instant) -> Result<(), WireError> {
        self.stream.set_read_timeout(Some(left(by)?))?;
        let mut chunk = [0; READ_BYTES];
        match (&*self.stream).read(&mut chunk) {
            Ok(0) => Err(WireError::Closed),
            Ok(got) => {
                self.buffer
                    .extend_from_slice(chunk.get(..got).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(named(error)),
        }
    }
}

/// The time until `by`; never zero, which a socket would take for "wait for ever".
fn left(by: Instant) -> Result<Duration, WireError> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(WireError::Deadline)
    } else {
        Ok(left.max(Duration::from_millis(1)))
    }
}

fn named(error: io::Error) -> WireError {
    // A socket timeout comes as either, depending on the system.
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return WireError::Deadline;
    }
    WireError::Io(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (
            Wire::new(Arc::new(ours)).unwrap(),
            listener.accept().unwrap().0,
        )
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn lines_and_blocks_come_out_as_they_went_in() {
        let (mut wire, mut peer) = pair();
        peer.write_all(b"one\r\ntwo\n\r\nblock").unwrap();
        let line = wire.line(soon()).unwrap();
        assert_eq!(
            (line.bytes.as_slice(), line.bare),
            (b"one".as_slice(), false)
        );
        let line = wire.line(soon()).unwrap();
        assert_eq!(
            (line.bytes.as_slice(), line.bare),
            (b"two".as_slice(), true)
        );
        assert!(wire.line(soon()).unwrap().bytes.is_empty());
        assert_eq!(wire.block(5, soon()).unwrap(), b"block");
        drop(peer);
        assert!(matches!(wire.line(soon()), Err(WireError::Closed)));
    }

    #[test]
    fn an_overlong_line_is_skipped_and_the_next_one_read() {
        let (mut wire, mut peer) = pair();
        let writer = std::thread::spawn(move || {
            peer.write_all(&vec![b'x'; 3 * LINE_BYTES_MAX]).unwrap();
            peer.write_all(b"\r\nnext\r\n").unwrap();
            peer
        });
        assert!(matches!(wire.line(soon()), Err(WireError::LineTooLong)));
        assert_eq!(wire.line(soon()).unwrap().bytes, b"next");
        writer.join().unwrap();
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (mut wire, _peer) = pair();
        let begun = Instant::now();
        let by = begun + Duration::from_millis(50);
        assert!(matches!(wire.line(by), Err(WireError::Deadline)));
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
