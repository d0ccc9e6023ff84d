//! Clients that open connections and hold them: what a client was once told must stay true on every later active ATM.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dataplane_core::MacAddr;

use crate::configuration::{self, SERVERS};
use crate::frames::{self, ACK, SYN};

/// A client that got no answer sends its SYN again after this many milliseconds.
const RETRY_MS: u64 = 300;
/// And gives up after this many.
const SYNS_MAX: u32 = 8;
/// An open connection says something this often.
const TALK_MS: u64 = 400;

/// A client's side of a connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The server that answered; from then on the connection is acknowledged.
    server: Option<u8>,
    syns: u32,
    next_ms: u64,
}

/// All connections of a run.
#[derive(Default)]
pub(crate) struct Connections {
    all: BTreeMap<(Ipv4Addr, u16), Connection>,
    next: u16,
}

impl Connections {
    /// A client begins to connect.
    pub(crate) fn open(&mut self, now_ms: u64) {
        let client = Ipv4Addr::new(10, 9, 0, 1);
        self.next += 1;
        let connection = Connection {
            server: None,
            syns: 0,
            next_ms: now_ms,
        };
        self.all.insert((client, 10_000 + self.next), connection);
    }

    /// What the clients send now: client and flags.
    pub(crate) fn speak(&mut self, now_ms: u64) -> Vec<((Ipv4Addr, u16), u8)> {
        let mut said = Vec::new();
        for (client, connection) in &mut self.all {
            if connection.next_ms > now_ms {
                continue;
            }
            if connection.server.is_some() {
                connection.next_ms = now_ms + TALK_MS;
                said.push((*client, ACK));
            } else if connection.syns < SYNS_MAX {
                connection.syns += 1;
                connection.next_ms = now_ms + RETRY_MS;
                said.push((*client, SYN));
            }
        }
        said
    }

    /// A server got a client's packet. What is wrong about it, if anything.
    pub(crate) fn arrived(
        &mut self,
        to: MacAddr,
        client: (Ipv4Addr, u16),
        flags: u8,
    ) -> Result<(), String> {
        let Some(server) = (0..SERVERS).find(|index| configuration::server_mac(*index) == to)
        else {
            return Err(format!(
                "a packet of {client:?} went to {to}, which is no server"
            ));
        };
        let Some(connection) = self.all.get_mut(&client) else {
            return Err(format!("a packet of {client:?}, who does not exist"));
        };
        match connection.server {
            None if flags & SYN != 0 => {
                connection.server = Some(server);
                Ok(())
            }
            Some(known) if known != server => Err(format!(
                "the connection of {client:?} is serv{known}'s and a packet of it went to serv{server}"
            )),
            None | Some(_) => Ok(()),
        }
    }

    /// Acknowledged connections and their servers.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = ((Ipv4Addr, u16), u8)> {
        self.all
            .iter()
            .filter_map(|(client, connection)| Some((*client, connection.server?)))
    }

    /// The frame that carries it to one ATM.
    pub(crate) fn frame(atm: usize, client: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
        frames::to_vip(configuration::atm_mac(atm), client, flags)
    }
}
