//! Who speaks for an IPv6 VIP on the wire: never the server.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use super::encapsulator::{Checksums, Encapsulator};
use super::lab::{CLIENT6, Lab, SERVER, SERVER6, VIP6};
use super::tunnel::until;
use super::{plan, start_or_skip};

/// What the client knows of the link-layer address of a neighbour, having asked for it.
fn asked(lab: &Lab, address: IpAddr) -> String {
    lab.within("client", || {
        // The packet itself has no receiver; the solicitation before it does.
        let socket = UdpSocket::bind((CLIENT6, 0)).unwrap();
        socket.send_to(b"?", (address, 9)).unwrap();
    });
    neighbour(lab, address)
}

fn neighbour(lab: &Lab, address: IpAddr) -> String {
    lab.within("client", || {
        let show = ["-6", "neigh", "show", &address.to_string(), "dev", "eth0"];
        let output = Command::new("ip").args(show).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

fn in_client(lab: &Lab, arguments: &[&str]) {
    lab.within("client", || {
        assert!(
            Command::new("ip")
                .args(arguments)
                .status()
                .unwrap()
                .success(),
            "{arguments:?}"
        );
    });
}

#[test]
fn the_server_answers_no_solicitation_for_a_vip_and_makes_none_with_it() {
    let Some(lab) = Lab::build() else { return };
    lab.run("server", async || {
        let Some(role) = start_or_skip(plan(&lab)).await else {
            return;
        };
        let standing = lab.show("ip", &["-6", "-o", "addr", "show", "dev", "lo"]);
        let vip = standing
            .lines()
            .find(|line| line.contains(&format!("{VIP6}/128")))
            .unwrap();
        assert!(
            vip.contains("deprecated") && !vip.contains("tentative"),
            "never a source of this host's own connections: {vip}"
        );

        // An answer from the VIP makes the server ask for the client: with which address?
        let service = UdpSocket::bind((VIP6, 5353)).unwrap();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (length, peer) = service.recv_from(&mut buffer).unwrap();
            service.send_to(&buffer[..length], peer).unwrap();
        });
        lab.within("client", || {
            let _encapsulator = Encapsulator::start(Checksums::Finished, SERVER);
            let socket = UdpSocket::bind((CLIENT6, 0)).unwrap();
            socket.connect((VIP6, 5353)).unwrap();
            socket.send(b"who").unwrap();
            let mut answer = [0; 64];
            assert_eq!(socket.recv(&mut answer).unwrap(), 3);
        });
        echo.join().unwrap();
        assert_eq!(neighbour(&lab, VIP6), "", "nobody told of the VIP");
        assert!(
            lab.show("ip", &["-6", "neigh", "show", "dev", "eth0"])
                .contains(&CLIENT6.to_string()),
            "the server did ask for the client"
        );

        // Asked on the wire, and even where the host forwards and may be a proxy.
        let vip = format!("{VIP6}/128");
        in_client(&lab, &["-6", "route", "del", &vip]);
        for forwarding in ["0", "1"] {
            lab.within("server", || {
                for key in ["all/forwarding", "eth0/proxy_ndp"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{key}");
                    std::fs::write(path, forwarding).unwrap();
                }
            });
            in_client(&lab, &["-6", "neigh", "flush", "dev", "eth0"]);
            until(
                || asked(&lab, SERVER6).contains("lladdr"),
                || "the server answers for itself".to_owned(),
            );
            asked(&lab, VIP6);
            // Three solicitations, one second apart (RFC 4861 §10), and nothing came.
            until(
                || neighbour(&lab, VIP6).contains("FAILED"),
                || format!("forwarding {forwarding}: {}", neighbour(&lab, VIP6)),
            );
            assert!(!neighbour(&lab, VIP6).contains("lladdr"));
        }
        role.stop().await.unwrap();
    });
}
