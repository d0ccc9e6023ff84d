//! The engine and the replicator of one ATM, as the daemon's thread and task have them.

use std::time::Duration;

use dataplane_core::{DropReason, FRAME_AGE_MAX, Frame, Offload, Verdict};
use model::command::{BATCH_CHANGES_MAX, Command};
use model::connections::{ConnectionChange, ConnectionKey};
use model::tenure::Done;

use super::atm::{Control, Waiter, name};
use super::clock::{MS, True, US};
use super::event::Later;
use super::hosts::{self, State};
use super::network::{ATM, CLIENT};
use super::outlet::Sent;
use super::packets::{self, Segment};
use super::violation::Violation;
use super::world::World;

/// Control messages and frames of one batch.
const BATCH_MAX: usize = 64;
/// Entries of the replicator under way at once.
const WINDOW: usize = 4;
/// How soon an engine that waits notices something.
const WAKE: True = 60 * US;

impl World {
    /// A frame reaches the interface: it waits in the socket, also of a stopped process.
    pub(crate) fn atm_receives(&mut self, me: usize, bytes: Vec<u8>) {
        let stamp = self.atms[me].clock.wall(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        process.engine.socket.push_back((stamp, bytes));
        self.wake_engine(me);
    }

    pub(crate) fn wake_engine(&mut self, me: usize) {
        let at = self.now + self.chance.below(WAKE);
        self.batch_by(me, at);
    }

    fn batch_by(&mut self, me: usize, at: True) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        if process.engine.batch_at.is_none_or(|known| at < known) {
            process.engine.batch_at = Some(at);
            self.later(me, at, Later::Batch);
        }
    }

    pub(crate) fn batch(&mut self, me: usize) {
        let (now, wall) = (
            self.atms[me].now(self.now),
            self.atms[me].clock.wall(self.now),
        );
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let engine = &mut process.engine;
        if engine.batch_at.is_none_or(|at| at > self.now) {
            return;
        }
        engine.batch_at = None;
        // One thread: the next batch begins when this one is sent.
        if engine.open.is_some() {
            return;
        }
        let lease = engine.outlet.begin(now);
        engine.forwarder.set_lease(lease, now, &mut engine.outlet);
        let mut answers = Vec::new();
        let mut sent = None;
        for _ in 0..BATCH_MAX {
            let Some((index, control)) = engine.control.pop_front() else {
                break;
            };
            engine.reached = engine.reached.max(index);
            let (forwarder, out) = (&mut engine.forwarder, &mut engine.outlet);
            match control {
                Control::Install(table) => forwarder.install(*table, now),
                Control::Commit(changes) => forwarder.commit(&changes, now, out),
                Control::Replace(all, sticky) => {
                    forwarder.replace_connections(all.into_iter(), now);
                    forwarder.replace_sticky(sticky.into_iter(), now);
                }
                Control::Refuse(key) => forwarder.refuse(key, now),
                Control::OtherAtms(others) => forwarder.set_other_atms(others, now),
                Control::Barrier => answers.push(Done::Reached(true)),
                Control::Relinquish => {
                    sent = Some(out.relinquish(now));
                    forwarder.set_lease(None, now, out);
                    answers.push(Done::Silent);
                }
            }
        }
        let mut judged = Vec::new();
        for _ in 0..BATCH_MAX {
            let Some((stamp, mut bytes)) = engine.socket.pop_front() else {
                break;
            };
            let segment = Segment::of_client(&bytes);
            let waited = Duration::from_nanos(wall.saturating_sub(stamp));
            let frame = Frame {
                bytes: &mut bytes,
                offload: Offload::default(),
            };
            engine.received += 1;
            let verdict = engine
                .forwarder
                .receive(frame, waited, now, &mut engine.outlet);
            judged.push((segment, waited, verdict));
        }
        if engine
            .forwarder
            .poll_timeout()
            .is_some_and(|due| due <= now)
        {
            engine.forwarder.handle_timeout(now, &mut engine.outlet);
        }
        engine.open = Some(answers);
        if let Some(sent) = sent {
            self.emit(me, sent);
        }
        for (segment, waited, verdict) in judged {
            self.judge_verdict(me, segment, waited, verdict);
        }
        if let Some(ms) = self.atms[me].stop_in_batch.take() {
            let until = self.now + ms * MS;
            self.atms[me].paused_until = self.atms[me].paused_until.max(until);
            self.tell(|_| format!("{} is stopped in the middle of a batch", name(me)));
            self.later(me, until, Later::Flush);
            return;
        }
        self.flush(me);
    }

    /// The end of a batch: what the lease still covers leaves, and whoever asked is answered.
    pub(crate) fn flush(&mut self, me: usize) {
        let now = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let Some(answers) = process.engine.open.take() else {
            return;
        };
        let sent = process.engine.outlet.flush(now);
        self.emit(me, sent);
        for done in answers {
            self.engine_done(me, done);
        }
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        if !process.engine.outlet.events.is_empty() && !process.replicate_due {
            process.replicate_due = true;
            self.soon(me, 100 * US, Later::Replicate);
        }
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        if !process.engine.control.is_empty() || !process.engine.socket.is_empty() {
            self.wake_engine(me);
        } else if let Some(due) = process.engine.forwarder.poll_timeout() {
            let at = self.atms[me].clock.when(due, self.now);
            self.batch_by(me, at.max(self.now + 10 * US));
        }
    }

    /// Frames leave. Whoever speaks for the VIP must hold the lease at this very instant (P1).
    fn emit(&mut self, me: usize, sent: Sent) {
        if sent.frames.is_empty() {
            return;
        }
        if sent
            .frames
            .iter()
            .any(|frame| packets::speaks_for_vip(frame))
        {
            let held = self.atms[me].speaks(self.now);
            if held.is_none() || held != sent.epoch || held != Some(self.judge.spoken) {
                let what = format!(
                    "it holds {held:?}, the frame is of {:?}, the youngest that spoke is {}",
                    sent.epoch, self.judge.spoken
                );
                let atm = name(me);
                self.report(Violation::WithoutLease { atm, what });
            }
        }
        let relays = sent.frames.iter().filter(|frame| packets::is_relay(frame));
        self.judge.tally.relayed += relays.count() as u64;
        for frame in sent.frames {
            self.send_frame(ATM + me, &frame);
        }
    }

    fn judge_verdict(
        &mut self,
        me: usize,
        segment: Option<Segment>,
        waited: Duration,
        verdict: Verdict,
    ) {
        let acted = match verdict {
            Verdict::Transmit
            | Verdict::Deliver
            | Verdict::Held
            | Verdict::Answered
            | Verdict::FragmentationNeeded
            | Verdict::TimeExceeded
            | Verdict::Reset
            | Verdict::Relayed => true,
            Verdict::Host | Verdict::Drop(_) => false,
        };
        if acted && waited > FRAME_AGE_MAX {
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            let atm = name(me);
            self.report(Violation::StaleFrame { atm, waited_ms });
            return;
        }
        let Some(segment) = segment else { return };
        self.tell(|_| {
            format!(
                "{}: {}:{} flags {:02x}: {}",
                name(me),
                segment.client,
                segment.port,
                segment.flags,
                verdict.name()
            )
        });
        let Some(client) = hosts::host_at(segment.client).and_then(|host| host.checked_sub(CLIENT))
        else {
            return;
        };
        let Some(connection) = self
            .clients
            .get(client)
            .and_then(|client| client.connections.get(&segment.port))
        else {
            return;
        };
        let excused = match verdict {
            Verdict::Drop(reason) => matches!(
                reason,
                DropReason::NotActive
                    | DropReason::LeaseExpired
                    | DropReason::RelayLimited
                    | DropReason::Stale
                    | DropReason::NoNeighbour
            ),
            // No service of the simulation wants it.
            Verdict::Reset => false,
            Verdict::Transmit
            | Verdict::Deliver
            | Verdict::Held
            | Verdict::Answered
            | Verdict::FragmentationNeeded
            | Verdict::TimeExceeded
            | Verdict::Relayed
            | Verdict::Host => true,
        };
        if connection.state == State::Open && connection.must_live(self.now) && !excused {
            let what = format!("{} says {} of its packet", name(me), verdict.name());
            let connection = format!("{}:{}", segment.client, segment.port);
            self.report(Violation::ConnectionLost { connection, what });
        }
    }

    /// Starts entries with everything that waits, while the window has room.
    pub(crate) fn replicate(&mut self, me: usize) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        process.replicate_due = false;
        if process.under_way >= WINDOW || process.engine.outlet.events.is_empty() {
            return;
        }
        let events = &mut process.engine.outlet.events;
        let count = events.len().min(BATCH_CHANGES_MAX);
        let changes: Vec<ConnectionChange> = events.drain(..count).collect();
        let Some(lease) = process.keeper.cell.read() else {
            self.refuse_all(me, &changes);
            return;
        };
        let command = Command::Connections {
            epoch: lease.epoch,
            changes: changes.clone(),
        };
        process.under_way += 1;
        let waiter = Waiter::Replicator(changes.clone());
        if !self.propose(me, &command, Some(waiter)) {
            if let Some(process) = self.atms[me].process() {
                process.under_way = process.under_way.saturating_sub(1);
            }
            self.refuse_all(me, &changes);
        }
    }

    fn refuse_all(&mut self, me: usize, changes: &[ConnectionChange]) {
        if let Some(process) = self.atms[me].process() {
            for change in changes {
                if let ConnectionChange::Open(key, _) = change {
                    process.engine.tell(0, Control::Refuse(*key));
                }
            }
        }
        self.wake_engine(me);
    }

    /// An entry of the replicator is done with; these of it were refused.
    pub(crate) fn replicated(&mut self, me: usize, refused: Vec<ConnectionKey>) {
        let Some(process) = self.atms[me].process.as_deref_mut() else {
            return;
        };
        process.under_way = process.under_way.saturating_sub(1);
        for key in refused {
            process.engine.tell(0, Control::Refuse(key));
        }
        if !process.replicate_due {
            process.replicate_due = true;
            self.soon(me, 50 * US, Later::Replicate);
        }
        self.wake_engine(me);
    }
}
