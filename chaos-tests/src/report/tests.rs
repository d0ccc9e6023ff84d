//! A run made up, written and read again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::*;
use crate::checkers::check_all;
use crate::history::{
    Contradiction, Event, FaultStart, HARNESS, Kind, Lease, Observation, Op, Probe, Speech, Tenure,
    TwoVoices, Voice,
};

const MS: u64 = 1_000_000;
/// A run does not begin when the machine does.
const START: u64 = 5_000_000 * MS;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);

/// 30 seconds with four faults, each of which moves the VIP to the next of three ATMs.
fn history() -> History {
    let faults = [
        ("kill", 4000, 7000, 181),
        ("stop", 11_000, 13_000, 215),
        ("cut-peers", 17_000, 20_000, 143),
        ("kill", 24_000, 26_500, 240),
    ];
    let mut events = Vec::new();
    let mut fact = |at: u64, op: Op| {
        events.push(Event {
            t_ns: START + at * MS,
            process: HARNESS,
            kind: Kind::Info,
            op,
        })
    };
    fact(
        0,
        Op::Mark {
            text: "load begins".to_owned(),
        },
    );
    let mut since = 0;
    for (epoch, index) in (1..=5_u64).zip(0_usize..) {
        let atm = format!("atm{}", (epoch - 1) % 3 + 1);
        let until = faults.get(index).map_or(30_000, |fault| fault.1);
        let begin = START + since * MS;
        fact(
            since,
            Op::Tenure(Box::new(Tenure {
                atm: atm.clone(),
                epoch,
                index: epoch * 100,
                applied_ns: begin.saturating_sub(20 * MS),
                table_index: epoch * 100,
                table_ns: begin.saturating_sub(15 * MS),
                claimed_ns: Some(begin),
                spoke_ns: Some(begin + MS),
            })),
        );
        fact(
            until,
            Op::Lease(Lease {
                atm: atm.clone(),
                epoch,
                from_ns: begin,
                until_ns: START + (until + 130) * MS,
                revoked_ns: None,
            }),
        );
        fact(
            until,
            Op::Voice(Box::new(Voice {
                vip: VIP,
                atm: atm.clone(),
                first_ns: begin + MS,
                last_ns: START + until * MS,
                first_claim_ns: Some(begin + MS),
                first_forward_ns: Some(begin + 2 * MS),
                last_forward_ns: Some(START + until * MS),
                frames: 5000,
            })),
        );
        if let Some((id, (fault, from, to, outage))) = (1_u64..).zip(faults).nth(index) {
            let with = BTreeMap::from([("signal".to_owned(), "<9>".to_owned())]);
            fact(
                from,
                Op::FaultStart(Box::new(FaultStart {
                    id,
                    fault: fault.to_owned(),
                    target: atm,
                    with,
                })),
            );
            fact(to, Op::FaultStop { id });
            since = from + outage;
        }
    }
    fact(
        29_999,
        Op::Observation(Observation {
            from_ns: START,
            frames: 25_000,
            overflow: 0,
            missed: 0,
            complete: true,
        }),
    );
    let away = |at: u64| {
        faults
            .iter()
            .any(|(_, from, _, outage)| (*from..from + outage).contains(&at))
    };
    for at in (0..30_000).step_by(5) {
        for (probe, latency) in [
            ("ping", 90_000 + at * 7919 % 60_000),
            ("connect", 700_000 + at * 104_729 % 900_000),
        ] {
            let (kind, latency_ns) = if away(at) {
                (Kind::Fail, 100 * MS)
            } else {
                (Kind::Ok, latency)
            };
            let probe = Probe {
                probe: probe.to_owned(),
                latency_ns,
            };
            events.push(Event {
                t_ns: START + at * MS + latency_ns,
                process: 0,
                kind,
                op: Op::Probe(probe),
            });
        }
    }
    events.sort_by_key(|event| event.t_ns);
    History { events }
}

fn report(dir: &Path, history: &History, logs: &[PathBuf]) -> String {
    let rules = Rules::default();
    let verdicts = crate::checkers::check_with(history, &rules);
    let index = write(
        dir,
        &Run {
            title: "A run & its <faults>",
            facts: &[("seed", "42".to_owned())],
            history,
            schedule: &serde_json::json!({"seed": 42}),
            verdicts: &verdicts,
            rules: &rules,
            logs,
        },
    );
    fs::read_to_string(index.unwrap()).unwrap()
}

/// REPORT_DIR=/some/where keeps the report to be looked at.
#[test]
fn a_report_has_everything_and_needs_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("REPORT_DIR").map(PathBuf::from);
    let dir = kept.unwrap_or_else(|| temporary.path().join("report"));
    let log = temporary.path().join("atmd.log");
    fs::write(&log, "hello").unwrap();
    let missing = temporary.path().join("gone.log");
    let history = history();
    assert!(check_all(&history).passed(), "{}", check_all(&history));
    let page = report(&dir, &history, &[log.clone(), log, missing]);
    for part in [
        "A run &amp; its &lt;faults&gt;",
        "Every promise that was looked at held.",
        "Fault 2: stop atm2",
        "seed",
        "not copied",
        "epoch 3",
        "median 190 ms",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // The namespace's name is the only address in it; nothing is fetched.
    assert!(
        !page
            .replace("http://www.w3.org/2000/svg", "")
            .contains("http")
    );
    assert!(!page.contains("<script") && !page.contains("NaN") && !page.contains("<9>"));
    let read = History::read(&dir.join("history.jsonl")).unwrap();
    assert_eq!(read, history);
    let verdicts: Verdicts =
        serde_json::from_slice(&fs::read(dir.join("verdicts.json")).unwrap()).unwrap();
    assert_eq!(verdicts, check_all(&history));
    assert_eq!(fs::read_dir(dir.join("logs")).unwrap().count(), 2);
}

#[test]
fn what_was_broken_stands_first_and_is_marked() {
    let temporary = tempfile::tempdir().unwrap();
    let mut history = history();
    let found = TwoVoices {
        vip: VIP,
        holder: "atm2".to_owned(),
        other: "atm1".to_owned(),
        how: Contradiction::Spoke(Speech::Tunnelled),
    };
    for at in 0..1000 {
        let t_ns = START + (5000 + at) * MS;
        history.events.push(Event {
            t_ns,
            process: HARNESS,
            kind: Kind::Info,
            op: Op::TwoVoices(Box::new(found.clone())),
        });
    }
    let dir = std::env::var_os("REPORT_DIR").map_or_else(
        || temporary.path().to_owned(),
        |dir| PathBuf::from(dir).join("broken"),
    );
    let page = report(&dir, &history, &[]);
    for part in [
        "A promise was broken.",
        "✗ violated",
        "atm1 speaks, atm2 holds",
        "and 980 more",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn an_empty_run_has_a_report_too() {
    let temporary = tempfile::tempdir().unwrap();
    let page = report(temporary.path(), &History::default(), &[]);
    assert!(page.contains("nothing to check"));
}

#[test]
fn only_the_end_of_a_long_log_is_copied() {
    let temporary = tempfile::tempdir().unwrap();
    let (from, to) = (temporary.path().join("long"), temporary.path().join("copy"));
    let file = File::create(&from).unwrap();
    file.set_len(LOG_BYTES_MAX + 5).unwrap();
    assert_eq!(copy_end(&from, &to).unwrap(), (LOG_BYTES_MAX, true));
}
