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
    talks("ring_direct", PortKind::Ring, ForwardingMethod::Direct);
}

#[test]
fn ring_tunnel() {
    talks("ring_tunnel", PortKind::Ring, ForwardingMethod::Tunnel);
}

#[test]
fn pnet_direct() {
    talks("pnet_direct", PortKind::Pnet, ForwardingMethod::Direct);
}

#[test]
fn pnet_tunnel() {
    talks("pnet_tunnel", PortKind::Pnet, ForwardingMethod::Tunnel);
}

fn talks(test: &str, kind: PortKind, method: ForwardingMethod) {
    let Some(lab) = Lab::new(test) else { return };
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
            seen.packets.load(Ordering::Relaxed) > 3000,
            "5 MiB in pieces of at most 1480 bytes"
        );
        assert_eq!(
            seen.wrong.load(Ordering::Relaxed),
            0,
            "a wrong checksum or header was sent"
        );
        assert!(seen.longest.load(Ordering::Relaxed) <= 1500);
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
