//! Numbered datagrams from one host of a lab to another: what arrives, how often, in which order and when.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::lab::{Lab, format_mac};

/// Nothing comes any more: longer than any delay of these tests on a loaded machine.
const QUIET: Duration = Duration::from_millis(400);

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Its number, from 0.
    pub(crate) number: u32,
    /// How long it was under way.
    pub(crate) after: Duration,
}

/// Makes every host know every other one's Ethernet address for ever: a cut in one direction must not stop the other one.
pub(crate) fn introduce(lab: &Lab) {
    let hosts = lab.hosts();
    for host in &hosts {
        let mut script = String::new();
        for other in hosts.iter().filter(|other| other.name() != host.name()) {
            let (address, mac) = (other.address(), format_mac(other.mac()));
            script += &format!("ip neigh replace {address} lladdr {mac} dev eth0 nud permanent\n");
        }
        host.said(["sh", "-c", &script]).unwrap();
    }
}

/// Sends `count` datagrams, `gap` apart, and waits until no more arrive.
pub(crate) fn send(lab: &Lab, from: &str, to: &str, count: u32, gap: Duration) -> Vec<Arrival> {
    let (sender, receiver) = (open(lab, from), open(lab, to));
    let target = receiver.local_addr().unwrap();
    receiver.set_read_timeout(Some(QUIET)).unwrap();
    let started = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            for number in 0..count {
                let sent_at = u64::try_from(started.elapsed().as_nanos()).unwrap();
                let datagram = [&number.to_be_bytes()[..], &sent_at.to_be_bytes()].concat();
                // A host without carrier may refuse; then it does not arrive.
                let _ = sender.send_to(&datagram, target);
                thread::sleep(gap);
            }
        });
        let mut arrivals = Vec::new();
        let mut buffer = [0; 64];
        loop {
            match receiver.recv_from(&mut buffer) {
                Ok((12, _)) => {
                    let sent = u64::from_be_bytes(buffer[4..12].try_into().unwrap());
                    arrivals.push(Arrival {
                        number: u32::from_be_bytes(buffer[..4].try_into().unwrap()),
                        after: started.elapsed() - Duration::from_nanos(sent),
                    });
                }
                Ok(_) => {}
                Err(_) if sending.is_finished() => return arrivals,
                Err(_) => {}
            }
        }
    })
}

/// Whether datagrams arrive, of some that are sent for a second or until one has arrived.
pub(crate) fn passes(lab: &Lab, from: &str, to: &str) -> bool {
    arrives_within(lab, from, to, 5, Duration::from_secs(1))
}

/// Whether datagrams of `bytes` arrive.
pub(crate) fn passes_of(lab: &Lab, from: &str, to: &str, bytes: usize) -> bool {
    arrives_within(lab, from, to, bytes, Duration::from_millis(300))
}

/// Whether none arrives of those sent for a tenth of a second.
pub(crate) fn is_cut(lab: &Lab, from: &str, to: &str) -> bool {
    !arrives_within(lab, from, to, 5, Duration::from_millis(100))
}

fn arrives_within(lab: &Lab, from: &str, to: &str, bytes: usize, limit: Duration) -> bool {
    let (sender, receiver) = (open(lab, from), open(lab, to));
    let target = receiver.local_addr().unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let give_up = Instant::now() + limit;
    while Instant::now() < give_up {
        let _ = sender.send_to(&vec![0; bytes], target);
        if receiver.recv_from(&mut [0; 64]).is_ok() {
            return true;
        }
    }
    false
}

fn open(lab: &Lab, host: &str) -> UdpSocket {
    let address = lab.host(host).unwrap().address();
    lab.in_netns(host, move || UdpSocket::bind((address, 0)))
        .unwrap()
        .unwrap()
}
