//! One run of chaos: a lab, a cluster, workloads, faults; then everything is healed and demanded to work; then judged.
//!
//! A run leaves a folder, the [report](crate::report), with everything in it to judge it again or to make it happen again.

mod error;
mod interrupt;
mod judge;
mod live;
mod options;
mod progress;
mod trouble;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

pub use error::RunError;
pub use interrupt::Interrupt;
pub use judge::{HISTORY_FILE, Judgement, SCHEDULE_FILE, check, judge};
pub use options::{Faults, Options, UnknownFault};

use crate::cluster::{Cluster, fast_configuration};
use crate::equipment::Equipment;
use crate::history::{Op, Recorder};
use crate::lab::{ATMD, Lab, program};
use crate::nemesis::{Family, Schedule};
use crate::workload::{self, LOG_FILTER, Workloads};
use live::Live;
use progress::Screen;

/// Servers of every run: enough to tell a wrong one from the right one.
pub const SERVERS: usize = 3;

/// How long the cluster may take to be whole again when everything is healed. A TCP sender that met a long outage tries again late.
const HEALED_MAX: Duration = Duration::from_secs(60);

/// How long new connections are opened into the healed cluster.
const AFTER: Duration = Duration::from_secs(1);

/// Makes a run with `schedule` and judges it. The lab is down when this returns.
///
/// # Errors
/// The lab, the cluster or the report folder cannot be had.
pub fn run(
    options: &Options,
    schedule: &Schedule,
    interrupt: &Interrupt,
) -> Result<Judgement, RunError> {
    let report = &options.report;
    fs::create_dir_all(report).map_err(RunError::file("create", report))?;
    let file = report.join(SCHEDULE_FILE);
    fs::write(&file, schedule.to_json()).map_err(RunError::file("write", &file))?;
    let (missing, logs) = play(options, schedule, interrupt)?;
    judge(report, missing, &logs)
}

/// Everything but the judgement; returns what did not come true, and the logs.
fn play(
    options: &Options,
    schedule: &Schedule,
    interrupt: &Interrupt,
) -> Result<(Vec<String>, Vec<PathBuf>), RunError> {
    let report = &options.report;
    let families: Vec<Family> = schedule
        .faults()
        .iter()
        .map(|(_, fault, ..)| fault.family())
        .collect();
    let cluster = start(options, schedule, &families)?;
    let recorder = Recorder::create(&report.join(HISTORY_FILE))?;
    let time = Duration::from_millis(schedule.length_ms);
    let workloads = workload::Options {
        // An ATM with clocks of its own tells of leases in instants that nobody else shares.
        leases: !families.contains(&Family::Clock),
        ..workload::Options::new(schedule.seed, time)
    };
    let workloads = Workloads::start(cluster.lab(), &recorder, &workloads)?;
    let screen = Screen::new(time);
    let mut live = Live::new(workloads, screen, interrupt.clone());
    trouble::make(schedule, &cluster, &recorder, &mut live);
    recorder.fact(Op::Mark {
        text: "all healed".to_owned(),
    });
    demand(&cluster, &mut live);
    let mut missing = live.finish();
    recorder.finish()?;
    if interrupt.is_wanted() {
        missing.push("it was interrupted".to_owned());
    }
    let logs = logs(&cluster, &mut missing)?;
    Ok((missing, logs))
}

/// How TCP of clients and servers repeats itself: at least once a second, for minutes. By itself it waits ever longer, and a
/// connection would stay silent for a minute after a long outage, whatever the cluster does.
const TCP: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/tcp_rto_max_ms", "1000"),
    ("/proc/sys/net/ipv4/tcp_retries2", "250"),
];

fn start(options: &Options, schedule: &Schedule, families: &[Family]) -> Result<Cluster, RunError> {
    let conf = fast_configuration(options.atms, SERVERS)?;
    let settings = format!("log = {LOG_FILTER:?}\nlog_format = \"json\"\n");
    let mut builder = Lab::builder()
        .conf(conf)
        .rogue()
        .dir(options.report.join("lab"))
        .settings(settings);
    if schedule.needs_switch() {
        builder = builder.switch(schedule.seed);
    }
    let mut equipment = Equipment::default();
    if families.contains(&Family::Disk) || families.contains(&Family::Power) {
        equipment = Equipment::for_disk_faults();
    }
    equipment.faulty_clock = families.contains(&Family::Clock);
    let (daemon, env) = match &options.daemon {
        Some((daemon, env)) => (daemon.clone(), env.clone()),
        None => (program(ATMD)?, Vec::new()),
    };
    let cluster = Cluster::start_equipped(builder, &daemon, &env, &equipment)?;
    for host in cluster.lab().hosts().iter().filter(|host| !host.is_atm()) {
        host.in_netns(|| {
            for (path, value) in TCP {
                // An older kernel has no such bound: there a connection may stall for longer.
                let _ = fs::write(path, value);
            }
        })?;
    }
    Ok(cluster)
}

/// Everything is healed, so everything must work.
fn demand(cluster: &Cluster, live: &mut Live) {
    let hosts = cluster.atms();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let whole = cluster.wait_for(
        "an active ATM and backups that caught up",
        &hosts,
        HEALED_MAX,
        |status| status.active.is_some() && status.all_caught_up(),
    );
    if let Err(error) = whole {
        live.missing.push(error.to_string());
    }
    // What is opened into the healed cluster flows, too.
    live.workloads.before_fault();
    live.watch(AFTER);
    live.workloads.settle();
    if let Err(missing) = live.workloads.demand(HEALED_MAX) {
        live.missing.push(missing);
    }
}

/// The logs of all daemons. None of them may tell of a panic.
fn logs(cluster: &Cluster, missing: &mut Vec<String>) -> Result<Vec<PathBuf>, RunError> {
    let mut logs = Vec::new();
    for host in cluster.lab().hosts() {
        let log = host.log(ATMD);
        if !log.exists() {
            continue;
        }
        let file = File::open(&log).map_err(RunError::file("read", &log))?;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(RunError::file("read", &log))?;
            let line = String::from_utf8_lossy(&line);
            if line.contains("panicked at") {
                missing.push(format!("{} panicked: {line}", host.name()));
                break;
            }
        }
        logs.push(log);
    }
    Ok(logs)
}
