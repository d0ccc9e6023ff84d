//! Connections and flows of UDP that are open while the active ATM is killed, or hands over, go on with the server they had: by
//! every forwarding method, with IPv4 and with IPv6.

use chaos_tests::cluster::Trouble;
use chaos_tests::forwarding::{Check, Method, Path, Rig, Scenario, none_lost, run};
use chaos_tests::lab::ready;

const CHECKS: [(&str, Check); 2] = [
    ("kill -9 loses nothing", kill),
    ("a hand-over loses nothing", hand_over),
];

fn kill(rig: &Rig) -> Result<Option<String>, String> {
    none_lost(rig, Trouble::Kill)
}

fn hand_over(rig: &Rig) -> Result<Option<String>, String> {
    none_lost(rig, Trouble::Failover)
}

fn survives(wanted: impl Fn(&Scenario) -> bool) {
    if ready() {
        run(|row| row.path == Path::Flat && wanted(row), &CHECKS);
    }
}

#[test]
fn nothing_open_is_lost_by_tunnel() {
    survives(|row| row.servers == [Method::Tunnel, Method::Tunnel]);
}

#[test]
fn nothing_open_is_lost_by_direct() {
    survives(|row| row.servers == [Method::Direct, Method::Direct]);
}

#[test]
fn nothing_open_is_lost_by_nat() {
    survives(|row| row.servers == [Method::Nat, Method::Nat]);
}

#[test]
fn nothing_open_is_lost_by_full_nat() {
    survives(|row| row.servers == [Method::NatSource, Method::NatSource]);
}

#[test]
fn nothing_open_is_lost_in_a_mixed_pool() {
    survives(|row| row.servers[0] != row.servers[1]);
}
