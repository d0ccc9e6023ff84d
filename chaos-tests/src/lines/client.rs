//! The checking side of the numbered lines: many connections, one thread, one epoll instance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::link::{Input, Link, raise_descriptor_limit};
use super::protocol::{FromClient, FromServer, interval_in_bounds, is_name};
use super::report::{ConnectionReport, LineEvent, LineKind, Report, Silence};
use super::sequence::Sequence;

/// Connections of one client; see the same limit of the server.
const CONNECTIONS_MAX: usize = 10_000;
/// Events that are kept, 24 to 32 bytes each: four minutes of 100 connections at 50 ms.
const EVENTS_MAX: usize = 1_000_000;
/// How soon the loop notices a new connection or the wish to finish.
const TURN_MAX: Duration = Duration::from_millis(5);
/// A sender that is this late (it was stopped) goes on from now instead of sending what it missed.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Reasons of failed openings that are kept.
const OPEN_FAILURES_MAX: usize = 10;

/// The time for events, in nanoseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a [`Client`] shall do.
#[derive(Clone)]
pub struct Options {
    /// Connections to open, at most 10,000.
    pub count: usize,
    /// Between two lines of one connection, in each direction: 1 ms to 1 min.
    pub interval: Duration,
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
            stall_max,
            prefix,
            clock: _,
        } = self;
        write!(
            f,
            "Options {{ {count} x {interval:?}, stall_max {stall_max:?}, prefix {prefix:?} }}"
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

/// All connections of a client and what was seen of them.
#[derive(Debug)]
struct Run {
    options: Options,
    connections: BTreeMap<u64, Connection>,
    due: BTreeSet<(Instant, u64)>,
    open_failures: Vec<String>,
    failed: usize,
    events: VecDeque<LineEvent>,
    events_dropped: u64,
    /// When the last line came on any connection, by both clocks.
    last_line: Option<(Instant, u64)>,
    longest_silence: Option<(Duration, Silence)>,
    finish_by: Option<Instant>,
    said_bye: bool,
    over: bool,
    ended_at: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    token: String,
    /// Gone once it is over.
    link: Option<Link>,
    server: Option<String>,
    due: Instant,
    sent: u64,
    lines: Sequence,
    acknowledgements: Sequence,
    foreign: u64,
    malformed: u64,
    last_line: Instant,
    longest_stall: Duration,
    said_bye: bool,
    ended: Option<Ended>,
}

#[derive(Debug)]
enum Ended {
    InOrder,
    Broken(String),
}

impl Run {
    fn new(mut options: Options) -> Self {
        options.interval = interval_in_bounds(options.interval);
        Self {
            options,
            connections: BTreeMap::new(),
            due: BTreeSet::new(),
            open_failures: Vec::new(),
            failed: 0,
            events: VecDeque::new(),
            events_dropped: 0,
            last_line: None,
            longest_silence: None,
            finish_by: None,
            said_bye: false,
            over: false,
            ended_at: None,
        }
    }

    fn wait(&self, now: Instant) -> Duration {
        self.due
            .first()
            .map_or(TURN_MAX, |(due, _)| due.saturating_duration_since(now))
            .min(TURN_MAX)
    }

    /// Connections that were welcomed, and those that never will be.
    fn openings(&self) -> (usize, usize) {
        let welcomed = self
            .connections
            .values()
            .filter(|connection| connection.server.is_some())
            .count();
        let hopeless =
            |connection: &&Connection| connection.server.is_none() && connection.ended.is_some();
        (
            welcomed,
            self.failed + self.connections.values().filter(hopeless).count(),
        )
    }

    fn take(
        &mut self,
        number: usize,
        outcome: io::Result<TcpStream>,
        epoll: &OwnedFd,
        now: Instant,
    ) {
        let key = number as u64;
        let token = format!("{}{number}", self.options.prefix);
        let link = outcome.and_then(|stream| Link::new(stream, key, epoll));
        match link {
            Ok(mut link) => {
                link.push(
                    &FromClient::Hello {
                        token: token.clone(),
                        interval: self.options.interval,
                    }
                    .to_string(),
                );
                let mut connection = Connection {
                    token,
                    link: Some(link),
                    server: None,
                    due: now + self.options.interval,
                    sent: 0,
                    lines: Sequence::default(),
                    acknowledgements: Sequence::default(),
                    foreign: 0,
                    malformed: 0,
                    last_line: now,
                    longest_stall: Duration::ZERO,
                    said_bye: false,
                    ended: None,
                };
                connection.flush(epoll);
                self.due.insert((connection.due, key));
                self.connections.insert(key, connection);
            }
            Err(error) => {
                self.failed += 1;
                if self.open_failures.len() < OPEN_FAILURES_MAX {
                    self.open_failures.push(format!("{token}: {error}"));
                }
            }
        }
    }

    /// Reads what came on a connection; says whether it was welcomed or ended by that.
    fn read(&mut self, key: u64, epoll: &OwnedFd, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(&key) else {
            return false;
        };
        let before = (connection.server.is_some(), connection.ended.is_some());
        let at_ns = (self.options.clock)();
        let came = connection.read(epoll, now);
        let after = (connection.server.is_some(), connection.ended.is_some());
        if !came.is_empty() {
            self.note_silence(now, at_ns);
            self.last_line = Some((now, at_ns));
        }
        for (kind, number) in came {
            if self.events.len() >= EVENTS_MAX {
                self.events.pop_front();
                self.events_dropped += 1;
            }
            let connection = u32::try_from(key).unwrap_or(u32::MAX);
            self.events.push_back(LineEvent {
                at_ns,
                connection,
                kind,
                number,
            });
        }
        before != after
    }

    /// Sends the lines that are due, or the goodbyes.
    fn tick(&mut self, epoll: &OwnedFd, now: Instant) {
        if self.finish_by.is_some() {
            if !self.said_bye {
                self.note_silence(now, (self.options.clock)());
                self.said_bye = true;
                self.due.clear();
            }
            self.connections
                .values_mut()
                .for_each(|connection| connection.say_bye(epoll));
            return;
        }
        while let Some((due, key)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, key));
            if let Some(connection) = self.connections.get_mut(&key)
                && connection.send(self.options.interval, epoll, now)
            {
                self.due.insert((connection.due, key));
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let Some(by) = self.finish_by else {
            return false;
        };
        now >= by
            || self
                .connections
                .values()
                .all(|connection| connection.ended.is_some())
    }

    fn report(&self, now: Instant) -> Report {
        let mut report = Report {
            connections: self.options.count,
            open_failures: self.open_failures.clone(),
            events_dropped: self.events_dropped,
            longest_silence: self.silence(now),
            ..Report::default()
        };
        for connection in self.connections.values() {
            connection.add_to(&mut report, self, now);
        }
        report
    }

    /// Silence counts from the first line, and as long as lines are asked for.
    fn note_silence(&mut self, now: Instant, now_ns: u64) {
        let Some((last, from_ns)) = self.last_line.filter(|_| !self.said_bye) else {
            return;
        };
        let silence = now.saturating_duration_since(last);
        if self
            .longest_silence
            .is_none_or(|(longest, _)| silence > longest)
        {
            self.longest_silence = Some((
                silence,
                Silence {
                    from_ns,
                    to_ns: now_ns,
                },
            ));
        }
    }

    /// The longest silence, also if it still lasts.
    fn silence(&self, now: Instant) -> Option<Silence> {
        let (last, from_ns) = self.last_line?;
        let open = now.saturating_duration_since(last);
        match self.longest_silence {
            Some((longest, silence)) if longest >= open || self.said_bye => Some(silence),
            _ => Some(Silence {
                from_ns,
                to_ns: (self.options.clock)(),
            }),
        }
    }
}

impl Connection {
    /// Reads what came, and says which numbered lines and acknowledgements it were.
    fn read(&mut self, epoll: &OwnedFd, now: Instant) -> Vec<(LineKind, u64)> {
        let Some(link) = &mut self.link else {
            return Vec::new();
        };
        let input = link.fill();
        let lines = link.lines();
        let mut came = Vec::new();
        match lines {
            Ok(lines) => {
                for line in lines {
                    self.longest_stall = self
                        .longest_stall
                        .max(now.saturating_duration_since(self.last_line));
                    self.last_line = now;
                    came.extend(self.line(&line));
                }
            }
            Err(error) => {
                self.malformed += 1;
                self.break_off(error.to_string());
            }
        }
        match input {
            Ok(Input::More) => self.flush(epoll),
            Ok(Input::End) => self.break_off("closed by the server".to_owned()),
            Err(error) => self.break_off(error.to_string()),
        }
        came
    }

    fn line(&mut self, line: &str) -> Option<(LineKind, u64)> {
        match FromServer::parse(line) {
            Some(FromServer::Numbered { token, number }) if token == self.token => {
                self.lines.take(number);
                return Some((LineKind::Line, number));
            }
            Some(FromServer::Numbered { .. }) => self.foreign += 1,
            Some(FromServer::Seen { number }) => {
                // An acknowledgement of what was not sent belongs to somebody else.
                if number >= self.sent {
                    self.foreign += 1;
                } else {
                    self.acknowledgements.take(number);
                    return Some((LineKind::Acknowledgement, number));
                }
            }
            Some(FromServer::Welcome { server }) if self.server.is_none() => {
                self.server = Some(server)
            }
            Some(FromServer::End { sent, .. }) if self.said_bye => {
                self.lines.end(sent);
                self.acknowledgements.end(self.sent);
                if let Some(link) = self.link.take() {
                    link.end();
                }
                self.ended.get_or_insert(Ended::InOrder);
            }
            Some(FromServer::Welcome { .. } | FromServer::End { .. }) | None => self.malformed += 1,
        }
        None
    }

    /// Sends the next line; says whether there will be another.
    fn send(&mut self, interval: Duration, epoll: &OwnedFd, now: Instant) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        if self.server.is_some() && link.has_room() {
            link.push(
                &FromClient::Numbered {
                    token: self.token.clone(),
                    number: self.sent,
                }
                .to_string(),
            );
            self.sent += 1;
            self.flush(epoll);
        }
        let next = self.due + interval;
        self.due = if now.saturating_duration_since(next) > LATE_MAX {
            now + interval
        } else {
            next
        };
        true
    }

    fn say_bye(&mut self, epoll: &OwnedFd) {
        if let Some(link) = self
            .link
            .as_mut()
            .filter(|_| self.server.is_some() && !self.said_bye)
        {
            self.said_bye = true;
            link.push(
                &FromClient::Bye {
                    token: self.token.clone(),
                    count: self.sent,
                }
                .to_string(),
            );
            self.flush(epoll);
        }
    }

    fn flush(&mut self, epoll: &OwnedFd) {
        if let Some(Err(error)) = self.link.as_mut().map(|link| link.flush(epoll)) {
            self.break_off(error.to_string());
        }
    }

    fn break_off(&mut self, cause: String) {
        self.link = None;
        self.ended.get_or_insert(Ended::Broken(cause));
    }

    fn add_to(&self, report: &mut Report, run: &Run, now: Instant) {
        let broken = matches!(self.ended, Some(Ended::Broken(_)));
        let in_order = matches!(self.ended, Some(Ended::InOrder));
        let unfinished = run.over && self.ended.is_none();
        let open_stall = if self.ended.is_none() {
            now.saturating_duration_since(self.last_line)
        } else {
            Duration::ZERO
        };
        let stall = self.longest_stall.max(open_stall);
        let one = ConnectionReport {
            token: self.token.clone(),
            server: self.server.clone(),
            alive: self.server.is_some() && !broken && !unfinished,
            lines_sent: self.sent,
            lines_acknowledged: self.acknowledgements.received() - self.acknowledgements.repeated(),
            lines_received: self.lines.received(),
            lost: self.lines.lost() + self.acknowledgements.lost(),
            repeated: self.lines.repeated() + self.acknowledgements.repeated(),
            out_of_order: self.lines.out_of_order() + self.acknowledgements.out_of_order(),
            longest_stall_ms: u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
            ended: match &self.ended {
                Some(Ended::InOrder) => Some("in order".to_owned()),
                Some(Ended::Broken(cause)) => Some(cause.clone()),
                None => unfinished.then(|| "no END before the deadline".to_owned()),
            },
        };
        report.opened += usize::from(self.server.is_some());
        report.alive += usize::from(one.alive);
        report.lines_sent += one.lines_sent;
        report.lines_acknowledged += one.lines_acknowledged;
        report.lines_received += one.lines_received;
        report.lost += one.lost;
        report.repeated += one.repeated;
        report.out_of_order += one.out_of_order;
        report.foreign += self.foreign;
        report.malformed += self.malformed;
        if !in_order {
            report.unacknowledged += self.sent.saturating_sub(one.lines_acknowledged);
        }
        report.resets += usize::from(broken);
        report.unfinished += usize::from(unfinished);
        report.stalled += usize::from(stall > run.options.stall_max);
        report.stalled_now += usize::from(open_stall > run.options.stall_max);
        if one.longest_stall_ms > report.longest_stall_ms || report.longest_stall_token.is_none() {
            report.longest_stall_ms = one.longest_stall_ms;
            report.longest_stall_token = Some(one.token.clone());
        }
        if let Some(server) = &self.server {
            *report.servers.entry(server.clone()).or_default() += 1;
        }
        report.per_connection.push(one);
    }
}
