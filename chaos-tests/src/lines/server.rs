//! The serving side of the numbered lines: all connections in one thread and one epoll instance.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use serde::Serialize;

use super::link::{Input, Link, raise_descriptor_limit};
use super::protocol::{FromClient, FromServer, is_name};
use super::sequence::Sequence;

/// Connections at one time: half of what one process may usually open at most, some 3 kB each.
const CONNECTIONS_MAX: usize = 10_000;
/// A connection that has not said HELLO after this long is none of ours. Longer than any outage: a client whose HELLO met one
/// sends it again after up to as long as it lasted.
const HELLO_MAX: Duration = Duration::from_secs(120);
/// A connection whose peer acknowledges nothing for this long is given up: longer than any outage under test.
const UNACKNOWLEDGED_MS_MAX: u32 = 120_000;
/// How soon a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Connections taken in one turn, so that those that are open are not starved.
const ACCEPT_MAX: usize = 64;
/// A sender that is this late (it was stopped) goes on from now instead of sending what it missed.
const LATE_MAX: Duration = Duration::from_secs(1);

const LISTENER: u64 = 0;

/// Where to serve numbered lines.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Where to listen, e.g. 0.0.0.0:7000
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Name of this server, told to every client ([A-Za-z0-9._-], at most 64)
    #[arg(long)]
    pub name: String,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The name would not fit into a line.
    #[error("{0:?} cannot be the name of a server: use 1 to 64 of [A-Za-z0-9._-]")]
    Name(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// What the server saw so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServerStats {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were taken.
    pub accepted: u64,
    /// Connections refused because there were too many.
    pub refused: u64,
    /// Connections that said BYE.
    pub finished: u64,
    /// Connections that broke without BYE.
    pub broken: u64,
    /// Clients' lines that were seen.
    pub lines: u64,
    /// Clients' lines that never came although a later one or BYE did.
    pub lost: u64,
    /// Clients' lines that came more than once.
    pub repeated: u64,
    /// Clients' lines that came after a later one.
    pub out_of_order: u64,
    /// Connections closed for a line of another connection, or of no kind.
    pub wrong: u64,
}

/// Serves until the process is ended; prints one line to standard output when it listens.
///
/// # Errors
/// What keeps it from starting, see [`LinesError`].
pub fn serve(args: ServerArgs) -> Result<(), LinesError> {
    let mut server = Server::start(args)?;
    // Whoever started it may have stopped listening; that is no reason to stop serving.
    let _ = writeln!(io::stdout(), "listening lines {}", server.address);
    if let Some(thread) = server.thread.take() {
        let _ = thread.join();
    }
    Ok(())
}

/// A running server. Dropping it closes every connection.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    stats: Arc<Mutex<ServerStats>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the address and starts to serve in a thread of its own.
    ///
    /// # Errors
    /// See [`LinesError`].
    pub fn start(args: ServerArgs) -> Result<Self, LinesError> {
        if !is_name(&args.name) {
            return Err(LinesError::Name(args.name));
        }
        let failed = |source| LinesError::Listen {
            address: args.listen,
            source,
        };
        raise_descriptor_limit();
        let listener = TcpListener::bind(args.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let key = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, key, epoll::EventFlags::IN)
            .map_err(|error| failed(error.into()))?;
        let (stopping, stats) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let mut engine = Engine {
            name: args.name,
            listener,
            epoll,
            connections: BTreeMap::new(),
            due: BTreeSet::new(),
            next_key: LISTENER + 1,
            stats: ServerStats::default(),
        };
        let (stop, shared) = (Arc::clone(&stopping), Arc::clone(&stats));
        let run = move || {
            while !stop.load(Ordering::SeqCst) {
                engine.turn();
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = engine.stats();
            }
        };
        let thread = thread::Builder::new()
            .name("lines-server".to_owned())
            .spawn(run)
            .map_err(failed)?;
        Ok(Self {
            address,
            stopping,
            stats,
            thread: Some(thread),
        })
    }

    /// Where it listens: the real port, also if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw so far.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Engine {
    name: String,
    listener: TcpListener,
    epoll: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    /// When each connection sends its next line, or is given up for want of HELLO.
    due: BTreeSet<(Instant, u64)>,
    next_key: u64,
    /// Of connections that are over; see [`Engine::stats`].
    stats: ServerStats,
}

struct Connection {
    link: Link,
    due: Instant,
    hello: Option<Hello>,
    sent: u64,
    seen: Sequence,
    /// END was sent: only its delivery and the client's close are awaited.
    ending: bool,
}

struct Hello {
    token: String,
    interval: Duration,
}

/// Why a connection is over.
enum Over {
    Finished,
    Broken,
    Wrong,
}

impl Engine {
    /// Waits for the next thing to do, and does it.
    fn turn(&mut self) {
        let now = Instant::now();
        let wait = self
            .due
            .first()
            .map_or(STOP_CHECK, |(due, _)| due.saturating_duration_since(now))
            .min(STOP_CHECK);
        let mut events = Vec::with_capacity(1024);
        let timeout = Timespec::try_from(wait).ok();
        if epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        )
        .is_err()
        {
            // Interrupted by a signal, or out of memory: neither is cured by haste.
            thread::sleep(Duration::from_millis(1));
        }
        let now = Instant::now();
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(now),
                key => self.with(key, |connection, engine| {
                    connection.read(&engine.name, &engine.epoll, now)
                }),
            }
        }
        while let Some((due, key)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, key));
            self.with(key, |connection, engine| {
                connection.tick(&engine.epoll, now)
            });
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Out of descriptors, most likely: the listener stays readable, and this must not become a hot loop.
                Err(_) => return thread::sleep(Duration::from_millis(1)),
            };
            if self.connections.len() >= CONNECTIONS_MAX {
                self.stats.refused += 1;
                continue;
            }
            let key = self.next_key;
            self.next_key += 1;
            if let Ok(connection) = Connection::new(stream, key, &self.epoll, now) {
                self.stats.accepted += 1;
                self.due.insert((connection.due, key));
                self.connections.insert(key, connection);
            }
        }
    }

    fn with(&mut self, key: u64, act: impl FnOnce(&mut Connection, &Self) -> Result<(), Over>) {
        // It may be over since the event was queued.
        let Some(mut connection) = self.connections.remove(&key) else {
            return;
        };
        self.due.remove(&(connection.due, key));
        match act(&mut connection, self) {
            Ok(()) => {
                self.due.insert((connection.due, key));
                self.connections.insert(key, connection);
            }
            Err(over) => {
                match over {
                    Over::Finished => self.stats.finished += 1,
                    Over::Broken => self.stats.broken += 1,
                    Over::Wrong => self.stats.wrong += 1,
                }
                add(&mut self.stats, &connection.seen);
            }
        }
    }

    fn stats(&self) -> ServerStats {
        let mut stats = self.stats;
        stats.connections = self.connections.len();
        self.connections
            .values()
            .for_each(|connection| add(&mut stats, &connection.seen));
        stats
    }
}

fn add(stats: &mut ServerStats, seen: &Sequence) {
    stats.lines += seen.received();
    stats.lost += seen.lost();
    stats.repeated += seen.repeated();
    stats.out_of_order += seen.out_of_order();
}

impl Connection {
    fn new(stream: TcpStream, key: u64, epoll: &OwnedFd, now: Instant) -> io::Result<Self> {
        rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX)?;
        let link = Link::new(stream, key, epoll)?;
        Ok(Self {
            link,
            due: now + HELLO_MAX,
            hello: None,
            sent: 0,
            seen: Sequence::default(),
            ending: false,
        })
    }

    fn read(&mut self, name: &str, epoll: &OwnedFd, now: Instant) -> Result<(), Over> {
        let input = self.link.fill().map_err(|_| self.broken())?;
        for line in self.link.lines().map_err(|_| Over::Wrong)? {
            let line = FromClient::parse(&line).ok_or(Over::Wrong)?;
            match (line, &self.hello) {
                (FromClient::Hello { token, interval }, None) => {
                    self.hello = Some(Hello { token, interval });
                    self.due = now;
                    self.say(&FromServer::Welcome {
                        server: name.to_owned(),
                    });
                }
                (FromClient::Numbered { token, number }, Some(hello))
                    if token == hello.token && !self.ending =>
                {
                    self.seen.take(number);
                    self.say(&FromServer::Seen { number });
                }
                (FromClient::Bye { token, count }, Some(hello))
                    if token == hello.token && !self.ending =>
                {
                    self.seen.end(count);
                    self.ending = true;
                    let seen = self.seen.received();
                    self.say(&FromServer::End {
                        sent: self.sent,
                        seen,
                    });
                    self.due = now + HELLO_MAX;
                }
                // A second HELLO, a line before HELLO or after BYE, or one of another connection.
                _ => return Err(Over::Wrong),
            }
        }
        self.link.flush(epoll).map_err(|_| self.broken())?;
        if input == Input::End {
            Err(self.broken())
        } else {
            Ok(())
        }
    }

    fn tick(&mut self, epoll: &OwnedFd, now: Instant) -> Result<(), Over> {
        let Some(hello) = self.hello.as_ref().filter(|_| !self.ending) else {
            // Neither HELLO nor, after BYE, the client's close came in time.
            return Err(self.broken());
        };
        let next = self.due + hello.interval;
        self.due = if now.saturating_duration_since(next) > LATE_MAX {
            now + hello.interval
        } else {
            next
        };
        if self.link.has_room() {
            let line = FromServer::Numbered {
                token: hello.token.clone(),
                number: self.sent,
            };
            self.sent += 1;
            self.say(&line);
        }
        self.link.flush(epoll).map_err(|_| self.broken())
    }

    fn broken(&self) -> Over {
        if self.ending {
            Over::Finished
        } else {
            Over::Broken
        }
    }

    fn say(&mut self, line: &FromServer) {
        self.link.push(&line.to_string());
    }
}
