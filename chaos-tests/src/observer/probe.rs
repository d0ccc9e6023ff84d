//! Asking for a VIP at a steady pace, so that every ATM that believes in itself has to say so; and the frames for it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::event::Mac;
use super::raw::RawPort;
use crate::lab::{Lab, LabError};

/// The prober's own MAC. Answers go there and to nobody, so the client's neighbour table learns nothing from them.
pub const PROBER_MAC: Mac = [0x02, 0xff, 0, 0, 0, 1];

/// Host part of the address the prober asks from; no host of a lab gets it before all others are taken.
const PROBER_HOST: u8 = 254;

/// Asks who has a VIP, from the client's interface, until it is dropped.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Asks for `vip` every `interval`.
    ///
    /// # Errors
    /// The lab has no client, or its interface cannot be opened.
    pub fn start(lab: &Lab, vip: Ipv4Addr, interval: Duration) -> Result<Self, LabError> {
        let port = RawPort::open(lab.host("client")?.namespace(), "eth0")?;
        let [a, b, c, _] = vip.octets();
        let question = arp_request(PROBER_MAC, Ipv4Addr::new(a, b, c, PROBER_HOST), vip);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let ask = move || {
            while !stopped.load(Ordering::Relaxed) {
                // A full queue loses one question; the next one follows.
                let _ = port.send(&question);
                thread::sleep(interval);
            }
        };
        let thread = thread::Builder::new()
            .name("prober".to_owned())
            .spawn(ask)
            .map_err(LabError::io("start a thread"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A broadcast frame that asks who has `target` (RFC 826).
#[must_use]
pub fn arp_request(source: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(1, source, sender, [0; 6], target)
}

/// A broadcast frame that announces `address` at `source`, as a request or as a reply (RFC 2002 §4.6).
#[must_use]
pub fn gratuitous_arp(source: Mac, address: Ipv4Addr, reply: bool) -> Vec<u8> {
    if reply {
        arp(2, source, address, source, address)
    } else {
        arp(1, source, address, [0; 6], address)
    }
}

fn arp(operation: u8, source: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(source);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(source);
    frame.extend(sender.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}
