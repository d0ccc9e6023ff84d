//! Every forwarding method, with IPv4 and with IPv6: HTTP, mail and bulk transfer by real TCP stacks with default offloads, UDP
//! and a real DNS server. Rows and checks are in `chaos_tests::forwarding`; one cluster runs at a time.

use chaos_tests::forwarding::{DNS, HTTP, MAIL, Method, Path, Scenario, UDP, run};
use chaos_tests::lab::ready;

fn alone(method: Method) -> impl Fn(&Scenario) -> bool {
    move |row| row.path == Path::Flat && row.servers == [method, method]
}

fn holds(wanted: impl Fn(&Scenario) -> bool) {
    if ready() {
        run(wanted, &[&HTTP[..], &[MAIL], &UDP, &[DNS]].concat());
    }
}

#[test]
fn tunnel_serves_every_client() {
    holds(alone(Method::Tunnel));
}

#[test]
fn direct_serves_every_client() {
    holds(alone(Method::Direct));
}

#[test]
fn nat_serves_every_client() {
    holds(alone(Method::Nat));
}

#[test]
fn full_nat_serves_every_client() {
    holds(alone(Method::NatSource));
}

#[test]
fn a_mixed_pool_serves_every_client() {
    holds(|row| row.path == Path::Flat && row.servers[0] != row.servers[1]);
}

#[test]
fn servers_behind_a_router_serve_every_client() {
    holds(|row| row.path == Path::ServerRouter);
}
