//! The nemesis at work, and connections that are opened right before each fault.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use super::live::{Live, UnderWay};
use crate::cluster::Cluster;
use crate::history::{FaultStart, Op, Recorder};
use crate::nemesis::{self, Edge, Report, Scene, Schedule, Stop};

/// How long before a fault connections are opened. Opening one takes a millisecond, so the fault strikes in their middle.
const BEFORE: Duration = Duration::from_millis(4);

/// Between two looks whether the nemesis is done.
const LOOK: Duration = Duration::from_millis(20);

/// Makes `schedule` happen to its end or to an interrupt. Everything is healed when this returns, or stands among what is missing.
pub(super) fn make(schedule: &Schedule, cluster: &Cluster, recorder: &Recorder, live: &mut Live) {
    let stop = Stop::new();
    let under_way = live.faults.clone();
    let outcome = thread::scope(|scope| {
        let scene = Scene::of(cluster);
        let stopped = stop.clone();
        let begun = Instant::now();
        let nemesis = scope.spawn(move || {
            let tell = |report: Report| note(&report, recorder, &under_way);
            nemesis::run(schedule, &scene, &stopped, &tell)
        });
        for (_, _, from_ms, _) in schedule.faults() {
            let at = begun + Duration::from_millis(from_ms);
            if live.watch_until(at.checked_sub(BEFORE).unwrap_or(at)) {
                break;
            }
            live.workloads.before_fault();
        }
        while !nemesis.is_finished() {
            if live.watch_until(Instant::now() + LOOK) {
                stop.stop();
                break;
            }
        }
        nemesis.join()
    });
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    for (id, why) in outcome.unmended {
        live.missing
            .push(format!("fault {id} was not undone: {why}"));
    }
    for what in outcome.healed.failed {
        live.missing.push(format!("not healed: {what}"));
    }
    for host in outcome.healed.restarted {
        live.missing
            .push(format!("atmd on {host} had ended by itself; see its log"));
    }
    for (id, why) in outcome.missed {
        recorder.fact(Op::Mark {
            text: format!("fault {id} did not strike: {why}"),
        });
    }
}

/// Writes a fault's begin or end into the history.
fn note(report: &Report, recorder: &Recorder, under_way: &UnderWay) {
    let id = u64::from(report.id.0);
    let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
    match report.edge {
        Edge::Begin if report.error.is_some() => {}
        Edge::Begin => {
            let hosts = report.resolved.iter().flat_map(|resolved| &resolved.hosts);
            let hosts: Vec<&str> = hosts.map(String::as_str).collect();
            let name = report.fault.strike().name();
            let target = hosts.join(" ");
            under_way.insert(id, format!("{name} {target}"));
            let start = FaultStart {
                id,
                fault: name.to_owned(),
                target,
                with: BTreeMap::from([("as".to_owned(), report.fault.to_string())]),
            };
            recorder.fact_at(report.t_ns, Op::FaultStart(Box::new(start)));
        }
        // The end of a fault that never began is none.
        Edge::End if under_way.remove(&id).is_none() => {}
        Edge::End => recorder.fact_at(report.done_ns, Op::FaultStop { id }),
    }
}
