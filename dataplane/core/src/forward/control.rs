//! What comes from the replicated state, from the lease and from the clock.

use std::net::Ipv6Addr;

use model::Instant;
use model::conf::Protocol;
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::ServerId;
use model::planted::{self, Bug};
use model::sticky::StickyKey;

use super::Forwarder;
use crate::Lease;
use crate::connections::{Connections, Due, Flow, Record, Wait};
use crate::counters::Event;
use crate::gate::Change;
use crate::routes::Routes;
use crate::{DropReason, ForwardingTable, Sink};

impl Forwarder {
    /// Takes a whole new table. Live connections stay where they are (P8); a table older than the installed one is
    /// ignored. Next hops that are new are asked for at the next [`handle_timeout`](Self::handle_timeout), which is
    /// due at once; VIPs that are new are announced there too, if the lease is held.
    pub fn install(&mut self, table: ForwardingTable, now: Instant) {
        if table.applied_index < self.routes.applied_index {
            return;
        }
        self.connections
            .configure(table.connections_max, table.connection_timeout);
        self.connections.set_sticky_rules(table.sticky.clone(), now);
        self.counters.keep(&table);
        let routes = Routes::compile(table, &self.routes, &mut self.neighbours, now);
        let vips_changed = routes.vips != self.routes.vips;
        let peers_changed = !routes.has_peers_of(&self.routes);
        self.routes = routes;
        self.path_mtus
            .keep(|server| self.routes.is_tunnel_end(server));
        if peers_changed {
            for id in self.connections.ids() {
                self.link(id);
            }
        }
        if vips_changed {
            self.speaker.vips_changed(now);
        }
    }

    /// The interface's IPv6 addresses have changed; see [`Interface`](crate::Interface).
    pub fn set_addresses6(&mut self, address6: Option<Ipv6Addr>, link_local: Option<Ipv6Addr>) {
        self.interface.address6 = address6;
        self.interface.link_local = link_local;
    }

    /// Takes the lease as it is known now; called before each batch.
    ///
    /// The first lease of a new epoch throws away what was held in an older one, gives every connection a full
    /// timeout and starts the announcements. A lease of an epoch older than one that was seen counts as none.
    pub fn set_lease(&mut self, lease: Option<Lease>, now: Instant, out: &mut impl Sink) {
        match self.gate.set(lease) {
            Change::None => {}
            Change::Gone => self.drop_held(DropReason::NotActive),
            Change::NewEpoch => {
                self.drop_held(DropReason::LeaseExpired);
                self.connections.begin_tenure(now);
                self.begin_ports(lease.map_or(0, |lease| lease.epoch.0));
                self.speaker.begin(now);
                self.announce(now, out);
            }
        }
    }

    /// Applies committed records in the order of the log, on the active ATM and on backups alike. On the active one
    /// the held frame of an opened connection is sent, if the lease is still held.
    pub fn commit(&mut self, changes: &[ConnectionChange], now: Instant, out: &mut impl Sink) {
        for change in changes {
            let key = match change {
                ConnectionChange::Open(key, _) | ConnectionChange::Close(key) => key,
                ConnectionChange::Unstick(client) => {
                    self.counters.note(Event::ClientForgotten);
                    self.connections.sticky.unstick(*client);
                    continue;
                }
            };
            let flow = Flow::from_key(key);
            let known = self.connections.find(flow);
            match (*change, known) {
                (ConnectionChange::Open(_, pin), Some(id)) => {
                    self.connections.confirm(id, pin);
                    self.link(id);
                    self.connections
                        .sticky
                        .set(flow, pin.server, true, true, now);
                    self.release(id, now, out);
                }
                (ConnectionChange::Open(_, pin), None) => {
                    let first_hand = self.gate.voice(now, out).is_ok();
                    let protocol = self.protocol_of(flow);
                    let id = self.connections.adopt(flow, protocol, pin, first_hand, now);
                    let sticky = &mut self.connections.sticky;
                    sticky.set(flow, pin.server, true, id.is_some(), now);
                    match id {
                        Some(id) => self.link(id),
                        None => self.counters.note(Event::RecordIgnored),
                    }
                }
                (ConnectionChange::Close(_), Some(id)) => self.closed(id, now, out),
                (ConnectionChange::Close(_), None) | (ConnectionChange::Unstick(_), _) => {}
            }
        }
    }

    /// Takes the whole committed table, after a snapshot: what is not in it goes, what is new comes, and who has another
    /// server there was closed and opened again in the part of the log that was skipped. Connections that are not
    /// replicated, or whose record is still on its way, stay. A frame held by one that is in it is dropped: only an
    /// ATM that lagged behind the log gets a snapshot, and it is not the one to send.
    pub fn replace_connections(
        &mut self,
        all: impl Iterator<Item = (ConnectionKey, Pin)>,
        now: Instant,
    ) {
        self.connections.unmark_all();
        for (key, pin) in all {
            let flow = Flow::from_key(&key);
            match self.connections.find(flow) {
                Some(id) => {
                    if self.connections.get(id).is_some_and(|entry| entry.waits()) {
                        let about = self.about_flow(flow);
                        let reason = DropReason::NotActive;
                        self.counters.count_held_dropped(reason, about);
                        self.connections.release_held(id);
                    }
                    self.connections.assign(id, pin);
                    self.link(id);
                }
                None => {
                    let protocol = self.protocol_of(flow);
                    match self.connections.adopt(flow, protocol, pin, false, now) {
                        Some(id) => self.link(id),
                        None => self.counters.note(Event::RecordIgnored),
                    }
                }
            }
        }
        self.connections.retain_marked();
    }

    /// That of a connection's service; of one that this table has not yet, the one whose connections may be silent for longer.
    fn protocol_of(&self, flow: Flow) -> Protocol {
        let service = self.routes.service_of(flow.service());
        service.map_or(Protocol::Tcp, |service| service.protocol)
    }

    /// Takes the whole replicated table of sticky clients, after a snapshot and after its connections.
    pub fn replace_sticky(
        &mut self,
        all: impl Iterator<Item = (StickyKey, ServerId)>,
        now: Instant,
    ) {
        self.connections.replace_sticky(all, now);
    }

    /// The record of this connection was refused by the replicated state, or the replicator gave it up. A connection
    /// that waited for it is forgotten with its frame; one that did not goes on without a record.
    pub fn refuse(&mut self, key: ConnectionKey, _now: Instant) {
        let Some(id) = self.connections.find(Flow::from_key(&key)) else {
            return;
        };
        let Some(entry) = self.connections.get(id) else {
            return;
        };
        match (entry.record, entry.waits()) {
            (_, true) => {
                self.forget_held(id, DropReason::RecordRefused);
            }
            (Record::Asked, false) => self.connections.forget_record(id),
            (Record::Local | Record::Committed, false) => {}
        }
    }

    /// The next instant at which [`handle_timeout`](Self::handle_timeout) has something to do; `None`: nothing to wait for.
    /// May be in the past: then there is work left.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let announcement = self
            .gate
            .lease()
            .and_then(|lease| self.speaker.due().filter(|&due| due < lease.until));
        let questions = [self.neighbours.poll_timeout(), self.group.poll_timeout()];
        let question = questions.into_iter().flatten().min();
        let question = question.filter(|_| self.may_ask());
        let parts = self.fragments.poll_timeout();
        [
            announcement,
            question,
            parts,
            self.path_mtus.poll_timeout(),
            self.conflicts.poll_timeout(),
            self.connections.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Announces, asks for next hops, ends holds and idle connections. Bounded work: when more is due,
    /// [`poll_timeout`](Self::poll_timeout) says so. Calling early does nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Sink) {
        self.announce(now, out);
        if self.may_ask() {
            self.neighbours
                .ask(&self.interface, now, out, &mut self.counters);
            self.group
                .ask(&self.interface, now, out, &mut self.counters);
        }
        self.path_mtus.expire(now);
        self.conflicts.expire(now);
        self.fragments.expire(now);
        self.count_parts();
        self.expire(now, out);
    }

    /// Our own address is never a VIP; were it one, asking in its name would claim it.
    fn may_ask(&self) -> bool {
        !self.routes.is_vip(self.interface.address.into())
    }

    fn announce<S: Sink>(&mut self, now: Instant, out: &mut S) {
        match self.gate.voice(now, out) {
            Ok(mut voice) => self.speaker.announce(
                self.interface.mac,
                &self.routes,
                now,
                &mut voice,
                &mut self.counters,
            ),
            Err(_) => {
                if let Some(lease) = self.gate.lease() {
                    self.speaker.postpone(lease.until);
                }
            }
        }
    }

    fn expire<S: Sink>(&mut self, now: Instant, out: &mut S) {
        let mut budget = Connections::expire_budget();
        while let Some(forgotten) = self.connections.sticky.next_due(now, &mut budget) {
            let key = forgotten.key;
            match self.gate.voice(now, out) {
                // Nobody else knows of it.
                _ if !forgotten.recorded => self.connections.sticky.forget(key),
                // It goes when the record of its end is committed.
                Ok(mut voice) => {
                    let _no_room_yet = !voice.unstick(key);
                }
                // Who is active knows better.
                Err(_) => {
                    let persist = self.connections.sticky.persist(key);
                    self.connections.sticky.ask_again(key, persist, now);
                }
            }
        }
        while let Some((id, due)) = self.connections.next_due(now, &mut budget) {
            let Some((flow, record)) = self
                .connections
                .get(id)
                .map(|entry| (entry.flow, entry.record))
            else {
                continue;
            };
            let event = match due {
                Due::HoldExpired => {
                    self.forget_held(id, DropReason::HoldExpired);
                    continue;
                }
                Due::Closed => Event::ConnectionClosed,
                Due::Idle => Event::ConnectionExpired,
            };
            let wait = match (record, self.gate.voice(now, out)) {
                // Nobody else knows of it. To a backup that holds also for a record it asked for in an earlier tenure
                // and that never came: should it come yet, it makes a new entry.
                (Record::Local, _) | (Record::Asked, Err(_)) => {
                    self.counters.note(event);
                    self.connections.remove(id);
                    continue;
                }
                (Record::Committed, Err(_)) if planted::is(Bug::ExpiryByLocalClock) => {
                    self.connections.remove(id);
                    continue;
                }
                (Record::Committed, Err(_)) => Wait::Lease,
                // The entry goes when the record of its end is committed.
                (Record::Asked | Record::Committed, Ok(mut voice)) => {
                    if voice.close(flow.key()) {
                        if self.connections.first_close(id) {
                            self.counters.note(event);
                        }
                        Wait::Record
                    } else {
                        Wait::Replicator
                    }
                }
            };
            self.connections.look_again(id, wait, now);
        }
    }

    /// The end of a connection was committed. If the client spoke again meanwhile, its opening is replicated anew
    /// rather than breaking what lives.
    fn closed<S: Sink>(&mut self, id: u32, now: Instant, out: &mut S) {
        let Some((flow, pin, waits)) = self
            .connections
            .get(id)
            .map(|entry| (entry.flow, entry.pin, entry.waits()))
        else {
            return;
        };
        // An older connection with the same key ended; the one that waits has its own record on the way.
        if waits {
            return;
        }
        if self.connections.is_alive(id, now)
            && let Ok(mut voice) = self.gate.voice(now, out)
            && voice.open(flow.key(), pin)
        {
            self.counters.note(Event::ConnectionReopened);
            self.connections.reopened(id);
        } else {
            self.connections.remove(id);
        }
    }
}
