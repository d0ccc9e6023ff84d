//! One non-blocking connection with its two buffers, watched by an epoll instance.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use super::protocol::LINE_BYTES_MAX;

/// What may wait to be sent. Some 2000 lines: minutes of an outage at the usual intervals; then the sender pauses.
const OUTBOX_BYTES_MAX: usize = 64 * 1024;
/// Read per turn, so that one busy connection does not starve the others.
const READ_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    watched: epoll::EventFlags,
    key: u64,
}

/// What reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    More,
    /// The peer closed its side.
    End,
}

impl Link {
    /// Takes the connection over; events of it come as `key`.
    pub(super) fn new(stream: TcpStream, key: u64, epoll: &OwnedFd) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Each line is a measurement: it must leave at once.
        stream.set_nodelay(true)?;
        let watched = epoll::EventFlags::IN;
        epoll::add(epoll, &stream, epoll::EventData::new_u64(key), watched)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            watched,
            key,
        })
    }

    /// Reads once what is there.
    pub(super) fn fill(&mut self) -> io::Result<Input> {
        let mut chunk = [0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(Input::End),
            Ok(got) => {
                self.inbox
                    .extend_from_slice(chunk.get(..got).unwrap_or_default());
                Ok(Input::More)
            }
            Err(error) if is_momentary(&error) => Ok(Input::More),
            Err(error) => Err(error),
        }
    }

    /// The complete lines that were read, without their ends. A line longer than the protocol's is an error.
    pub(super) fn lines(&mut self) -> io::Result<Vec<String>> {
        let end = self
            .inbox
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let rest = self.inbox.split_off(end);
        let whole = std::mem::replace(&mut self.inbox, rest);
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        if self.inbox.len() > LINE_BYTES_MAX || lines.iter().any(|line| line.len() > LINE_BYTES_MAX)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is too long",
            ));
        }
        Ok(lines
            .into_iter()
            .map(|line| {
                String::from_utf8_lossy(line)
                    .trim_end_matches(['\r', '\n'])
                    .to_owned()
            })
            .collect())
    }

    /// Whether another line may be sent; a peer that takes nothing makes the sender pause.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < OUTBOX_BYTES_MAX
    }

    pub(super) fn push(&mut self, line: &str) {
        self.outbox.extend_from_slice(line.as_bytes());
    }

    /// Sends what can be sent, and asks to be told when more can be.
    pub(super) fn flush(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = self.outbox.get(sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_momentary(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.outbox.drain(..sent);
        let mut wanted = epoll::EventFlags::empty();
        // A peer that takes no answers gets no more questions read: that bounds the outbox.
        wanted.set(epoll::EventFlags::IN, self.has_room());
        wanted.set(epoll::EventFlags::OUT, !self.outbox.is_empty());
        if wanted != self.watched {
            epoll::modify(
                epoll,
                &self.stream,
                epoll::EventData::new_u64(self.key),
                wanted,
            )?;
            self.watched = wanted;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub(super) fn end(&self) {
        // The peer may be gone already, which comes to the same.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Lets this process have as many descriptors as it may: each connection is one.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With the old limit there are fewer connections, and each one refused is told.
    let _ = setrlimit(Resource::Nofile, limit);
}
