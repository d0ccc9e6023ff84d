//! Short connections without end: what somebody meets who connects just now.
//!
//! Each one connects, says HELLO, exchanges a few numbered lines and says BYE. Everything is written down as one
//! JSON object per line, so a checker can ask whether a connection that was opened was ever broken.

use std::io::{self, BufWriter, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Clock;
use super::protocol::{FromClient, FromServer, is_name};
use crate::mail::wire::{Wire, WireError};

/// Connections at one time: each is a thread.
const IN_FLIGHT_MAX: usize = 256;
/// Connections per second: above that one process measures itself.
const RATE_MAX: u32 = 5_000;
/// An opening that is this late is skipped: it would tell how busy this process is.
const LATE_MAX: Duration = Duration::from_millis(500);
/// Latencies that are kept for the percentiles, 4 bytes each.
const LATENCIES_MAX: usize = 1_000_000;
/// How soon a stop is noticed.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// Between two lines of the server, in milliseconds.
const INTERVAL: Duration = Duration::from_millis(2);

/// What a [`Churn`] shall do.
#[derive(Clone)]
pub struct ChurnOptions {
    /// Openings per second, 1 to 5000.
    pub rate: u32,
    /// Openings that may be under way at one time, 1 to 256; when all are, further ones are skipped and counted.
    pub in_flight: usize,
    /// Lines in each direction per connection.
    pub lines: u64,
    /// How long each connection may take after it was opened. The connector bounds the opening itself.
    pub talk_max: Duration,
    /// First part of the connections' names; at most 40 of `[A-Za-z0-9._-]`.
    pub prefix: String,
    /// Gives records their time.
    pub clock: Clock,
}

impl ChurnOptions {
    /// `rate` openings per second, 3 lines each way, 64 at a time, 5 s for each.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let clock = Arc::new(super::client::realtime_ns);
        Self {
            rate,
            in_flight: 64,
            lines: 3,
            talk_max: Duration::from_secs(5),
            prefix: "churn".to_owned(),
            clock,
        }
    }
}

/// The outcome of a churn.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChurnReport {
    /// Openings that were tried.
    pub opens: u64,
    /// Openings that were answered: the client got its SYN-ACK.
    pub opened: u64,
    /// Openings that were refused (by a reset).
    pub refused: u64,
    /// Openings of which nothing is known: no answer, or an unreachable network.
    pub unanswered: u64,
    /// Openings that were skipped because too many were under way.
    pub skipped: u64,
    /// Opened connections whose lines all came, once and in order.
    pub talks_ok: u64,
    /// Opened connections that were reset, closed early, or showed a wrong line.
    pub talks_broken: u64,
    /// Opened connections that were not done in time.
    pub talks_unanswered: u64,
    /// Time from the call of the connector to its return, of those opened, in microseconds: the least.
    pub open_us_min: u32,
    /// The median.
    pub open_us_median: u32,
    /// 99 of 100 took no longer.
    pub open_us_p99: u32,
    /// The longest.
    pub open_us_max: u32,
    /// What kept the history from being written whole.
    pub history_error: Option<String>,
}

/// A running generator of short connections. Dropping it stops it.
#[derive(Debug)]
pub struct Churn {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Churn {
    /// Starts to open connections by calling `connector` from several threads, and writes their history to
    /// `history`: one JSON object per line with `time_ns`, `process`, `id`, `f` (`open` or `talk`), `type`
    /// (`invoke`, `ok`, `fail`, `info`) and, where known, `latency_us`, `server`, `error`. `fail` means that it
    /// certainly did not happen, `info` that nobody knows.
    ///
    /// # Errors
    /// `InvalidInput` for options out of their bounds; else what the system says.
    pub fn start<C, W>(options: ChurnOptions, connector: C, history: W) -> io::Result<Self>
    where
        C: Fn() -> io::Result<TcpStream> + Send + Sync + 'static,
        W: Write + Send + 'static,
    {
        let fits = (1..=RATE_MAX).contains(&options.rate)
            && (1..=IN_FLIGHT_MAX).contains(&options.in_flight);
        if !fits || options.prefix.len() > 40 || !is_name(&options.prefix) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "rate, in_flight or prefix out of bounds",
            ));
        }
        let in_flight = options.in_flight;
        let shared = Arc::new(Shared {
            options,
            connector: Box::new(connector),
            begun: Instant::now(),
            next: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            seen: Mutex::new(Seen {
                report: ChurnReport::default(),
                latencies: Vec::new(),
                history: BufWriter::new(Box::new(history)),
            }),
        });
        let mut churn = Self {
            shared,
            workers: Vec::new(),
        };
        for process in 0..in_flight {
            let shared = Arc::clone(&churn.shared);
            let worker = thread::Builder::new().name(format!("churn-{process}"));
            churn
                .workers
                .push(worker.spawn(move || shared.work(process))?);
        }
        Ok(churn)
    }

    /// How things stand.
    #[must_use]
    pub fn snapshot(&self) -> ChurnReport {
        self.shared.seen(|seen| seen.report())
    }

    /// Opens no more, waits for those under way, writes the history out and says how it went.
    #[must_use]
    pub fn finish(mut self) -> ChurnReport {
        self.stop();
        self.shared.seen(|seen| {
            if let Err(error) = seen.history.flush() {
                seen.report.history_error.get_or_insert(error.to_string());
            }
            seen.report()
        })
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Shared {
    options: ChurnOptions,
    connector: Box<dyn Fn() -> io::Result<TcpStream> + Send + Sync>,
    begun: Instant,
    next: AtomicU64,
    stopping: AtomicBool,
    seen: Mutex<Seen>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared {{ next: {:?} }}", self.next)
    }
}

struct Seen {
    report: ChurnReport,
    latencies: Vec<u32>,
    history: BufWriter<Box<dyn Write + Send>>,
}

#[derive(Serialize)]
struct Record<'a> {
    time_ns: u64,
    process: usize,
    id: u64,
    f: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// How an exchange of lines failed.
enum Fault {
    /// The connection was broken or something wrong came.
    Broken(String),
    /// It was not done in time.
    Unanswered(String),
}

impl Shared {
    fn work(&self, process: usize) {
        while !self.stopping.load(Ordering::SeqCst) {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let due = self.begun
                + Duration::from_secs(1).mul_f64(id as f64 / f64::from(self.options.rate));
            if due.elapsed() > LATE_MAX {
                self.seen(|seen| seen.report.skipped += 1);
                continue;
            }
            while !self.stopping.load(Ordering::SeqCst) && due > Instant::now() {
                thread::sleep(
                    due.saturating_duration_since(Instant::now())
                        .min(STOP_CHECK),
                );
            }
            if !self.stopping.load(Ordering::SeqCst) {
                self.one(process, id);
            }
        }
    }

    fn one(&self, process: usize, id: u64) {
        let record = |f, kind| Record {
            time_ns: (self.options.clock)(),
            process,
            id,
            f,
            kind,
            latency_us: None,
            server: None,
            error: None,
        };
        self.seen(|seen| {
            seen.report.opens += 1;
            seen.write(&record("open", "invoke"));
        });
        let begun = Instant::now();
        let outcome = (self.connector)();
        let latency_us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        let stream = match outcome {
            Ok(stream) => stream,
            Err(error) => {
                // A reset is an answer; everything else may still come to be on the other side.
                let refused = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                );
                let text = error.to_string();
                return self.seen(|seen| {
                    let kind = if refused { "fail" } else { "info" };
                    *(if refused {
                        &mut seen.report.refused
                    } else {
                        &mut seen.report.unanswered
                    }) += 1;
                    seen.write(&Record {
                        error: Some(&text),
                        ..record("open", kind)
                    });
                });
            }
        };
        self.seen(|seen| {
            seen.report.opened += 1;
            if seen.latencies.len() < LATENCIES_MAX {
                seen.latencies.push(latency_us);
            }
            seen.write(&Record {
                latency_us: Some(latency_us),
                ..record("open", "ok")
            });
            seen.write(&record("talk", "invoke"));
        });
        let outcome = self.talk(stream, &format!("{}{id}", self.options.prefix));
        self.seen(|seen| match &outcome {
            Ok(server) => {
                seen.report.talks_ok += 1;
                seen.write(&Record {
                    server: Some(server),
                    ..record("talk", "ok")
                });
            }
            Err(Fault::Broken(error)) => {
                seen.report.talks_broken += 1;
                seen.write(&Record {
                    error: Some(error),
                    ..record("talk", "fail")
                });
            }
            Err(Fault::Unanswered(error)) => {
                seen.report.talks_unanswered += 1;
                seen.write(&Record {
                    error: Some(error),
                    ..record("talk", "info")
                });
            }
        });
    }

    /// Exchanges the lines and says who served them.
    fn talk(&self, stream: TcpStream, token: &str) -> Result<String, Fault> {
        let by = Instant::now() + self.options.talk_max;
        let owned = || token.to_owned();
        let mut wire = Wire::new(Arc::new(stream))?;
        let mut opening = FromClient::Hello {
            token: owned(),
            interval: INTERVAL,
        }
        .to_string();
        for number in 0..self.options.lines {
            opening.push_str(
                &FromClient::Numbered {
                    token: owned(),
                    number,
                }
                .to_string(),
            );
        }
        wire.send_by(opening.as_bytes(), Some(by))?;
        let (mut server, mut lines, mut seen, mut said_bye) = (None, 0, 0, false);
        loop {
            let text = wire.line(by)?.text();
            match FromServer::parse(&text) {
                Some(FromServer::Welcome { server: name }) if server.is_none() => {
                    server = Some(name)
                }
                Some(FromServer::Numbered {
                    token: whose,
                    number,
                }) if whose == token && number == lines => lines += 1,
                Some(FromServer::Seen { number }) if number == seen => seen += 1,
                Some(FromServer::End { sent, .. })
                    if said_bye && sent == lines && seen == self.options.lines =>
                {
                    return server.ok_or_else(|| Fault::Broken("END without WELCOME".to_owned()));
                }
                _ => return Err(Fault::Broken(format!("a wrong line: {text:?}"))),
            }
            if !said_bye && lines >= self.options.lines {
                said_bye = true;
                let bye = FromClient::Bye {
                    token: owned(),
                    count: self.options.lines,
                };
                wire.send_by(bye.to_string().as_bytes(), Some(by))?;
            }
        }
    }

    fn seen<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Deadline => Self::Unanswered(error.to_string()),
            WireError::Closed
            | WireError::LineTooLong
            | WireError::LineEndless
            | WireError::Io(_) => Self::Broken(error.to_string()),
        }
    }
}

impl Seen {
    fn write(&mut self, record: &Record<'_>) {
        let written = serde_json::to_writer(&mut self.history, record).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| self.history.write_all(b"\n")) {
            self.report.history_error.get_or_insert(error.to_string());
        }
    }

    fn report(&self) -> ChurnReport {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let part = |of_100: usize| {
            sorted
                .get((sorted.len() * of_100 / 100).min(sorted.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        ChurnReport {
            open_us_min: part(0),
            open_us_median: part(50),
            open_us_p99: part(99),
            open_us_max: part(100),
            ..self.report.clone()
        }
    }
}
