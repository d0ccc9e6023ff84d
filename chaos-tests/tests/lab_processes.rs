//! Processes of a lab: signals reach the right one, and nothing outlives the lab. A killed owner: `lab_owner_killed.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::cluster::eventually;
use chaos_tests::lab::{
    Condition, Fault, Identity, Lab, LabError, Signal, end_stale_labs, ready, registered,
    write_program,
};

/// How long a killed process or namespace may take to be gone on a loaded machine.
const GONE_WAIT: Duration = Duration::from_secs(10);

fn lab() -> Lab {
    Lab::builder()
        .atms(2)
        .servers(1)
        .client()
        .without_daemons()
        .start()
        .unwrap()
}

/// A process that stands in for the daemon, under its name.
fn stand_in(lab: &Lab, host: &str) -> Identity {
    let sleep = ["sleep", "1000"];
    lab.host(host)
        .unwrap()
        .spawn("atmd", sleep, &[])
        .unwrap()
        .identity
}

#[test]
fn faults_act_on_the_process_of_their_host() {
    if !ready() {
        return;
    }
    let lab = lab();
    let (first, second) = (stand_in(&lab, "atm1"), stand_in(&lab, "atm2"));
    let condition = |host| lab.condition(host, "atmd").unwrap();

    lab.fault(Fault::Stop, "atm1").unwrap();
    eventually("atm1 stopped", GONE_WAIT, || {
        condition("atm1") == Condition::Stopped
    })
    .unwrap();
    assert_eq!(condition("atm2"), Condition::Running);
    lab.fault(Fault::Cont, "atm1").unwrap();
    eventually("atm1 runs", GONE_WAIT, || {
        condition("atm1") == Condition::Running
    })
    .unwrap();

    lab.host("atm2").unwrap().signal(Signal::STOP).unwrap();
    lab.fault(Fault::Kill, "atm2").unwrap();
    assert_eq!(
        second.condition(),
        Condition::Dead,
        "a stopped process is killed as well"
    );
    assert_eq!(first.condition(), Condition::Running);
    let refused = lab.fault(Fault::Kill, "atm2").unwrap_err();
    assert!(matches!(refused, LabError::NotRunning { .. }), "{refused}");

    lab.fault(Fault::Restart, "atm2").unwrap();
    lab.fault(Fault::Restart, "atm1").unwrap();
    assert_eq!(first.condition(), Condition::Dead, "a restart kills first");
    for host in ["atm1", "atm2"] {
        assert_eq!(condition(host), Condition::Running, "{host}");
    }
    let refused = lab.fault(Fault::Kill, "serv1").unwrap_err();
    assert!(matches!(refused, LabError::NoProcess { .. }), "{refused}");
}

#[test]
fn a_process_gets_its_environment_and_log_and_its_name_once() {
    if !ready() {
        return;
    }
    let lab = lab();
    let host = lab.host("serv1").unwrap();
    let env = [("GREETING".to_owned(), "hello".to_owned())];
    let script = "echo $GREETING; echo oops >&2; ip -br -4 addr show dev eth0; exec sleep 1000";
    host.spawn("worker", ["sh", "-c", script], &env).unwrap();
    eventually("the log", GONE_WAIT, || {
        fs::read_to_string(host.log("worker")).is_ok_and(|text| {
            text.contains("hello\n") && text.contains("oops\n") && text.contains("10.1.0.11/24")
        })
    })
    .unwrap();
    let again = host.spawn("worker", ["true"], &[]).unwrap_err();
    assert!(matches!(again, LabError::AlreadyRunning { .. }), "{again}");
    let bad = host.spawn("../worker", ["true"], &[]).unwrap_err();
    assert!(matches!(bad, LabError::BadName(_)), "{bad}");
}

#[test]
fn processes_outlive_the_thread_that_asked_for_them() {
    if !ready() {
        return;
    }
    let lab = lab();
    let identity =
        std::thread::scope(|scope| scope.spawn(|| stand_in(&lab, "atm1")).join().unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(identity.condition(), Condition::Running);
}

#[test]
fn nothing_is_left_after_drop() {
    if !ready() {
        return;
    }
    let lab = lab();
    let record = lab.record();
    let direct = stand_in(&lab, "atm1");
    // A shell that dies leaves its child behind; the child is the lab's as well.
    let script = "sleep 1000 & echo $!; wait";
    let parent = lab
        .host("atm2")
        .unwrap()
        .spawn("parent", ["sh", "-c", script], &[])
        .unwrap();
    let log = lab.host("atm2").unwrap().log("parent");
    eventually("the child's pid", GONE_WAIT, || {
        fs::read_to_string(&log).is_ok_and(|t| t.ends_with('\n'))
    })
    .unwrap();
    let child = Identity::of(fs::read_to_string(&log).unwrap().trim().parse().unwrap()).unwrap();
    lab.kill("atm2", "parent").unwrap();
    assert!(child.is_alive());
    drop(lab);
    for identity in [direct, parent.identity, child] {
        eventually("all processes dead", GONE_WAIT, || !identity.is_alive()).unwrap();
    }
    assert_eq!(record.remains(), [""; 0]);
}

#[test]
fn a_failed_start_leaves_nothing() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::builder()
        .dir(dir.path())
        .without_daemons()
        .start()
        .unwrap();
    let refused = Lab::builder()
        .dir(dir.path())
        .without_daemons()
        .start()
        .err()
        .unwrap();
    assert!(matches!(refused, LabError::AlreadyUp { .. }), "{refused}");
    let record = lab.record();
    drop(lab);
    assert_eq!(record.remains(), [""; 0]);
    assert!(dir.path().exists(), "a directory that was given stays");
    assert!(matches!(Lab::open(dir.path()), Err(LabError::NoLab { .. })));
}

#[test]
fn another_process_may_steer_the_lab_by_its_directory() {
    if !ready() {
        return;
    }
    let lab = lab();
    let before = stand_in(&lab, "atm1");
    let run = |args: &[&str]| {
        let output = lab_program()
            .args(args)
            .arg("--dir")
            .arg(lab.dir())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!(run(&["fault", "restart", "atm1"]).0, Some(0));
    assert_eq!(before.condition(), Condition::Dead);
    assert_eq!(lab.condition("atm1", "atmd").unwrap(), Condition::Running);
    let after = lab.record().process("atm1", "atmd").unwrap().identity;

    let (code, text) = run(&["status", "--output", "json"]);
    assert_eq!(code, Some(0));
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["hosts"][0]["processes"][0]["pid"], after.pid);

    let code = lab_program()
        .args(["exec", "--dir"])
        .arg(lab.dir())
        .args(["client", "--", "sh", "-c", "exit 7"])
        .status()
        .unwrap();
    assert_eq!(code.code(), Some(7));
    drop(lab);
    eventually("the process another one started is dead", GONE_WAIT, || {
        !after.is_alive()
    })
    .unwrap();
}

#[test]
fn a_lab_that_is_up_stays_until_it_is_taken_down() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        lab_program()
            .args(args)
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .code()
    };
    assert_eq!(
        run(&["up", "--no-daemons", "--atms", "1", "--servers", "1"]),
        Some(0)
    );
    end_stale_labs();
    let record = Lab::open(dir.path()).unwrap().record();
    assert!(record.is_up() && record.persistent && !record.owner.is_alive());
    assert_eq!(
        run(&["up", "--no-daemons"]),
        Some(1),
        "the directory is taken"
    );
    fs::remove_file(dir.path().join("lab.json")).unwrap();
    assert_eq!(run(&["down"]), Some(0));
    assert_eq!(record.remains(), [""; 0]);
    assert_eq!(run(&["down"]), Some(69));
}

/// A directory with a shell script in place of the daemon.
fn programs(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("atmd");
    write_program(&file, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    dir
}

#[test]
fn daemons_of_a_lab_that_is_up_run_on_until_it_is_taken_down() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = programs("echo \"$@\"; exec sleep 1000");
    let run = |args: &[&str]| {
        let mut command = lab_program();
        command
            .args(args)
            .arg("--dir")
            .arg(dir.path())
            .env("ATM_BIN_DIR", programs.path());
        command.stdout(Stdio::null()).status().unwrap().code()
    };
    assert_eq!(run(&["up", "--atms", "2", "--servers", "1"]), Some(0));
    let lab = Lab::open(dir.path()).unwrap();
    let running = |host: &str| lab.condition(host, "atmd").unwrap() == Condition::Running;
    for host in ["atm1", "atm2", "serv1"] {
        assert!(running(host), "{host}");
        let said = fs::read_to_string(lab.host(host).unwrap().log("atmd")).unwrap();
        let config = lab.host(host).unwrap().dir().join("atmd.toml");
        assert_eq!(said, format!("--config {}\n", config.display()));
    }
    assert_eq!(run(&["fault", "kill", "atm1"]), Some(0));
    assert!(!running("atm1") && running("atm2"));
    assert_eq!(run(&["fault", "kill", "atm1"]), Some(1));
    assert_eq!(run(&["fault", "restart", "atm1"]), Some(0));
    assert!(running("atm1"));
    let record = lab.record();
    assert_eq!(run(&["down"]), Some(0));
    for process in &record.processes {
        assert!(!process.identity.is_alive(), "{}", process.host);
    }
    assert_eq!(record.remains(), [""; 0]);
}

#[test]
fn a_daemon_that_ends_at_once_is_shown_and_the_lab_is_taken_down() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = programs("echo the disk is on fire >&2; exit 3");
    let output = lab_program()
        .args(["up", "--dir"])
        .arg(dir.path())
        .env("ATM_BIN_DIR", programs.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("atmd on atm1 ended at once"), "{said}");
    assert!(said.contains("the disk is on fire"), "{said}");
    assert!(!dir.path().join("lab.json").exists());
    assert!(!registered().iter().any(|r| r.dir == dir.path()));

    fs::remove_file(programs.path().join("atmd")).unwrap();
    let output = lab_program()
        .args(["up", "--dir"])
        .arg(dir.path())
        .env("ATM_BIN_DIR", programs.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: no atmd in "), "{said}");
}

#[test]
fn a_command_that_hangs_is_killed_with_all_it_started() {
    if !ready() {
        return;
    }
    let lab = lab();
    let began = Instant::now();
    let script = ["sh", "-c", "sleep 1000 & exec sleep 1000"];
    let late = lab
        .host("client")
        .unwrap()
        .exec_within(Duration::from_millis(200), script)
        .unwrap_err();
    assert!(matches!(late, LabError::ExecTimeout { .. }), "{late}");
    assert!(began.elapsed() < GONE_WAIT);
}

fn lab_program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lab"))
}
