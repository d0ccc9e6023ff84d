//! Other programs as agents: arguments, environment, output, limits, and that nothing of them is left.

#![expect(
    clippy::unwrap_used,
    reason = "a test tells its failure by a panic, in its helpers, too"
)]

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agents::program::{Ended, Limits, run};
use agents::{Target, Transport};
use rustix::process::{Pid, test_kill_process};

const TARGET: Target = Target {
    address: std::net::IpAddr::V4(Ipv4Addr::new(192, 168, 0, 7)),
    port: 23,
    transport: Transport::Tcp,
};

fn limits() -> Limits {
    Limits::within(Duration::from_secs(30))
}

/// An agent in the shell's words.
///
/// Another process writes it: what this one has open for writing is open in a child, too, that another test's thread has just
/// forked, and a file that somebody has open for writing cannot be run (ETXTBSY, execve(2)).
fn script(directory: &Path, words: &str) -> PathBuf {
    let path = directory.join("agent");
    let mut install = Command::new("install")
        .args(["--mode=755", "/dev/stdin"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(install.stdin.take().unwrap(), "#!/bin/sh\n{words}\n").unwrap();
    assert!(install.wait().unwrap().success());
    path
}

/// The number in a file, once it is there.
async fn pid_in(path: &Path) -> Pid {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if let Some(number) = text.strip_suffix('\n') {
            return Pid::from_raw(number.parse().unwrap()).unwrap();
        }
        assert!(Instant::now() < deadline, "no {} appears", path.display());
        tokio::task::yield_now().await;
    }
}

/// Waits until a process is gone, or is a zombie that only its new parent has to look at.
async fn gone(pid: Pid) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while test_kill_process(pid).is_ok() {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        if stat.is_ok_and(|stat| stat.contains(") Z ")) {
            return;
        }
        assert!(Instant::now() < deadline, "{pid:?} is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_gets_the_originals_arguments_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let words = r#"echo "$# $1 $2 $3"; pwd; cat; env | grep -v -e ^PATH= -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD=; echo "on stderr" >&2; test -n "$PATH" && exit 7"#;
    let ended = run(&script(directory.path(), words), &TARGET, &limits()).await;
    let Ended::Exited { code, output } = &ended else {
        panic!("{ended:?}");
    };
    assert_eq!(
        (*code, std::str::from_utf8(&output.bytes).unwrap()),
        (7, "3 192.168.0.7 23 1\n/\non stderr\n")
    );
    assert!(!ended.is_healthy());
    assert_eq!(
        ended.to_string(),
        r#"exit status 7: "3 192.168.0.7 23 1\n/\non stderr""#
    );
}

#[tokio::test]
async fn udp_is_socktype_2_and_exit_status_0_is_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target {
        address: "fd00::7".parse().unwrap(),
        transport: Transport::Udp,
        ..TARGET
    };
    let words = r#"test "$*" = "fd00::7 23 2""#;
    let ended = run(&script(directory.path(), words), &target, &limits()).await;
    assert!(ended.is_healthy(), "{ended:?}");
    assert_eq!(ended.to_string(), "exit status 0");
}

#[tokio::test]
async fn a_signal_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(
        &script(directory.path(), "echo dying; kill -15 $$"),
        &TARGET,
        &limits(),
    )
    .await;
    assert!(
        matches!(&ended, Ended::Signalled { signal: 15, output } if output.bytes == b"dying\n"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let ended = run(&missing, &TARGET, &limits()).await;
    assert!(
        matches!(&ended, Ended::NotStarted(error) if error.kind() == std::io::ErrorKind::NotFound),
        "{ended:?}"
    );
    let forbidden = script(directory.path(), "exit 0");
    fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(&forbidden, &TARGET, &limits()).await;
    assert!(
        ended
            .to_string()
            .starts_with("cannot be started: Permission denied"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn only_the_first_of_the_output_is_kept_and_nobody_waits_for_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let words = "head -c 1000000 /dev/zero | tr '\\0' x; exit 3";
    let limits = Limits {
        output_bytes: 100,
        ..limits()
    };
    let ended = run(&script(directory.path(), words), &TARGET, &limits).await;
    let Ended::Exited { code: 3, output } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(output.bytes, [b'x'; 100]);
    assert!(output.dropped > 900_000, "{}", output.dropped);
}

#[tokio::test]
async fn the_whole_group_is_gone_at_the_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    let leader = directory.path().join("leader");
    // The child ignores what can be ignored, and the leader waits for it.
    let words = format!(
        "echo $$ > {leader}.new; mv {leader}.new {leader}\n(trap '' TERM HUP INT; sleep 1000) & echo $! > {child}.new; mv {child}.new {child}; echo waiting; wait",
        leader = leader.display(),
        child = child.display(),
    );
    let program = script(directory.path(), &words);
    let limits = Limits::within(Duration::from_secs(1));
    let ended = run(&program, &TARGET, &limits).await;
    assert!(
        matches!(&ended, Ended::TimedOut { output } if output.bytes == b"waiting\n"),
        "{ended:?}"
    );
    gone(pid_in(&leader).await).await;
    gone(pid_in(&child).await).await;
}

#[tokio::test]
async fn the_whole_group_is_gone_when_nobody_waits_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    let words = format!(
        "sleep 1000 & echo $! > {child}.new; mv {child}.new {child}; wait",
        child = child.display()
    );
    let program = script(directory.path(), &words);
    let limits = limits();
    let pid = tokio::select! {
        ended = run(&program, &TARGET, &limits) => panic!("{ended:?}"),
        pid = pid_in(&child) => pid,
    };
    gone(pid).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_gone_with_it_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let child = directory.path().join("child");
    // The child holds the output open.
    let words = format!("sleep 1000 & echo $! > {}; echo done", child.display());
    let ended = run(&script(directory.path(), &words), &TARGET, &limits()).await;
    assert!(
        matches!(&ended, Ended::Exited { code: 0, output } if output.bytes == b"done\n"),
        "{ended:?}"
    );
    gone(pid_in(&child).await).await;
}
