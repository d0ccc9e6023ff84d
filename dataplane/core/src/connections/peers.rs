//! Connections as servers behind NAT know them: by the two ends of what the server sends.
//!
//! Invariant: what a server sends from one end to another belongs to one connection at most.

use std::net::IpAddr;

use model::conf::Protocol;
use rustc_hash::FxHashMap;

/// The ends of a connection on its server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) protocol: Protocol,
    pub(crate) server: IpAddr,
    pub(crate) server_port: u16,
    /// Whom the server answers: the client, or with full NAT the source address.
    pub(crate) peer: IpAddr,
    pub(crate) peer_port: u16,
}

/// Which connection it is.
#[derive(Debug, Default)]
pub(super) struct Peers(FxHashMap<Peer, u32>);

impl Peers {
    pub(super) fn find(&self, peer: &Peer) -> Option<u32> {
        self.0.get(peer).copied()
    }

    /// `false`: another connection has these ends.
    pub(super) fn add(&mut self, peer: Peer, id: u32) -> bool {
        *self.0.entry(peer).or_insert(id) == id
    }

    pub(super) fn remove(&mut self, peer: &Peer, id: u32) {
        if self.find(peer) == Some(id) {
            self.0.remove(peer);
        }
    }
}
