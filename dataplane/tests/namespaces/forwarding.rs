//! A client with its default offloads reaches a server through the engine, small and in bulk.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use dataplane::{Count, PortKind, boottime};
use model::conf::ForwardingMethod;
use model::ids::Epoch;

use super::decapsulate;
use super::lab::{Lab, PORT, Router, VIP, block_on};

const UPLOAD_BYTES: usize = 5 << 20;

#[test]
fn ring_direct() {
    talks(
        "ring_direct",
        PortKind::Ring,
        ForwardingMethod::Direct,
        1500,
    );
}

#[test]
fn ring_tunnel() {
    talks(
        "ring_tunnel",
        PortKind::Ring,
        ForwardingMethod::Tunnel,
        1500,
    );
}

#[test]
fn pnet_direct() {
    talks(
        "pnet_direct",
        PortKind::Pnet,
        ForwardingMethod::Direct,
        1500,
    );
}

#[test]
fn pnet_tunnel() {
    talks(
        "pnet_tunnel",
        PortKind::Pnet,
        ForwardingMethod::Tunnel,
        1500,
    );
}

/// Larger slots in the ring, longer frames everywhere.
#[test]
fn ring_tunnel_jumbo() {
    talks(
        "ring_tunnel_jumbo",
        PortKind::Ring,
        ForwardingMethod::Tunnel,
        9000,
    );
}

#[test]
fn pnet_tunnel_jumbo() {
    talks(
        "pnet_tunnel_jumbo",
        PortKind::Pnet,
        ForwardingMethod::Tunnel,
        9000,
    );
}

/// The node lets go without a word: the engine ends, also under load.
#[test]
fn the_last_handle_ends_the_engine() {
    let Some(lab) = Lab::new("the_last_handle_ends_the_engine") else {
        return;
    };
    let _stream = super::stream::Stream::start(&lab, Duration::ZERO);
    let (ends, ended) = std::sync::mpsc::channel();
    lab.on("atm", move || {
        let lease = std::sync::Arc::new(dataplane::LeaseCell::new());
        let config = dataplane::EngineConfig {
            interface: "e0".to_owned(),
            port: PortKind::Ring,
            address: None,
            limits: dataplane_core::Limits {
                pending_max: 1,
                connections_max: 1,
            },
        };
        let (handle, mut events) = dataplane::start(config, lease).unwrap();
        thread::spawn(move || ends.send(block_on(events.recv())));
        drop(handle);
    });
    // The channel of events closes when the engine lets go of it.
    assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Ok(None));
}

fn talks(test: &str, kind: PortKind, method: ForwardingMethod, mtu: u16) {
    let Some(lab) = Lab::new(test) else { return };
    lab.set_mtu(mtu);
    let seen = decapsulate::start(&lab);
    serve(&lab);
    let router = lab.on("atm", move || Router::start(kind, method));
    assert!(
        router
            .lease
            .grant(Epoch(1), boottime() + Duration::from_secs(60))
    );

    let small = lab.on("client", || exchange(5).unwrap());
    assert_eq!(small, 5);
    let large = lab.on("client", || exchange(UPLOAD_BYTES).unwrap());
    assert_eq!(large, UPLOAD_BYTES);

    if method == ForwardingMethod::Tunnel {
        assert!(
            seen.packets.load(Ordering::Relaxed)
                >= u64::try_from(UPLOAD_BYTES).unwrap() / u64::from(mtu),
            "fewer packets than 5 MiB need"
        );
        assert_eq!(
            seen.wrong.load(Ordering::Relaxed),
            0,
            "a wrong checksum or header was sent"
        );
        assert!(seen.longest.load(Ordering::Relaxed) <= u64::from(mtu));
    } else {
        assert_eq!(seen.packets.load(Ordering::Relaxed), 0);
    }
    let stats = router.handle.stats();
    assert_eq!(stats.epoch(), Some(Epoch(1)));
    assert!(stats.first_gratuitous_arp_of_epoch_at() <= stats.first_transmit_of_epoch_at());
    assert!(stats.first_transmit_of_epoch_at() < stats.last_transmit_at());
    for count in [
        Count::WithheldAtSend,
        Count::FrameTooLong,
        Count::FrameBeyondMtu,
        Count::SendFailed,
        Count::PortFailures,
    ] {
        assert_eq!(stats.count(count), 0, "{}", count.name());
    }
    let snapshot = block_on(router.handle.snapshot()).unwrap();
    assert_eq!(snapshot.receive.truncated, 0);
    assert!(snapshot.verdicts.verdict(dataplane_core::Verdict::Transmit) > 0);
    assert_eq!(
        block_on(router.handle.shutdown()),
        dataplane::Ended::Shutdown
    );
}

/// Reads until the client is done, answers with how many bytes came and whether they were the right ones.
fn serve(lab: &Lab) {
    let listener = lab.on("server", || TcpListener::bind((VIP, PORT)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let (mut buffer, mut total) = (vec![0; 65_536], 0_usize);
            loop {
                let length = stream.read(&mut buffer).unwrap();
                if length == 0 {
                    break;
                }
                let right = buffer[..length]
                    .iter()
                    .zip(total..)
                    .all(|(byte, at)| usize::from(*byte) == at % 251);
                total = if right { total + length } else { usize::MAX };
            }
            stream.write_all(&total.to_be_bytes()).unwrap();
        }
    });
}

fn exchange(length: usize) -> std::io::Result<usize> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((VIP, PORT)), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let bytes: Vec<u8> = (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    stream.write_all(&bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    Ok(usize::from_be_bytes(answer))
}
