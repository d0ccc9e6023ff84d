//! The lab's second IP version and its routers: hosts reach one another as the plan says, and a smaller path MTU is what it is
//! said to be. Skipped where there are no namespaces.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use chaos_tests::forwarding::{DNS_NAME, dnsmasq, start_dns};
use chaos_tests::lab::{
    CLIENT_ROUTER_NAME, Lab, LabError, PlanError, SERVER_ROUTER_NAME, has_ipv6, ready, skipped,
};
use chaos_tests::services::dns::ask_txt;
use chaos_tests::services::{Content, Digest, EchoServer, Flow, HttpServer, digest_of, get, put};

/// Longer than any answer takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Longer than an answer takes, short enough to wait for one that does not come.
const SILENCE: Duration = Duration::from_secs(1);

const BULK_BYTES: u64 = 2 << 20;

const CONF: &str = "NAT\n Gateway 192.168.7.1\nEndNAT\nServices\n Service http tcp:80 connect\nEndServices\n\
    Servers\n Server serv1 10.1.0.11 tunnel\n Server serv2 10.5.0.11 tunnel\n Server serv3 192.168.7.11 nat\nEndServers\n\
    ServerPool pool\n AddServer serv1 http/1\n AddServer serv2 http/1\n AddServer serv3 http/1\nEndServerPool\n\
    AtmPool ATMs\n AddAtm 10.1.0.1\n AddAtm 10.1.0.2\nEndAtmPool\n\
    VirtualHost mail.my.org\n Address 10.1.0.100\n AddAtmPool ATMs\n AddServerPool pool\nEndVirtualHost\n";

fn lab(path_mtu: Option<u16>) -> Lab {
    Lab::builder()
        .conf(CONF)
        .client()
        .client_behind_router(path_mtu)
        .servers_behind_router(None)
        .without_daemons()
        .start()
        .unwrap()
}

/// Both addresses of a host, as far as the kernel has both IP versions.
fn addresses(lab: &Lab, host: &str) -> Vec<IpAddr> {
    let host = lab.host(host).unwrap();
    let v6 = has_ipv6().then(|| host.address6().into());
    [Some(host.address().into()), v6]
        .into_iter()
        .flatten()
        .collect()
}

/// Whether a datagram of `from` to `to` is answered.
fn reaches(lab: &Lab, from: &str, to: IpAddr, on: &str) -> bool {
    let server = lab.in_netns(on, || EchoServer::start(SocketAddr::from((to, 0)), on));
    let server = server.unwrap().unwrap();
    let open = || Flow::open(server.address());
    match lab.in_netns(from, open).unwrap() {
        Ok(mut flow) => flow.exchange(100, SILENCE).is_ok(),
        // No route is no way.
        Err(_) => false,
    }
}

#[test]
fn hosts_reach_one_another_across_the_routers_by_both_ip_versions() {
    if !ready() {
        return;
    }
    let begun = Instant::now();
    let lab = lab(None);
    println!("a lab with two routers: {} ms", begun.elapsed().as_millis());
    for (from, to) in [
        ("client", "atm1"),
        ("client", "serv1"),
        ("client", "serv2"),
        ("atm1", "client"),
        ("atm2", "serv2"),
        ("serv2", "atm1"),
        ("serv1", "serv2"),
        ("serv2", "client"),
        // Neighbours: the ATMs have a foot in the subnet.
        ("atm1", "serv3"),
    ] {
        for address in addresses(&lab, to) {
            assert!(
                reaches(&lab, from, address, to),
                "{from} to {to} ({address})"
            );
        }
    }
    // Its gateway is the active ATM, and there is none.
    for address in addresses(&lab, "serv3") {
        assert!(
            !reaches(&lab, "client", address, "serv3"),
            "client to serv3 ({address})"
        );
    }
}

#[test]
fn a_smaller_path_mtu_is_told_and_what_heeds_it_arrives_both_ways() {
    if !ready() {
        return;
    }
    let lab = lab(Some(1400));
    for address in addresses(&lab, "serv1") {
        let at = SocketAddr::from((address, 80));
        let server = lab.in_netns("serv1", || HttpServer::start(at, "serv1"));
        let _server = server.unwrap().unwrap();
        let open = || TcpStream::connect_timeout(&at, LIMIT);
        for mtu in [1400, 1300] {
            lab.set_path_mtu(CLIENT_ROUTER_NAME, Some(mtu)).unwrap();
            forget_path_mtus(&lab);
            let down = lab.in_netns("client", open).unwrap().unwrap();
            let answer = get(&down, &format!("/content/3/{BULK_BYTES}")).unwrap();
            assert_eq!(answer.digest.length, BULK_BYTES);
            assert_told(&lab, "serv1", client_of(&lab, address), mtu);
            forget_path_mtus(&lab);
            let up = lab.in_netns("client", open).unwrap().unwrap();
            let content = Content::new(3, BULK_BYTES);
            let answer = put(&up, "/content", content.clone()).unwrap();
            assert_eq!(
                Digest::parse(&answer.text),
                Some(digest_of(content).unwrap())
            );
            assert_told(&lab, "client", address, mtu);
        }
    }
}

/// Whoever knows a path MTU announces it in its MSS, and the other side has nothing left to learn.
fn forget_path_mtus(lab: &Lab) {
    for host in lab.hosts() {
        let both = "ip route flush cache; ip -6 route flush cache";
        host.exec(["sh", "-c", both]).unwrap();
    }
}

fn assert_told(lab: &Lab, host: &str, to: IpAddr, mtu: u16) {
    let shown = lab
        .host(host)
        .unwrap()
        .exec(["ip", "route", "get", &to.to_string()]);
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    assert!(
        shown.contains(&format!(" mtu {mtu}")),
        "{host} to {to}: {shown}"
    );
}

/// The client's address of the same IP version.
fn client_of(lab: &Lab, other: IpAddr) -> IpAddr {
    let mut addresses = addresses(lab, "client").into_iter();
    addresses
        .find(|address| address.is_ipv4() == other.is_ipv4())
        .unwrap()
}

#[test]
fn a_dns_server_that_is_not_ours_answers_in_the_lab() {
    if !ready() {
        return;
    }
    if dnsmasq().is_none() {
        skipped("dnsmasq is not installed; `make dns` installs it");
        return;
    }
    let lab = lab(None);
    let addresses = addresses(&lab, "serv1");
    start_dns(&lab.host("serv1").unwrap(), &addresses).unwrap();
    for address in addresses {
        let at = SocketAddr::from((address, 53));
        let name = lab.in_netns("client", || ask_txt(at, DNS_NAME, 7, LIMIT));
        assert_eq!(name.unwrap().as_deref(), Ok("serv1"), "{address}");
    }
}

#[test]
fn a_path_mtu_that_no_router_can_have_is_refused() {
    if !ready() {
        return;
    }
    let lab = lab(None);
    for mtu in [1279, 1501] {
        let refused = lab.set_path_mtu(SERVER_ROUTER_NAME, Some(mtu)).unwrap_err();
        assert!(
            matches!(refused, LabError::Plan(PlanError::PathMtu(told)) if told == mtu),
            "{refused}"
        );
    }
    let refused = lab.set_path_mtu("atm1", Some(1400)).unwrap_err();
    assert!(
        matches!(&refused, LabError::NotARouter(host) if host == "atm1"),
        "{refused}"
    );
    let refused = Lab::builder()
        .client()
        .client_behind_router(None)
        .switch(1)
        .start()
        .err()
        .unwrap();
    assert!(matches!(refused, LabError::NeedsBridge), "{refused}");
}
