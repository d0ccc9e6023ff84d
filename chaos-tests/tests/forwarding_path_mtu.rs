//! A router on the way that passes no packet on above 1400 and 1280 bytes: bulk transfer is finished in both directions, and the
//! client's route shows what it was told. It is the ICMP errors of the router, and the ATM's, that make it so.

use chaos_tests::forwarding::{Check, Method, Path, content_passes_path_mtu, run};
use chaos_tests::lab::ready;

const CHECKS: [(&str, Check); 1] = [("bulk across a smaller path MTU", content_passes_path_mtu)];

fn client_behind_router(method: Method) {
    if ready() {
        run(
            |row| row.path == Path::ClientRouter && row.servers == [method, method],
            &CHECKS,
        );
    }
}

#[test]
fn tunnel_learns_the_path_mtu_of_clients() {
    client_behind_router(Method::Tunnel);
}

#[test]
fn direct_learns_the_path_mtu_of_clients() {
    client_behind_router(Method::Direct);
}

#[test]
fn nat_learns_the_path_mtu_of_clients() {
    client_behind_router(Method::Nat);
}

#[test]
fn full_nat_learns_the_path_mtu_of_clients() {
    client_behind_router(Method::NatSource);
}

#[test]
fn clients_learn_the_path_mtu_of_full_nat_servers_behind_a_router() {
    servers_behind_router(Method::NatSource);
}

#[test]
fn clients_learn_the_path_mtu_of_tunnel_servers_behind_a_router() {
    servers_behind_router(Method::Tunnel);
}

fn servers_behind_router(method: Method) {
    if ready() {
        run(
            |row| row.path == Path::ServerRouter && row.servers == [method, method],
            &CHECKS,
        );
    }
}
