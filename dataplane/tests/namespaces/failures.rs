//! What can go wrong with an interface, and what is said about it.

use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Count, Ended, EngineConfig, LeaseCell, PortKind, StartError, addresses6, boottime,
};
use dataplane_core::Limits;
use model::conf::ForwardingMethod;
use model::ids::Epoch;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::lab::{Lab, Router, block_on, eventually, ip};
use super::stream::{Stream, record};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn a_link_that_goes_down_and_up_is_used_again_by_both_ports() {
    for kind in [PortKind::Ring, PortKind::Pnet] {
        let Some(lab) = Lab::new("a_link_that_goes_down_and_up_is_used_again_by_both_ports") else {
            return;
        };
        let router = lab.on("atm", move || Router::start(kind, ForwardingMethod::Direct));
        block_on(router.handle.commit(vec![record()])).unwrap();
        assert!(
            router
                .lease
                .grant(Epoch(1), boottime() + Duration::from_secs(60))
        );
        let _stream = Stream::start(&lab, Duration::from_millis(1));
        let stats = router.handle.stats();
        assert!(
            eventually(LIMIT, || stats.last_transmit_at().is_some()),
            "{kind}"
        );
        ip(&["-n", &lab.name("atm"), "link", "set", "e0", "down"]);
        assert!(
            eventually(LIMIT, || stats.count(Count::PortFailures) > 0),
            "{kind}"
        );
        // Control is answered without a port, too.
        block_on(router.handle.barrier()).unwrap();
        ip(&["-n", &lab.name("atm"), "link", "set", "e0", "up"]);
        assert!(
            eventually(LIMIT, || stats.count(Count::PortReopened) > 0),
            "{kind}"
        );
        let again = boottime();
        assert!(
            eventually(LIMIT, || stats.last_transmit_at() > Some(again)),
            "{kind}: nothing forwarded after it"
        );
        assert_eq!(block_on(router.handle.shutdown()), Ended::Shutdown);
    }
}

/// With nothing to do the engine sleeps: as a backup, under a lease, after it, and without a link.
#[test]
fn an_idle_engine_does_not_turn() {
    let Some(lab) = Lab::new("an_idle_engine_does_not_turn") else {
        return;
    };
    for kind in [PortKind::Ring, PortKind::Pnet] {
        let router = lab.on("atm", move || Router::start(kind, ForwardingMethod::Tunnel));
        let turns = |state: &str| {
            let before = router.handle.stats().count(Count::Batches);
            std::thread::sleep(Duration::from_millis(700));
            let turns = router.handle.stats().count(Count::Batches) - before;
            assert!(turns < 100, "{kind}: {turns} turns in 700 ms {state}");
        };
        turns("as a backup");
        assert!(
            router
                .lease
                .grant(Epoch(1), boottime() + Duration::from_millis(1000))
        );
        turns("under a lease");
        turns("after the lease");
        ip(&["-n", &lab.name("atm"), "link", "set", "e0", "down"]);
        turns("without a link");
        ip(&["-n", &lab.name("atm"), "link", "set", "e0", "up"]);
        assert_eq!(block_on(router.handle.shutdown()), Ended::Shutdown);
    }
}

#[test]
fn an_interface_that_comes_back_as_another_ends_the_engine() {
    let Some(lab) = Lab::new("an_interface_that_comes_back_as_another_ends_the_engine") else {
        return;
    };
    let router = lab.on("atm", || {
        Router::start(PortKind::Ring, ForwardingMethod::Direct)
    });
    let (atm, hub) = (lab.name("atm"), lab.name("hub"));
    ip(&["-n", &atm, "link", "del", "e0"]);
    ip(&[
        "link",
        "add",
        "e0",
        "netns",
        &atm,
        "address",
        "02:00:00:00:09:77",
        "type",
        "veth",
        "peer",
        "name",
        "atm",
        "netns",
        &hub,
    ]);
    ip(&["-n", &atm, "addr", "add", "10.9.0.2/24", "dev", "e0"]);
    ip(&["-n", &atm, "link", "set", "e0", "up"]);
    let ended =
        block_on(async { tokio::time::timeout(LIMIT, router.handle.closed()).await }).unwrap();
    assert!(matches!(ended, Ended::InterfaceChanged { .. }), "{ended:?}");
    assert_eq!(block_on(router.handle.barrier()), Err(dataplane::Gone));
    assert_eq!(block_on(router.handle.shutdown()), ended);
}

/// Duplicate address detection and router advertisements change them at any time, also while the link is away.
#[test]
fn ipv6_addresses_that_come_and_go_do_not_end_the_engine() {
    let Some(lab) = Lab::new("ipv6_addresses_that_come_and_go_do_not_end_the_engine") else {
        return;
    };
    let router = lab.on("atm", || {
        Router::start(PortKind::Ring, ForwardingMethod::Direct)
    });
    let atm = lab.name("atm");
    let stats = router.handle.stats();
    for (address, times) in [("fd00:9::2/64", 1), ("2001:db8:9::2/64", 2)] {
        ip(&["-n", &atm, "link", "set", "e0", "down"]);
        assert!(eventually(LIMIT, || stats.count(Count::PortFailures) == times));
        ip(&["-n", &atm, "addr", "flush", "dev", "e0", "scope", "link"]);
        ip(&["-n", &atm, "addr", "add", address, "dev", "e0", "nodad"]);
        ip(&["-n", &atm, "link", "set", "e0", "up"]);
        assert!(
            eventually(LIMIT, || stats.count(Count::PortReopened) == times),
            "{}",
            router.account()
        );
    }
    assert_eq!(block_on(router.handle.shutdown()), Ended::Shutdown);
}

#[test]
fn the_ipv6_addresses_of_an_interface_are_found_in_its_own_namespace() {
    let Some(lab) = Lab::new("the_ipv6_addresses_of_an_interface_are_found_in_its_own_namespace")
    else {
        return;
    };
    let look = |preferred| lab.on("atm", move || addresses6("e0", preferred));
    assert!(eventually(LIMIT, || look(None).link_local.is_some()));
    assert_eq!(look(None).address, None);
    let [own, other] = ["fd00:9::2", "fd00:9::3"].map(|text| text.parse().unwrap());
    for address in [own, other] {
        let address = format!("{address}/64");
        ip(&[
            "-n",
            &lab.name("atm"),
            "addr",
            "add",
            &address,
            "dev",
            "e0",
            "nodad",
        ]);
    }
    assert_eq!(look(None).address, Some(own));
    assert_eq!(look(Some(other)).address, Some(other));
    assert_eq!(lab.on("client", || addresses6("e0", None)).address, None);
}

#[test]
fn bad_interfaces_are_named() {
    let Some(lab) = Lab::new("bad_interfaces_are_named") else {
        return;
    };
    let refusal = |interface: &'static str| {
        lab.on("atm", move || {
            match dataplane::start(config(interface), Arc::new(LeaseCell::new())) {
                Ok(_) => String::from("it started"),
                Err(error) => error.to_string(),
            }
        })
    };
    assert_eq!(
        refusal("eth7"),
        "no interface named eth7 (there are: e0, lo)"
    );
    assert!(
        refusal("lo").starts_with("interface lo has no Ethernet address"),
        "{}",
        refusal("lo")
    );
    ip(&["-n", &lab.name("atm"), "addr", "flush", "dev", "e0"]);
    assert!(
        refusal("e0").starts_with("interface e0 has no IPv4 address"),
        "{}",
        refusal("e0")
    );
}

#[test]
fn without_the_capability_it_says_so() {
    let Some(lab) = Lab::new("without_the_capability_it_says_so") else {
        return;
    };
    let error = lab.on("atm", || {
        let mut sets = capabilities(None).unwrap();
        sets.effective &= !CapabilitySet::NET_RAW;
        // Of this thread alone.
        set_capabilities(None, sets).unwrap();
        dataplane::start(config("e0"), Arc::new(LeaseCell::new())).err()
    });
    assert!(matches!(error, Some(StartError::NotPermitted)), "{error:?}");
}

fn config(interface: &str) -> EngineConfig {
    EngineConfig {
        interface: interface.to_owned(),
        port: PortKind::Ring,
        address: None,
        limits: Limits {
            pending_max: 10,
            connections_max: 10,
        },
    }
}
