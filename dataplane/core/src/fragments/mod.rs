//! Later fragments follow their first: only that one has the ports, so only it can be steered.
//!
//! A director does not reassemble. It remembers what it decided of each first fragment, holds for a moment what comes
//! before its first, and leaves overlaps within the data to the server's own reassembly, whose bytes count (RFC 8200 §4.5
//! and RFC 5722 have it discard them). What it must see to itself is that no fragment can change what the decision was
//! made by; that is [`part::Part::place`].
//!
//! **A flood.** Whoever can send to a VIP can send fragments that belong to nothing. Refusing new datagrams when the
//! table is full would let 1100 packets a second close it to everybody (16,384 in 15 s); so the oldest give way here, and a
//! flood must send a table's worth of packets in the milliseconds between a datagram's first fragment and its last. No
//! connection is lost by it: its other packets pass, and what is lost with a fragment is sent again. Datagrams
//! without a first, which cost the sender nothing, give way among themselves only.
//!
//! Invariants: only datagrams without a first and those that wait hold packets; each count and sum stays below its bound.
//! Never imports: `wire`, the connections.

pub(crate) mod part;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use model::Instant;

/// How long a decision is remembered since its first fragment. Receivers wait for the rest 15 s (RFC 791 §3.2), 60 to
/// 120 s (RFC 1122 §3.3.2) or 60 s (RFC 8200 §4.5). Here the shortest of these: fragments of one datagram leave their sender
/// together, and 64 KiB pass even 35 kbit/s in that time; while a longer memory would have fragments follow a datagram that
/// had the same identification before (a sender of 1 Gbit/s uses all 65536 in a second, RFC 4963 §2).
const DECISION_LIFE: Duration = Duration::from_secs(15);
/// How long a fragment waits for the first, since the earliest of its datagram: as long as a first packet waits for its
/// record. Paths that reorder do so by milliseconds; later, the first was lost.
const HOLD_LIFE: Duration = Duration::from_secs(1);
/// Datagrams looked at in one call of `expire`: well under 1 ms.
const EXPIRE_BATCH: usize = 512;

/// Which datagram a fragment belongs to.
///
/// An ordered map of these, for its time does not depend on what a sender writes into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    protocol: u8,
}

impl Key {
    /// RFC 791 §3.2 (BUFID).
    pub(crate) fn ipv4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        identification: u16,
        protocol: u8,
    ) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            identification: identification.into(),
            protocol,
        }
    }

    /// RFC 8200 §4.5: the protocol is no part of it, for later fragments may name another one.
    pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, identification: u32) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            identification,
            protocol: 0,
        }
    }
}

/// Bounds of the table; counts are at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Datagrams whose first fragment was decided.
    pub(crate) decided_max: usize,
    /// Datagrams without a first.
    pub(crate) undecided_max: usize,
    /// Packets held of one datagram.
    pub(crate) held_max: usize,
    /// Bytes held of datagrams without a first, and as many again of those that wait.
    pub(crate) held_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // 2 MiB. At 100,000 fragmented datagrams a second a first is remembered for 160 ms.
            decided_max: 16_384,
            // At 100,000 fragments a second that belong to nothing, an early one is held for 10 ms.
            undecided_max: 1024,
            // A datagram of 64 KiB at the least MTU of IPv6, 1280, has 54 fragments.
            held_max: 64,
            // Datagrams of 4 KiB on average, or 32 ms of 1 Gbit/s.
            held_bytes_max: 4 << 20,
        }
    }
}

/// What becomes of a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later<D> {
    /// As the first.
    Follow(D),
    /// A copy was kept, until the first comes or what it waits for.
    Held,
    /// It could not be kept.
    Full(Full),
}

/// Why a later fragment could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many of this datagram are held.
    Datagram,
    /// Too many bytes are held, and none of them may give way to it.
    Bytes,
}

/// Held packets that were thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Waited too long.
    pub(crate) expired: u64,
    /// Gave way to newer ones.
    pub(crate) displaced: u64,
}

/// The table. `D`: what was decided of a first fragment. It must stay true while time passes: the name of a connection,
/// not its place in a table.
#[derive(Debug)]
pub(crate) struct Fragments<D> {
    bounds: Bounds,
    datagrams: BTreeMap<Key, Datagram<D>>,
    /// By age: the datagrams without a first, and the others.
    undecided: BTreeMap<u64, Key>,
    decided: BTreeMap<u64, Key>,
    /// Those in the state `Waiting`.
    waiting: BTreeSet<Key>,
    undecided_bytes: usize,
    waiting_bytes: usize,
    /// The age of the next datagram: grows by one.
    next: u64,
    dropped: Dropped,
}

#[derive(Debug)]
struct Datagram<D> {
    age: u64,
    since: Instant,
    state: State<D>,
    /// In the order of arrival.
    held: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug)]
enum State<D> {
    /// Its first did not come yet.
    Undecided,
    Decided(D),
    /// The first itself is held for its connection's record.
    Waiting(D),
}

impl<D> Datagram<D> {
    fn end(&self) -> Instant {
        self.since
            + match self.state {
                State::Undecided => HOLD_LIFE,
                State::Decided(_) | State::Waiting(_) => DECISION_LIFE,
            }
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|packet| packet.len()).sum()
    }
}

impl<D: Copy> Fragments<D> {
    /// An empty table.
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            datagrams: BTreeMap::new(),
            undecided: BTreeMap::new(),
            decided: BTreeMap::new(),
            waiting: BTreeSet::new(),
            undecided_bytes: 0,
            waiting_bytes: 0,
            next: 0,
            dropped: Dropped {
                expired: 0,
                displaced: 0,
            },
        }
    }

    /// A first fragment was decided. The packets that came before it are to be sent after it, in this order.
    ///
    /// `waits`: it is held itself, so they and those that follow are held until [`release`](Self::release). A first that
    /// comes again is another datagram with the same identification, or cannot be told from one: the newest counts.
    pub(crate) fn first(
        &mut self,
        key: Key,
        decision: D,
        waits: bool,
        now: Instant,
    ) -> Vec<Box<[u8]>> {
        self.forget_old(key, now);
        let before = self.take(key);
        if self.decided.len() >= self.bounds.decided_max {
            let oldest = self.decided.first_key_value().map(|(_, key)| *key);
            self.displace(oldest);
        }
        let mut held = before.map(|datagram| datagram.held).unwrap_or_default();
        let (state, mut kept) = if waits {
            (State::Waiting(decision), std::mem::take(&mut held))
        } else {
            (State::Decided(decision), Vec::new())
        };
        let bytes: usize = kept.iter().map(|packet| packet.len()).sum();
        if self.waiting_bytes + bytes > self.bounds.held_bytes_max {
            self.dropped.displaced += kept.len() as u64;
            kept.clear();
        }
        self.insert(key, state, kept, now);
        held
    }

    /// A fragment that is not the first.
    pub(crate) fn later(&mut self, key: Key, packet: &[u8], now: Instant) -> Later<D> {
        self.forget_old(key, now);
        let known = self.datagrams.get(&key);
        let held = known.map_or(0, |datagram| datagram.held.len());
        let state = known.map_or(State::Undecided, |datagram| datagram.state);
        if let State::Decided(decision) = state {
            return Later::Follow(decision);
        }
        if held >= self.bounds.held_max {
            return Later::Full(Full::Datagram);
        }
        let room = match state {
            State::Undecided => self.make_room(key, packet.len()),
            State::Decided(_) | State::Waiting(_) => {
                self.waiting_bytes + packet.len() <= self.bounds.held_bytes_max
            }
        };
        if !room {
            return Later::Full(Full::Bytes);
        }
        match self.datagrams.get_mut(&key) {
            Some(datagram) => {
                datagram.held.push(packet.into());
                *self.bytes_of(state) += packet.len();
            }
            None => self.insert(key, State::Undecided, vec![packet.into()], now),
        }
        Later::Held
    }

    /// What was decided of the first of this datagram, for who holds nothing.
    pub(crate) fn decision(&mut self, key: Key, now: Instant) -> Option<D> {
        self.forget_old(key, now);
        match self.datagrams.get(&key)?.state {
            State::Decided(decision) => Some(decision),
            State::Undecided | State::Waiting(_) => None,
        }
    }

    /// What they waited for has come, or will not come: the held packets of all datagrams that were decided so, each
    /// datagram's in the order of arrival. Fragments that come from now on follow the decision at once.
    ///
    /// Looks at every datagram that waits, which are no more than connections that wait: call it when the packet that waited
    /// was a fragment.
    pub(crate) fn release(&mut self, is_decided_so: impl Fn(&D) -> bool) -> Vec<Box<[u8]>> {
        let mut released = Vec::new();
        let datagrams = &mut self.datagrams;
        let bytes = &mut self.waiting_bytes;
        self.waiting.retain(|key| {
            let Some(datagram) = datagrams.get_mut(key) else {
                return false;
            };
            match datagram.state {
                State::Waiting(decision) if is_decided_so(&decision) => {
                    *bytes -= datagram.bytes();
                    datagram.state = State::Decided(decision);
                    released.append(&mut datagram.held);
                    false
                }
                State::Waiting(_) => true,
                State::Undecided | State::Decided(_) => false,
            }
        });
        released
    }

    /// Forgets everything, and says how many held packets that were: for the end of a lease.
    pub(crate) fn clear(&mut self) -> u64 {
        let held = self.held() as u64;
        let dropped = self.dropped;
        *self = Self {
            dropped,
            ..Self::new(self.bounds)
        };
        held
    }

    /// When [`expire`](Self::expire) has something to do; may be in the past.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [&self.undecided, &self.decided]
            .into_iter()
            .filter_map(|order| self.oldest(order))
            .map(|(_, end)| end)
            .min()
    }

    /// Forgets datagrams whose time is over. Bounded work: when more is due, `poll_timeout` says so.
    pub(crate) fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRE_BATCH {
            let due = [&self.undecided, &self.decided]
                .into_iter()
                .filter_map(|order| self.oldest(order))
                .find(|&(_, end)| end <= now);
            let Some((key, _)) = due else { return };
            self.forget_old(key, now);
        }
    }

    /// What was thrown away since the last call of this: counted by the caller, after any other call.
    pub(crate) const fn take_dropped(&mut self) -> Dropped {
        let dropped = self.dropped;
        self.dropped = Dropped {
            expired: 0,
            displaced: 0,
        };
        dropped
    }

    /// Datagrams that are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Packets that are held. Counted: for tests and for the end of a lease.
    pub(crate) fn held(&self) -> usize {
        self.datagrams
            .values()
            .map(|datagram| datagram.held.len())
            .sum()
    }

    fn oldest(&self, order: &BTreeMap<u64, Key>) -> Option<(Key, Instant)> {
        let (_, key) = order.first_key_value()?;
        Some((*key, self.datagrams.get(key)?.end()))
    }

    /// Has older datagrams without a first give way to a packet of this one. Their own oldest packets would be no use
    /// without it, so when this one is the oldest, there is no room.
    fn make_room(&mut self, key: Key, bytes: usize) -> bool {
        if bytes > self.bounds.held_bytes_max {
            return false;
        }
        let is_new = !self.datagrams.contains_key(&key);
        while self.undecided_bytes + bytes > self.bounds.held_bytes_max
            || (is_new && self.undecided.len() >= self.bounds.undecided_max)
        {
            let oldest = self.undecided.first_key_value().map(|(_, key)| *key);
            if oldest.is_none_or(|oldest| oldest == key) {
                return false;
            }
            self.displace(oldest);
        }
        true
    }

    fn displace(&mut self, key: Option<Key>) {
        if let Some(datagram) = key.and_then(|key| self.take(key)) {
            self.dropped.displaced += datagram.held.len() as u64;
        }
    }

    /// Forgets this datagram if its time is over, so that nothing depends on when `expire` is called.
    fn forget_old(&mut self, key: Key, now: Instant) {
        if self
            .datagrams
            .get(&key)
            .is_some_and(|datagram| datagram.end() <= now)
            && let Some(datagram) = self.take(key)
        {
            self.dropped.expired += datagram.held.len() as u64;
        }
    }

    fn insert(&mut self, key: Key, state: State<D>, held: Vec<Box<[u8]>>, now: Instant) {
        let age = self.next;
        self.next += 1;
        let datagram = Datagram {
            age,
            since: now,
            state,
            held,
        };
        *self.bytes_of(state) += datagram.bytes();
        match state {
            State::Undecided => self.undecided.insert(age, key),
            State::Decided(_) => self.decided.insert(age, key),
            State::Waiting(_) => {
                self.waiting.insert(key);
                self.decided.insert(age, key)
            }
        };
        self.datagrams.insert(key, datagram);
    }

    fn take(&mut self, key: Key) -> Option<Datagram<D>> {
        let datagram = self.datagrams.remove(&key)?;
        self.undecided.remove(&datagram.age);
        self.decided.remove(&datagram.age);
        self.waiting.remove(&key);
        *self.bytes_of(datagram.state) -= datagram.bytes();
        Some(datagram)
    }

    /// The sum that the held packets of a datagram in this state count in; one that is decided has none.
    const fn bytes_of(&mut self, state: State<D>) -> &mut usize {
        match state {
            State::Undecided => &mut self.undecided_bytes,
            State::Decided(_) | State::Waiting(_) => &mut self.waiting_bytes,
        }
    }
}
