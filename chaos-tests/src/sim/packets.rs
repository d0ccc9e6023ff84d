//! The bytes of the simulated hosts: TCP and ARP as a client sends them, and what a server finds in a tunnel.

use std::net::Ipv4Addr;

use dataplane_core::MacAddr;

use super::hosts::{self, VIP};
use super::network::{ATM, SERVER};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const IPIP: u8 = 4;

/// A TCP packet without data, or with eight bytes of it.
pub(crate) struct Segment {
    pub(crate) client: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) vip: Ipv4Addr,
    pub(crate) service: u16,
    pub(crate) flags: u8,
}

impl Segment {
    pub(crate) fn frame(&self, source: MacAddr, destination: MacAddr) -> Vec<u8> {
        let data: &[u8] = if self.flags == ACK { b"12345678" } else { b"" };
        let len = IPV4 + TCP + data.len();
        let mut bytes = Vec::with_capacity(ETHERNET + len);
        bytes.extend_from_slice(&destination.0);
        bytes.extend_from_slice(&source.0);
        bytes.extend_from_slice(&[8, 0, 0x45, 0]);
        bytes.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(&[0x12, 0x34, 0x40, 0, 61, 6, 0, 0]);
        bytes.extend_from_slice(&self.client.octets());
        bytes.extend_from_slice(&self.vip.octets());
        let sum = checksum(&bytes[ETHERNET..]);
        bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.service.to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0, 5 << 4, self.flags, 0x72, 0x10]);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(data);
        bytes
    }

    /// The segment in an IP packet.
    fn parse(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let word = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk::<2>()?));
        Some(Self {
            client: address(12)?,
            vip: address(16)?,
            port: word(IPV4)?,
            service: word(IPV4 + 2)?,
            flags: *packet.get(IPV4 + 13)?,
        })
    }

    /// What a client sent in a frame; `None`: something else.
    pub(crate) fn of_client(frame: &[u8]) -> Option<Self> {
        (is_ip(frame) && frame.get(ETHERNET + 9) == Some(&6)).then_some(())?;
        Self::parse(frame.get(ETHERNET..)?)
    }

    /// What a tunnel to `server` carries; `None`: something else.
    pub(crate) fn in_tunnel(frame: &[u8], server: Ipv4Addr) -> Option<Self> {
        (is_ip(frame) && frame.get(ETHERNET + 9) == Some(&IPIP)).then_some(())?;
        (frame.get(ETHERNET + 16..ETHERNET + 20)? == server.octets()).then_some(())?;
        Self::parse(frame.get(ETHERNET + IPV4..)?)
    }
}

/// What an ARP frame says (RFC 826).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arp {
    pub(crate) request: bool,
    pub(crate) mac: MacAddr,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
}

impl Arp {
    pub(crate) fn frame(&self, destination: MacAddr) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ETHERNET + 28);
        bytes.extend_from_slice(&destination.0);
        bytes.extend_from_slice(&self.mac.0);
        bytes.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, if self.request { 1 } else { 2 }]);
        bytes.extend_from_slice(&self.mac.0);
        bytes.extend_from_slice(&self.sender.octets());
        let target_mac = if self.request {
            MacAddr::ZERO
        } else {
            destination
        };
        bytes.extend_from_slice(&target_mac.0);
        bytes.extend_from_slice(&self.target.octets());
        bytes
    }

    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let body = frame.get(ETHERNET..ETHERNET + 28)?;
        (frame.get(12..14)? == [8, 6]).then_some(())?;
        let address = |at: usize| Some(Ipv4Addr::from(*body.get(at..)?.first_chunk::<4>()?));
        Some(Self {
            request: body[7] == 1,
            mac: MacAddr(*body.get(8..)?.first_chunk::<6>()?),
            sender: address(14)?,
            target: address(24)?,
        })
    }
}

pub(crate) fn destination(frame: &[u8]) -> Option<MacAddr> {
    frame.first_chunk::<6>().map(|mac| MacAddr(*mac))
}

/// Only who holds the lease may send it: everything but a host's own question and what is passed to another ATM.
pub(crate) fn speaks_for_vip(frame: &[u8]) -> bool {
    match Arp::parse(frame) {
        Some(arp) => !arp.request || arp.sender == arp.target,
        None => !is_relay(frame),
    }
}

/// A client's packet for the VIP, as it came, on its way to an ATM: it speaks for nobody.
pub(crate) fn is_relay(frame: &[u8]) -> bool {
    let to = destination(frame).and_then(hosts::host_of);
    let to_vip = Segment::of_client(frame).is_some_and(|segment| segment.vip == VIP);
    to_vip && to.is_some_and(|to| (ATM..SERVER).contains(&to))
}

fn is_ip(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
