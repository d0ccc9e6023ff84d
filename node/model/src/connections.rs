//! Records of the connection table as they are replicated: which server each live connection is pinned to.
//!
//! Invariant: a connection has one server from `Open` to `Close`.

use std::net::{IpAddr, Ipv6Addr};

use crate::ids::{ServerId, VirtualServiceId};

/// What tells one connection from another. The protocol and the VIP are those of the virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub port: u16,
    /// The virtual service it talks to.
    pub service: VirtualServiceId,
}

/// One change of the replicated connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionChange {
    /// The connection exists and belongs to this server.
    Open(ConnectionKey, ServerId),
    /// The connection is over: closed, reset or idle for longer than ConnectionTimeout.
    Close(ConnectionKey),
}

/// Bytes of one encoded change, fixed so that a batch is encoded and decoded without a length per record.
pub const CHANGE_LEN: usize = 24;

/// A stored change that no writer of this program produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection record with unknown kind {0}")]
pub struct BadRecord(pub u8);

const OPEN: u8 = 1;
const CLOSE: u8 = 2;

impl ConnectionChange {
    /// The connection that changes.
    pub const fn key(&self) -> &ConnectionKey {
        match self {
            Self::Open(key, _) | Self::Close(key) => key,
        }
    }

    /// Layout, big endian: kind 1, reserved 1, server 2, service 2, client port 2, client address 16 (IPv4 mapped, RFC 4291 §2.5.5.2).
    pub fn encode(&self) -> [u8; CHANGE_LEN] {
        let (kind, server) = match self {
            Self::Open(_, server) => (OPEN, server.0),
            Self::Close(_) => (CLOSE, 0),
        };
        let key = self.key();
        let address = match key.client {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; CHANGE_LEN];
        bytes[0] = kind;
        bytes[2..4].copy_from_slice(&server.to_be_bytes());
        bytes[4..6].copy_from_slice(&key.service.0.to_be_bytes());
        bytes[6..8].copy_from_slice(&key.port.to_be_bytes());
        bytes[8..24].copy_from_slice(&address.octets());
        bytes
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8; CHANGE_LEN]) -> Result<Self, BadRecord> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[8..24]);
        let key = ConnectionKey {
            client: Ipv6Addr::from(address).to_canonical(),
            port: word(6),
            service: VirtualServiceId(word(4)),
        };
        match bytes[0] {
            OPEN => Ok(Self::Open(key, ServerId(word(2)))),
            CLOSE => Ok(Self::Close(key)),
            kind => Err(BadRecord(kind)),
        }
    }
}
