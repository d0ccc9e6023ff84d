//! How fast a profile takes over, and how still it keeps under load. The result is one JSON object on stdout. Needs root.
//!
//!     profile steady --time 600 --load 2                     takeovers that nobody needed, in ten minutes
//!     profile takeover --fault crash --trials 20             outages as the client sees them
//!
//! Both take `--heartbeat-ms`, `--lost` and `--ordinary` (no real-time scheduling); without them it is the fast profile.
//! `steady` exits with 1 if there was a takeover.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use chaos_tests::cluster::{
    Blow, Cluster, ClusterError, FAST_HEARTBEAT, FAST_LOST, Profile, SETTLE_MAX, Steady, Trouble,
    steady, unix_of_boottime,
};
use chaos_tests::lab::Fault;
use chaos_tests::observer::{Kind, Observer};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Connections that last, and new ones a second: some frame leaves the active ATM every millisecond or so.
const LINES: usize = 40;
const OPENINGS: u32 = 100;

/// So much of the old ATM's frames is seen before the fault that the last of them is among them.
const LEAD_IN: Duration = Duration::from_millis(100);

/// Nobody is asked anything for so long after a fault: programs that start would take the processors it needs.
const UNDISTURBED: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct ProfileArgs {
    /// HeartBeatDelay [default: 20]
    #[arg(long, global = true)]
    heartbeat_ms: Option<u64>,
    /// MaxLostHeartbeats [default: 4]
    #[arg(long, global = true)]
    lost: Option<u32>,
    /// Ordinary scheduling, no locked memory
    #[arg(long, global = true)]
    ordinary: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Counts takeovers while nothing happens but load
    Steady {
        /// Seconds
        #[arg(long, default_value_t = 600)]
        time: u64,
        /// Busy loops
        #[arg(long, default_value_t = 2)]
        load: usize,
        /// Their niceness
        #[arg(long, default_value_t = 0)]
        nice: u8,
    },
    /// Strikes the active ATM again and again
    Takeover {
        /// What happens to it
        #[arg(long, value_enum, default_value_t = Strike::Crash)]
        fault: Strike,
        /// How often
        #[arg(long, default_value_t = 20)]
        trials: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Strike {
    /// Silent cut, then kill -9: no reset reaches anybody
    Crash,
    /// kill -9: its kernel resets its connections
    Kill,
    /// SIGSTOP
    Stop,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("profile: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, ClusterError> {
    let args = &cli.profile;
    let heartbeat = args
        .heartbeat_ms
        .map_or(FAST_HEARTBEAT, Duration::from_millis);
    let lost = args.lost.unwrap_or(FAST_LOST);
    let profile = Profile::new(3, 3, heartbeat, lost, !args.ordinary)?;
    match cli.command {
        Command::Steady { time, load, nice } => {
            let wanted = Steady {
                time: Duration::from_secs(time),
                load,
                nice,
            };
            let report = steady(&profile, &wanted)?;
            println!("{}", json(&report));
            Ok(if report.takeovers == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Takeover { fault, trials } => {
            let report = takeovers(&profile, fault, trials)?;
            println!("{}", json(&report));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// All times in milliseconds.
#[derive(Serialize)]
struct Report {
    fault: Strike,
    heartbeat_and_lost: String,
    trials: usize,
    /// From the last frame of the struck ATM to the first of its successor.
    outage: Spread,
    /// The same in parts.
    elected: Spread,
    begun: Spread,
    table: Spread,
    waited: Spread,
    first_frame: Spread,
    lines_unbroken: bool,
}

#[derive(Serialize)]
struct Spread {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

fn takeovers(profile: &Profile, fault: Strike, trials: usize) -> Result<Report, ClusterError> {
    let cluster = Cluster::start_with(profile.builder())?;
    let lines = cluster.lines(LINES)?;
    let churn = cluster.churn(OPENINGS, 1)?;
    let mut times: [Vec<f64>; 6] = Default::default();
    for _ in 0..trials {
        cluster.wait_until_all_flow(&lines, SETTLE_MAX)?;
        let trial = strike(&cluster, fault)?;
        eprintln!("{trial:.1?}");
        for (all, one) in times.iter_mut().zip(trial) {
            all.push(one);
        }
    }
    drop(churn);
    let lines_unbroken = lines.finish(SETTLE_MAX).is_unbroken();
    let [outage, elected, begun, table, waited, first_frame] = times.map(spread);
    Ok(Report {
        fault,
        heartbeat_and_lost: profile
            .conf
            .lines()
            .filter(|line| line.contains("HeartBeatDelay") || line.contains("MaxLostHeartbeats"))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(", "),
        trials,
        outage,
        elected,
        begun,
        table,
        waited,
        first_frame,
        lines_unbroken,
    })
}

/// One fault and its end: the outage, and its parts.
fn strike(cluster: &Cluster, fault: Strike) -> Result<[f64; 6], ClusterError> {
    let (before, status) = cluster.active()?;
    let observer = Observer::start(cluster.lab())?;
    let lab = cluster.lab();
    thread::sleep(LEAD_IN);
    match fault {
        Strike::Crash => {
            lab.fault(Fault::Cut, &before)?;
            lab.fault(Fault::Kill, &before)?;
        }
        Strike::Kill => lab.fault(Fault::Kill, &before)?,
        Strike::Stop => lab.fault(Fault::Stop, &before)?,
    }
    thread::sleep(UNDISTURBED);
    let others = cluster.others(&before);
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let name = cluster.name_of(&before)?;
    let after = cluster.wait_for("another active ATM", &others, SETTLE_MAX, |now| {
        now.epoch > status.epoch
            && now.tenure.is_some_and(|tenure| tenure.epoch == now.epoch)
            && now.active.as_ref().is_some_and(|active| *active != name)
    })?;
    let successor = cluster.host_of(after.active.as_deref().unwrap_or_default())?;
    let events = observer.stop().events;
    let frames = |host: &str| {
        let mac = lab.host(host).map(|host| host.mac());
        mac.map(|mac| {
            let mut times = events
                .iter()
                .filter(|event| event.source == mac && event.kind == Kind::Tunnelled)
                .map(|event| event.at)
                .collect::<Vec<_>>();
            times.sort_unstable();
            times
        })
    };
    let last = frames(&before)?.last().copied().unwrap_or_default();
    let first = frames(&successor)?.first().copied().unwrap_or_default();
    let mut parts = [0.0; 6];
    parts[0] = ms(last, first);
    if let Some(tenure) = after.tenure {
        let marks = [
            tenure.leader_at_ns,
            tenure.begun_at_ns,
            tenure.table_at_ns,
            tenure.claimed_at_ns,
        ]
        .map(unix_of_boottime);
        let mut from = last;
        for (part, mark) in parts[1..].iter_mut().zip(marks.into_iter().chain([first])) {
            *part = ms(from, mark);
            from = mark;
        }
    }
    if fault == Strike::Crash {
        lab.fault(Fault::Heal, &before)?;
    }
    let trouble = if fault == Strike::Stop {
        Trouble::Stop
    } else {
        Trouble::Kill
    };
    cluster.mend(&Blow {
        trouble,
        before,
        epoch: status.epoch,
        after: successor,
        status: after,
    })?;
    Ok(parts)
}

fn ms(from: u64, to: u64) -> f64 {
    Duration::from_nanos(to.saturating_sub(from)).as_secs_f64() * 1e3
}

fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let part = |of_100: usize| {
        let last = values.len().saturating_sub(1);
        values
            .get((values.len() * of_100 / 100).min(last))
            .copied()
            .unwrap_or_default()
    };
    Spread {
        min: part(0),
        median: part(50),
        p99: part(99),
        max: part(100),
    }
}

fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report)
        .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
