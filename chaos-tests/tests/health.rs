//! Health on the wire: agents and pings take servers out of rotation and back, scripts run once, orders are kept, and an ATM that alone
//! sees everything down is not believed.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos_tests::cluster::{
    Cluster, SETTLE_MAX, ServerService, Status, Trouble, fast_configuration, wait_until,
};
use chaos_tests::lab::{LINES_PORT, Lab, read_configuration, ready, write_program};
use model::conf::{Agent, OnDown, UserCheck, print};
use serde::Deserialize;

/// Between two checks, and the time of one.
const FREQUENCY: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(250);

const LINES: &str = "lines";

/// A cluster whose service `lines` is checked by a program of this test, offered by serv1 and serv2, with serv3 as its fallback.
struct Scene {
    cluster: Cluster,
    /// Where the program looks, and where the scripts write.
    dir: tempfile::TempDir,
    source: String,
}

impl Scene {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let here = dir.path().display();
        // On the ATM whose address stands in `blind` it sees nothing.
        let sees = format!(
            "! {{ [ -e {here}/blind ] && ip -4 -o addr | grep -q \"$(cat {here}/blind)/\"; }}"
        );
        script(&at("check"), &format!("[ ! -e {here}/down-$1 ] && {sees}"));
        script(&at("up"), &format!("echo up $* >> {here}/ran"));
        let down = format!("echo down $* >> {here}/ran; [ ! -e {here}/linger ] || sleep 600");
        script(&at("down"), &down);
        let text = fast_configuration(3, 3).unwrap();
        let mut config = read_configuration("generated", &text).unwrap();
        let path = |name| at(name).display().to_string();
        config.user_checks = vec![UserCheck {
            name: "mine".to_owned(),
            check: path("check"),
            up: Some(path("up")),
            down: Some(path("down")),
        }];
        for service in &mut config.services {
            if service.name == LINES {
                service.agent = Agent::User("mine".to_owned());
                service.fallback = Some("serv3".to_owned());
            } else {
                service.agent = Agent::None;
            }
        }
        for pool in &mut config.server_pools {
            pool.check_server_frequency = FREQUENCY;
            pool.check_server_timeout = TIMEOUT;
            pool.check_port_frequency = FREQUENCY;
            pool.check_port_timeout = TIMEOUT;
            for added in &mut pool.servers {
                if added.server == "serv3" {
                    added.offers.retain(|offer| offer.service != LINES);
                }
            }
        }
        let source = print(&config);
        let cluster = Cluster::start_with(Lab::builder().conf(source.clone())).unwrap();
        Self {
            cluster,
            dir,
            source,
        }
    }

    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The file whose presence makes the agent fail for a server.
    fn mark(&self, server: u8) -> PathBuf {
        self.dir.path().join(format!("down-10.1.0.{}", 10 + server))
    }

    fn events(&self) -> Vec<Event> {
        let (active, _) = self.cluster.active().unwrap();
        let answer = self.cluster.atmctl(&active, &["events"]).unwrap();
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        let lines = answer.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until this holds of the status of the active ATM, which judges.
    fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let atms = self.cluster.atms();
        let atms: Vec<&str> = atms.iter().map(String::as_str).collect();
        let waited = self.cluster.wait_for(what, &atms, SETTLE_MAX, |status| {
            status.active.as_ref() == Some(&status.answered_by) && holds(status)
        });
        waited.unwrap()
    }

    /// The servers that so many new connections come to.
    fn servers_of_new(&self, count: usize) -> BTreeSet<String> {
        let lines = self.cluster.lines(count).unwrap();
        let report = lines.finish(SETTLE_MAX);
        assert!(report.is_unbroken(), "{report:#?}");
        let told = report.per_connection.into_iter();
        told.filter_map(|connection| connection.server).collect()
    }

    fn nft(&self, host: &str, rules: &str) {
        let host = self.cluster.lab().host(host).unwrap();
        host.said(["nft", rules]).unwrap();
    }

    fn order(&self, arguments: &[&str]) {
        let (active, _) = self.cluster.active().unwrap();
        let arguments = [&["server"], arguments].concat();
        let answer = self.cluster.atmctl(&active, &arguments).unwrap();
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    }
}

fn script(path: &Path, text: &str) {
    write_program(path, format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
}

#[derive(Debug, Deserialize)]
struct Event {
    kind: String,
    server: Option<String>,
    service: Option<String>,
    text: String,
}

/// The service `lines` of a server.
fn lines_of<'a>(status: &'a Status, server: &str) -> &'a ServerService {
    status.server(server).unwrap().service(LINES).unwrap()
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_service_that_fails_gets_no_new_connections_and_comes_back() {
    if !ready() {
        return;
    }
    let scene = Scene::start();
    let lasting = scene.cluster.lines(6).unwrap();
    assert_eq!(scene.servers_of_new(6), names(&["serv1", "serv2"]));

    fs::write(scene.mark(1), "").unwrap();
    let status = scene.until("lines of serv1 is down", |status| {
        !lines_of(status, "serv1").healthy
    });
    let reason = &lines_of(&status, "serv1").down.as_ref().unwrap().reason;
    assert!(
        reason.contains("exit status 1") && reason.contains("ATMs"),
        "{reason}"
    );
    assert_eq!(scene.servers_of_new(6), names(&["serv2"]));

    fs::write(scene.mark(2), "").unwrap();
    scene.until("lines of serv2 is down", |status| {
        !lines_of(status, "serv2").healthy
    });
    assert_eq!(
        scene.servers_of_new(3),
        names(&["serv3"]),
        "the sorry server"
    );

    fs::remove_file(scene.mark(1)).unwrap();
    fs::remove_file(scene.mark(2)).unwrap();
    scene.until("both are up", |status| {
        lines_of(status, "serv1").healthy && lines_of(status, "serv2").healthy
    });
    assert_eq!(scene.servers_of_new(6), names(&["serv1", "serv2"]));

    // Each change ran its script once, with the arguments of the agent.
    let expected: Vec<String> = [
        "down 10.1.0.11",
        "down 10.1.0.12",
        "up 10.1.0.11",
        "up 10.1.0.12",
    ]
    .iter()
    .map(|what| format!("{what} {LINES_PORT} 1"))
    .collect();
    let ran = wait_until("four scripts ran", SETTLE_MAX, || {
        let mut ran = scene.ran();
        ran.sort();
        if ran.len() < 4 {
            Err(format!("{ran:?}"))
        } else {
            Ok(ran)
        }
    });
    assert_eq!(ran.unwrap(), expected);
    wait_until("the log knows that they ended", SETTLE_MAX, || {
        let events = scene.events();
        let ended = events.iter().filter(|event| event.kind == "script-ended");
        if ended.count() == 4 {
            Ok(())
        } else {
            Err(format!("{events:#?}"))
        }
    })
    .unwrap();
    let events = scene.events();
    let down = events.iter().find(|event| event.kind == "service-down");
    let down = down.unwrap();
    assert_eq!(
        (down.server.as_deref(), down.service.as_deref()),
        (Some("serv1"), Some(LINES))
    );
    let report = lasting.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "established ones stay: {report:#?}");
}

#[test]
fn orders_take_servers_out_of_rotation_and_outlast_a_takeover() {
    if !ready() {
        return;
    }
    let scene = Scene::start();
    let lasting = scene.cluster.lines(6).unwrap();
    scene.order(&["drain", "serv1"]);
    let status = scene.until("serv1 is drained", |status| {
        lines_of(status, "serv1").mode == "draining"
    });
    assert_eq!(
        lines_of(&status, "serv1").connections,
        3,
        "how many are left"
    );
    assert_eq!(scene.servers_of_new(4), names(&["serv2"]));
    let blow = scene.cluster.strike(Trouble::Kill).unwrap();
    scene
        .cluster
        .wait_until_all_flow(&lasting, SETTLE_MAX)
        .unwrap();
    assert_eq!(
        scene.servers_of_new(4),
        names(&["serv2"]),
        "after a takeover"
    );
    scene.cluster.mend(&blow).unwrap();
    scene.order(&["enable", "serv1"]);
    scene.order(&["weight", "serv2", "0", "--service", LINES]);
    assert_eq!(scene.servers_of_new(4), names(&["serv1"]));
    scene.order(&["weight", "serv2", "default", "--service", LINES]);
    assert_eq!(scene.servers_of_new(6), names(&["serv1", "serv2"]));
    let kinds: Vec<String> = scene.events().into_iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "ordered").count(),
        4,
        "{kinds:?}"
    );
    assert!(kinds.iter().any(|kind| kind == "active"), "{kinds:?}");
    assert!(lasting.finish(SETTLE_MAX).is_unbroken());
}

#[test]
fn on_down_reset_sends_clients_to_a_server_that_works() {
    if !ready() {
        return;
    }
    let scene = Scene::start();
    let mut config = read_configuration("generated", &scene.source).unwrap();
    for service in &mut config.services {
        service.on_down = OnDown::Reset;
    }
    let file = scene.dir.path().join("reset.conf");
    fs::write(&file, print(&config)).unwrap();
    let (active, _) = scene.cluster.active().unwrap();
    let path = file.display().to_string();
    let applied = scene.cluster.atmctl(&active, &["config", "apply", &path]);
    assert_eq!(applied.unwrap().code, Some(0));

    let open = || {
        let limit = Duration::from_secs(5);
        let stream = scene
            .cluster
            .connect(scene.cluster.target(), LINES_PORT, limit);
        let stream = stream.unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..4).map(|_| open()).collect();
    let servers = scene.cluster.connections(&active).unwrap();
    let of = |stream: &TcpStream| servers[&stream.local_addr().unwrap().to_string()].clone();
    let servers: BTreeMap<usize, String> = streams.iter().map(of).enumerate().collect();
    assert_eq!(
        servers.values().cloned().collect::<BTreeSet<_>>(),
        names(&["serv1", "serv2"])
    );
    fs::write(scene.mark(1), "").unwrap();
    scene.until("lines of serv1 is down", |status| {
        !lines_of(status, "serv1").healthy
    });
    for (mut stream, (_, server)) in streams.into_iter().zip(servers) {
        let said = stream.write_all(b"x").and_then(|()| {
            let mut byte = [0];
            stream.read(&mut byte)
        });
        let reset = said
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert_eq!(reset, server == "serv1", "{server}: {said:?}");
    }
}

#[test]
fn a_server_that_answers_no_ping_is_down_and_an_atm_alone_is_not_believed() {
    if !ready() {
        return;
    }
    let scene = Scene::start();
    // Its own answers are lost; what it serves goes on.
    let mute = "table ip mute { chain out { type filter hook output priority 0; icmp type echo-reply drop; }; }";
    scene.nft("serv2", mute);
    let status = scene.until("serv2 answers no ping", |status| {
        status.server("serv2").unwrap().down.is_some()
    });
    let server = status.server("serv2").unwrap();
    let reason = &server.down.as_ref().unwrap().reason;
    assert!(reason.contains("ping"), "{reason}");
    assert!(!lines_of(&status, "serv2").healthy);
    assert_eq!(scene.servers_of_new(4), names(&["serv1"]));
    scene.nft("serv2", "delete table ip mute");
    scene.until("serv2 is up", |status| lines_of(status, "serv2").healthy);

    // One backup loses its way to the servers.
    let (active, _) = scene.cluster.active().unwrap();
    let blind = scene.cluster.others(&active).remove(0);
    let name = scene.cluster.name_of(&blind).unwrap();
    let cut = "table ip cut { chain out { type filter hook output priority 0; icmp type echo-request drop; }; }";
    scene.nft(&blind, cut);
    fs::write(scene.dir.path().join("blind"), &name).unwrap();
    scene.until("the blind ATM is suspected", |status| {
        let mut atms = status.atms.iter();
        atms.any(|atm| atm.name == name && atm.suspected)
    });
    let (_, status) = scene.cluster.active().unwrap();
    assert!(
        lines_of(&status, "serv1").healthy && lines_of(&status, "serv2").healthy,
        "{status:#?}"
    );
    assert_eq!(scene.servers_of_new(4), names(&["serv1", "serv2"]));

    // One of three is outvoted anyhow: that it does not count shows where the others say the same.
    fs::write(scene.mark(1), "").unwrap();
    let status = scene.until("lines of serv1 is down", |status| {
        !lines_of(status, "serv1").healthy
    });
    let reason = &lines_of(&status, "serv1").down.as_ref().unwrap().reason;
    assert!(
        reason.contains("exit status 1")
            && reason.ends_with(" ATMs)")
            && !reason.contains(" of 3 ATMs"),
        "{reason}"
    );
}

#[test]
fn a_script_whose_atm_died_runs_again_and_says_so() {
    if !ready() {
        return;
    }
    let scene = Scene::start();
    fs::write(scene.dir.path().join("linger"), "").unwrap();
    fs::write(scene.mark(1), "").unwrap();
    let ran = |count: usize| {
        wait_until("scripts ran", SETTLE_MAX, || {
            let ran = scene.ran();
            if ran.len() < count {
                Err(format!("{ran:?}"))
            } else {
                Ok(ran)
            }
        })
        .unwrap()
    };
    assert_eq!(ran(1).len(), 1);
    fs::remove_file(scene.dir.path().join("linger")).unwrap();
    let blow = scene.cluster.strike(Trouble::Kill).unwrap();
    assert_eq!(ran(2).len(), 2);
    let again = wait_until("the events say so", SETTLE_MAX, || {
        let events = scene.events();
        let mut again = events.iter().filter(|event| event.kind == "script-again");
        match again.next() {
            Some(event) => Ok(event.text.clone()),
            None => Err(format!("{events:#?}")),
        }
    });
    assert!(again.unwrap().contains("nobody can know"));
    scene.cluster.mend(&blow).unwrap();
}
