//! One connection of a client: what it sent, what came, and how it ended.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::link::{Input, Link};
use super::protocol::{FromClient, FromServer};
use super::report::{ConnectionReport, LineKind, Report};
use super::run::Run;
use super::sequence::Sequence;

/// A sender that is this late (it was stopped) goes on from now instead of sending what it missed.
const LATE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) token: String,
    /// Gone once it is over.
    pub(super) link: Option<Link>,
    pub(super) server: Option<String>,
    pub(super) due: Instant,
    pub(super) sent: u64,
    pub(super) lines: Sequence,
    pub(super) acknowledgements: Sequence,
    pub(super) foreign: u64,
    pub(super) malformed: u64,
    pub(super) last_line: Instant,
    pub(super) longest_stall: Duration,
    pub(super) said_bye: bool,
    pub(super) ended: Option<Ended>,
}

#[derive(Debug)]
pub(super) enum Ended {
    InOrder,
    Broken(String),
}

impl Connection {
    /// Reads what came, and says which numbered lines and acknowledgements it were.
    pub(super) fn read(&mut self, epoll: &OwnedFd, now: Instant) -> Vec<(LineKind, u64)> {
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

    pub(super) fn line(&mut self, line: &str) -> Option<(LineKind, u64)> {
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
    pub(super) fn send(&mut self, interval: Duration, epoll: &OwnedFd, now: Instant) -> bool {
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

    pub(super) fn say_bye(&mut self, epoll: &OwnedFd) {
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

    pub(super) fn flush(&mut self, epoll: &OwnedFd) {
        if let Some(Err(error)) = self.link.as_mut().map(|link| link.flush(epoll)) {
            self.break_off(error.to_string());
        }
    }

    pub(super) fn break_off(&mut self, cause: String) {
        self.link = None;
        self.ended.get_or_insert(Ended::Broken(cause));
    }

    pub(super) fn add_to(&self, report: &mut Report, run: &Run, now: Instant) {
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
