//! What is looked at after every millisecond, and what is demanded in the end.

use std::rc::Rc;
use std::time::Duration;

use model::connections::ConnectionKey;
use model::lease::Lease;

use super::{RESTART_MS, World, mix};
use crate::configuration::{self, SERVERS};
use crate::frames::{self, Seen};
use crate::judge::{CLAIM_GATE, CONNECTIONS, LIVENESS, REGISTER, VOICE};
use crate::operators;

impl World<'_> {
    /// Looks at everything after a millisecond.
    pub(super) fn look(&mut self) {
        let now = self.now();
        let mut held = Vec::new();
        let mut begun = false;
        for index in 0..self.atms.len() {
            let atm = &mut self.atms[index];
            let before = atm.lease;
            let probe = atm.host.probe();
            atm.lease = probe.lease();
            if let Some(lease) = atm.lease {
                let until = atm.host.clock.true_time(lease.until);
                if until > now {
                    held.push((index, lease, until));
                }
            }
            let lease = atm.lease;
            if before.map(|lease| lease.epoch) != lease.map(|lease| lease.epoch) {
                let tenure = probe.state(|state| state.tenure().map(|tenure| tenure.epoch));
                if let Some(lease) = lease
                    && tenure.flatten() < Some(lease.epoch)
                {
                    let what = format!(
                        "atm{} holds epoch {} and has applied {tenure:?}",
                        index + 1,
                        lease.epoch.0
                    );
                    self.judge.note(CLAIM_GATE, now, what);
                }
                begun |= lease.is_some();
                mix(&mut self.fingerprint, self.now_ms);
                mix(
                    &mut self.fingerprint,
                    lease.map_or(0, |lease| lease.epoch.0),
                );
                if self.plan.verbose {
                    eprintln!("{} ms: atm{} lease {lease:?}", self.now_ms, index + 1);
                }
            }
            let digests = atm.host.take_digests();
            for (index, digest) in &digests {
                mix(&mut self.fingerprint, *index);
                mix(
                    &mut self.fingerprint,
                    u64::from_be_bytes([
                        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5],
                        digest[6], digest[7],
                    ]),
                );
            }
            self.judge.digests(now, index, digests);
            self.hear(index, before);
        }
        self.judge.leases(now, &held);
        if let Some((index, _, _)) = held.first()
            && (begun || self.now_ms.is_multiple_of(25))
        {
            self.check_connections(*index);
        }
        for index in 0..self.atms.len() {
            let ended = self.atms[index].ended.borrow_mut().take();
            if let Some(reason) = ended {
                if self.plan.verbose {
                    eprintln!("{} ms: atm{} has ended: {reason}", self.now_ms, index + 1);
                }
                mix(&mut self.fingerprint, self.now_ms);
                self.atms[index].host.crashed();
                self.atms[index].starts_at = Some(self.now_ms + RESTART_MS);
            }
        }
    }

    /// Takes what an ATM has sent to those it is for.
    fn hear(&mut self, index: usize, before: Option<Lease>) {
        let sent = self.atms[index].host.cable.take_sent();
        for (at, frame) in sent {
            mix(&mut self.fingerprint, at.as_nanos());
            mix(&mut self.fingerprint, frame.len() as u64);
            let seen = frames::read(&frame);
            let held = [before, self.atms[index].lease];
            let covered = held.iter().flatten().any(|lease| at < lease.until);
            match seen {
                Seen::Asks { target, sender } => {
                    let server =
                        (0..SERVERS).find(|server| configuration::server(*server) == target);
                    if let Some(server) = server {
                        let answer =
                            frames::arp_answer((configuration::server_mac(server), target), sender);
                        let host = &self.atms[index].host;
                        host.cable
                            .deliver(host.clock.at(Duration::from_millis(self.now_ms)), answer);
                    }
                    let atm = (0..self.atms.len())
                        .find(|atm| *atm != index && configuration::atm(*atm) == target);
                    // Its kernel answers, whatever becomes of the daemon.
                    if let Some(atm) = atm {
                        let answer =
                            frames::arp_answer((configuration::atm_mac(atm), target), sender);
                        let host = &self.atms[index].host;
                        host.cable
                            .deliver(host.clock.at(Duration::from_millis(self.now_ms)), answer);
                    }
                    continue;
                }
                Seen::Relays { to } => {
                    let atm = frames::atm_of(to).and_then(|atm| self.atms.get(atm));
                    if let Some(atm) = atm {
                        let at = atm.host.clock.at(Duration::from_millis(self.now_ms));
                        atm.host.cable.deliver(at, frame);
                    }
                    continue;
                }
                Seen::Forwards { to, client, flags } => {
                    if let Err(what) = self.connections.arrived(to, client, flags) {
                        self.judge.note(CONNECTIONS, self.now(), what);
                    }
                }
                Seen::Claims | Seen::Other => {}
            }
            if !covered {
                let what = format!("atm{} spoke without a lease: {seen:?}", index + 1);
                self.judge.note(VOICE, self.now(), what);
            }
        }
    }

    /// Every acknowledged connection stands in the active ATM's state, with its server.
    fn check_connections(&mut self, active: usize) {
        let probe = self.atms[active].host.probe();
        let Some(service) = probe
            .state(|state| state.services().keys().next().copied())
            .flatten()
        else {
            return;
        };
        let servers: Vec<_> = probe
            .state(|state| {
                let servers = state.servers().iter();
                servers.map(|(id, entry)| (*id, entry.address)).collect()
            })
            .unwrap_or_default();
        let mut wrong = None;
        for ((client, port), server) in self.connections.acknowledged() {
            let key = ConnectionKey {
                client: client.into(),
                port,
                service,
            };
            let known = probe.server_of(&key);
            let address = known.and_then(|known| {
                let found = servers.iter().find(|(id, _)| *id == known);
                found.map(|(_, address)| *address)
            });
            if address != Some(configuration::server(server).into()) {
                wrong = Some(format!(
                    "atm{} is active and has {address:?} for the connection of {client}:{port}, which serv{server} acknowledged",
                    active + 1
                ));
                break;
            }
        }
        if let Some(what) = wrong {
            self.judge.note(CONNECTIONS, self.now(), what);
        }
    }

    pub(super) fn active(&self) -> Option<usize> {
        let now = self.now();
        self.atms.iter().position(|atm| {
            atm.lease
                .is_some_and(|lease| now < atm.host.clock.true_time(lease.until))
        })
    }

    /// After healing: somebody is active, changes are made, everybody has the same state, and what operators saw was one register.
    pub(super) fn demand(&mut self, operations_at_heal: usize) {
        let now = self.now();
        if self.active().is_none() {
            self.judge.note(LIVENESS, now, "nobody is active".into());
        }
        let roles: Vec<_> = self
            .atms
            .iter()
            .map(|atm| atm.host.probe().role())
            .collect();
        let applied: Vec<u64> = roles
            .iter()
            .map(|role| role.map_or(0, |role| role.applied))
            .collect();
        let (least, most) = (applied.iter().min().copied(), applied.iter().max().copied());
        if least.unwrap_or(0) + 50 < most.unwrap_or(0) {
            self.judge.note(
                LIVENESS,
                now,
                format!("somebody has not caught up: {roles:?}"),
            );
        }
        let history = Rc::clone(&self.history);
        let history = history.borrow();
        let since = history.iter().skip(operations_at_heal);
        if since.filter(|operation| operation.ended.is_some()).count() == 0 {
            self.judge.note(
                LIVENESS,
                now,
                "no operator was answered after healing".into(),
            );
        }
        if let Err(what) = operators::judge(&history) {
            self.judge.note(REGISTER, now, what);
        }
    }
}
