//! Which server takes a new connection.
//!
//! Never imports: `wire`, the connections. A pick is remembered by the connection table, never here, so nothing that
//! happens here moves a connection.

mod hash;
mod lookup;
#[cfg(test)]
mod tests;
mod wlc;
mod wrr;

use std::net::IpAddr;

use model::conf::Scheduler;
use model::ids::ServerId;

use crate::DropReason;
use lookup::Lookup;
pub(crate) use lookup::Tables;
use wlc::Wlc;
use wrr::Wrr;

/// The stream of the hash of clients, another one than those of servers.
const CLIENT: u64 = 0;

/// The scheduler of one virtual service, with its state.
#[derive(Debug)]
pub(crate) enum Picker {
    Wrr(Wrr),
    Wlc(Wlc),
    /// By client address and port.
    Maglev(Lookup),
    /// By client address alone. Maglev's table serves here too, for a client whose server stays should keep it when
    /// another one leaves, which the table of IPVS' `sh` (256 places, filled in order) does not see to; weighted
    /// rendezvous hashing would, at the price of logarithms and of a look at every server for every pick.
    Sh(Lookup),
}

impl Picker {
    /// A scheduler over `share`: servers and their weights, 0..=65535, where 0 takes nothing; in configuration order.
    ///
    /// One of the same kind that it replaces hands on its turns, so that a table swap does not begin them again.
    /// `tables` has lookup tables that are filled already.
    pub(crate) fn new(
        kind: Scheduler,
        share: &[(ServerId, u16)],
        previous: Option<&Self>,
        tables: &mut Tables,
    ) -> Self {
        match kind {
            Scheduler::Wrr => Self::Wrr(Wrr::new(
                share,
                match previous {
                    Some(Self::Wrr(wrr)) => Some(wrr),
                    Some(Self::Wlc(_) | Self::Maglev(_) | Self::Sh(_)) | None => None,
                },
            )),
            Scheduler::Wlc => Self::Wlc(Wlc::new(
                share,
                match previous {
                    Some(Self::Wlc(wlc)) => Some(wlc),
                    Some(Self::Wrr(_) | Self::Maglev(_) | Self::Sh(_)) | None => None,
                },
            )),
            Scheduler::Maglev => Self::Maglev(tables.get(share)),
            Scheduler::Sh => Self::Sh(tables.get(share)),
        }
    }

    /// The server of a new connection. `load`: live connections of this virtual service on a server.
    pub(crate) fn pick(
        &mut self,
        client: IpAddr,
        port: u16,
        load: impl Fn(ServerId) -> u32,
    ) -> Result<ServerId, DropReason> {
        match self {
            Self::Wrr(wrr) => wrr.pick(),
            Self::Wlc(wlc) => wlc.pick(load),
            Self::Maglev(lookup) => lookup.pick(hash::client(CLIENT, client, Some(port))),
            Self::Sh(lookup) => lookup.pick(hash::client(CLIENT, client, None)),
        }
        .ok_or(DropReason::NoServer)
    }
}

impl Tables {
    /// The lookup tables that these have.
    pub(crate) fn of<'a>(pickers: impl Iterator<Item = &'a Picker>) -> Self {
        let mut tables = Self::default();
        for picker in pickers {
            match picker {
                Picker::Maglev(lookup) | Picker::Sh(lookup) => tables.keep(lookup),
                Picker::Wrr(_) | Picker::Wlc(_) => {}
            }
        }
        tables
    }
}
