//! Availability as a client sees it: a connection through the VIP every few milliseconds, from the SYN to the server's
//! welcome. Each one is given up soon, so that the end of an outage is seen at once and not at the next repeated SYN.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::history::monotonic_ns;
use crate::lab::enter;

/// How long a probe waits. Longer than a held SYN ever takes in a cluster that works, shorter than the first repeated SYN.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// A greeting that asks for no lines within the life of a probe.
const HELLO: &[u8] = b"HELLO probe 60000\n";

/// How an answer begins.
const WELCOME: &[u8] = b"WELCOME ";

/// One probe that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Its number, from 0.
    pub number: u64,
    /// When the SYN was sent: nanoseconds of the monotonic clock.
    pub begun_ns: u64,
    /// When it was answered or given up.
    pub ended_ns: u64,
    /// Whether the server's welcome came.
    pub answered: bool,
}

/// A running series of probes. It ends when it is dropped.
pub struct Probes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probes {
    /// Probes `address` from the network namespace `namespace` every `interval`, and tells `hear` of each probe.
    ///
    /// # Errors
    /// The namespace or the thread cannot be had.
    pub fn start(
        namespace: &str,
        address: SocketAddr,
        interval: Duration,
        hear: impl FnMut(Probed) + Send + 'static,
    ) -> io::Result<Self> {
        let namespace = namespace.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = mpsc::channel();
        let work = move || {
            let begun = enter(&namespace)
                .map_err(io::Error::other)
                .and_then(|()| Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?));
            match begun {
                Ok(epoll) => {
                    let _ = ready.send(Ok(()));
                    Series {
                        address,
                        interval,
                        epoll,
                        under_way: BTreeMap::new(),
                        hear,
                    }
                    .run(&stopped);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new()
            .name("probes".to_owned())
            .spawn(work)?;
        is_ready
            .recv()
            .map_err(|_| io::Error::other("the thread ended at once"))??;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Series<H> {
    address: SocketAddr,
    interval: Duration,
    epoll: OwnedFd,
    /// By number, hence by age. At most [`PATIENCE`] / interval.
    under_way: BTreeMap<u64, Probe>,
    hear: H,
}

struct Probe {
    stream: TcpStream,
    begun: Instant,
    begun_ns: u64,
    greeted: bool,
    /// How much of [`WELCOME`] has come.
    welcomed: usize,
}

impl<H: FnMut(Probed)> Series<H> {
    fn run(mut self, stop: &AtomicBool) {
        let mut due = Instant::now();
        let mut number = 0;
        let mut events = Vec::with_capacity(64);
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= due {
                self.begin(number);
                number += 1;
                // One that is late is not made up for: it would tell how busy this process is.
                due = (due + self.interval).max(now);
            }
            let wait = due.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(wait).ok();
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            // Interrupted by a signal is as good as nothing yet.
            let _ = epoll::wait(&self.epoll, room, timeout.as_ref());
            for event in &events {
                self.advance(event.data.u64());
            }
            self.give_up();
        }
    }

    fn begin(&mut self, number: u64) {
        let begun_ns = monotonic_ns();
        match open(self.address) {
            Ok(stream) => {
                let key = epoll::EventData::new_u64(number);
                let wanted = epoll::EventFlags::OUT | epoll::EventFlags::IN;
                let probe = Probe {
                    stream,
                    begun: Instant::now(),
                    begun_ns,
                    greeted: false,
                    welcomed: 0,
                };
                // Without being watched it is given up in time.
                let _ = epoll::add(&self.epoll, &probe.stream, key, wanted);
                self.under_way.insert(number, probe);
            }
            // No route, no port: as unavailable as it gets.
            Err(_) => (self.hear)(Probed {
                number,
                begun_ns,
                ended_ns: monotonic_ns(),
                answered: false,
            }),
        }
    }

    fn advance(&mut self, number: u64) {
        let Some(probe) = self.under_way.get_mut(&number) else {
            return;
        };
        let answered = match probe.advance(&self.epoll, number) {
            Ok(false) => return,
            Ok(true) => true,
            Err(_) => false,
        };
        self.end(number, answered);
    }

    fn give_up(&mut self) {
        while let Some((number, probe)) = self.under_way.first_key_value()
            && probe.begun.elapsed() >= PATIENCE
        {
            let number = *number;
            self.end(number, false);
        }
    }

    fn end(&mut self, number: u64, answered: bool) {
        if let Some(probe) = self.under_way.remove(&number) {
            (self.hear)(Probed {
                number,
                begun_ns: probe.begun_ns,
                ended_ns: monotonic_ns(),
                answered,
            });
        }
    }
}

impl Probe {
    /// Goes as far as it can; says whether it was welcomed.
    fn advance(&mut self, epoll: &OwnedFd, number: u64) -> io::Result<bool> {
        if !self.greeted {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.write(HELLO) {
                // The first bytes of a connection always find room.
                Ok(_) => self.greeted = true,
                Err(error) if is_momentary(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
            let key = epoll::EventData::new_u64(number);
            epoll::modify(epoll, &self.stream, key, epoll::EventFlags::IN)?;
        }
        let mut buffer = [0; 64];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if is_momentary(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        for byte in buffer.iter().take(length) {
            match WELCOME.get(self.welcomed) {
                Some(expected) if expected == byte => self.welcomed += 1,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => break,
            }
        }
        Ok(self.welcomed == WELCOME.len())
    }
}

fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}
