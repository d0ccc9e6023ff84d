//! The checking side of the numbered lines: many connections, one thread, one epoll instance.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::link::raise_descriptor_limit;
use super::protocol::is_name;
use super::report::{LineEvent, Report};
use super::run::Run;

/// Connections of one client; see the same limit of the server.
const CONNECTIONS_MAX: usize = 10_000;

/// The time for events, in nanoseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a [`Client`] shall do.
#[derive(Clone)]
pub struct Options {
    /// Connections to open, at most 10,000.
    pub count: usize,
    /// Between two lines of one connection, in each direction: 1 ms to 1 min.
    pub interval: Duration,
    /// Between two lines of the server, where it differs from [`Self::interval`]: one side talks, the other one listens.
    pub server_interval: Option<Duration>,
    /// A connection on which nothing comes for longer has stalled.
    pub stall_max: Duration,
    /// First part of the connections' names, which end in their number; at most 40 of `[A-Za-z0-9._-]`.
    pub prefix: String,
    /// Gives events their time; [`realtime_ns`] by default.
    pub clock: Clock,
}

impl Options {
    /// `count` connections with a line per `interval` in each direction, stalled after 3 s of silence.
    #[must_use]
    pub fn new(count: usize, interval: Duration) -> Self {
        let stall_max = Duration::from_secs(3);
        Self {
            count,
            interval,
            server_interval: None,
            stall_max,
            prefix: "c".to_owned(),
            clock: Arc::new(realtime_ns),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            interval,
            server_interval,
            stall_max,
            prefix,
            clock: _,
        } = self;
        let server = server_interval.unwrap_or(*interval);
        write!(
            f,
            "Options {{ {count} x {interval:?}, server {server:?}, stall_max {stall_max:?}, prefix {prefix:?} }}"
        )
    }
}

/// `CLOCK_REALTIME` in nanoseconds since the epoch.
#[must_use]
pub fn realtime_ns() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A connector that opens plain TCP connections to `address`, waiting at most `timeout` for each.
pub fn tcp_connector(
    address: SocketAddr,
    timeout: Duration,
) -> impl Fn() -> io::Result<TcpStream> + Send + Sync {
    move || TcpStream::connect_timeout(&address, timeout)
}

/// Connections that send and check numbered lines in the background. Dropping it closes them at once.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    run: Mutex<Run>,
    /// Told after each connection that was opened or failed to, and when the loop is over.
    changed: Condvar,
}

impl Shared {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Starts to open the connections, one after the other by calling `connector`, and to send lines on each as soon
    /// as it is open. Returns at once; see [`Client::wait_open`].
    ///
    /// `connector` runs in a thread of its own, always the same: it may enter another network namespace there.
    ///
    /// # Errors
    /// `InvalidInput` for options out of their bounds; else what the system says.
    pub fn open<C>(options: Options, connector: C) -> io::Result<Self>
    where
        C: Fn() -> io::Result<TcpStream> + Send + 'static,
    {
        if options.count > CONNECTIONS_MAX
            || options.prefix.len() > 40
            || !is_name(&format!("{}0", options.prefix))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many connections, or a bad prefix",
            ));
        }
        raise_descriptor_limit();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let count = options.count;
        let shared = Arc::new(Shared {
            run: Mutex::new(Run::new(options)),
            changed: Condvar::new(),
        });
        // The opener waits when the loop falls behind: no heap of connections that nobody reads.
        let (opened, to_take) = sync_channel(16);
        let mut client = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        let opener = move || {
            for number in 0..count {
                if opened.send((number, connector())).is_err() {
                    return;
                }
            }
        };
        client.threads.push(
            thread::Builder::new()
                .name("lines-opener".to_owned())
                .spawn(opener)?,
        );
        let worker = move || work(&shared, &epoll, to_take);
        client.threads.push(
            thread::Builder::new()
                .name("lines-client".to_owned())
                .spawn(worker)?,
        );
        Ok(client)
    }

    /// Waits until every connection was welcomed or failed, at most for `deadline`; says whether all were welcomed.
    #[must_use]
    pub fn wait_open(&self, deadline: Duration) -> bool {
        let by = Instant::now() + deadline;
        let mut run = self.shared.run();
        loop {
            let (welcomed, failed) = run.openings();
            if welcomed + failed >= run.options.count || run.over {
                return welcomed == run.options.count;
            }
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            run = self
                .shared
                .changed
                .wait_timeout(run, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        self.shared.run().report(Instant::now())
    }

    /// The lines that came at or after `since_ns` of the clock, as far as they are kept (the last million).
    #[must_use]
    pub fn events_since(&self, since_ns: u64) -> Vec<LineEvent> {
        let run = self.shared.run();
        let from = run.events.partition_point(|event| event.at_ns < since_ns);
        run.events.iter().skip(from).copied().collect()
    }

    /// Sends no more lines, waits until each server has told what it saw, at most for `deadline`, closes in order and
    /// says how it went.
    #[must_use]
    pub fn finish(mut self, deadline: Duration) -> Report {
        self.shared.run().finish_by = Some(Instant::now() + deadline);
        // The opener may be waiting for a connection; its thread ends by itself once the loop is gone.
        if let Some(worker) = self.threads.pop() {
            let _ = worker.join();
        }
        let run = self.shared.run();
        run.report(run.ended_at.unwrap_or_else(Instant::now))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut run = self.shared.run();
        let now = Instant::now();
        run.finish_by = Some(run.finish_by.map_or(now, |by| by.min(now)));
    }
}

fn work(shared: &Shared, epoll: &OwnedFd, opened: Receiver<(usize, io::Result<TcpStream>)>) {
    let mut events = Vec::with_capacity(1024);
    loop {
        let wait = shared.run().wait(Instant::now());
        events.clear();
        let timeout = Timespec::try_from(wait).ok();
        if epoll::wait(
            epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        )
        .is_err()
        {
            // Interrupted by a signal, or out of memory: neither is cured by haste.
            thread::sleep(Duration::from_millis(1));
        }
        let mut run = shared.run();
        let now = Instant::now();
        let mut news = false;
        while let Ok((number, outcome)) = opened.try_recv() {
            run.take(number, outcome, epoll, now);
            news = true;
        }
        for event in &events {
            news |= run.read(event.data.u64(), epoll, now);
        }
        run.tick(epoll, now);
        if run.is_over(now) {
            run.over = true;
            run.ended_at = Some(now);
            // Closes what is still open.
            run.connections
                .values_mut()
                .for_each(|connection| connection.link = None);
            shared.changed.notify_all();
            return;
        }
        if news {
            shared.changed.notify_all();
        }
    }
}
