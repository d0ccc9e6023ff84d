//! Hosts that are ATM and server at once: the active ATM's own server gets its connections like every other one, and when the roles
//! swap nothing breaks (ADR-0012).

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use chaos_tests::cluster::{
    Blow, Cluster, ClusterError, OPEN_MAX, SETTLE_MAX, Trouble, on_every_address, wait_until,
};
use chaos_tests::lab::{
    LINES_PORT, Lab, format_mac, has_ipv6, ready, require_decapsulation, skipped,
};
use chaos_tests::lines::Report;
use chaos_tests::observer::{Observer, Rules, Verdict};
use chaos_tests::services::{Content, Digest, HttpServer, Response, digest_of, get, put};

/// The hosts that serve: three ATMs, and one that is no ATM.
const SERVERS: [&str; 4] = ["atm1", "atm2", "atm3", "serv4"];
/// Connections with lines: ten on each server.
const LINES: usize = 40;
/// New ones while a server is out: two on each of the others.
const LINES_MISSED: usize = 6;
/// An ATM misses a server for twelve seconds, and may have found it up or down just before by a check, which comes every thirty.
const SERVED_MAX: Duration = Duration::from_secs(90);
/// What was not answered for half a minute TCP repeats after 51 s or so (RFC 6298 section 5.5).
const REPEATED_WITHIN: Duration = Duration::from_secs(150);
const HTTP_PORT: u16 = 80;
/// Offered, and nobody listens there: the server's kernel refuses.
const CLOSED_PORT: u16 = 9;
/// Hundreds of full windows' worth of segments.
const BULK_BYTES: u64 = 4 << 20;

/// The addresses of the servers' hosts, and of the virtual host.
struct Layout {
    server: fn(u8) -> String,
    vips: &'static [&'static str],
    /// As the ATMs' `Server` lines say.
    method: &'static str,
}

const V4: Layout = Layout {
    server: |host| format!("10.1.0.{host}"),
    vips: &["10.1.0.100"],
    method: "tunnel",
};

/// IPv4 and IPv6 inside of IPv4.
const BOTH_IN_V4: Layout = Layout {
    vips: &["fd00:10:1::100", "10.1.0.100"],
    ..V4
};

/// IPv4 and IPv6 inside of IPv6.
const BOTH_IN_V6: Layout = Layout {
    server: |host| format!("fd00:10:1::{host}"),
    ..BOTH_IN_V4
};

const DIRECT: Layout = Layout {
    method: "direct",
    ..V4
};

fn configuration(layout: &Layout) -> String {
    let mut text = format!(
        "Services\n Service lines tcp:{LINES_PORT} connect\n Service http tcp:{HTTP_PORT} connect\n \
         Service closed tcp:{CLOSED_PORT} none\nEndServices\nServers\n"
    );
    for atm in 1..=3 {
        let (address, method) = ((layout.server)(atm), layout.method);
        writeln!(text, " Server on-atm{atm} {address} {method}").unwrap();
    }
    writeln!(text, " Server alone {} tunnel", (layout.server)(14)).unwrap();
    text += "EndServers\nServerPool pool\n";
    for server in ["on-atm1", "on-atm2", "on-atm3", "alone"] {
        writeln!(text, " AddServer {server} lines/1 http/1 closed/1").unwrap();
    }
    text += "EndServerPool\nAtmPool ATMs\n";
    for atm in 1..=3 {
        writeln!(text, " AddAtm 10.1.0.{atm}").unwrap();
    }
    // How soon a takeover comes is no matter here: hosts that do everything at once are loaded.
    text += " HeartBeatDelay 100ms\n MaxLostHeartbeats 5\nEndAtmPool\nVirtualHost vip\n";
    for vip in layout.vips {
        writeln!(text, " Address {vip}").unwrap();
    }
    text + " AddAtmPool ATMs\n AddServerPool pool\nEndVirtualHost\n"
}

/// A running cluster, HTTP on its servers, and whoever looks whether a kernel says what it must not.
struct Rig {
    _http: Vec<HttpServer>,
    cluster: Cluster,
}

/// `None`: this machine cannot do it, and the reason was said.
fn rig(layout: &Layout) -> Option<Rig> {
    if !ready() {
        return None;
    }
    if let Err(reason) = require_decapsulation() {
        skipped(reason);
        return None;
    }
    if layout.vips.iter().any(|vip| vip.contains(':')) && !has_ipv6() {
        skipped("this kernel has no IPv6");
        return None;
    }
    let cluster = Cluster::start_with(Lab::builder().conf(configuration(layout))).unwrap();
    let hosts = cluster.lab().hosts();
    let names: Vec<&str> = hosts
        .iter()
        .filter(|host| host.is_server())
        .map(|host| host.name())
        .collect();
    assert_eq!(names, SERVERS);
    let http = hosts.iter().filter(|host| host.is_server()).map(|host| {
        let address = on_every_address(HTTP_PORT);
        let server = host.in_netns(|| HttpServer::start(address, host.name()));
        server.unwrap().unwrap()
    });
    let rig = Rig {
        _http: http.collect(),
        cluster,
    };
    rig.watch_resets();
    Some(rig)
}

impl Rig {
    fn targets(&self) -> Vec<IpAddr> {
        self.cluster.lab().virtual_addresses()
    }

    fn on_client(&self, script: &str) -> String {
        let client = self.cluster.lab().host("client").unwrap();
        client.said(["sh", "-c", script]).unwrap()
    }

    /// Counts the resets that come to the client in the name of a virtual address.
    fn watch_resets(&self) {
        let mut rules = String::new();
        for vip in self.targets() {
            let ip = if vip.is_ipv4() { "ip" } else { "ip6" };
            writeln!(rules, "{ip} saddr {vip} tcp flags & rst == rst counter").unwrap();
        }
        self.on_client(&format!(
            "nft 'table inet watch {{\nchain in {{\ntype filter hook prerouting priority raw\n{rules}}}\n}}'"
        ));
    }

    /// How many there were, by virtual address.
    fn resets(&self) -> BTreeMap<IpAddr, u64> {
        let listed = self.on_client("nft list table inet watch");
        let after = |line: &str, word| {
            let mut words = line.split_whitespace();
            words.find(|found| *found == word)?;
            words.next().map(str::to_owned)
        };
        let rules = listed.lines().filter_map(|line| {
            let (vip, packets) = (after(line, "saddr")?, after(line, "packets")?);
            Some((vip.parse().unwrap(), packets.parse().unwrap()))
        });
        let resets = rules.collect::<BTreeMap<IpAddr, u64>>();
        assert!(
            resets.keys().copied().eq(sorted(self.targets())),
            "{listed}"
        );
        resets
    }

    fn no_resets(&self, when: &str) {
        let resets = self.resets();
        assert!(
            resets.values().all(|count| *count == 0),
            "a kernel has answered for a virtual address {when}: {resets:?}"
        );
    }

    fn http(&self, target: IpAddr, talk: &impl Fn(&TcpStream) -> Response) -> Response {
        talk(&self.cluster.connect(target, HTTP_PORT, OPEN_MAX).unwrap())
    }

    /// New connections come to every server, at every virtual address, and each is answered right.
    fn meet_all(&self, talk: impl Fn(&TcpStream) -> Response, right: impl Fn(&Response) -> bool) {
        for target in self.targets() {
            let mut met = BTreeSet::new();
            // With equal weights each is met in one round, unless a takeover begins it anew.
            for _ in 0..4 * SERVERS.len() {
                let answer = self.http(target, &talk);
                assert!(right(&answer), "{answer:?} at {target}");
                met.insert(answer.server);
                if met.len() == SERVERS.len() {
                    break;
                }
            }
            assert_eq!(met, SERVERS.map(str::to_owned).into(), "at {target}");
        }
    }

    fn all_servers_serve(&self) {
        let name = |stream: &TcpStream| get(stream, "/name").unwrap();
        self.meet_all(name, |answer| answer.text == answer.server);
    }

    /// Content of many full segments comes through whole, to and from every server.
    /// Waits until the server on the host that was struck gets new connections, or none.
    fn until_served(&self, blow: &Blow, served: bool) {
        let own = format!("on-{}", blow.before);
        let others = self.cluster.atms();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let others: Vec<&str> = others
            .into_iter()
            .filter(|atm| *atm != blow.before)
            .collect();
        let what = format!("{own} is served: {served}");
        let waited = self.cluster.wait_for(&what, &others, SERVED_MAX, |status| {
            let service = status.server(&own).unwrap().service("lines").unwrap();
            status.active.is_some() && service.healthy == served
        });
        waited.unwrap();
    }

    fn bulk(&self) {
        let content = Content::new(1, BULK_BYTES);
        let digest = digest_of(content.clone()).unwrap();
        let send = |stream: &TcpStream| put(stream, "/content", content.clone()).unwrap();
        self.meet_all(send, |answer| {
            Digest::parse(&answer.text).as_ref() == Some(&digest)
        });
        let path = format!("/content/2/{BULK_BYTES}");
        let expected = digest_of(Content::new(2, BULK_BYTES)).unwrap();
        let fetch = |stream: &TcpStream| get(stream, &path).unwrap();
        self.meet_all(fetch, |answer| answer.digest == expected);
    }

    /// Hands over to the ATM on `host`. On a loaded machine another takeover may come in between; then it is asked for again.
    fn hand_over(&self, host: &str) {
        let cluster = &self.cluster;
        let name = cluster.name_of(host).unwrap();
        wait_until(&format!("{host} active"), SETTLE_MAX, || {
            let (active, _) = cluster.active().map_err(|error| error.to_string())?;
            if active == host {
                return Ok(());
            }
            let answer = cluster.atmctl(&active, &["failover", "--to", &name]);
            Err(format!("{active} is active and says {answer:?}"))
        })
        .unwrap();
        let atms = cluster.atms();
        let atms: Vec<&str> = atms.iter().map(String::as_str).collect();
        let what = "an active ATM, and all caught up";
        cluster
            .wait_for(what, &atms, SETTLE_MAX, |status| {
                status.active.is_some() && status.all_caught_up()
            })
            .unwrap();
    }

    fn delivered(&self, host: &str) -> u64 {
        self.cluster.counter(host, "deliver").unwrap()
    }

    /// The watch over resets is worth something: a port where nobody listens shows one, at every virtual address.
    fn resets_would_have_been_seen(&self) {
        self.no_resets("until the end");
        for target in self.targets() {
            let refused = self.cluster.connect(target, CLOSED_PORT, OPEN_MAX);
            let refused = refused.unwrap_err();
            let reset = matches!(&refused, ClusterError::Workload { source, .. } if source.kind() == ErrorKind::ConnectionRefused);
            assert!(reset, "{refused}");
        }
        let resets = self.resets();
        assert!(resets.values().all(|count| *count > 0), "{resets:?}");
    }
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort();
    addresses
}

fn on_every_server(report: &Report) {
    let servers: Vec<_> = report.servers.keys().map(String::as_str).collect();
    assert_eq!(servers, SERVERS, "{report:#?}");
}

/// Connections with lines on every server, while every ATM becomes the active one.
fn roles_swap(layout: &Layout) {
    let Some(rig) = rig(layout) else { return };
    let cluster = &rig.cluster;
    let observer = Observer::start(cluster.lab()).unwrap();
    rig.all_servers_serve();
    let (first, _) = cluster.active().unwrap();
    let lines = cluster.lines(LINES).unwrap();
    on_every_server(&lines.snapshot());
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    assert!(
        rig.delivered(&first) > 0,
        "nothing came to the active ATM's own server"
    );

    let mut order = cluster.others(&first);
    order.push(first);
    for next in &order {
        let before = rig.delivered(next);
        rig.hand_over(next);
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
        rig.all_servers_serve();
        let delivered = rig.delivered(next) - before;
        assert!(delivered > 0, "{next} gave nothing to its own server");
    }
    rig.bulk();

    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    rig.resets_would_have_been_seen();
    let verdict = observer.stop().verdict(&Rules::default());
    assert_eq!(verdict, Verdict::OneVoice);
    for host in cluster.atms() {
        for refused in ["send-deliver-failed", "send-deliver-too-long"] {
            assert_eq!(
                cluster.counter(&host, refused).unwrap(),
                0,
                "{host} {refused}"
            );
        }
    }
}

#[test]
fn roles_swap_by_tunnel() {
    roles_swap(&V4);
}

/// The active ATM takes `direct` to an ATM for `tunnel`, and so does the server role there.
#[test]
fn roles_swap_where_the_file_says_direct() {
    roles_swap(&DIRECT);
}

#[test]
fn roles_swap_with_both_versions_inside_of_ipv4() {
    roles_swap(&BOTH_IN_V4);
}

#[test]
fn roles_swap_with_both_versions_inside_of_ipv6() {
    roles_swap(&BOTH_IN_V6);
}

/// What goes to the other servers goes on at once. The killed daemon's own server gets nothing while nobody opens its tunnel, and says
/// nothing wrong meanwhile; new connections pass it by as soon as the other ATMs have missed it for long enough; then it goes on where it was.
#[test]
fn a_killed_atm_keeps_the_connections_of_its_own_server() {
    let Some(rig) = rig(&V4) else { return };
    let cluster = &rig.cluster;
    let observer = Observer::start(cluster.lab()).unwrap();
    let lines = cluster.lines(LINES).unwrap();
    on_every_server(&lines.snapshot());
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    // Who never heard of a daemon does not miss it.
    wait_until("servers that follow every ATM", SETTLE_MAX, || {
        for host in SERVERS {
            let log = cluster.log(host).unwrap();
            if log.matches("this server follows an ATM").count() < cluster.atms().len() {
                return Err(log);
            }
        }
        Ok(())
    })
    .unwrap();
    let blow = cluster.strike(Trouble::Kill).unwrap();
    cluster
        .wait_until_flow(&lines, Some(&blow.before), SETTLE_MAX)
        .unwrap();
    if cluster
        .log(&blow.before)
        .unwrap()
        .contains("unpacking=Process")
    {
        rig.until_served(&blow, false);
        let report = cluster.lines(LINES_MISSED).unwrap().finish(SETTLE_MAX);
        assert!(report.is_unbroken(), "{report:#?}");
        let mut servers = report.per_connection.iter();
        assert!(
            servers.all(|line| line.server.as_ref() != Some(&blow.before)),
            "{report:#?}"
        );
    }
    cluster.mend(&blow).unwrap();
    rig.until_served(&blow, true);
    cluster
        .wait_until_all_flow(&lines, REPEATED_WITHIN)
        .unwrap();
    rig.all_servers_serve();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    rig.resets_would_have_been_seen();
    let verdict = observer.stop().verdict(&Rules::default());
    assert_eq!(verdict, Verdict::OneVoice);
}

/// The tables of a ruleset in order, without what was counted.
fn without_counts(ruleset: &str) -> String {
    let mut tables: Vec<String> = ruleset
        .split("\ntable ")
        .map(|table| {
            let words: Vec<&str> = table.split_whitespace().collect();
            words.join(" ")
        })
        .map(|table| {
            let mut words: Vec<&str> = table.trim_start_matches("table ").split(' ').collect();
            for at in 1..words.len() {
                if matches!(words[at - 1], "packets" | "bytes") {
                    words[at] = "n";
                }
            }
            words.join(" ")
        })
        .collect();
    tables.sort();
    tables.join("\n")
}

/// The backup has the VIP on `lo`, and a client takes it for the active ATM: its kernel answers nothing, neither while its daemon runs
/// nor from the moment it is told to end.
#[test]
fn a_backups_kernel_does_not_answer_stragglers() {
    let Some(rig) = rig(&V4) else { return };
    let cluster = &rig.cluster;
    let (active, _) = cluster.active().unwrap();
    let backup = cluster.others(&active).remove(0);
    let mac = format_mac(cluster.lab().host(&backup).unwrap().mac());
    let vip = cluster.vip();
    let lines = cluster.lines(LINES).unwrap();
    // Who loads a firewall anew begins so.
    let on_backup = |argv: &[&str]| {
        let host = cluster.lab().host(&backup).unwrap();
        host.said(argv).unwrap()
    };
    let tables = || on_backup(&["nft", "list", "ruleset"]);
    let before = without_counts(&tables());
    assert!(
        before.contains("atm_guard_eth0") && before.contains("atm_server"),
        "{before}"
    );
    on_backup(&["nft", "flush", "ruleset"]);
    wait_until("the guard is put back", SETTLE_MAX, || {
        let now = without_counts(&tables());
        if now == before { Ok(()) } else { Err(now) }
    })
    .unwrap();
    rig.on_client(&format!(
        "ip neigh replace {vip} lladdr {mac} nud permanent dev eth0"
    ));
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    rig.all_servers_serve();
    assert!(cluster.counter(&backup, "relayed").unwrap() > 100);
    rig.no_resets("while its daemon ran");

    // An orderly end, with packets of all connections on their way to it all the time.
    cluster.end(&backup).unwrap();
    let log = cluster.log(&backup).unwrap();
    assert!(log.contains("out of the server role"), "{log}");
    rig.no_resets("while its daemon ended");
    rig.on_client(&format!("ip neigh del {vip} dev eth0"));
    cluster
        .wait_until_flow(&lines, Some(&backup), SETTLE_MAX)
        .unwrap();
    cluster
        .lab()
        .fault(chaos_tests::lab::Fault::Restart, &backup)
        .unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    rig.resets_would_have_been_seen();
}
