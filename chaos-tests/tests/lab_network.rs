//! Hosts of a lab reach one another, and cuts do what they say. Skipped where there are no namespaces.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use chaos_tests::lab::{Fault, Lab, LabError, Link, ready};

const PORT: u16 = 9999;

/// Long enough for ARP and one exchange on a loaded machine, short enough that the cut cases do not take minutes.
const ANSWER_WAIT: Duration = Duration::from_millis(300);

/// Tries before a host counts as out of reach: the first packets may meet a link that is still coming up.
const TRIES: usize = 5;

fn lab() -> Lab {
    Lab::builder()
        .atms(3)
        .servers(2)
        .client()
        .without_daemons()
        .start()
        .unwrap()
}

/// Whether a datagram from `from` is answered by `to`.
fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let open = |host: &str| {
        let address = lab.host(host).unwrap().address();
        let socket = lab
            .in_netns(host, move || UdpSocket::bind((address, 0)))
            .unwrap()
            .unwrap();
        socket.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        socket
    };
    let (asking, answering) = (open(from), open(to));
    let target = answering.local_addr().unwrap();
    let mut buffer = [0; 16];
    (0..TRIES).any(|_| {
        // A neighbour that cannot be found is reported by the send, and counts as no answer.
        let _ = asking.send_to(b"ping", target);
        let Ok((length, peer)) = answering.recv_from(&mut buffer) else {
            return false;
        };
        answering.send_to(&buffer[..length], peer).unwrap();
        asking.recv_from(&mut buffer).is_ok()
    })
}

#[test]
fn every_host_reaches_every_other() {
    if !ready() {
        return;
    }
    let lab = lab();
    let names: Vec<_> = lab.hosts().iter().map(|h| h.name().to_owned()).collect();
    assert_eq!(names, ["atm1", "atm2", "atm3", "serv1", "serv2", "client"]);
    for from in &names {
        for to in names.iter().filter(|n| *n != from) {
            assert!(reaches(&lab, from, to), "{from} to {to}");
        }
    }
}

#[test]
fn a_cut_host_reaches_nobody_until_it_is_healed() {
    if !ready() {
        return;
    }
    let lab = lab();
    assert!(reaches(&lab, "client", "atm1"));
    lab.fault(Fault::Cut, "atm1").unwrap();
    assert_eq!(lab.status().unwrap().hosts[0].link, Link::Cut);
    for other in ["atm2", "serv1", "client"] {
        assert!(!reaches(&lab, "atm1", other), "atm1 to {other}");
        assert!(!reaches(&lab, other, "atm1"), "{other} to atm1");
    }
    assert!(reaches(&lab, "atm2", "client"), "others are not touched");
    let carrier = lab
        .host("atm1")
        .unwrap()
        .exec(["cat", "/sys/class/net/eth0/carrier"])
        .unwrap();
    assert_eq!(carrier.stdout, b"1\n", "the cut is silent");
    lab.fault(Fault::Heal, "atm1").unwrap();
    assert!(reaches(&lab, "client", "atm1"));
    assert_eq!(lab.status().unwrap().hosts[0].link, Link::Up);
}

#[test]
fn an_atm_cut_from_its_peers_still_reaches_servers_and_clients() {
    if !ready() {
        return;
    }
    let lab = lab();
    for _ in 0..2 {
        lab.fault(Fault::CutPeers, "atm1").unwrap();
    }
    assert_eq!(lab.status().unwrap().hosts[0].link, Link::CutPeers);
    for peer in ["atm2", "atm3"] {
        assert!(!reaches(&lab, "atm1", peer), "atm1 to {peer}");
        assert!(!reaches(&lab, peer, "atm1"), "{peer} to atm1");
    }
    for other in ["serv1", "client"] {
        assert!(reaches(&lab, "atm1", other), "atm1 to {other}");
        assert!(reaches(&lab, other, "atm1"), "{other} to atm1");
    }
    assert!(reaches(&lab, "atm2", "atm3"), "others are not touched");
    for _ in 0..2 {
        lab.fault(Fault::Heal, "atm1").unwrap();
    }
    assert!(reaches(&lab, "atm1", "atm2"));
    let refused = lab.fault(Fault::CutPeers, "serv1").unwrap_err();
    assert!(matches!(refused, LabError::NotAnAtm(_)), "{refused}");
}

#[test]
fn two_labs_live_side_by_side() {
    if !ready() {
        return;
    }
    let (one, two) = (lab(), lab());
    assert_ne!(one.prefix(), two.prefix());
    // Same addresses, other networks: a cut in one is no cut in the other.
    one.fault(Fault::Cut, "atm1").unwrap();
    assert!(!reaches(&one, "client", "atm1"));
    assert!(reaches(&two, "client", "atm1"));
    let two_dir = two.dir();
    drop(one);
    assert!(reaches(&two, "client", "atm1"));
    drop(two);
    assert!(!two_dir.exists());
}

#[test]
fn names_of_the_configuration_resolve_in_every_host() {
    if !ready() {
        return;
    }
    let text = "Services\n Service smtp tcp:25 connect\nEndServices\n\
                Servers\n Server serv1 serv1.my.org tunnel\n Server serv2 serv2.my.org tunnel\nEndServers\n\
                ServerPool mail\n AddServer serv1 smtp/1\n AddServer serv2 smtp/1\nEndServerPool\n\
                AtmPool ATMs\n AddAtm atm.my.org\nEndAtmPool\n\
                VirtualHost mail.my.org\n AddAtmPool ATMs\n AddServerPool mail\nEndVirtualHost\n";
    let lab = Lab::builder()
        .conf(text)
        .client()
        .without_daemons()
        .start()
        .unwrap();
    assert_eq!(
        lab.vips(),
        ["10.1.0.100".parse::<std::net::Ipv4Addr>().unwrap()]
    );
    for host in lab.hosts() {
        for (name, address) in [
            ("atm.my.org", "10.1.0.1"),
            ("serv2.my.org", "10.1.0.12"),
            ("mail.my.org", "10.1.0.100"),
            ("client", "10.1.0.200"),
        ] {
            let output = host.exec(["getent", "ahostsv4", name]).unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                said.starts_with(&format!("{address} ")),
                "{name} on {}: {said}",
                host.name()
            );
        }
    }
    let toml = std::fs::read_to_string(lab.host("serv2").unwrap().dir().join("atmd.toml")).unwrap();
    assert!(toml.starts_with("name = \"serv2.my.org\"\n"), "{toml}");
}

#[test]
fn an_invalid_configuration_is_refused_before_anything_is_made() {
    if !ready() {
        return;
    }
    let refused = Lab::builder()
        .conf("Servers\n Server\n")
        .start()
        .err()
        .unwrap();
    assert_eq!(refused.exit_code(), 78, "{refused}");
    let unknown = lab().host("atm9").err().unwrap();
    assert_eq!(
        unknown.to_string(),
        "no host named atm9; this lab has atm1, atm2, atm3, serv1, serv2, client"
    );
}

#[test]
fn a_closure_that_enters_no_namespace_does_not_run() {
    let entered = chaos_tests::lab::in_namespace("no-such-namespace", || panic!("ran"));
    assert!(
        matches!(entered, Err::<(), _>(LabError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    );
}

#[test]
fn ports_of_one_host_are_free_on_another() {
    if !ready() {
        return;
    }
    let lab = lab();
    let bind = |host| {
        lab.in_netns(host, || UdpSocket::bind(("0.0.0.0", PORT)))
            .unwrap()
    };
    let first = bind("atm1").unwrap();
    let second = bind("atm2").unwrap();
    assert_eq!(bind("atm1").unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop((first, second));
}
