//! A client, or a server behind NAT, that has not heard of a takeover goes on talking; a foreign host that claims the VIP is found and contradicted.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::net::IpAddr;
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, wait_until};
use chaos_tests::forwarding::{Family, Method, Path, SCENARIOS, Scenario, configuration};
use chaos_tests::lab::{Lab, format_mac, has_ipv6, read_configuration, ready, skipped};
use chaos_tests::observer::{Kind, Observer, RawPort, Rules, Verdict, gratuitous_arp};
use serde_json::Value;

/// `host` takes `address` to be at the Ethernet address of the ATM `at`, whatever it hears.
fn pin(cluster: &Cluster, host: &str, address: IpAddr, at: &str) {
    let mac = format_mac(cluster.lab().host(at).unwrap().mac());
    let pinned = format!("ip neigh replace {address} lladdr {mac} nud permanent dev eth0");
    let host = cluster.lab().host(host).unwrap();
    host.said(pinned.split(' ')).unwrap();
}

/// Hands over from `before` to another ATM, while lines pass on old connections and then on new ones as well, all through `before`.
/// Returns who is active then.
fn hand_over_and_talk(cluster: &Cluster, before: &str) -> String {
    let lines = cluster.lines(20).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let answer = cluster.atmctl(before, &["failover"]).unwrap();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let (after, _) = cluster.active().unwrap();
    assert_ne!(before, after);
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let new = cluster.lines(20).unwrap();
    cluster.wait_until_all_flow(&new, SETTLE_MAX).unwrap();
    let relayed = cluster.counter(before, "relayed").unwrap();
    assert!(relayed > 100, "{relayed}");
    assert_eq!(cluster.counter(&after, "relayed").unwrap(), 0);
    for report in [lines.finish(SETTLE_MAX), new.finish(SETTLE_MAX)] {
        assert!(report.is_unbroken(), "{report:#?}");
    }
    after
}

#[test]
fn a_client_with_a_stale_entry_goes_on_talking_after_a_failover() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (before, _) = cluster.active().unwrap();
    pin(&cluster, "client", cluster.vip().into(), &before);
    let observer = Observer::start(cluster.lab()).unwrap();
    let after = hand_over_and_talk(&cluster, &before);

    // Who passes packets on is no second voice.
    let observation = observer.stop();
    let verdict = observation.verdict(&Rules::default());
    assert_eq!(verdict, Verdict::OneVoice);
    let mac = |host: &str| cluster.lab().host(host).unwrap().mac();
    let said = |host: &str, kind: Kind| {
        let events = observation.events.iter();
        events
            .filter(|event| event.source == mac(host) && event.kind == kind)
            .count()
    };
    assert!(said(&before, Kind::Relayed) > 100);
    assert!(said(&after, Kind::Tunnelled) > 100);
}

#[test]
fn a_nat_server_with_a_stale_entry_goes_on_answering_after_a_failover() {
    if !ready() {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let row = |row: &&Scenario| {
            row.servers == [Method::Nat, Method::Nat]
                && row.path == Path::Flat
                && row.family == family
        };
        let row = SCENARIOS.iter().find(row).unwrap();
        if row.has_ipv6() && !has_ipv6() {
            skipped(format_args!("{row}: this kernel has no IPv6"));
            continue;
        }
        let text = configuration(row, false);
        let config = read_configuration("generated", &text).unwrap();
        let gateway = config.nat.unwrap().gateways().next().unwrap();
        let cluster = Cluster::start_with(Lab::builder().conf(text)).unwrap();
        let (before, _) = cluster.active().unwrap();
        for server in ["serv1", "serv2"] {
            pin(&cluster, server, gateway, &before);
        }
        eprintln!("{row}");
        // What servers answer comes to the former ATM.
        hand_over_and_talk(&cluster, &before);
    }
}

fn conflicts(cluster: &Cluster, host: &str) -> Vec<Value> {
    let status: Value = cluster.atmctl(host, &["status"]).unwrap().json().unwrap();
    status["conflicts"].as_array().unwrap().clone()
}

#[test]
fn a_foreign_host_that_claims_the_vip_is_told_by_every_atm_and_contradicted() {
    if !ready() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let (active, _) = cluster.active().unwrap();
    // The active one has announced itself to all: none takes it for a stranger.
    assert_eq!(conflicts(&cluster, &active), Vec::<Value>::new());
    let announced = cluster.counter(&active, "gratuitous-arp").unwrap();

    let client = cluster.lab().host("client").unwrap();
    let port = RawPort::open(client.namespace(), "eth0").unwrap();
    let foreign = [2, 0xaa, 0, 0, 0, 9];
    port.send(&gratuitous_arp(foreign, cluster.vip(), false))
        .unwrap();
    port.send(&gratuitous_arp(foreign, cluster.vip(), true))
        .unwrap();

    wait_until("every ATM tells of it", Duration::from_secs(10), || {
        let told = conflicts(&cluster, &active);
        let of_it = told.iter().filter(|conflict| {
            conflict["mac"] == format_mac(foreign)
                && conflict["vip"] == cluster.vip().to_string()
                && conflict["claimant"] == "foreign"
                && conflict["claims"] == 2
        });
        if of_it.count() == cluster.atms().len() && told.len() == cluster.atms().len() {
            Ok(())
        } else {
            Err(format!("{told:#?}"))
        }
    })
    .unwrap();
    for atm in cluster.atms() {
        let log = cluster.log(&atm).unwrap();
        let warned = log.matches("another host claims a virtual address").count();
        assert_eq!(warned, 1, "{atm}: {log}");
    }
    // It does so once in ten seconds; the announcements of the takeover are over by now or come on top.
    let defended = cluster.counter(&active, "gratuitous-arp").unwrap();
    assert!(defended >= announced + 2, "{announced} and {defended}");
}
