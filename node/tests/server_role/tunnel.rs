//! Packets through the tunnel: a client's kernel TCP and UDP at one end, the server's at the other.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use node::server_role::{Method, Plan, ServerRole, Unpacking};
use rustix::net::sockopt::{set_ip_tos, set_ipv6_tclass};

use super::encapsulator::{Checksums, Encapsulator, Way};
use super::lab::{CLIENT, CLIENT6, Lab, SERVER, SERVER6, STANDING_VIP, VIP, VIP2, VIP6, client};
use super::{plan, start_or_skip};

/// Outer and inner version, and the MSS that fits an MTU of 1500 (docs/adr/0009-server-role-ipv6.md).
const COMBINATIONS: [(IpAddr, IpAddr, u16); 4] = [
    (SERVER, VIP, 1440),
    (SERVER, VIP6, 1420),
    (SERVER6, VIP, 1420),
    (SERVER6, VIP6, 1400),
];

fn plan_to(lab: &Lab, server: IpAddr) -> Plan {
    Plan {
        address: server,
        atms: vec![client(server)],
        ..plan(lab)
    }
}

#[test]
fn a_client_reaches_the_vip_through_each_tunnel_and_the_answer_comes_directly() {
    let Some(lab) = Lab::build() else { return };
    for (server, vip, mss) in COMBINATIONS {
        // Single segments as over a wire, and large frames as between hosts of one machine.
        for (segments, checksums) in [
            ("1", Checksums::Finished),
            ("16", Checksums::Finished),
            ("16", Checksums::Unfinished),
        ] {
            let what = format!("{vip} in {server}, {segments} segments, {checksums:?}");
            lab.within("client", || {
                let set = ["link", "set", "out0", "gso_max_segs", segments];
                assert!(Command::new("ip").args(set).status().unwrap().success());
            });
            lab.run("server", async || {
                let Some(role) = start_or_skip(plan_to(&lab, server)).await else {
                    return;
                };
                if role.unpacking() == Unpacking::Kernel && checksums == Checksums::Unfinished {
                    let _ = writeln!(
                        std::io::stderr(),
                        "skipped: the kernel's tunnel wants finished checksums"
                    );
                    return role.stop().await.unwrap();
                }
                tcp(&lab, &role, (server, vip, mss), checksums, &what);
                role.stop().await.unwrap();
            });
        }
    }
}

/// One connection that carries bytes there and back.
fn tcp(
    lab: &Lab,
    role: &ServerRole,
    (server, vip, mss): (IpAddr, IpAddr, u16),
    checksums: Checksums,
    what: &str,
) {
    const BYTES: usize = 400_000;
    let listener = TcpListener::bind((vip, 8080)).unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut received = vec![0; BYTES];
        stream.read_exact(&mut received).unwrap();
        stream.write_all(&received).unwrap();
        peer
    });
    let seen = lab.within("client", || {
        let encapsulator = Encapsulator::start(checksums, server);
        let mut stream =
            connect(vip, Duration::from_secs(5)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let sent: Vec<u8> = (0..BYTES)
            .map(|i| u8::try_from(i * 7 % 251).unwrap())
            .collect();
        stream.write_all(&sent).unwrap();
        let mut echoed = vec![0; BYTES];
        stream.read_exact(&mut echoed).unwrap();
        assert!(echoed == sent, "the bytes came back changed: {what}");
        encapsulator.end()
    });
    assert_eq!(echo.join().unwrap().ip(), client(vip), "{what}");
    assert!(
        !seen.mss.is_empty() && seen.mss.iter().all(|announced| *announced == mss),
        "{what}: {seen:?}"
    );
    // With one segment in each frame what is seen is what a wire would carry.
    if what.contains(", 1 segments") {
        assert!(
            seen.longest <= 1500,
            "full segments fit the tunnel: {what}: {seen:?}"
        );
        assert!(seen.longest > 1480, "and fill it: {what}: {seen:?}");
    }
    let is_unfinished = checksums == Checksums::Unfinished;
    assert_eq!(seen.unfinished > 0, is_unfinished, "{what}: {seen:?}");
    // Each packet, and whether its checksum was unfinished: the last may still be on its way, or have one of its two counts.
    let by = Instant::now() + Duration::from_secs(5);
    loop {
        let counters = role.counters();
        let delivered = (counters.delivered, counters.delivered_partial_checksum);
        if delivered == (seen.tunnelled, seen.unfinished) {
            break;
        }
        assert!(Instant::now() < by, "{what}: {seen:?} {counters:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn datagrams_reach_the_vip_through_each_tunnel() {
    let Some(lab) = Lab::build() else { return };
    for (server, vip, _) in COMBINATIONS {
        lab.run("server", async || {
            let Some(role) = start_or_skip(plan_to(&lab, server)).await else {
                return;
            };
            let service = UdpSocket::bind((vip, 5353)).unwrap();
            service
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let echo = std::thread::spawn(move || {
                let mut buffer = [0; 2000];
                let (length, peer) = service.recv_from(&mut buffer).unwrap();
                service.send_to(&buffer[..length], peer).unwrap();
            });
            let question = vec![0x5a_u8; 1200];
            lab.within("client", || {
                let _encapsulator = Encapsulator::start(Checksums::Finished, server);
                let socket = UdpSocket::bind((client(vip), 0)).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                socket.connect((vip, 5353)).unwrap();
                socket.send(&question).unwrap();
                let mut answer = [0; 2000];
                let length = socket
                    .recv(&mut answer)
                    .unwrap_or_else(|error| panic!("{vip} in {server}: {error}"));
                assert!(answer[..length] == question[..], "{vip} in {server}");
            });
            echo.join().unwrap();
            assert_eq!(role.counters().delivered, 1, "{vip} in {server}");
            role.stop().await.unwrap();
        });
    }
}

/// A header alone: ICMP of either version without a byte of it.
fn packet(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [
            &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0][..],
            &source.octets(),
            &destination.octets(),
        ]
        .concat(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => [
            &[0x60, 0, 0, 0, 0, 0, 58, 64][..],
            &source.octets(),
            &destination.octets(),
        ]
        .concat(),
        _ => panic!("one packet has one version"),
    }
}

#[test]
fn packets_that_do_not_belong_are_counted_by_name_and_not_delivered() {
    let Some(lab) = Lab::build() else { return };
    for server in [SERVER, SERVER6] {
        lab.run("server", async || {
            let only_v4 = Plan {
                vips: vec![VIP, STANDING_VIP],
                ..plan_to(&lab, server)
            };
            let Some(mut role) = start_or_skip(only_v4).await else {
                return;
            };
            if role.unpacking() == Unpacking::Kernel {
                let _ = writeln!(
                    std::io::stderr(),
                    "skipped: the kernel unpacks, and nftables counts"
                );
                return role.stop().await.unwrap();
            }
            let (to_server4, to_server6) = (packet(CLIENT, SERVER), packet(CLIENT6, SERVER6));
            lab.within("client", || {
                let way = Way::to(server);
                way.send(&to_server4);
                way.send(&to_server6);
                way.send_as(0, &to_server4[..19]);
                way.send_as(1, &to_server6[..39]);
                way.send_as(0, &[0x60; 40]);
                way.send_as(1, &[0x45; 40]);
            });
            let counted = |role: &ServerRole| {
                let counters = role.counters();
                (
                    counters.inner_destination,
                    counters.inner_truncated,
                    counters.inner_version,
                )
            };
            until(
                || counted(&role) == (2, 2, 2),
                || format!("{server}: {:?}", role.counters()),
            );
            assert_eq!(role.counters().delivered, 0);

            // VIP2 and VIP6 are let through only once they are this server's.
            let to_new_vips = || {
                lab.within("client", || {
                    let way = Way::to(server);
                    way.send(&packet(CLIENT, VIP2));
                    way.send(&packet(CLIENT6, VIP6));
                });
            };
            to_new_vips();
            until(
                || role.counters().inner_destination == 4,
                || format!("{server}: {:?}", role.counters()),
            );
            role.update(vec![VIP, VIP2, VIP6, STANDING_VIP], vec![client(server)])
                .await
                .unwrap();
            to_new_vips();
            until(
                || role.counters().delivered == 2,
                || format!("{server}: {:?}", role.counters()),
            );

            // A congestion mark that the packet inside cannot carry.
            lab.within("client", || {
                let way = Way::to(server);
                for socket in &way.sockets {
                    if server.is_ipv4() {
                        set_ip_tos(socket, 0b11).unwrap();
                    } else {
                        set_ipv6_tclass(socket, 0b11).unwrap();
                    }
                }
                way.send(&packet(CLIENT, VIP2));
                way.send(&packet(CLIENT6, VIP6));
            });
            until(
                || role.counters().outer_congestion == 2,
                || format!("{server}: {:?}", role.counters()),
            );
            assert_eq!(role.counters().delivered, 2);
            role.stop().await.unwrap();

            let elsewhere = if server.is_ipv4() { VIP2 } else { VIP6 };
            let stranger = Plan {
                atms: vec![elsewhere],
                ..plan_to(&lab, server)
            };
            let Some(mut role) = start_or_skip(stranger).await else {
                return;
            };
            lab.within("client", || {
                let _encapsulator = Encapsulator::start(Checksums::Finished, server);
                assert!(connect(VIP, Duration::from_millis(300)).is_err());
                assert!(connect(VIP6, Duration::from_millis(300)).is_err());
            });
            assert!(
                role.counters().outer_source > 1 && role.counters().delivered == 0,
                "{server}: {:?}",
                role.counters()
            );

            // Another version of the configuration has other ATMs.
            let known = plan_to(&lab, server);
            assert!(role.can_become(&known));
            let direct = Plan {
                method: Method::Direct,
                ..known.clone()
            };
            assert!(!role.can_become(&direct));
            role.update(known.vips, known.atms).await.unwrap();
            lab.within("client", || {
                Way::to(server).send(&packet(client(VIP), VIP));
            });
            until(
                || role.counters().delivered == 1,
                || format!("{server}: {:?}", role.counters()),
            );
            role.stop().await.unwrap();
        });
    }
}

#[test]
fn an_ipv6_vip_that_comes_later_serves_connections() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    lab.run("server", async || {
        let only_v4 = Plan {
            vips: vec![VIP],
            ..plan(&lab)
        };
        let Some(mut role) = start_or_skip(only_v4).await else {
            return;
        };
        if role.unpacking() == Unpacking::Process {
            role.update(vec![VIP, VIP6], vec![CLIENT]).await.unwrap();
            let combination = (SERVER, VIP6, 1420);
            tcp(&lab, &role, combination, Checksums::Finished, "later");
        }
        role.stop().await.unwrap();
    });
    lab.assert_is(&before, "at the end");
}

fn connect(vip: IpAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((vip, 8080)), patience)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

pub(crate) fn until(holds: impl Fn() -> bool, what: impl Fn() -> String) {
    let patience = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < patience, "never came: {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}
