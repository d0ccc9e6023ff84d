//! Ethernet addresses of the next hops, found by our own ARP (RFC 826) or neighbour discovery (RFC 4861) and kept fresh, on backups too: a takeover
//! finds them all known.
//!
//! The next hops of the forwarding table have an entry, so the table bounds these; beside them are next hops towards clients whose
//! answers pass here, asked for when they are first needed and bounded by [`ON_DEMAND_MAX`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::Instant;
use rustc_hash::FxHashMap;

use crate::counters::{Counters, Event};
use crate::{Interface, MacAddr, Sink, gate};

/// Wait for an answer, and for the next try: an answer on a LAN takes microseconds, a restarting server asks for
/// patience, and one request a second per missing server is no load.
const RETRY: Duration = Duration::from_secs(1);
/// A packet that wants an unknown next hop may bring the next try forward to this long after the last one.
const RETRY_WANTED: Duration = Duration::from_millis(100);
/// Age at which an address is asked for again, by unicast (RFC 1122 §2.3.2.1): half of the 60 s after which common
/// stacks doubt an entry.
const REFRESH: Duration = Duration::from_secs(30);
/// Unanswered tries after which a known address is given up (RFC 1122 §2.3.2.1 (2): two or more).
const TRIES_MAX: u8 = 3;
/// Requests sent in one go, and the pause after them: 6,400 a second, so that 1,000 servers (the default of
/// `NumServers`) are all asked within 160 ms of a table's installation and a switch is not flooded.
const BATCH: usize = 64;
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// Next hops towards clients that are known at one time. Routers are few; clients on the connected network come and go, and one that
/// finds no room is only asked for again with its next packet.
const ON_DEMAND_MAX: usize = 1024;
/// One that nobody needed for so long makes room.
const ON_DEMAND_IDLE: Duration = Duration::from_secs(60);

/// The next hops, in a fixed order between two table swaps.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    all: Vec<Neighbour>,
    by_address: FxHashMap<IpAddr, usize>,
    on_demand: BTreeMap<IpAddr, (Neighbour, Instant)>,
    /// The earliest `due`, or the end of the pause after a batch.
    next: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Neighbour {
    address: IpAddr,
    mac: Option<MacAddr>,
    /// Requests since the last answer.
    unanswered: u8,
    asked: Instant,
    due: Instant,
}

impl Neighbours {
    /// Takes the next hops of a new table: known ones stay as they are, new ones are due at once.
    pub(crate) fn install(&mut self, next_hops: impl Iterator<Item = IpAddr>, now: Instant) {
        let mut old = std::mem::take(self);
        self.on_demand = std::mem::take(&mut old.on_demand);
        for address in next_hops {
            self.by_address.entry(address).or_insert_with(|| {
                let known = old
                    .by_address
                    .get(&address)
                    .and_then(|&at| old.all.get(at))
                    .cloned();
                self.all.push(known.unwrap_or(Neighbour {
                    address,
                    mac: None,
                    unanswered: 0,
                    asked: Instant::BOOT,
                    due: now,
                }));
                self.all.len() - 1
            });
        }
        self.next = self.earliest();
    }

    /// The Ethernet address of a next hop towards a client; `None`: it is asked for.
    pub(crate) fn resolve(&mut self, address: IpAddr, now: Instant) -> Option<MacAddr> {
        if let Some(position) = self.position(address) {
            let mac = self.mac(position);
            if mac.is_none() {
                self.want(position);
            }
            return mac;
        }
        if let Some((neighbour, needed)) = self.on_demand.get_mut(&address) {
            *needed = now;
            if neighbour.mac.is_none() {
                neighbour.due = neighbour.due.min(neighbour.asked + RETRY_WANTED);
                let due = neighbour.due;
                self.next = Some(self.next.map_or(due, |next| next.min(due)));
                return None;
            }
            return neighbour.mac;
        }
        if self.on_demand.len() < ON_DEMAND_MAX {
            let neighbour = Neighbour {
                address,
                mac: None,
                unanswered: 0,
                asked: Instant::BOOT,
                due: now,
            };
            self.on_demand.insert(address, (neighbour, now));
            self.next = Some(self.next.map_or(now, |next| next.min(now)));
        }
        None
    }

    fn earliest(&self) -> Option<Instant> {
        let on_demand = self.on_demand.values().map(|(neighbour, _)| neighbour.due);
        let all = self.all.iter().map(|neighbour| neighbour.due);
        all.chain(on_demand).min()
    }

    /// Where a next hop of the installed table has its entry.
    pub(crate) fn position(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The Ethernet address of the next hop at `position`.
    pub(crate) fn mac(&self, position: usize) -> Option<MacAddr> {
        self.all.get(position)?.mac
    }

    /// A packet wants the next hop at `position`, whose address is not known: ask soon.
    pub(crate) fn want(&mut self, position: usize) {
        if let Some(neighbour) = self.all.get_mut(position) {
            neighbour.due = neighbour.due.min(neighbour.asked + RETRY_WANTED);
            self.next = self.next.map(|next| next.min(neighbour.due));
        }
    }

    /// Somebody says in an ARP packet or a neighbour discovery message of any kind that `address` is at `mac`.
    pub(crate) fn learn(&mut self, address: IpAddr, mac: MacAddr, now: Instant) {
        let neighbour = match self.by_address.get(&address) {
            Some(&at) => self.all.get_mut(at),
            None if self.on_demand.is_empty() => return,
            None => self
                .on_demand
                .get_mut(&address)
                .map(|(neighbour, _)| neighbour),
        };
        let Some(neighbour) = neighbour else { return };
        neighbour.mac = Some(mac);
        neighbour.unanswered = 0;
        neighbour.due = now + REFRESH;
    }

    /// When `ask` has something to do. May be early: then `ask` only finds the later instant.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Sends what requests are due, at most [`BATCH`].
    pub(crate) fn ask<S: Sink>(
        &mut self,
        interface: &Interface,
        now: Instant,
        out: &mut S,
        counters: &mut Counters,
    ) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.on_demand
            .retain(|_, (_, needed)| *needed + ON_DEMAND_IDLE > now);
        let on_demand = self.on_demand.values_mut().map(|(neighbour, _)| neighbour);
        for neighbour in self
            .all
            .iter_mut()
            .chain(on_demand)
            .filter(|neighbour| neighbour.due <= now)
            .take(BATCH)
        {
            if neighbour.unanswered >= TRIES_MAX && neighbour.mac.take().is_some() {
                counters.note(Event::NeighbourLost);
            }
            if gate::ask(interface, neighbour.address, neighbour.mac, out) {
                counters.note(match neighbour.address {
                    IpAddr::V4(_) => Event::ArpRequest,
                    IpAddr::V6(_) => Event::NeighbourSolicitation,
                });
            }
            neighbour.unanswered = neighbour.unanswered.saturating_add(1);
            neighbour.asked = now;
            neighbour.due = now + RETRY;
        }
        let due = self.earliest();
        self.next = due.map(|due| due.max(now + BATCH_PAUSE));
    }
}
