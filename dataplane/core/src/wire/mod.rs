//! Bytes on the wire, and nothing of what they mean to us.
//!
//! A packet is checked once, in the constructor of its view; every accessor relies on what the constructor proved
//! and cannot panic. Never imports: the table, the connections, the lease.

pub(crate) mod arp;
pub(crate) mod checksum;
pub(crate) mod ethernet;
#[cfg(test)]
mod fuzz;
pub(crate) mod icmp;
pub(crate) mod ip;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod nd;
pub(crate) mod tcp;
pub(crate) mod udp;

/// The big-endian word at `at` of a fixed header; `at + 1 < N` is checked when the call is compiled with constants.
pub(crate) const fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
