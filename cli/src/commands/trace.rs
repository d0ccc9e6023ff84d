//! `atmctl trace`: the decisions on single frames, as they are made.

use std::time::Duration;

use proto::v1;
use proto::v1::trace_reply::Event;
use tonic::{Status, Streaming};

use super::READ_TIMEOUT;
use crate::args::{Format, Global, Trace};
use crate::client;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::json::{Missed, TracedFrame};
use crate::output::{self, printable};

pub(super) async fn run(global: &Global, arguments: &Trace) -> Result<(), Failure> {
    let begun = client::follow(global, READ_TIMEOUT, async |mut admin| {
        let client = arguments.client.map(|client| client.to_string());
        let request = v1::TraceRequest {
            vip: arguments.vip.to_string(),
            client: client.unwrap_or_default(),
            service: arguments.service.clone().unwrap_or_default(),
            local: arguments.local,
        };
        let mut replies = admin.trace(request).await?.into_inner();
        match replies.message().await?.and_then(|reply| reply.event) {
            Some(Event::Begun(atm)) => Ok((replies, atm)),
            Some(Event::Frame(_) | Event::Missed(_)) | None => {
                Err(Status::unavailable("the trace ended before it began"))
            }
        }
    });
    let ((replies, atm), endpoint) = begun.await?;
    output::say(format_args!(
        "decisions of {}; Ctrl-C ends",
        printable(&atm)
    ));
    let mut report = Report {
        format: global.output,
        headed: false,
        left: arguments.count,
    };
    tokio::select! {
        // The ATM sees that nobody reads any more.
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::Runtime),
        end = report.follow(replies, &endpoint) => end,
    }
}

/// What is said of a trace.
struct Report {
    format: Format,
    headed: bool,
    /// Decisions that are wanted yet; `None`: all.
    left: Option<u64>,
}

impl Report {
    async fn follow(
        &mut self,
        mut replies: Streaming<v1::TraceReply>,
        endpoint: &Endpoint,
    ) -> Result<(), Failure> {
        loop {
            let reply = replies.message().await;
            let reply = reply.map_err(|status| client::broken(endpoint, &status))?;
            let Some(reply) = reply else {
                return Err(Failure::Unavailable {
                    endpoint: endpoint.clone(),
                    why: "its packet path has ended, and the trace with it".to_owned(),
                });
            };
            let listening = match reply.event {
                Some(Event::Frame(frame)) => {
                    let listening = self.frame(TracedFrame::from(*frame))?;
                    self.left = self.left.map(|left| left - 1);
                    listening
                }
                Some(Event::Missed(missed)) => self.missed(missed)?,
                // Something that a later version tells.
                Some(Event::Begun(_)) | None => true,
            };
            if self.left == Some(0) || !listening {
                return Ok(());
            }
        }
    }

    /// `false`: nobody listens any more.
    fn frame(&mut self, frame: TracedFrame) -> Result<bool, Failure> {
        let Format::Table = self.format else {
            return output::print_line_json(&frame);
        };
        if !self.headed {
            self.headed = true;
            let titles = ["TIME", "WHAT", "VERDICT", "SERVICE", "SERVER", "WHY"];
            if !output::print_line(&row(titles))? {
                return Ok(false);
            }
        }
        output::print_line(&row([
            &time_of_day(frame.at_unix_ns),
            &printable(&frame.summary),
            &printable(&frame.verdict),
            &printable(frame.service.as_deref().unwrap_or("-")),
            &printable(frame.server.as_deref().unwrap_or("-")),
            &printable(&frame.why),
        ]))
    }

    /// `false`: nobody listens any more.
    fn missed(&self, missed: u64) -> Result<bool, Failure> {
        match self.format {
            Format::Json => output::print_line_json(&Missed { missed }),
            Format::Table => output::print_line(&format!(
                "{:<15}  {missed} decisions are not told: they came too fast",
                "-"
            )),
        }
    }
}

/// Columns of fixed width, since nobody knows what comes next; a long cell pushes the rest aside.
fn row([time, what, verdict, service, server, why]: [&str; 6]) -> String {
    format!("{time:<15}  {what:<56}  {verdict:<20}  {service:<12}  {server:<12}  {why}")
}

/// The time of day, UTC, to the microsecond.
fn time_of_day(unix_ns: u64) -> String {
    let since = Duration::from_nanos(unix_ns);
    let seconds = since.as_secs() % 86_400;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{hours:02}:{minutes:02}:{seconds:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_that_of_greenwich() {
        for (seconds, nanos, text) in [
            (0, 0, "00:00:00.000000"),
            (1_700_000_000, 123_456_789, "22:13:20.123456"),
            (86_399, 999_999_999, "23:59:59.999999"),
        ] {
            assert_eq!(time_of_day(seconds * 1_000_000_000 + nanos), text);
        }
    }
}
