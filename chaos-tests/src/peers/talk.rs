//! Open connections through a takeover: half of them with a client that talks, half with a server that talks.
//!
//! Who talks matters: a router that finds the server by a hash of the client's packet can go on with a connection it never
//! heard of, until the server is the one who sends.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::lines::{Client, ConnectionReport, Options, Report};

/// Connections of each mode.
pub(super) const CONNECTIONS: usize = 50;

/// Between two lines of the side that talks.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);

/// The side that listens says nothing of its own for longer than any trial takes.
const SILENCE: Duration = Duration::from_secs(60);

/// Opening all of them, also where a first SYN is lost.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Lines that have to come before a connection counts as going on: one may have been under way.
const ENOUGH: u64 = 2;

/// Between two looks; each copies the state of every connection.
const PAUSE: Duration = Duration::from_millis(25);

/// What became of the connections of one mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Connections that were open when the fault came.
    pub open: usize,
    /// Those of them on which the talking goes on, no line lost, repeated or in the wrong order.
    pub alive: usize,
    /// The longest silence of each surviving connection: its median, in milliseconds. The 50 ms between two lines
    /// are part of it.
    pub stall_ms_median: Option<u64>,
    /// The longest of them.
    pub stall_ms_max: Option<u64>,
    /// How the first lost ones ended.
    pub ends: Vec<String>,
}

/// Connections of both modes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// The client sends lines, the server only acknowledges them.
    pub client_talks: Share,
    /// The server sends lines, the client says nothing.
    pub server_talks: Share,
}

/// Open connections.
pub(super) struct Talk {
    client: Client,
    server: Client,
}

impl Talk {
    /// Opens all of them.
    ///
    /// # Errors
    /// They are not all open in time.
    pub(super) fn open<C>(connector: C) -> io::Result<Self>
    where
        C: Fn() -> io::Result<TcpStream> + Clone + Send + 'static,
    {
        let talking = |prefix: &str, interval, server_interval| Options {
            prefix: prefix.to_owned(),
            server_interval: Some(server_interval),
            ..Options::new(CONNECTIONS, interval)
        };
        let talk = Self {
            client: Client::open(talking("c", INTERVAL, SILENCE), connector.clone())?,
            server: Client::open(talking("s", SILENCE, INTERVAL), connector)?,
        };
        for client in [&talk.client, &talk.server] {
            if !client.wait_open(OPEN_MAX) {
                let report = client.snapshot();
                return Err(io::Error::other(format!(
                    "{} of {CONNECTIONS} connections opened: {:?}",
                    report.opened, report.open_failures
                )));
            }
        }
        Ok(talk)
    }

    /// Waits until lines came on every connection that is not broken, at most until `by`; says whether they did.
    pub(super) fn wait_until_all_flow(&self, by: Instant) -> bool {
        let before = self.snapshot();
        loop {
            let now = self.snapshot();
            let flow = pairs(&before, &now).all(|(then, now)| is_over(now) || went_on(then, now));
            if flow || Instant::now() >= by {
                return flow;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Says what became of them: alive are those on which lines come from now on, at the latest `by`.
    pub(super) fn judge(&self, by: Instant) -> Shares {
        let before = self.snapshot();
        // The judgement stands when all that are not broken went on.
        while Instant::now() < by {
            let now = self.snapshot();
            if pairs(&before, &now).all(|(then, now)| is_over(now) || went_on(then, now)) {
                break;
            }
            thread::sleep(PAUSE);
        }
        let [client, server] = self.snapshot();
        Shares {
            client_talks: share(&before[0], &client),
            server_talks: share(&before[1], &server),
        }
    }

    fn snapshot(&self) -> [Report; 2] {
        [self.client.snapshot(), self.server.snapshot()]
    }
}

fn pairs<'a>(
    before: &'a [Report; 2],
    now: &'a [Report; 2],
) -> impl Iterator<Item = (&'a ConnectionReport, &'a ConnectionReport)> {
    before
        .iter()
        .zip(now)
        .flat_map(|(then, now)| then.per_connection.iter().zip(&now.per_connection))
}

fn is_over(now: &ConnectionReport) -> bool {
    now.ended.is_some()
}

/// Lines of the side that talks: acknowledged ones where that is the client, received ones where it is the server.
fn went_on(then: &ConnectionReport, now: &ConnectionReport) -> bool {
    let lines = |c: &ConnectionReport| c.lines_acknowledged + c.lines_received;
    lines(now) >= lines(then) + ENOUGH
}

fn share(before: &Report, now: &Report) -> Share {
    /// Enough to see what kind of end it was.
    const ENDS_MAX: usize = 3;
    let mut share = Share {
        open: now.opened,
        ..Share::default()
    };
    let mut stalls = Vec::new();
    for (then, now) in before.per_connection.iter().zip(&now.per_connection) {
        let faults = now.lost + now.repeated + now.out_of_order;
        if !is_over(now) && went_on(then, now) && faults == 0 {
            share.alive += 1;
            stalls.push(now.longest_stall_ms);
        } else if share.ends.len() < ENDS_MAX {
            let end = now.ended.clone().unwrap_or_else(|| {
                if faults > 0 {
                    format!("{faults} lines lost, repeated or out of order")
                } else {
                    "silent".to_owned()
                }
            });
            share.ends.push(end);
        }
    }
    stalls.sort_unstable();
    share.stall_ms_median = stalls.get(stalls.len() / 2).copied();
    share.stall_ms_max = stalls.last().copied();
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(lines: u64, stall: u64) -> ConnectionReport {
        ConnectionReport {
            lines_acknowledged: lines,
            longest_stall_ms: stall,
            alive: true,
            ..ConnectionReport::default()
        }
    }

    fn report(connections: Vec<ConnectionReport>) -> Report {
        Report {
            opened: connections.len(),
            per_connection: connections,
            ..Report::default()
        }
    }

    #[test]
    fn a_connection_is_alive_only_if_lines_go_on_without_fault() {
        let before = report(vec![connection(10, 0); 5]);
        let broken = ConnectionReport {
            ended: Some("closed by the server".to_owned()),
            ..connection(20, 0)
        };
        let wrong = ConnectionReport {
            lost: 1,
            ..connection(20, 0)
        };
        let now = report(vec![
            connection(12, 300),
            connection(30, 700),
            connection(11, 9000),
            broken,
            wrong,
        ]);
        let share = share(&before, &now);
        assert_eq!((share.open, share.alive), (5, 2));
        assert_eq!(
            (share.stall_ms_median, share.stall_ms_max),
            (Some(700), Some(700))
        );
        assert_eq!(
            share.ends,
            [
                "silent",
                "closed by the server",
                "1 lines lost, repeated or out of order"
            ]
        );
    }
}
