//! Servers follow what the ATMs agree on, remember it, report how they are, and leave their hosts as they found them; and a
//! server without the daemon does as well by the printed commands.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use chaos_tests::cluster::{
    Applied, Cluster, SETTLE_MAX, ServerReport, Status, Trouble, fast_configuration, wait_until,
};
use chaos_tests::lab::{ATMD, Fault, LINES_PORT, Lab, program, read_configuration, ready, skipped};
use model::conf::print;

/// The second virtual host's address, and what stands for it.
const SECOND: &str = "10.1.0.101";

/// A version reaches a server at once; one that could not be reached is asked again within five seconds.
const FOLLOW_MAX: Duration = Duration::from_secs(20);

/// Connections of earlier versions are looked for every five seconds, and one that was closed is kept for ConnectionTimeout, anew
/// after each takeover, of which a loaded machine may have some.
const GONE_MAX: Duration = Duration::from_secs(180);

/// A new active ATM judges after the grace and the next reports (5 s and 2 s) at the latest.
const JUDGED_WITHIN: Duration = Duration::from_secs(9);

/// What was not answered for half a minute TCP repeats after 51 s or so (RFC 6298 section 5.5).
const REPEATED_WITHIN: Duration = Duration::from_secs(150);

/// The text with a second virtual host of the same pools.
fn with_second(text: &str) -> String {
    let first = &text[text.find("VirtualHost ").unwrap()..];
    let block = &first[..first.find("EndVirtualHost").unwrap()];
    let pools: String = block
        .lines()
        .filter(|line| line.contains("AddAtmPool") || line.contains("AddServerPool"))
        .map(|line| format!("{line}\n"))
        .collect();
    format!("{text}\nVirtualHost second.my.org\n  Address {SECOND}\n{pools}EndVirtualHost\n")
}

/// Without the first virtual host.
fn without_first(text: &str) -> String {
    let (before, first) = text.split_once("VirtualHost ").unwrap();
    let (_, after) = first.split_once("EndVirtualHost\n").unwrap();
    format!("{before}{after}")
}

/// Without every line that has `word` in it.
fn without(text: &str, word: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains(word));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Makes a text the configuration, and returns its version.
fn apply(cluster: &Cluster, text: &str) -> u64 {
    let file = cluster.lab().dir().join("applied.conf");
    fs::write(&file, text).unwrap();
    let (active, _) = cluster.active().unwrap();
    let args = ["config", "apply", file.to_str().unwrap()];
    let applied: Applied = cluster.atmctl(&active, &args).unwrap().json().unwrap();
    applied.version.unwrap()
}

fn show(cluster: &Cluster, host: &str, argv: &[&str]) -> String {
    cluster.lab().host(host).unwrap().said(argv).unwrap()
}

fn has_vip(cluster: &Cluster, host: &str, vip: &str) -> bool {
    let addresses = show(cluster, host, &["ip", "-o", "addr", "show", "dev", "lo"]);
    addresses.contains(&format!(" {vip}/32 "))
}

/// Waits until `vip` stands on `host`, or does not.
fn until_vip(cluster: &Cluster, host: &str, vip: &str, stands: bool) {
    let what = format!("{vip} on {host}: {stands}");
    let limit = if stands { FOLLOW_MAX } else { GONE_MAX };
    let looked = wait_until(&what, limit, || {
        if has_vip(cluster, host, vip) == stands {
            return Ok(());
        }
        Err(show(
            cluster,
            host,
            &["ip", "-o", "addr", "show", "dev", "lo"],
        ))
    });
    if let Err(error) = looked {
        panic!("{error}\n{}", cluster.log(host).unwrap());
    }
}

/// Waits until the leading ATM has such a report of `host`.
fn until_report(
    cluster: &Cluster,
    host: &str,
    what: &str,
    holds: impl Fn(Option<&ServerReport>) -> bool,
) {
    let atms = cluster.atms();
    let atms: Vec<&str> = atms.iter().map(String::as_str).collect();
    let waited = cluster.wait_for(what, &atms, FOLLOW_MAX, |status| {
        status.active.is_some() && holds(status.server(host).unwrap().report.as_ref())
    });
    if let Err(error) = waited {
        panic!("{error}\n{}", cluster.log(host).unwrap());
    }
}

/// What the server role may touch, as text. The link and its counters are the lab's.
fn snapshot(cluster: &Cluster, host: &str) -> String {
    let settings = "for f in /proc/sys/net/ipv4/conf/*/*; do echo $f $(cat $f 2> /dev/null); done";
    [
        show(cluster, host, &["ip", "-o", "addr"]),
        show(
            cluster,
            host,
            &["ip", "-4", "route", "show", "table", "all"],
        ),
        show(
            cluster,
            host,
            &["ip", "-6", "route", "show", "table", "all"],
        ),
        show(cluster, host, &["nft", "list", "ruleset"]),
        show(cluster, host, &["sh", "-c", settings]),
    ]
    .concat()
}

#[test]
fn servers_follow_each_version_and_connections_go_on() {
    if !ready() {
        return;
    }
    let text = fast_configuration(3, 3).unwrap();
    let cluster = Cluster::start_with(Lab::builder().conf(text.clone())).unwrap();
    let servers = ["serv1", "serv2", "serv3"];
    let first = cluster.vip().to_string();
    let lines = cluster.lines(30).unwrap();

    // The first version is that of the files, and its number is known to the servers.
    for host in servers {
        until_report(
            &cluster,
            host,
            "a report with load and connections",
            |report| {
                report.is_some_and(|report| {
                    report.config_version == Some(1)
                        && report.error.is_none()
                        && report.load_1m.is_some()
                        && report.connections == Some(10)
                })
            },
        );
    }

    let version = apply(&cluster, &with_second(&text));
    for host in servers {
        until_vip(&cluster, host, SECOND, true);
        until_report(&cluster, host, "the version in force", |report| {
            report.is_some_and(|report| report.config_version == Some(version))
        });
    }
    let second: IpAddr = SECOND.parse().unwrap();
    drop(cluster.connect(second, LINES_PORT, SETTLE_MAX).unwrap());
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();

    // Another method: what is open comes by the old one until it ends.
    let direct = text.replace(" tunnel", " direct");
    let version = apply(&cluster, &with_second(&direct));
    let tunnelled = |host: &str| show(&cluster, host, &["ip", "-o", "link"]).contains("atmtun0");
    for host in servers {
        until_report(&cluster, host, "the other method in force", |report| {
            report.is_some_and(|report| report.config_version == Some(version))
        });
        assert!(tunnelled(host), "{host} has no tunnel for what is open");
    }
    let newer = cluster.lines(6).unwrap();
    cluster.wait_until_all_flow(&newer, SETTLE_MAX).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();

    // So it is with a VIP that leaves, and it has no connections any more.
    apply(&cluster, &direct);
    for host in servers {
        until_vip(&cluster, host, SECOND, false);
        assert!(has_vip(&cluster, host, &first), "{host}");
    }
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    for host in servers {
        wait_until("the end of the tunnel", GONE_MAX, || {
            if tunnelled(host) {
                return Err(cluster.log(host).unwrap());
            }
            Ok(())
        })
        .unwrap();
        until_vip(&cluster, host, &first, true);
    }
    // The role was stopped and started, and nothing that came to the VIP meanwhile was refused.
    cluster.wait_until_all_flow(&newer, SETTLE_MAX).unwrap();
    let report = newer.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

#[test]
fn a_server_and_a_vip_that_leave_stay_for_what_is_open() {
    if !ready() {
        return;
    }
    let text = fast_configuration(3, 3).unwrap();
    let cluster = Cluster::start_with(Lab::builder().conf(text.clone())).unwrap();
    let first = cluster.vip().to_string();
    let lines = cluster.lines(9).unwrap();
    let version = apply(&cluster, &without(&text, "serv3"));
    for host in ["serv1", "serv2"] {
        until_report(&cluster, host, "the version in force", |report| {
            report.is_some_and(|report| report.config_version == Some(version))
        });
    }
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    assert!(has_vip(&cluster, "serv3", &first));
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    until_vip(&cluster, "serv3", &first, false);
}

#[test]
fn a_vip_that_leaves_stays_on_its_servers_until_its_last_connection_ends() {
    if !ready() {
        return;
    }
    let text = with_second(&fast_configuration(3, 3).unwrap());
    let cluster = Cluster::start_with(Lab::builder().conf(text.clone())).unwrap();
    let servers = ["serv1", "serv2", "serv3"];
    let first = cluster.target().to_string();
    assert_ne!(first, SECOND);
    let lines = cluster.lines(9).unwrap();
    let version = apply(&cluster, &without_first(&text));
    for host in servers {
        until_report(&cluster, host, "the version in force", |report| {
            report.is_some_and(|report| {
                report.config_version == Some(version) && report.error.is_none()
            })
        });
    }
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    for host in servers {
        assert!(has_vip(&cluster, host, &first), "{host}");
    }
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    for host in servers {
        until_vip(&cluster, host, &first, false);
        assert!(has_vip(&cluster, host, SECOND), "{host}");
    }
}

#[test]
fn a_fallback_that_is_in_no_pool_serves_its_first_client() {
    if !ready() {
        return;
    }
    let (host, text) = ("serv3", fast_configuration(3, 3).unwrap());
    let mut config = read_configuration("generated", &text).unwrap();
    for service in config.services.iter_mut().filter(|s| s.name == "lines") {
        service.fallback = Some(host.to_owned());
    }
    for pool in &mut config.server_pools {
        pool.servers.retain(|added| added.server != host);
    }
    let cluster = Cluster::start_with(Lab::builder().conf(print(&config))).unwrap();
    until_vip(&cluster, host, &cluster.vip().to_string(), true);
    let (active, _) = cluster.active().unwrap();
    for server in ["serv1", "serv2"] {
        let order = ["server", "disable", server];
        let answer = cluster.atmctl(&active, &order).unwrap();
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    }
    let report = cluster.lines(1).unwrap().finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    assert_eq!(report.per_connection[0].server.as_deref(), Some(host));
    // One that was asked for more with its first connection would wait for the next version.
    until_report(&cluster, host, "the version in force", |report| {
        report.is_some_and(|report| report.config_version == Some(1) && report.error.is_none())
    });
}

#[test]
fn a_server_that_left_the_version_gives_its_vips_back_and_goes_on_following() {
    if !ready() {
        return;
    }
    let text = fast_configuration(3, 3).unwrap();
    let cluster = Cluster::start_with(Lab::builder().conf(text.clone())).unwrap();
    let first = cluster.vip().to_string();
    until_vip(&cluster, "serv3", &first, true);
    apply(&cluster, &without(&text, "serv3"));
    until_vip(&cluster, "serv3", &first, false);
    let log = cluster.log("serv3").unwrap();
    assert!(log.contains("no server of the version in force"), "{log}");
    let version = apply(&cluster, &text);
    until_vip(&cluster, "serv3", &first, true);
    until_report(&cluster, "serv3", "the version in force", |report| {
        report.is_some_and(|report| report.config_version == Some(version))
    });

    // One that ends in order says so, and is a server without a daemon from then on.
    cluster.end("serv3").unwrap();
    until_report(&cluster, "serv3", "no report", |report| report.is_none());
    assert!(!has_vip(&cluster, "serv3", &first));
}

#[test]
fn a_killed_server_is_cleaned_and_starts_with_the_last_version_where_no_atm_answers() {
    if !ready() {
        return;
    }
    let text = fast_configuration(3, 3).unwrap();
    let cluster = Cluster::start_with(Lab::builder().conf(text.clone())).unwrap();
    let (lab, host) = (cluster.lab(), "serv1");
    let first = cluster.vip().to_string();
    until_vip(&cluster, host, &first, true);
    cluster.end(host).unwrap();
    let clean = snapshot(&cluster, host);
    lab.fault(Fault::Restart, host).unwrap();
    apply(&cluster, &with_second(&text));
    until_vip(&cluster, host, SECOND, true);

    lab.fault(Fault::Kill, host).unwrap();
    assert!(has_vip(&cluster, host, SECOND), "a kill takes nothing back");
    let atmd = program(ATMD).unwrap();
    let config = lab.host(host).unwrap().dir().join("atmd.toml");
    let clean_up = [
        atmd.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
        "--clean-up",
    ];
    let said = show(&cluster, host, &clean_up);
    assert!(
        said.contains(&format!("VIP {SECOND} taken off lo")),
        "{said}"
    );
    assert_eq!(snapshot(&cluster, host), clean);
    assert_eq!(show(&cluster, host, &clean_up), "nothing to take back\n");

    // The file knows one VIP, and the last version two.
    lab.fault(Fault::Cut, host).unwrap();
    lab.fault(Fault::Restart, host).unwrap();
    for vip in [first.as_str(), SECOND] {
        until_vip(&cluster, host, vip, true);
    }
    // What was agreed meanwhile is made up for.
    apply(&cluster, &text);
    assert!(has_vip(&cluster, host, SECOND));
    lab.fault(Fault::Heal, host).unwrap();
    until_vip(&cluster, host, SECOND, false);
    assert!(has_vip(&cluster, host, &first));

    // After a kill the next start is as good, and its end leaves nothing.
    let started = |log: &str| log.matches("this server follows an ATM").count();
    let before = started(&cluster.log(host).unwrap());
    lab.fault(Fault::Restart, host).unwrap();
    wait_until("a server that follows again", FOLLOW_MAX, || {
        let log = cluster.log(host).unwrap();
        (started(&log) > before).then_some(()).ok_or(log)
    })
    .unwrap();
    cluster.end(host).unwrap();
    assert_eq!(snapshot(&cluster, host), clean);
}

/// Where `atmd` unpacks the tunnel, a killed one leaves a host that passes every check and serves nobody.
#[test]
fn a_server_whose_daemon_is_gone_gets_no_new_connections_until_it_is_back() {
    if !ready() {
        return;
    }
    let host = "serv1";
    let cluster = Cluster::start_with(Lab::builder().conf(fast_configuration(3, 3).unwrap()));
    let cluster = cluster.unwrap();
    let lab = cluster.lab();
    until_vip(&cluster, host, &cluster.vip().to_string(), true);
    if !cluster.log(host).unwrap().contains("unpacking=Process") {
        skipped("this kernel unpacks the tunnel itself");
        return;
    }
    // Who never heard of a daemon does not miss it.
    wait_until("a server that follows every ATM", FOLLOW_MAX, || {
        let log = cluster.log(host).unwrap();
        let follows = log.matches("this server follows an ATM").count();
        (follows >= cluster.atms().len()).then_some(()).ok_or(log)
    })
    .unwrap();
    let served = |status: &Status| status.server(host).unwrap().service("lines").cloned();
    let is_up = |up: bool| {
        let atms = cluster.atms();
        let atms: Vec<&str> = atms.iter().map(String::as_str).collect();
        let what = format!("{host} is up: {up}");
        cluster.wait_for(&what, &atms, FOLLOW_MAX + SETTLE_MAX, |status| {
            status.active.is_some() && served(status).unwrap().healthy == up
        })
    };
    let lasting = cluster.lines(9).unwrap();
    cluster.wait_until_all_flow(&lasting, SETTLE_MAX).unwrap();

    lab.fault(Fault::Kill, host).unwrap();
    let status = is_up(false).unwrap();
    let reason = served(&status).unwrap().down.unwrap().reason;
    assert!(
        reason.contains("its atmd is not heard any more") && reason.contains("of 3 ATMs"),
        "{reason}"
    );
    let report = cluster.lines(6).unwrap().finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    let servers = report.per_connection.iter();
    assert!(
        servers
            .clone()
            .all(|line| line.server.as_deref() != Some(host)),
        "{report:#?}"
    );

    // Another active ATM has missed it as well, and says so when it judges.
    let blow = cluster.strike(Trouble::Kill).unwrap();
    let judged = Instant::now() + JUDGED_WITHIN;
    while Instant::now() < judged {
        let status = cluster.status(&blow.after).unwrap();
        assert!(!served(&status).unwrap().healthy, "{status:#?}");
    }
    let report = cluster.lines(6).unwrap().finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    cluster.mend(&blow).unwrap();

    // What was open there waits, and goes on.
    lab.fault(Fault::Restart, host).unwrap();
    is_up(true).unwrap();
    cluster
        .wait_until_all_flow(&lasting, REPEATED_WITHIN)
        .unwrap();
    let report = lasting.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

/// Runs what `atmctl server setup` prints on the only server, which has no daemon, and then the way back.
fn by_printed_commands(method: &str) {
    let text = fast_configuration(1, 1)
        .unwrap()
        .replace(" tunnel", &format!(" {method}"));
    let cluster = Cluster::start_with(Lab::builder().conf(text)).unwrap();
    let host = "serv1";
    until_vip(&cluster, host, &cluster.vip().to_string(), true);
    cluster.end(host).unwrap();
    let before = snapshot(&cluster, host);

    let dir = cluster.lab().host(host).unwrap().dir();
    let atmctl = program("atmctl").unwrap();
    let conf = dir.join("clusterserver.conf");
    // Hosts of a lab share /run.
    let saved = dir.join("saved.sysctl");
    let printed = |further: &[&str]| {
        let own = [
            atmctl.to_str().unwrap(),
            "server",
            "setup",
            "--print",
            "--name",
            host,
            "--conf",
            conf.to_str().unwrap(),
        ];
        let commands = show(&cluster, host, &[&own, further].concat());
        let moved = commands.replace("/run/atm-server.sysctl", saved.to_str().unwrap());
        let file = dir.join("commands.sh");
        fs::write(&file, moved).unwrap();
        file
    };
    let run = |further: &[&str]| {
        let file = printed(further);
        show(&cluster, host, &["sh", "-e", file.to_str().unwrap()])
    };
    // Twice: what stands already is no obstacle, and what was saved first is kept.
    run(&[]);
    run(&[]);
    let lines = cluster.lines(3).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    run(&["--undo"]);
    assert_eq!(snapshot(&cluster, host), before);
    run(&["--undo"]);
    assert_eq!(snapshot(&cluster, host), before);
}

#[test]
fn the_printed_commands_make_a_server_without_a_daemon() {
    if !ready() {
        return;
    }
    by_printed_commands("direct");
}

#[test]
fn the_printed_commands_open_the_kernels_tunnel() {
    if !ready() {
        return;
    }
    let probe = ["-n", "ip", "link", "add", "probe", "type", "ipip"];
    let made = std::process::Command::new("unshare")
        .args(probe)
        .args(["local", "127.0.0.1"])
        .output()
        .unwrap();
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr);
        skipped(format_args!(
            "this kernel has no ipip devices ({})",
            why.trim()
        ));
        return;
    }
    by_printed_commands("tunnel");
}
