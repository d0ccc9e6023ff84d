//! All connections of one client: what is due, what came, and what it adds up to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::client::Options;
use super::connection::Connection;
use super::link::Link;
use super::protocol::{FromClient, interval_in_bounds};
use super::report::{LineEvent, Report, Silence};
use super::sequence::Sequence;

/// Events that are kept, 24 to 32 bytes each: four minutes of 100 connections at 50 ms.
const EVENTS_MAX: usize = 1_000_000;
/// How soon the loop notices a new connection or the wish to finish.
const TURN_MAX: Duration = Duration::from_millis(5);
/// Reasons of failed openings that are kept.
const OPEN_FAILURES_MAX: usize = 10;

/// All connections of a client and what was seen of them.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) options: Options,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) due: BTreeSet<(Instant, u64)>,
    pub(super) open_failures: Vec<String>,
    pub(super) failed: usize,
    pub(super) events: VecDeque<LineEvent>,
    pub(super) events_dropped: u64,
    /// When the last line came on any connection, by both clocks.
    pub(super) last_line: Option<(Instant, u64)>,
    pub(super) longest_silence: Option<(Duration, Silence)>,
    pub(super) finish_by: Option<Instant>,
    pub(super) said_bye: bool,
    pub(super) over: bool,
    pub(super) ended_at: Option<Instant>,
}

impl Run {
    pub(super) fn new(mut options: Options) -> Self {
        options.interval = interval_in_bounds(options.interval);
        options.server_interval = options.server_interval.map(interval_in_bounds);
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

    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due
            .first()
            .map_or(TURN_MAX, |(due, _)| due.saturating_duration_since(now))
            .min(TURN_MAX)
    }

    /// Connections that were welcomed, and those that never will be.
    pub(super) fn openings(&self) -> (usize, usize) {
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

    pub(super) fn take(
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
                        interval: self
                            .options
                            .server_interval
                            .unwrap_or(self.options.interval),
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
    pub(super) fn read(&mut self, key: u64, epoll: &OwnedFd, now: Instant) -> bool {
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
    pub(super) fn tick(&mut self, epoll: &OwnedFd, now: Instant) {
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

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let Some(by) = self.finish_by else {
            return false;
        };
        now >= by
            || self
                .connections
                .values()
                .all(|connection| connection.ended.is_some())
    }

    pub(super) fn report(&self, now: Instant) -> Report {
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
    pub(super) fn note_silence(&mut self, now: Instant, now_ns: u64) {
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
    pub(super) fn silence(&self, now: Instant) -> Option<Silence> {
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
