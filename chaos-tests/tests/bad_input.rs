//! Whatever is wrong at a start: one sentence that names it and the way out, the right exit code, and nothing left behind.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, fast_configuration, wait_until};
use chaos_tests::lab::{ADMIN_PORT, ATMD, Condition, Fault, Lab, PEER_PORT, program, ready};

/// sysexits.h.
const UNAVAILABLE: i32 = 69;
const NO_PERMISSION: i32 = 77;
const CONFIG: i32 = 78;

/// A daemon that ends because of bad input does so at once; name servers that are not there take longest.
const END_MAX: Duration = Duration::from_secs(20);

/// A lab whose daemons are started by the test, each with files of its own.
struct Bench {
    lab: Lab,
    atmd: PathBuf,
}

/// How a daemon ended.
struct End {
    code: Option<i32>,
    said: String,
}

impl Bench {
    fn new(atms: usize) -> Self {
        let lab = Lab::builder()
            .conf(fast_configuration(atms, 1).unwrap())
            .client()
            .without_daemons();
        Self {
            lab: lab.start().unwrap(),
            atmd: program(ATMD).unwrap(),
        }
    }

    /// A file of `host`.
    fn file(&self, host: &str, name: &str) -> PathBuf {
        self.lab.host(host).unwrap().dir().join(name)
    }

    /// Rewrites a file of `host`.
    fn change(&self, host: &str, name: &str, change: impl Fn(&str) -> String) {
        let path = self.file(host, name);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(changed, text, "nothing was changed in {name}");
        fs::write(path, changed).unwrap();
    }

    /// Runs atmd on `host` to its end, through `wrapper` (a command that becomes what follows it).
    fn run_through(&self, host: &str, wrapper: &[&str], further: &[&str]) -> End {
        let atmd = self.atmd.to_string_lossy();
        let config = self.file(host, "atmd.toml");
        let own = [atmd.as_ref(), "--config", config.to_str().unwrap()];
        let argv = [wrapper, &own, further].concat();
        let output = self
            .lab
            .host(host)
            .unwrap()
            .exec_within(END_MAX, argv)
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        End {
            code: output.status.code(),
            said: String::from_utf8_lossy(&said).into_owned(),
        }
    }

    fn run(&self, host: &str) -> End {
        self.run_through(host, &[], &[])
    }

    /// Starts atmd on `host` in the background.
    fn spawn(&self, host: &str) {
        let config = self.file(host, "atmd.toml");
        let argv = [
            self.atmd.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ];
        self.lab.host(host).unwrap().spawn(ATMD, argv, &[]).unwrap();
    }

    fn log(&self, host: &str) -> String {
        fs::read_to_string(self.lab.host(host).unwrap().log(ATMD)).unwrap_or_default()
    }

    /// Starts a group of one and kills it once it has made its group.
    fn live_once(&self, host: &str) {
        // The log holds earlier lives as well.
        let leases = || self.log(host).matches("lease acquired").count();
        let before = leases();
        self.spawn(host);
        wait_until("a lease", SETTLE_MAX, || {
            if leases() > before {
                Ok(())
            } else {
                Err(self.log(host))
            }
        })
        .unwrap();
        self.lab.fault(Fault::Kill, host).unwrap();
    }

    /// Addresses, links and packet filters of a host.
    fn state(&self, host: &str) -> String {
        let script = "ip -o addr | sed 's/valid_lft.*//'; ip -o link; nft --stateless list ruleset";
        let output = self
            .lab
            .host(host)
            .unwrap()
            .exec(["sh", "-c", script])
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// No VIP on an interface, no packet filter, no socket.
    fn assert_nothing_left(&self, host: &str) {
        let state = self.state(host);
        for forbidden in ["10.1.0.100", "table", "tun"] {
            assert!(!state.contains(forbidden), "{host}: {state}");
        }
        self.assert_ports_are_free(host);
    }

    fn assert_ports_are_free(&self, host: &str) {
        let place = self.lab.host(host).unwrap();
        let bind = |address| TcpListener::bind(address).map(drop);
        let own = place.address();
        let both =
            || bind((own, PEER_PORT)).and_then(|()| bind(([127, 0, 0, 1].into(), ADMIN_PORT)));
        place.in_netns(both).unwrap().unwrap();
    }
}

impl End {
    /// It ended with `code`, said every one of `words`, and did not say it at length.
    fn is(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        for word in words {
            assert!(
                self.said.contains(word),
                "{word:?} is missing: {}",
                self.said
            );
        }
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }
}

#[test]
fn a_wrong_clusterserver_conf_is_shown_at_its_place() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    bench.change("atm1", "clusterserver.conf", |text| {
        format!("{text}Nonsense 1\nHeartBeatDelay soon\n")
    });
    let lines = fs::read_to_string(bench.file("atm1", "clusterserver.conf"))
        .unwrap()
        .lines()
        .count();
    let places = [
        format!("clusterserver.conf:{}:1", lines - 1),
        format!("clusterserver.conf:{lines}:"),
    ];
    bench
        .run("atm1")
        .is(CONFIG, &["Nonsense", "soon", &places[0], &places[1]]);
    bench.assert_nothing_left("atm1");
    bench
        .run_through("atm1", &[], &["--check"])
        .is(CONFIG, &["Nonsense", &places[0]]);

    fs::remove_file(bench.file("atm1", "clusterserver.conf")).unwrap();
    bench.run("atm1").is(
        CONFIG,
        &["clusterserver.conf cannot be read", "cluster_config"],
    );
    bench.assert_nothing_left("atm1");
}

#[test]
fn a_wrong_atmd_toml_is_shown_at_its_place() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    let toml = fs::read_to_string(bench.file("atm1", "atmd.toml")).unwrap();
    let write = |text: &str| fs::write(bench.file("atm1", "atmd.toml"), text).unwrap();
    for (changed, words) in [
        (
            format!("{toml}colour = 1\n"),
            ["atmd.toml", "colour", "line 8"],
        ),
        (
            toml.replace("\"ring\"", "\"dpdk\""),
            ["atmd.toml", "dpdk", "line 5"],
        ),
        (
            toml.replace("= \"eth0\"", "= eth0"),
            ["atmd.toml", "eth0", "line 2"],
        ),
        (
            toml.replace(":7410", ":0"),
            ["atmd.toml", "peer_listen", "port"],
        ),
    ] {
        assert_ne!(changed, toml);
        write(&changed);
        bench.run("atm1").is(CONFIG, &words);
        bench
            .run_through("atm1", &[], &["--check"])
            .is(CONFIG, &words);
    }
    fs::remove_file(bench.file("atm1", "atmd.toml")).unwrap();
    bench
        .run("atm1")
        .is(CONFIG, &["atmd.toml cannot be read", "--config"]);
    bench.assert_nothing_left("atm1");
}

#[test]
fn a_host_that_nobody_knows_is_named() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    bench.change("atm1", "clusterserver.conf", |text| {
        text.replace("10.1.0.11", "nobody.example.invalid")
    });
    bench
        .run("atm1")
        .is(CONFIG, &["nobody.example.invalid", "/etc/hosts"]);
    bench.assert_nothing_left("atm1");
}

#[test]
fn a_host_without_a_part_is_told_so() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    bench.change("atm1", "atmd.toml", |text| {
        text.replace("\"10.1.0.1\"", "\"10.1.0.77\"")
    });
    bench
        .run("atm1")
        .is(CONFIG, &["neither an ATM nor a server", "name"]);
    bench
        .run_through("atm1", &[], &["--check"])
        .is(CONFIG, &["neither an ATM nor a server"]);
    bench.assert_nothing_left("atm1");
}

#[test]
fn a_taken_port_is_named() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    let host = bench.lab.host("atm1").unwrap();
    for (address, port) in [
        (host.address(), PEER_PORT),
        ([127, 0, 0, 1].into(), ADMIN_PORT),
    ] {
        let taken = host
            .in_netns(|| TcpListener::bind((address, port)))
            .unwrap()
            .unwrap();
        bench.run("atm1").is(
            UNAVAILABLE,
            &[
                &format!("{address}:{port}"),
                "in use",
                "peer_listen or admin_listen",
            ],
        );
        drop(taken);
        bench.assert_nothing_left("atm1");
    }
}

#[test]
fn a_missing_interface_is_named_with_those_that_are_there() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    for (host, way_out) in [("atm1", "eth0"), ("serv1", "`ip link`")] {
        bench.change(host, "atmd.toml", |text| {
            text.replace("\"eth0\"", "\"eth7\"")
        });
        let end = bench.run(host);
        assert!(
            [Some(UNAVAILABLE), Some(CONFIG)].contains(&end.code),
            "{:?} {}",
            end.code,
            end.said
        );
        end.is(end.code.unwrap(), &["eth7", way_out]);
        bench.assert_nothing_left(host);
    }
}

#[test]
fn a_missing_capability_is_named() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    let without = |what: &str| {
        vec![
            "setpriv".to_owned(),
            format!("--bounding-set=-{what}"),
            format!("--inh-caps=-{what}"),
        ]
    };
    for (host, capability, words) in [
        ("atm1", "net_raw", "CAP_NET_RAW"),
        ("serv1", "net_admin", "CAP_NET_ADMIN"),
    ] {
        let wrapper = without(capability);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        bench
            .run_through(host, &wrapper, &[])
            .is(NO_PERMISSION, &[words]);
        bench.assert_nothing_left(host);
    }
}

#[test]
fn a_data_directory_that_cannot_be_trusted_is_refused() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    let data = bench.file("atm1", "data");
    let data_name = data.to_string_lossy().into_owned();
    // A predecessor that was killed leaves the guard of its VIPs, which protects them until the next orderly end.
    let refused = |words: &[&str]| {
        let before = bench.state("atm1");
        bench
            .run("atm1")
            .is(CONFIG, &[&[data_name.as_str()], words].concat());
        assert_eq!(bench.state("atm1"), before);
        bench.assert_ports_are_free("atm1");
        fs::remove_dir_all(&data).unwrap();
    };

    fs::create_dir(&data).unwrap();
    fs::write(data.join("identity.toml"), "format = \n").unwrap();
    refused(&["damaged", "identity.toml"]);

    fs::create_dir(&data).unwrap();
    fs::write(
        data.join("identity.toml"),
        "format = 1\nname = \"10.1.0.9\"\nincarnation = \"x\"\n",
    )
    .unwrap();
    refused(&["belongs to ATM 10.1.0.9", "data_dir"]);

    bench.live_once("atm1");
    fs::remove_dir_all(data.join("log")).unwrap();
    refused(&["its log is gone"]);

    bench.live_once("atm1");
    fs::remove_file(data.join("identity.toml")).unwrap();
    refused(&["identity.toml"]);

    bench.live_once("atm1");
    overwrite(&data.join("log"));
    refused(&["log"]);
}

/// Replaces the content of every file below `dir` by as many bytes of something else.
fn overwrite(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite(&path);
        } else {
            let length = fs::metadata(&path).unwrap().len();
            fs::write(&path, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
        }
    }
}

#[test]
fn a_data_directory_in_use_is_refused() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    bench.spawn("atm1");
    wait_until("a lease", SETTLE_MAX, || match bench.log("atm1") {
        log if log.contains("lease acquired") => Ok(()),
        log => Err(log),
    })
    .unwrap();
    let other_ports = |text: &str| text.replace(":7410", ":7510").replace(":7411", ":7511");
    bench.change("atm1", "atmd.toml", other_ports);
    bench
        .run("atm1")
        .is(UNAVAILABLE, &["in use by another atmd", "data_dir"]);
    assert_eq!(
        bench.lab.condition("atm1", ATMD).unwrap(),
        Condition::Running
    );
}

/// Membership 0, the leader's blank 1, version 2, tenure 3, three directories.
const KNOWN_INDEX: u64 = 6;

#[test]
fn a_known_member_that_lost_its_data_directory_is_refused() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    // The group, the first configuration, a tenure, and then each member's directory are committed.
    let hosts = cluster.atms();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    cluster
        .wait_for("three directories known", &hosts, SETTLE_MAX, |s| {
            s.applied_index >= KNOWN_INDEX && s.all_caught_up()
        })
        .unwrap();
    let (active, status) = cluster.active().unwrap();
    let lost = cluster.others(&active).remove(0);
    cluster.lab().fault(Fault::Kill, &lost).unwrap();
    let dir = cluster.lab().host(&lost).unwrap().dir();
    fs::remove_dir_all(dir.join("data")).unwrap();
    let (atmd, config) = (program(ATMD).unwrap(), dir.join("atmd.toml"));
    let argv = [atmd.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let output = cluster
        .lab()
        .host(&lost)
        .unwrap()
        .exec_within(END_MAX, argv)
        .unwrap();
    let end = End {
        code: output.status.code(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    end.is(
        CONFIG,
        &[
            "another data directory",
            "restore the directory",
            "atmctl atm forget",
        ],
    );
    let after = cluster.status(&active).unwrap();
    assert_eq!((after.active, after.epoch), (status.active, status.epoch));
}

#[test]
fn an_atm_with_another_configuration_waits_and_names_the_other() {
    if !ready() {
        return;
    }
    let bench = Bench::new(2);
    bench.change("atm2", "clusterserver.conf", |text| {
        text.replace("NumConnections 100000", "NumConnections 5000")
    });
    for atm in ["atm1", "atm2"] {
        bench.spawn(atm);
    }
    for (atm, other) in [("atm1", "10.1.0.2"), ("atm2", "10.1.0.1")] {
        wait_until("the other is named", SETTLE_MAX, || match bench.log(atm) {
            log if log.contains(&format!("{other} has a different clusterserver.conf")) => Ok(()),
            log => Err(log),
        })
        .unwrap();
        assert_eq!(bench.lab.condition(atm, ATMD).unwrap(), Condition::Running);
        let atmctl = program("atmctl").unwrap();
        let output = bench
            .lab
            .host(atm)
            .unwrap()
            .exec([atmctl.to_str().unwrap(), "status"])
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
        assert!(said.contains("same configuration"), "{said}");
    }
    fs::copy(
        bench.file("atm1", "clusterserver.conf"),
        bench.file("atm2", "clusterserver.conf"),
    )
    .unwrap();
    bench.lab.fault(Fault::Restart, "atm2").unwrap();
    wait_until("a lease once the files are equal", SETTLE_MAX, || {
        let logs = [bench.log("atm1"), bench.log("atm2")].concat();
        if logs.contains("lease acquired") {
            Ok(())
        } else {
            Err(logs)
        }
    })
    .unwrap();
}

#[test]
fn a_check_of_good_files_says_the_part_of_the_host_and_changes_nothing() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    for (host, part) in [
        ("atm1", "this host is ATM 10.1.0.1"),
        ("serv1", "this host is server serv1"),
    ] {
        bench
            .run_through(host, &[], &["--check"])
            .is(0, &["clusterserver.conf is valid", part]);
        bench.assert_nothing_left(host);
        assert!(!bench.file(host, "data").exists());
    }
}

#[test]
fn atmctl_says_that_nobody_is_there() {
    if !ready() {
        return;
    }
    let bench = Bench::new(1);
    let atmctl = program("atmctl").unwrap();
    let output = bench
        .lab
        .host("atm1")
        .unwrap()
        .exec([atmctl.to_str().unwrap(), "status"])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(UNAVAILABLE), "{said}");
    for word in ["127.0.0.1:7411", "is atmd running there?", "--endpoint"] {
        assert!(said.contains(word), "{said}");
    }
}
