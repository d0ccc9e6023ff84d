//! Packets through the tunnel: a client's kernel TCP at one end, the server's at the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use node::server_role::{Plan, ServerRole, Unpacking};

use super::encapsulator::{Checksums, Encapsulator, send_inside, tunnel_socket};
use super::lab::{CLIENT, Lab, SERVER, STANDING_VIP, VIP, VIP2};
use super::{plan, start_or_skip};

#[test]
fn a_client_reaches_the_vip_through_the_tunnel_and_the_answer_comes_directly() {
    const BYTES: usize = 400_000;
    let Some(lab) = Lab::build() else { return };
    // Single segments as over a wire, and large frames as between hosts of one machine.
    for (segments, checksums) in [
        ("1", Checksums::Finished),
        ("16", Checksums::Finished),
        ("16", Checksums::Unfinished),
    ] {
        lab.within("client", || {
            let set = ["link", "set", "out0", "gso_max_segs", segments];
            assert!(Command::new("ip").args(set).status().unwrap().success());
        });
        lab.run("server", async || {
            let Some(role) = start_or_skip(plan(&lab)).await else {
                return;
            };
            if role.unpacking() == Unpacking::Kernel && checksums == Checksums::Unfinished {
                let _ = writeln!(
                    std::io::stderr(),
                    "skipped: the kernel's ipip wants finished checksums"
                );
                return role.stop().await.unwrap();
            }
            let listener = TcpListener::bind((VIP, 8080)).unwrap();
            let echo = std::thread::spawn(move || {
                let (mut stream, peer) = listener.accept().unwrap();
                let mut received = vec![0; BYTES];
                stream.read_exact(&mut received).unwrap();
                stream.write_all(&received).unwrap();
                peer
            });
            let seen = lab.within("client", || {
                let encapsulator = Encapsulator::start(checksums);
                let mut stream = connect(VIP, Duration::from_secs(5)).unwrap();
                let sent: Vec<u8> = (0..BYTES)
                    .map(|i| u8::try_from(i * 7 % 251).unwrap())
                    .collect();
                stream.write_all(&sent).unwrap();
                let mut echoed = vec![0; BYTES];
                stream.read_exact(&mut echoed).unwrap();
                assert!(echoed == sent, "the bytes came back changed");
                encapsulator.seen()
            });
            assert_eq!(echo.join().unwrap().ip(), CLIENT);
            assert!(
                !seen.mss.is_empty() && seen.mss.iter().all(|mss| *mss == 1440),
                "{seen:?}"
            );
            if segments == "1" {
                assert!(
                    seen.longest <= 1500,
                    "full segments fit the tunnel: {seen:?}"
                );
            }
            let counters = role.counters();
            assert!(counters.delivered > 0, "{counters:?}");
            let unfinished = if checksums == Checksums::Unfinished {
                counters.delivered
            } else {
                0
            };
            assert_eq!(
                counters.delivered_partial_checksum, unfinished,
                "{counters:?}"
            );
            role.stop().await.unwrap();
        });
    }
}

#[test]
fn packets_that_do_not_belong_are_counted_by_name_and_not_delivered() {
    let Some(lab) = Lab::build() else { return };
    lab.run("server", async || {
        let Some(mut role) = start_or_skip(plan(&lab)).await else {
            return;
        };
        if role.unpacking() == Unpacking::Kernel {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: the kernel unpacks, and nftables counts"
            );
            return role.stop().await.unwrap();
        }
        let to_the_server = [
            &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0][..],
            &CLIENT.octets(),
            &SERVER.octets(),
        ]
        .concat();
        lab.within("client", || {
            let socket = tunnel_socket();
            send_inside(&socket, &to_the_server);
            send_inside(&socket, &to_the_server[..19]);
            send_inside(&socket, &[0x60; 40]);
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
            || counted(&role) == (1, 1, 1),
            || format!("{:?}", role.counters()),
        );
        assert_eq!(role.counters().delivered, 0);

        // VIP2 is let through only once it is one of this server's.
        let to_vip2 = |socket: &_| {
            let packet = [
                &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0][..],
                &CLIENT.octets(),
                &VIP2.octets(),
            ]
            .concat();
            send_inside(socket, &packet);
        };
        lab.within("client", || to_vip2(&tunnel_socket()));
        until(
            || role.counters().inner_destination == 2,
            || format!("{:?}", role.counters()),
        );
        role.update(vec![VIP, VIP2, STANDING_VIP]).await.unwrap();
        lab.within("client", || to_vip2(&tunnel_socket()));
        until(
            || role.counters().delivered == 1,
            || format!("{:?}", role.counters()),
        );
        role.stop().await.unwrap();

        let stranger = Plan {
            atms: vec![VIP2],
            ..plan(&lab)
        };
        let Some(role) = start_or_skip(stranger).await else {
            return;
        };
        lab.within("client", || {
            let _encapsulator = Encapsulator::start(Checksums::Finished);
            assert!(connect(VIP, Duration::from_millis(300)).is_err());
        });
        assert!(
            role.counters().outer_source > 0 && role.counters().delivered == 0,
            "{:?}",
            role.counters()
        );
        role.stop().await.unwrap();
    });
}

fn connect(vip: Ipv4Addr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((vip, 8080)), patience)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn until(holds: impl Fn() -> bool, what: impl Fn() -> String) {
    let patience = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < patience, "never came: {}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}
