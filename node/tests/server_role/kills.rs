//! A process in the server role that is killed, and what the next start makes of it.

use std::io::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use node::server_role::{clean_up, start};

use super::lab::{Lab, VIP, VIP6};
use super::{plan, plan_in};

#[test]
fn without_tun_the_start_fails_half_way_and_leaves_nothing() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let hidden = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let mut child = Command::new("ip");
    child.args([
        "netns",
        "exec",
        &lab.namespace("server"),
        "unshare",
        "-m",
        "sh",
        "-c",
        hidden,
        "sh",
    ]);
    let mut child = role_in_a_child(child, &lab);
    let said = child.first_line();
    if said == "ready" {
        let _ = writeln!(
            std::io::stderr(),
            "skipped: this kernel has ipip and needs no TUN"
        );
        return;
    }
    assert!(
        said.contains("modprobe tun") && said.ends_with("(exit code 69)"),
        "{said}"
    );
    lab.assert_is(&before, "at the end");
}

#[test]
fn after_a_kill_the_host_is_put_back_by_the_next_start() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let mut child = role_in_a_child(in_the_server(&lab), &lab);
    if child.first_line() != "ready" {
        let _ = writeln!(std::io::stderr(), "skipped: no tunnel here");
        return;
    }
    child.kill();
    assert_ne!(lab.snapshot(), before, "the killed role left its changes");
    let done = lab.run("server", async || {
        clean_up(&plan(&lab).state_dir).await.unwrap()
    });
    for vip in [VIP, VIP6] {
        assert!(
            done.contains(&format!("VIP {vip} taken off lo")),
            "{done:?}"
        );
    }
    lab.assert_is(&before, "at the end");

    let mut child = role_in_a_child(in_the_server(&lab), &lab);
    assert_eq!(child.first_line(), "ready");
    child.kill();
    lab.run("server", async || {
        start(plan(&lab)).await.unwrap().stop().await.unwrap()
    });
    lab.assert_is(&before, "at the end");
}

#[test]
fn a_kill_at_any_moment_of_the_start_is_put_back() {
    const MOMENTS: u32 = 16;
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let mut child = role_in_a_child(in_the_server(&lab), &lab);
    child.wait_for_begin();
    let begun = Instant::now();
    if child.next_line() != "ready" {
        let _ = writeln!(std::io::stderr(), "skipped: no tunnel here");
        return;
    }
    let whole = begun.elapsed();
    child.kill();
    for moment in 0..=MOMENTS {
        lab.run("server", async || {
            clean_up(&plan(&lab).state_dir).await.unwrap()
        });
        lab.assert_is(
            &before,
            &format!("killed at {moment} of {MOMENTS} of {whole:?}"),
        );
        let mut child = role_in_a_child(in_the_server(&lab), &lab);
        child.wait_for_begin();
        std::thread::sleep(whole * moment / MOMENTS);
        child.kill();
    }
    lab.run("server", async || {
        clean_up(&plan(&lab).state_dir).await.unwrap()
    });
    lab.assert_is(&before, "killed at the end of the start");
}

const STATE: &str = "SERVER_ROLE_TEST_STATE";
const BEGIN: &str = "begin";

/// A process that plays the role until it is killed.
struct Killable {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

fn in_the_server(lab: &Lab) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("server")]);
    command
}

/// Lets `command` execute this very program as the process that [`plays_the_role`].
fn role_in_a_child(mut command: Command, lab: &Lab) -> Killable {
    command.arg(std::env::current_exe().unwrap());
    command
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "kills::plays_the_role",
        ])
        .env(STATE, lab.state.path().join("state"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Killable { child, lines }
}

impl Killable {
    fn wait_for_begin(&mut self) {
        while !self.lines.next().unwrap().unwrap().ends_with(BEGIN) {}
    }

    fn first_line(&mut self) -> String {
        self.wait_for_begin();
        self.next_line()
    }

    fn next_line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the process that the other tests start in a namespace and kill"]
fn plays_the_role() {
    let Some(state_dir) = std::env::var_os(STATE) else {
        let _ = writeln!(std::io::stderr(), "skipped: not started by a test");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("{BEGIN}");
    runtime.block_on(async {
        match start(plan_in(state_dir.into())).await {
            Ok(_role) => {
                println!("ready");
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            Err(error) => println!("{error} (exit code {})", error.exit_code()),
        }
    });
}
