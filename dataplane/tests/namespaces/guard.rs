//! The guard keeps the kernel silent, leaves ARP alone, and outlives the program that put it there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use dataplane::{Guard, Guarded};
use model::conf::Protocol;

use super::lab::{ATM, CLIENT, Lab, PORT, SERVER, VIP, ip, run};

#[test]
fn the_guard_drops_for_the_kernel_and_survives_its_owner() {
    let Some(lab) = Lab::new("the_guard_drops_for_the_kernel_and_survives_its_owner") else {
        return;
    };
    // Worst case: the VIP is an address of the ATM's own kernel, and something listens there.
    ip(&[
        "-n",
        &lab.name("atm"),
        "addr",
        "add",
        &format!("{VIP}/32"),
        "dev",
        "lo",
    ]);
    let _listener = lab.on("atm", || TcpListener::bind((VIP, PORT)).unwrap());
    let reaches = |limit: u64| lab.on("client", move || connect(Duration::from_millis(limit)));
    assert!(reaches(3000), "without the guard the kernel answers");

    let guard = lab.on("atm", || Guard::install("e0", &vips(&[VIP])).unwrap());
    assert!(!reaches(700), "the kernel answered for the VIP");
    let neighbours = run(
        "ip",
        &["-n", &lab.name("client"), "neigh", "show", &VIP.to_string()],
    )
    .unwrap();
    assert!(
        neighbours.contains("lladdr"),
        "ARP is not the guard's: {neighbours}"
    );

    // The same addresses again, then none, then the first ones; the last value is dropped, not removed.
    lab.on("atm", {
        let guard = guard.clone();
        move || guard.update(&vips(&[VIP])).unwrap()
    });
    assert!(!reaches(300));
    lab.on("atm", {
        let guard = guard.clone();
        move || guard.update(&vips(&[])).unwrap()
    });
    assert!(reaches(3000), "an empty guard guards nothing");
    lab.on("atm", move || guard.update(&vips(&[VIP])).unwrap());
    assert!(!reaches(300), "the guard was gone with its owner");

    // The next process takes it over and takes it away, and may do so twice.
    lab.on("atm", || {
        Guard::install("e0", &vips(&[VIP]))
            .unwrap()
            .remove()
            .unwrap()
    });
    assert!(reaches(3000));
    // Longer than IFNAMSIZ. (A name that is merely missing is accepted by kernels that hook devices by name.)
    let error = lab.on("atm", || {
        Guard::install("a-name-longer-than-any-interface", &vips(&[VIP])).unwrap_err()
    });
    assert!(error.to_string().starts_with("nft refused"), "{error}");
}

#[test]
fn the_guard_drops_ipv6_and_leaves_neighbour_discovery_alone() {
    let Some(lab) = Lab::new("the_guard_drops_ipv6_and_leaves_neighbour_discovery_alone") else {
        return;
    };
    let vip: Ipv6Addr = "fd00:9::100".parse().unwrap();
    let (atm, client) = (lab.name("atm"), lab.name("client"));
    // Worst case: the VIP is an address of the ATM's own kernel, and something listens there.
    for (host, address) in [(&client, "fd00:9::1/64"), (&atm, "fd00:9::100/64")] {
        ip(&["-n", host, "addr", "add", address, "dev", "e0", "nodad"]);
    }
    let _listener = lab.on("atm", move || TcpListener::bind((vip, PORT)).unwrap());
    let reaches = |limit| {
        lab.on("client", move || {
            let address = SocketAddr::from((vip, PORT));
            TcpStream::connect_timeout(&address, Duration::from_millis(limit)).is_ok()
        })
    };
    assert!(reaches(3000), "without the guard the kernel answers");
    let guarded = Guarded {
        vips: vec![vip.into()],
        ..Guarded::default()
    };
    let guard = lab.on("atm", move || Guard::install("e0", &guarded).unwrap());
    ip(&["-n", &client, "neigh", "flush", "dev", "e0"]);
    assert!(!reaches(700), "the kernel answered for the VIP");
    let neighbours = run("ip", &["-n", &client, "-6", "neigh", "show", "fd00:9::100"]).unwrap();
    assert!(
        neighbours.contains("lladdr"),
        "the solicitation is not the guard's: {neighbours}"
    );
    lab.on("atm", move || guard.remove().unwrap());
    assert!(reaches(3000));
}

/// With ip_forward=1 the ATM's kernel would carry a server's answer to the client, with the server's own address.
#[test]
fn answers_of_nat_servers_are_not_the_kernels() {
    let Some(lab) = Lab::new("answers_of_nat_servers_are_not_the_kernels") else {
        return;
    };
    let far = Ipv4Addr::new(10, 77, 0, 1);
    let (client, atm, server) = (lab.name("client"), lab.name("atm"), lab.name("server"));
    ip(&[
        "-n",
        &client,
        "addr",
        "add",
        &format!("{far}/32"),
        "dev",
        "lo",
    ]);
    for (host, router) in [(&atm, CLIENT), (&server, ATM)] {
        let router = router.to_string();
        ip(&["-n", host, "route", "add", &far.to_string(), "via", &router]);
    }
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    run("ip", &["netns", "exec", &atm, "sh", "-c", forward]).unwrap();

    let listen = |host: &str, address: Ipv4Addr| {
        let socket = lab.on(host, move || UdpSocket::bind((address, 9000)).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
    };
    let (at_client, at_atm) = (listen("client", far), listen("atm", ATM));
    let [service, other] =
        [53, 5353].map(|port| lab.on("server", move || UdpSocket::bind((SERVER, port)).unwrap()));
    let next = |socket: &UdpSocket| {
        let mut bytes = [0; 16];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    service.send_to(b"unguarded", (far, 9000)).unwrap();
    assert_eq!(next(&at_client), "unguarded", "the ATM's kernel forwards");

    let guarded = Guarded {
        nat_servers: vec![
            (SERVER.into(), Protocol::Udp, 53),
            (SERVER.into(), Protocol::Tcp, 80),
            ("fd00:9::3".parse().unwrap(), Protocol::Udp, 53),
            ("fd00:9::3".parse().unwrap(), Protocol::Tcp, 80),
        ],
        own: vec![ATM.into(), "fd00:9::2".parse().unwrap()],
        ..Guarded::default()
    };
    let _guard = lab.on("atm", move || Guard::install("e0", &guarded).unwrap());
    // Each in the order sent: what would come first and does not was dropped.
    service.send_to(b"answer", (far, 9000)).unwrap();
    other.send_to(b"other port", (far, 9000)).unwrap();
    assert_eq!(next(&at_client), "other port");
    // A health check's answer is the host's.
    service.send_to(b"check", (ATM, 9000)).unwrap();
    assert_eq!(next(&at_atm), "check");
}

fn connect(limit: Duration) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((VIP, PORT)), limit).is_ok()
}

fn vips(vips: &[Ipv4Addr]) -> Guarded {
    Guarded {
        vips: vips.iter().copied().map(IpAddr::V4).collect(),
        ..Guarded::default()
    }
}
