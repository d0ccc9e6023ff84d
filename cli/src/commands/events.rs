//! `atmctl events`: what happened to servers, services and scripts.

use std::time::{Duration, UNIX_EPOCH};

use proto::v1;
use tonic::{Status, Streaming};

use super::READ_TIMEOUT;
use crate::args::{Events, Format, Global};
use crate::client::{self, Admin, Effect};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::json::{Event, Missed};
use crate::output::{self, printable};

pub(super) async fn run(global: &Global, arguments: &Events) -> Result<(), Failure> {
    let mut report = Report {
        format: global.output,
        headed: false,
    };
    if !arguments.follow {
        let kept = client::ask(global, Effect::Reads, READ_TIMEOUT, async |admin| {
            collect(admin, arguments).await
        });
        for page in kept.await? {
            if !report.page(page)? {
                break;
            }
        }
        return Ok(());
    }
    let begun = client::follow(global, READ_TIMEOUT, async |admin| {
        let mut pages = ask(admin, arguments).await?;
        // The first page comes at once.
        let first = pages.message().await?.unwrap_or_default();
        Ok((pages, first))
    });
    let ((pages, first), endpoint) = begun.await?;
    if !report.page(first)? {
        return Ok(());
    }
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::Runtime),
        end = report.follow(pages, &endpoint) => end,
    }
}

async fn ask(mut admin: Admin, arguments: &Events) -> Result<Streaming<v1::EventsReply>, Status> {
    let request = v1::EventsRequest {
        after: arguments.after,
        follow: arguments.follow,
    };
    Ok(admin.events(request).await?.into_inner())
}

/// All pages up to the end, of which an ATM that is not followed has few.
async fn collect(admin: Admin, arguments: &Events) -> Result<Vec<v1::EventsReply>, Status> {
    let mut pages = ask(admin, arguments).await?;
    let mut kept = Vec::new();
    while let Some(page) = pages.message().await? {
        kept.push(page);
    }
    Ok(kept)
}

struct Report {
    format: Format,
    headed: bool,
}

impl Report {
    async fn follow(
        &mut self,
        mut pages: Streaming<v1::EventsReply>,
        endpoint: &Endpoint,
    ) -> Result<(), Failure> {
        loop {
            let page = pages.message().await;
            match page.map_err(|status| client::broken(endpoint, &status))? {
                Some(page) => {
                    if !self.page(page)? {
                        return Ok(());
                    }
                }
                None => {
                    return Err(Failure::Unavailable {
                        endpoint: endpoint.clone(),
                        why: "it tells no more events: it is ending".to_owned(),
                    });
                }
            }
        }
    }

    /// `false`: nobody listens any more.
    fn page(&mut self, page: v1::EventsReply) -> Result<bool, Failure> {
        if page.missed > 0 {
            let missed = page.missed;
            let listening = match self.format {
                Format::Json => output::print_line_json(&Missed { missed })?,
                Format::Table => {
                    output::print_line(&format!("-  {missed} events are not kept any more"))?
                }
            };
            if !listening {
                return Ok(false);
            }
        }
        for event in page.events {
            if !self.event(&Event::from(event))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn event(&mut self, event: &Event) -> Result<bool, Failure> {
        let Format::Table = self.format else {
            return output::print_line_json(event);
        };
        if !self.headed {
            self.headed = true;
            let titles = ["NUMBER", "TIME", "EVENT", "SERVER", "SERVICE", "TEXT"];
            if !output::print_line(&row(titles))? {
                return Ok(false);
            }
        }
        output::print_line(&row([
            &event.number.to_string(),
            &time(event.at_unix_ms),
            &printable(&event.kind),
            &printable(event.server.as_deref().unwrap_or("-")),
            &printable(event.service.as_deref().unwrap_or("-")),
            &printable(&event.text),
        ]))
    }
}

/// Columns that are wide enough for what usually stands in them: rows come one by one.
fn row([number, time, kind, server, service, text]: [&str; 6]) -> String {
    format!("{number:>6}  {time:<24}  {kind:<14}  {server:<10}  {service:<10}  {text}")
}

/// Date and time as in the logs of atmd (RFC 3339, UTC), to the millisecond.
pub(crate) fn time(unix_ms: u64) -> String {
    /// The end of the year 9999, beyond which RFC 3339 cannot write.
    const MS_END: u64 = 253_402_300_800_000;
    if unix_ms == 0 || unix_ms >= MS_END {
        return "-".to_owned();
    }
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_not_known_is_a_dash() {
        assert_eq!(time(0), "-");
        assert_eq!(time(u64::MAX), "-");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
