//! The traffic of the demo: 100 connections with numbered lines both ways, open to the end, and short connections that
//! come and go, so that a first packet is always on its way.

use std::fs::File;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::cluster::{LOOK, connect_in};
use super::error::DemoError;
use super::outcome::Connect;
use super::stage::Stage;
use crate::lab::{LINES_PORT, LabError, in_namespace};
use crate::lines::{Churn, ChurnOptions, Client, LineEvent, Options, Report};

/// Connections that stay open.
const CONNECTIONS: usize = 100;

/// Between two lines of one connection: together the connections send one each millisecond in each direction.
const LINE_INTERVAL: Duration = Duration::from_millis(100);

/// Opening them all takes milliseconds each at worst.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Connections that are opened to measure how long that takes.
const PROBES: usize = 200;

/// One in so many of them also goes straight to a server, for comparison.
const DIRECT_EVERY: usize = 4;

/// What the held first packet may cost at the median.
const CONNECT_MEDIAN_MAX_MS: f64 = 5.0;

/// Short connections per second. A first packet that is lost is sent again only after a second (RFC 6298 §2.1), so each
/// lost one needs another right behind it: this is how precisely the demo sees the end of an outage.
const CHURN_PER_SECOND: u32 = 50;

/// Of those, how many may be under way: those of an outage of two seconds.
const CHURN_IN_FLIGHT: usize = 100;

/// An opening whose first packet was lost is made good by a retransmission after 1 s or 3 s.
const CHURN_OPEN_MAX: Duration = Duration::from_secs(8);

/// A line under way when an outage begins is retransmitted after 0.2, 0.6, 1.4, 3.0 s.
const ANSWER_MAX: Duration = Duration::from_secs(6);

/// Ending in order takes one round trip for each connection.
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Everything that is sent through the VIP.
pub(super) struct Traffic {
    lines: Client,
    churn: Churn,
    judged: Faults,
}

/// What can go wrong with lines, counted since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    lost: u64,
    repeated: u64,
    out_of_order: u64,
    /// Lines of another connection or of no kind.
    wrong: u64,
}

impl Faults {
    fn of(report: &Report) -> Self {
        Self {
            lost: report.lost,
            repeated: report.repeated,
            out_of_order: report.out_of_order,
            wrong: report.foreign + report.malformed,
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            lost: self.lost - earlier.lost,
            repeated: self.repeated - earlier.repeated,
            out_of_order: self.out_of_order - earlier.out_of_order,
            wrong: self.wrong - earlier.wrong,
        }
    }
}

/// The act that begins it.
///
/// # Errors
/// What keeps the traffic from being started.
pub(super) fn act(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    let namespace = stage.cluster.client().to_owned();
    let to = stage.cluster.service(LINES_PORT);
    let options = Options {
        prefix: "demo".to_owned(),
        ..Options::new(CONNECTIONS, LINE_INTERVAL)
    };
    let inside = namespace.clone();
    let lines = Client::open(options, move || connect_in(&inside, to, OPEN_MAX))
        .map_err(LabError::io("open connections"))?;
    stage.say("opening them");
    // The outcome is in the report.
    let _ = lines.wait_open(OPEN_MAX);
    stage.cluster.interrupt.check()?;
    let report = lines.snapshot();
    let servers = report.servers.iter();
    let spread: Vec<_> = servers
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    stage.row(
        "connections with numbered lines",
        format!("{} of {CONNECTIONS} ({})", report.opened, spread.join(", ")),
        format!("{CONNECTIONS}"),
        report.opened == CONNECTIONS,
    );
    stage.say(&format!("timing {PROBES} more"));
    let connect = probe(stage, &namespace)?;
    stage.outcome.connect = Some(connect);
    stage.row(
        "time to connect (first packet held)",
        format!(
            "median {:.2} ms, p95 {:.2} (direct {:.2})",
            connect.median_ms, connect.p95_ms, connect.direct_median_ms
        ),
        format!("<= {CONNECT_MEDIAN_MAX_MS} ms"),
        connect.median_ms <= CONNECT_MEDIAN_MAX_MS,
    );
    let history = stage.cluster.lab.host("client")?.dir().join("churn.jsonl");
    let cannot = LabError::io(format!("write {}", history.display()));
    let history = File::create(&history).map_err(cannot)?;
    let options = ChurnOptions {
        in_flight: CHURN_IN_FLIGHT,
        talk_max: ANSWER_MAX,
        ..ChurnOptions::new(CHURN_PER_SECOND)
    };
    let opener = move || connect_in(&namespace, to, CHURN_OPEN_MAX);
    let churn = Churn::start(options, opener, history).map_err(LabError::io("open connections"))?;
    stage.traffic = Some(Traffic {
        lines,
        churn,
        judged: Faults::default(),
    });
    conversation(stage)?;
    stage.one_voice();
    stage.done(&format!(
        "{} open ({}); connect {:.2} ms at the median",
        report.opened,
        spread.join(", "),
        connect.median_ms
    ));
    Ok(())
}

/// Waits until everything that was sent so far is answered on every connection, and judges all lines since the last call.
///
/// # Errors
/// [`DemoError::Interrupted`].
pub(super) fn conversation(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    stage.say("waiting until every connection has answered");
    let interrupt = stage.cluster.interrupt.clone();
    let traffic = stage.traffic()?;
    let mark = traffic.lines.snapshot();
    let by = Instant::now() + ANSWER_MAX;
    let (report, answering) = loop {
        let report = traffic.lines.snapshot();
        let pairs = report.per_connection.iter().zip(&mark.per_connection);
        let answering = pairs.filter(|(now, then)| {
            now.alive
                && now.lines_acknowledged >= then.lines_sent
                && now.lines_received > then.lines_received
        });
        let answering = answering.count();
        if answering == CONNECTIONS || Instant::now() > by {
            break (report, answering);
        }
        interrupt.pause(LOOK)?;
    };
    let faults = Faults::of(&report);
    let new = faults.since(traffic.judged);
    if let Some(traffic) = &mut stage.traffic {
        traffic.judged = faults;
    }
    stage.row(
        "connections that live and answer",
        format!("{answering} of {CONNECTIONS}; {new}"),
        "all; none",
        answering == CONNECTIONS && new == Faults::default(),
    );
    Ok(())
}

/// Ends it and judges the whole of it.
pub(super) fn end(stage: &mut Stage<'_>, traffic: Traffic) {
    stage.say("closing the connections in order");
    let churn = traffic.churn.finish();
    let lines = traffic.lines.finish(FINISH_MAX);
    stage.row(
        "connections ended in order",
        format!("{} of {CONNECTIONS}; {}", lines.alive, Faults::of(&lines)),
        "all; none",
        lines.is_unbroken(),
    );
    stage.row(
        "lines sent and acknowledged; received",
        format!(
            "{}, {}; {}",
            lines.lines_sent, lines.lines_acknowledged, lines.lines_received
        ),
        "as many as sent",
        lines.lines_acknowledged == lines.lines_sent && lines.unacknowledged == 0,
    );
    let broken = churn.talks_broken + churn.talks_unanswered;
    let failed = churn.refused + churn.unanswered;
    stage.row(
        "connections opened meanwhile that broke",
        format!("{broken} of {}; {failed} could not be opened", churn.opened),
        "0 of some; 0",
        broken == 0 && failed == 0 && churn.opened > 0,
    );
    stage.outcome.lines = lines;
    stage.outcome.churn = churn;
}

impl Traffic {
    /// Lines that came since `since_ns` on the connections that stay open.
    pub(super) fn events_since(&self, since_ns: u64) -> Vec<LineEvent> {
        self.lines.events_since(since_ns)
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            lost,
            repeated,
            out_of_order,
            wrong,
        } = self;
        write!(
            f,
            "lines {lost} lost, {repeated} twice, {out_of_order} disordered, {wrong} wrong"
        )
    }
}

/// Opens [`PROBES`] connections one after the other.
fn probe(stage: &Stage<'_>, namespace: &str) -> Result<Connect, DemoError> {
    let to = stage.cluster.service(LINES_PORT);
    let direct = (stage.cluster.lab.host("serv1")?.address(), LINES_PORT).into();
    let interrupt = &stage.cluster.interrupt;
    let timed = |to| {
        let begun = Instant::now();
        TcpStream::connect_timeout(&to, OPEN_MAX)
            .map(|_| begun.elapsed().as_secs_f64() * 1e3)
            .map_err(LabError::io(format!("connect to {to} from the client")))
    };
    let (mut through, mut straight) = in_namespace(namespace, || {
        let (mut through, mut straight) = (Vec::new(), Vec::new());
        for number in 0..PROBES {
            interrupt.check()?;
            through.push(timed(to)?);
            if number % DIRECT_EVERY == 0 {
                straight.push(timed(direct)?);
            }
        }
        Ok::<_, DemoError>((through, straight))
    })??;
    through.sort_by(f64::total_cmp);
    straight.sort_by(f64::total_cmp);
    Ok(Connect {
        count: through.len(),
        median_ms: percentile(&through, 50),
        p95_ms: percentile(&through, 95),
        direct_median_ms: percentile(&straight, 50),
    })
}

/// The least of `sorted` that `percent` of it do not exceed; 0 of nothing.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        assert!((percentile(&[], 50) - 0.0).abs() < f64::EPSILON);
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert!((percentile(&values, 50) - 100.0).abs() < f64::EPSILON);
        assert!((percentile(&values, 95) - 190.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 95) - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn faults_of_one_act_are_those_since_the_last() {
        let report = |lost, repeated| Report {
            lost,
            repeated,
            foreign: 1,
            malformed: 2,
            ..Report::default()
        };
        let (first, second) = (Faults::of(&report(1, 0)), Faults::of(&report(3, 4)));
        assert_eq!(
            second.since(first).to_string(),
            "lines 2 lost, 4 twice, 0 disordered, 0 wrong"
        );
        assert_eq!(
            first.to_string(),
            "lines 1 lost, 0 twice, 0 disordered, 3 wrong"
        );
    }
}
