//! A lab whose owner is killed: the kernel, the janitor or the next start ends each of its parts.
//!
//! Alone in its file, since every start of a lab ends what killed owners left: another test beside it would do so too early.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chaos_tests::cluster::eventually;
use chaos_tests::lab::{Identity, Lab, Record, Signal, ready};

/// How long a killed process or namespace may take to be gone on a loaded machine.
const GONE_WAIT: Duration = Duration::from_secs(10);

/// Set for the copy of this test program that builds a lab and is then killed.
const VICTIM: &str = "ATM_LAB_TEST_VICTIM";

#[test]
fn nothing_is_left_after_the_owner_is_killed() {
    if !ready() {
        return;
    }
    if let Some(report) = std::env::var_os(VICTIM) {
        become_the_victim(Path::new(&report));
    }
    for janitor_dies_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report");
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "nothing_is_left_after_the_owner_is_killed",
                "--nocapture",
            ])
            .env(VICTIM, &report)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the victim's lab", GONE_WAIT, || report.exists()).unwrap();
        let text = fs::read_to_string(&report).unwrap();
        let (lab_dir, child) = text.split_once('\n').unwrap();
        let child = Identity::of(child.trim().parse().unwrap()).unwrap();
        let record = Record::read(&PathBuf::from(lab_dir).join("lab.json")).unwrap();
        let leader = record.processes[0].identity;
        assert!(leader.is_alive() && child.is_alive() && record.is_up());
        if janitor_dies_first {
            assert!(janitor_of(&record, victim.id()).signal(Signal::KILL));
        }

        victim.kill().unwrap();
        victim.wait().unwrap();
        eventually("the kernel kills the process", GONE_WAIT, || {
            !leader.is_alive()
        })
        .unwrap();
        if !janitor_dies_first {
            eventually("the janitor removes the namespaces", GONE_WAIT, || {
                !record.is_up()
            })
            .unwrap();
        }
        assert!(
            child.is_alive(),
            "what the process left behind waits for the next start"
        );
        drop(
            Lab::builder()
                .atms(1)
                .servers(1)
                .without_daemons()
                .start()
                .unwrap(),
        );
        eventually("the next start ends the rest", GONE_WAIT, || {
            !child.is_alive()
        })
        .unwrap();
        assert_eq!(record.remains(), [""; 0]);
    }
}

/// Builds a lab with a process that has a child, writes where to `report`, and waits to be killed.
fn become_the_victim(report: &Path) -> ! {
    let lab = Lab::builder()
        .atms(2)
        .servers(1)
        .client()
        .without_daemons()
        .start()
        .unwrap();
    let host = lab.host("atm1").unwrap();
    let script = "sleep 1000 & echo $!; wait";
    host.spawn("atmd", ["sh", "-c", script], &[]).unwrap();
    let log = host.log("atmd");
    eventually("the child's pid", GONE_WAIT, || {
        fs::read_to_string(&log).is_ok_and(|t| t.ends_with('\n'))
    })
    .unwrap();
    let child = fs::read_to_string(&log).unwrap();
    let fresh = report.with_extension("new");
    fs::write(&fresh, format!("{}\n{child}", lab.dir().display())).unwrap();
    fs::rename(fresh, report).unwrap();
    // Ends with its parent in any case: the pipe of standard input closes, or the signal comes.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::thread::sleep(GONE_WAIT * 3);
    panic!("nobody killed the victim");
}

fn janitor_of(record: &Record, owner: u32) -> Identity {
    let children = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == format!("PPid:\t{owner}"))
        });
    let mut janitors = children.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("lab-janitor") && line.contains(&record.prefix)
    });
    Identity::of(janitors.next().unwrap()).unwrap()
}
