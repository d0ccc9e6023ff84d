//! The connection table: which server each live connection is pinned to, and since when it was silent.
//!
//! Invariants: a connection has one server from its first record to its close; an established connection is never
//! evicted to admit a new one. Never imports: `wire`, the sink, the lease; the forwarder acts on what this decides.

mod entry;
mod held;
mod index;
mod loads;
mod peers;
mod sticky;
mod wheel;

use std::time::Duration;

use model::Instant;
use model::conf::Protocol;
use model::connections::Pin;
use model::ids::{ServerId, VirtualServiceId};
use model::sticky::{StickyKey, StickyRules};

use crate::{DropReason, Limits, MacAddr};
use entry::State;
pub(crate) use entry::{Entry, Flow, Record, Sign};
use held::Held;
use index::Index;
use loads::Loads;
pub(crate) use peers::Peer;
use peers::Peers;
pub(crate) use sticky::Sticky;
use wheel::Wheel;

/// After asking for a record of the end, wait this long before asking again: several elections.
const CLOSE_RETRY: Duration = Duration::from_secs(5);
/// A replicator without room is asked again after this.
const REPLICATOR_RETRY: Duration = Duration::from_secs(1);
/// One part in this many of the table may be half-open: a SYN flood leaves three quarters to who completes a
/// handshake, and 10,000 entries still admit 12,500 connections a second with handshakes of 200 ms.
const HALF_OPEN_PART: usize = 4;
/// Entries looked at in one call of `expire`: about 100 us.
const EXPIRE_BATCH: usize = 512;
/// Committed records are stored up to this many times the limit of admission: the replicated state has the same
/// limit, and beside it there may be connections that are not replicated.
const COMMITTED_FACTOR: usize = 2;

/// Why a connection that came due is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The record was not committed in time.
    HoldExpired,
    /// FIN or RST was seen, and silence since.
    Closed,
    /// Silence.
    Idle,
}

/// What keeps an entry whose end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Its end was asked for, and the record has to come back.
    Record,
    /// The replicator had no room.
    Replicator,
    /// This ATM is not active: who is knows better, and a takeover begins with a full timeout.
    Lease,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Connections {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_flow: Index,
    wheel: Wheel,
    held: Held,
    loads: Loads,
    peers: Peers,
    pub(crate) sticky: Sticky,
    /// The latest instant that was told.
    latest: Instant,
    /// Most entries that `limits` lets us admit, and `NumConnections` of the table.
    max: usize,
    configured_max: usize,
    timeout: Duration,
    tenure: u32,
    tenure_began: Instant,
    /// Entries of this tenure that are `Pending` or `HalfOpen`.
    half_open: usize,
}

impl Connections {
    /// An empty table, allocated for its limit.
    pub(crate) fn new(limits: &Limits) -> Self {
        let max = limits
            .connections_max
            .min(u32::MAX as usize / (2 * COMMITTED_FACTOR));
        Self {
            entries: Vec::with_capacity(max),
            free: Vec::new(),
            by_flow: Index::with_capacity(max),
            wheel: Wheel::with_capacity(max),
            held: Held::new(limits.pending_max),
            loads: Loads::default(),
            peers: Peers::default(),
            sticky: Sticky::new(max.saturating_mul(COMMITTED_FACTOR)),
            latest: Instant::BOOT,
            max,
            configured_max: 0,
            timeout: Duration::ZERO,
            tenure: 0,
            tenure_began: Instant::BOOT,
            half_open: 0,
        }
    }

    /// Takes the limits of a new forwarding table. Live connections stay, also above a limit that went down.
    pub(crate) const fn configure(&mut self, max: usize, timeout: Duration) {
        self.configured_max = max;
        self.timeout = timeout;
    }

    pub(crate) fn len(&self) -> usize {
        self.by_flow.len()
    }

    /// Connections of a virtual service on a server: every entry is one, in whatever state.
    pub(crate) fn load(&self, service: VirtualServiceId, server: ServerId) -> u32 {
        self.loads.get(service, server)
    }

    pub(crate) const fn pending(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn find(&self, flow: Flow) -> Option<u32> {
        self.by_flow.find(flow, &self.entries)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    /// The packet that waits with `id`.
    pub(crate) fn held(&self, id: u32) -> Option<&[u8]> {
        self.held.packet(self.get(id)?.held?)
    }

    /// A new epoch: every entry gets a full timeout, and nothing waits any more (the caller took the waiting ones out).
    pub(crate) const fn begin_tenure(&mut self, now: Instant) {
        self.sticky.begin_tenure(now);
        self.tenure = self.tenure.wrapping_add(1);
        self.tenure_began = now;
        self.half_open = 0;
    }

    /// Any one connection that waits for its record, from the pool's slot `from` on, and where to look next.
    pub(crate) fn pending_from(&self, from: usize) -> Option<(u32, usize)> {
        self.held.owner_from(from)
    }

    /// May a new connection come in, with its first packet held or not?
    pub(crate) fn admit(&self, hold: bool) -> Result<(), DropReason> {
        let max = self.max.min(self.configured_max);
        if self.len() >= max {
            return Err(DropReason::TableFull);
        }
        if self.half_open >= (max / HALF_OPEN_PART).max(1) {
            return Err(DropReason::HalfOpenFull);
        }
        if hold && self.held.is_full() {
            return Err(DropReason::PendingFull);
        }
        Ok(())
    }

    /// A connection whose first packet goes at once.
    pub(crate) fn open(
        &mut self,
        flow: Flow,
        protocol: Protocol,
        pin: Pin,
        record: Record,
        now: Instant,
    ) -> u32 {
        self.insert(flow, protocol, pin, State::HalfOpen, record, now)
    }

    /// A connection whose first packet waits. `None`: there was no room for it after all.
    pub(crate) fn open_held(
        &mut self,
        flow: Flow,
        protocol: Protocol,
        pin: Pin,
        packet: &[u8],
        now: Instant,
    ) -> Option<u32> {
        let id = self.insert(flow, protocol, pin, State::Pending, Record::Asked, now);
        let held = self.held.put(id, packet);
        let Some(entry) = self.entries.get_mut(id as usize).filter(|_| held.is_some()) else {
            self.remove(id);
            return None;
        };
        entry.held = held;
        Some(id)
    }

    /// A committed record of a connection that has no entry here. `None`: no room.
    ///
    /// `first_hand`: this ATM is the active one, so it has seen no more of it than a SYN.
    pub(crate) fn adopt(
        &mut self,
        flow: Flow,
        protocol: Protocol,
        pin: Pin,
        first_hand: bool,
        now: Instant,
    ) -> Option<u32> {
        if self.len() >= self.max.saturating_mul(COMMITTED_FACTOR) {
            return None;
        }
        let state = if first_hand {
            State::HalfOpen
        } else {
            State::Established
        };
        Some(self.insert(flow, protocol, pin, state, Record::Committed, now))
    }

    /// The record of an entry was committed, with this server. A connection that waited for it goes to that server.
    pub(crate) fn confirm(&mut self, id: u32, pin: Pin) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        entry.record = Record::Committed;
        if entry.state == State::Pending {
            entry.state = State::HalfOpen;
            self.set_pin(id, pin);
        }
    }

    /// The record of an entry was refused: nothing will be committed.
    pub(crate) fn forget_record(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.record = Record::Local;
            entry.close_asked = false;
        }
    }

    /// The held packet was sent.
    pub(crate) fn release_held(&mut self, id: u32) {
        if let Some(at) = self
            .entries
            .get_mut(id as usize)
            .and_then(|entry| entry.held.take())
        {
            self.held.release(at);
        }
    }

    /// A packet of a known connection: its server, unless it waits for its record. `touch` writes down what it said.
    pub(crate) fn pin(&self, id: u32) -> Result<Pin, DropReason> {
        let entry = self.get(id).ok_or(DropReason::NoConnection)?;
        if entry.state == State::Pending {
            Err(DropReason::AlreadyHeld)
        } else {
            Ok(entry.pin)
        }
    }

    /// The connection whose server sends between these ends.
    pub(crate) fn find_peer(&self, peer: &Peer) -> Option<u32> {
        self.peers.find(peer)
    }

    /// Says how the server of this connection knows it. `false`: it knows another one so, and of this one nothing that it
    /// sends can be told.
    pub(crate) fn link(&mut self, id: u32, peer: Option<Peer>) -> bool {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return false;
        };
        if entry.peer.as_deref() == peer.as_ref() {
            return true;
        }
        if let Some(old) = entry.peer.take() {
            self.peers.remove(&old, id);
        }
        let added = peer.is_none_or(|peer| self.peers.add(peer, id));
        entry.peer = peer.filter(|_| added).map(Box::new);
        if entry.peer.is_none() {
            entry.way_back = None;
        }
        added
    }

    /// Every connection in the table.
    pub(crate) fn ids(&self) -> Vec<u32> {
        (0..)
            .zip(&self.entries)
            .filter(|(id, entry)| self.find(entry.flow) == Some(*id))
            .map(|(id, _)| id)
            .collect()
    }

    /// Remembers where the client's packets come from, if the server's answers pass here.
    pub(crate) fn came_from(&mut self, id: u32, mac: MacAddr) {
        if let Some(entry) = self.entries.get_mut(id as usize)
            && entry.peer.is_some()
        {
            entry.way_back = Some(mac);
        }
    }

    /// Where the client's packets of this tenure came from.
    pub(crate) fn way_back(&self, id: u32) -> Option<MacAddr> {
        self.get(id)
            .filter(|entry| entry.tenure == self.tenure)
            .and_then(|entry| entry.way_back)
    }

    /// A packet of the server passed. It keeps an established connection alive, and its RST ends one; a handshake is only
    /// what the client makes of it, or an attacker's server would keep half-open ones.
    pub(crate) fn heard(&mut self, id: u32, reset: bool, now: Instant) {
        self.latest = now;
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        let stale = entry.tenure != self.tenure;
        if !stale && matches!(entry.state, State::Pending | State::HalfOpen) && !reset {
            return;
        }
        if reset {
            self.touch(id, Sign::Reset, now);
        } else {
            if stale {
                // What was known of it in an older tenure is out of date, as with a packet of the client.
                entry.state = State::Established;
                entry.way_back = None;
            }
            entry.tenure = self.tenure;
            entry.seen = now;
            entry.close_asked = false;
        }
    }

    fn flows(&self) -> Vec<Flow> {
        let entries = self.ids().into_iter().filter_map(|id| self.get(id));
        entries.map(|entry| entry.flow).collect()
    }

    /// Takes the rules of a new table about sticky clients. Whole tables come often, other rules seldom.
    pub(crate) fn set_sticky_rules(&mut self, rules: StickyRules, now: Instant) {
        if !self.sticky.has_rules(&rules) {
            let flows = self.flows();
            self.sticky.set_rules(rules, flows.into_iter(), now);
        }
    }

    /// Takes the whole replicated table of sticky clients, after a snapshot.
    pub(crate) fn replace_sticky(
        &mut self,
        all: impl Iterator<Item = (StickyKey, ServerId)>,
        now: Instant,
    ) {
        let flows = self.flows();
        self.sticky.replace(all, flows.into_iter(), now);
    }

    /// Writes down what a packet said about its connection.
    pub(crate) fn touch(&mut self, id: u32, sign: Sign, now: Instant) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        self.latest = now;
        let before = entry.state;
        let stale = entry.tenure != self.tenure;
        if stale {
            entry.way_back = None;
        }
        let was_half_open = !stale && before == State::HalfOpen;
        entry.tenure = self.tenure;
        entry.seen = now;
        let known = if stale { State::Established } else { before };
        entry.state = known.after(sign);
        entry.close_asked = false;
        let after = entry.state;
        match (was_half_open, after == State::HalfOpen) {
            (false, true) => self.half_open += 1,
            (true, false) => self.half_open = self.half_open.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        // A shorter timeout is a nearer place on the wheel; a longer one is found when the nearer place comes round.
        if before != after && matches!(after, State::Closing | State::Reset) {
            let silence = after.silence(entry.protocol, self.timeout);
            self.wheel.schedule(id, now + silence);
        }
    }

    /// Alive by what was seen in this tenure.
    pub(crate) fn is_alive(&self, id: u32, now: Instant) -> bool {
        self.get(id).is_some_and(|entry| {
            entry.tenure == self.tenure
                && matches!(entry.state, State::HalfOpen | State::Established)
                && now < entry.seen + entry.state.silence(entry.protocol, self.timeout)
        })
    }

    /// Its end was committed, but it lives: its opening is asked for again.
    pub(crate) fn reopened(&mut self, id: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.record = Record::Asked;
            entry.close_asked = false;
        }
    }

    /// Takes an entry out, with what it holds.
    pub(crate) fn remove(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        if !self.by_flow.remove(entry.flow, id) {
            return;
        }
        self.loads.remove(entry.flow.service(), entry.pin.server);
        if let Some(peer) = entry.peer.take() {
            self.peers.remove(&peer, id);
        }
        self.sticky.went(entry.flow, self.latest);
        if let Some(at) = entry.held.take() {
            self.held.release(at);
        }
        if entry.tenure == self.tenure && matches!(entry.state, State::Pending | State::HalfOpen) {
            self.half_open = self.half_open.saturating_sub(1);
        }
        self.wheel.cancel(id);
        self.free.push(id);
    }

    /// When `next_due` may have something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.wheel.next(), self.sticky.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Looks at entries whose place on the wheel came round, at most `budget` (counted down), and returns the next
    /// whose end has come. The caller removes it, or says when to look again (`look_again`); else it stays for ever.
    pub(crate) fn next_due(&mut self, now: Instant, budget: &mut usize) -> Option<(u32, Due)> {
        self.latest = now;
        while *budget > 0 {
            let id = self.wheel.pop(now)?;
            *budget -= 1;
            let Some(entry) = self.entries.get(id as usize) else {
                continue;
            };
            let deadline = self.deadline(entry);
            if deadline > now {
                self.wheel.schedule(id, deadline);
                continue;
            }
            let due = match entry.state {
                State::Pending => Due::HoldExpired,
                State::Closing | State::Reset if entry.tenure == self.tenure => Due::Closed,
                State::HalfOpen | State::Established | State::Closing | State::Reset => Due::Idle,
            };
            return Some((id, due));
        }
        None
    }

    /// Its end was not asked for before.
    pub(crate) fn first_close(&self, id: u32) -> bool {
        self.get(id).is_some_and(|entry| !entry.close_asked)
    }

    /// Says when a due entry that stays is looked at again.
    pub(crate) fn look_again(&mut self, id: u32, reason: Wait, now: Instant) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        let at = now
            + match reason {
                Wait::Record => CLOSE_RETRY,
                Wait::Replicator => REPLICATOR_RETRY,
                Wait::Lease => self.timeout.max(REPLICATOR_RETRY),
            };
        if reason == Wait::Record {
            entry.close_asked = true;
        }
        self.wheel.schedule(id, at);
    }

    /// The budget of one call of the caller.
    pub(crate) const fn expire_budget() -> usize {
        EXPIRE_BATCH
    }

    /// Begins a pass that keeps exactly the marked entries of all that came from records.
    pub(crate) fn unmark_all(&mut self) {
        for entry in &mut self.entries {
            entry.marked = false;
        }
    }

    /// Marks an entry, and gives it the server that the committed table says.
    pub(crate) fn assign(&mut self, id: u32, pin: Pin) {
        self.confirm(id, pin);
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.marked = true;
        }
        self.set_pin(id, pin);
    }

    /// Ends the pass: removes committed entries that were not marked.
    pub(crate) fn retain_marked(&mut self) {
        for id in 0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX) {
            if self
                .get(id)
                .is_some_and(|entry| !entry.marked && entry.record == Record::Committed)
            {
                self.remove(id);
            }
        }
    }

    fn insert(
        &mut self,
        flow: Flow,
        protocol: Protocol,
        pin: Pin,
        state: State,
        record: Record,
        now: Instant,
    ) -> u32 {
        let entry = Entry {
            flow,
            pin,
            peer: None,
            way_back: None,
            protocol,
            state,
            record,
            tenure: self.tenure,
            seen: now,
            close_asked: false,
            held: None,
            marked: true,
        };
        let deadline = self.deadline(&entry);
        if matches!(state, State::Pending | State::HalfOpen) {
            self.half_open += 1;
        }
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1)
                    .expect("`new` and `adopt` bound the table below 2^32 entries")
            }
        };
        self.by_flow.insert(flow, id, &self.entries);
        self.loads.add(flow.service(), pin.server);
        self.latest = now;
        self.sticky.came(flow, now);
        self.wheel.schedule(id, deadline);
        id
    }

    /// Only of an entry that is in the table.
    fn set_pin(&mut self, id: u32, pin: Pin) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            let service = entry.flow.service();
            self.loads.remove(service, entry.pin.server);
            self.loads.add(service, pin.server);
            entry.pin = pin;
        }
    }

    fn deadline(&self, entry: &Entry) -> Instant {
        if entry.tenure == self.tenure {
            entry.seen + entry.state.silence(entry.protocol, self.timeout)
        } else {
            entry.seen.max(self.tenure_began) + self.timeout
        }
    }
}
