//! The engine: one plain thread that owns a port and a forwarder. No decision is made here.
//!
//! One batch: take what arrived; read clock and lease, in this order after receiving, once; hand over what the node
//! sent; let the core decide each frame; look at clock and lease again; send. Control is answered after the send, so an
//! acknowledgement means that its effects are on the wire or thrown away.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane_core::{Conflict, Counters, Forwarder, ForwardingTable, Interface, OtherAtms};
use model::Instant;
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::ServerId;
use model::planted::{self, Bug};
use model::sticky::StickyKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::clock;
use crate::offload::EgressGate;
use crate::outlet::Outlet;
use crate::port::{self, Addresses6, Found, PortKind, ReceiveCounters, Receiver};
use crate::stats::{Count, Stats};
use crate::trace::{NewTrace, TraceError, Traces};
use crate::wake;

/// Control messages taken per batch, so that a busy node cannot keep frames waiting.
const CONTROL_PER_BATCH_MAX: usize = 64;
/// The longest wait without any reason to wake: only a bound for what was not thought of.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Waits before a failed port is opened again, doubling.
const REOPEN_MIN: Duration = Duration::from_millis(20);
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// What the node asks of the engine.
pub(crate) enum Control {
    Install(Box<ForwardingTable>),
    Addresses6(Addresses6),
    OtherAtms(Box<OtherAtms>),
    Commit(Vec<ConnectionChange>),
    Replace(Vec<(ConnectionKey, Pin)>, Vec<(StickyKey, ServerId)>),
    Refuse(ConnectionKey),
    Barrier(oneshot::Sender<()>),
    Relinquish(oneshot::Sender<()>),
    Snapshot(oneshot::Sender<Snapshot>),
    Trace(NewTrace, oneshot::Sender<Result<(), TraceError>>),
    Shutdown,
}

/// The state of an engine between two batches.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// One counter per verdict, and the core's events.
    pub verdicts: Counters,
    /// Frames that never reached the core.
    pub receive: ReceiveCounters,
    /// Entries of the connection table, held ones included.
    pub connections: usize,
    /// Connections that wait for their record.
    pub pending: usize,
    /// Who else claims a VIP, oldest first; bounded.
    pub conflicts: Vec<Conflict>,
}

/// Why an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, or the node let go of every handle.
    Shutdown,
    /// The interface came back as another one: the forwarder cannot go on with it.
    InterfaceChanged {
        /// The interface.
        interface: String,
        /// What differs, for a person.
        what: String,
    },
    /// Its thread panicked.
    Panicked,
}

/// The engine's parts.
pub(crate) struct Engine {
    pub(crate) forwarder: Forwarder,
    pub(crate) receiver: Option<Receiver>,
    pub(crate) outlet: Outlet,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) waker: Arc<OwnedFd>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) traces: Traces,
    pub(crate) opener: Opener,
}

/// How to open the port again.
pub(crate) struct Opener {
    pub(crate) name: String,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) kind: PortKind,
    pub(crate) expected: Interface,
    gate: Option<Arc<EgressGate>>,
    wait: Duration,
    next: Instant,
    /// Counters of the ports that were closed.
    before: ReceiveCounters,
}

/// What is answered when the batch is sent.
#[derive(Default)]
pub(crate) struct Answers {
    reached: Vec<oneshot::Sender<()>>,
    snapshots: Vec<oneshot::Sender<Snapshot>>,
    pub(crate) shutdown: bool,
}

impl Engine {
    /// Runs until told to end.
    pub(crate) fn run(mut self) -> Ended {
        let mut answers = Answers {
            reached: Vec::with_capacity(CONTROL_PER_BATCH_MAX),
            snapshots: Vec::with_capacity(CONTROL_PER_BATCH_MAX),
            shutdown: false,
        };
        loop {
            if let Err(ended) = self.batch(&mut answers) {
                return ended;
            }
            if answers.shutdown {
                return Ended::Shutdown;
            }
        }
    }

    /// One batch, after a wait when there is nothing to do (in a simulation whoever drives the engine waits).
    pub(crate) fn batch(&mut self, answers: &mut Answers) -> Result<(), Ended> {
        let stale = planted::is(Bug::StaleFramesAfterPause).then(clock::boottime);
        let mut frames = self.fill();
        if frames == 0 && self.control.is_empty() && !cfg!(atm_sim) {
            if !self.control.is_closed() {
                self.wait();
            }
            frames = self.fill();
        }
        self.stats.add(Count::Batches, 1);
        let now = stale.unwrap_or_else(clock::boottime);
        let lease = self.outlet.begin(now);
        self.forwarder.set_lease(lease, now, &mut self.outlet);
        self.take_control(now, answers);
        self.traces.drop_ended();
        if let Some(receiver) = &mut self.receiver {
            for index in 0..frames {
                if let Some((frame, waited)) = receiver.frame(index) {
                    // The core may change the bytes.
                    let glimpse = self.traces.glimpse(frame.bytes);
                    let verdict = self.forwarder.receive(frame, waited, now, &mut self.outlet);
                    if let Some(glimpse) = glimpse {
                        let about = self.forwarder.about();
                        self.traces.tell(&glimpse, now, verdict, about);
                    }
                }
            }
            receiver.release();
        }
        if self.forwarder.poll_timeout().is_some_and(|due| due <= now) {
            self.forwarder.handle_timeout(now, &mut self.outlet);
        }
        self.outlet.flush();
        if let Some(error) = self.outlet.fault.take() {
            self.close_port(&error, now);
        }
        if self.receiver.is_none() && now >= self.opener.next {
            self.open_port(now)?;
        }
        self.answer(answers);
        Ok(())
    }

    /// Frames of the next batch. An error closes the port.
    fn fill(&mut self) -> usize {
        match self.receiver.as_mut().map(Receiver::fill) {
            None => 0,
            Some(Ok(frames)) => {
                if frames > 0 {
                    self.opener.wait = REOPEN_MIN;
                }
                frames
            }
            Some(Err(error)) => {
                self.close_port(&error, clock::boottime());
                0
            }
        }
    }

    /// Waits for a frame, a ring of the bell, or the next instant something is due.
    fn wait(&mut self) {
        let due = match (self.forwarder.poll_timeout(), self.receiver.is_none()) {
            (Some(core), true) => Some(core.min(self.opener.next)),
            (None, true) => Some(self.opener.next),
            (core, false) => core,
        };
        let now = clock::boottime();
        let timeout = due.map_or(WAIT_MAX, |due| due.saturating_since(now).min(WAIT_MAX));
        let timeout = timespec(timeout);
        let mut failed = None;
        {
            let bell = PollFd::new(&self.waker, PollFlags::IN);
            let socket = self.receiver.as_ref().map(Receiver::fd);
            let ready = match socket {
                Some(socket) => {
                    let mut both = [bell, PollFd::from_borrowed_fd(socket, PollFlags::IN)];
                    let result = poll(&mut both, Some(&timeout));
                    if both[1]
                        .revents()
                        .intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
                    {
                        failed = port::pending_error(socket);
                    }
                    result.map(|_| both[0].revents())
                }
                None => {
                    let mut one = [bell];
                    poll(&mut one, Some(&timeout)).map(|_| one[0].revents())
                }
            };
            // An interrupted poll is a wait that ended early.
            if ready.is_ok_and(|events| events.contains(PollFlags::IN)) {
                wake::answer(&self.waker);
            }
        }
        if let Some(error) = failed {
            self.close_port(&error, clock::boottime());
        }
    }

    fn take_control(&mut self, now: Instant, answers: &mut Answers) {
        for _ in 0..CONTROL_PER_BATCH_MAX {
            let message = match self.control.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => return,
                // The node let go of every handle.
                Err(TryRecvError::Disconnected) => Control::Shutdown,
            };
            match message {
                Control::Install(table) => {
                    if table.servers.iter().any(|server| server.here) {
                        self.outlet.reach_own_stack();
                    }
                    self.forwarder.install(*table, now);
                }
                Control::Addresses6(ours) => {
                    self.forwarder.set_addresses6(ours.address, ours.link_local)
                }
                Control::OtherAtms(others) => self.forwarder.set_other_atms(*others, now),
                Control::Commit(changes) => self.forwarder.commit(&changes, now, &mut self.outlet),
                Control::Replace(all, sticky) => {
                    self.forwarder.replace_connections(all.into_iter(), now);
                    self.forwarder.replace_sticky(sticky.into_iter(), now);
                }
                Control::Refuse(key) => self.forwarder.refuse(key, now),
                Control::Barrier(reached) => answers.reached.push(reached),
                Control::Relinquish(reached) => {
                    self.outlet.relinquish();
                    self.forwarder.set_lease(None, now, &mut self.outlet);
                    answers.reached.push(reached);
                }
                Control::Snapshot(wanted) => answers.snapshots.push(wanted),
                Control::Trace(trace, begun) => {
                    // Who asked and went away has dropped the other end of the trace, too.
                    let _gone = begun.send(self.traces.begin(trace));
                }
                Control::Shutdown => {
                    answers.shutdown = true;
                    return;
                }
            }
        }
    }

    /// Whoever asked may have gone away meanwhile; then nobody misses the answer.
    fn answer(&mut self, answers: &mut Answers) {
        for reached in answers.reached.drain(..) {
            let _gone = reached.send(());
        }
        for wanted in answers.snapshots.drain(..) {
            let _gone = wanted.send(Snapshot {
                verdicts: self.forwarder.counters().clone(),
                receive: self.opener.before.plus(
                    self.receiver
                        .as_mut()
                        .map(Receiver::counters)
                        .unwrap_or_default(),
                ),
                connections: self.forwarder.connections(),
                pending: self.forwarder.pending(),
                conflicts: self.forwarder.conflicts().to_vec(),
            });
        }
    }

    fn close_port(&mut self, error: &io::Error, now: Instant) {
        warn!(interface = %self.opener.name, port = %self.opener.kind, %error, "packet port failed, opening it again");
        self.stats.add(Count::PortFailures, 1);
        if let Some(mut receiver) = self.receiver.take() {
            self.opener.before = self.opener.before.plus(receiver.counters());
        }
        self.outlet.use_sender(None);
        self.opener.back_off(now);
    }

    fn open_port(&mut self, now: Instant) -> Result<(), Ended> {
        match self.opener.open() {
            Ok((receiver, sender)) => {
                info!(interface = %self.opener.name, port = %self.opener.kind, "packet port open again");
                self.stats.add(Count::PortReopened, 1);
                self.receiver = Some(receiver);
                self.outlet.use_sender(Some(sender));
                Ok(())
            }
            Err(Reopen::Later) => {
                self.opener.back_off(now);
                Ok(())
            }
            Err(Reopen::Never(what)) => Err(Ended::InterfaceChanged {
                interface: self.opener.name.clone(),
                what,
            }),
        }
    }
}

enum Reopen {
    /// Not there yet, or the kernel refuses.
    Later,
    /// There, but another one.
    Never(String),
}

impl Opener {
    pub(crate) fn new(
        name: String,
        address: Option<Ipv4Addr>,
        kind: PortKind,
        expected: Interface,
        gate: Option<Arc<EgressGate>>,
    ) -> Self {
        let before = ReceiveCounters::default();
        Self {
            name,
            address,
            kind,
            expected,
            gate,
            wait: REOPEN_MIN,
            next: Instant::BOOT,
            before,
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.next = now + self.wait;
        self.wait = (self.wait * 2).min(REOPEN_MAX);
    }

    fn open(&self) -> Result<(Receiver, port::Sender), Reopen> {
        let found: Found =
            port::find(&self.name, self.address).map_err(|_missing| Reopen::Later)?;
        if let Some(what) = difference(&self.expected, &found.interface) {
            return Err(Reopen::Never(what));
        }
        // Binding to an interface that is down succeeds and fails with the first wait.
        if !found.device.is_up() {
            return Err(Reopen::Later);
        }
        if let Some(gate) = &self.gate {
            // The interface may be another one of the same name, where the gate does not stand yet.
            gate.attach(found.device.index)
                .map_err(|_refused| Reopen::Later)?;
        }
        port::open(self.kind, &found).map_err(|_refused| Reopen::Later)
    }
}

/// What the forwarder cannot go on with, for a person. IPv6 addresses come and go (duplicate address detection, router
/// advertisements) and are told by [`Control::Addresses6`]; the prefix is the forwarding table's.
fn difference(expected: &Interface, found: &Interface) -> Option<String> {
    let told = |interface: &Interface| (interface.mac, interface.address, interface.mtu);
    let ((mac, address, mtu), (mac_now, address_now, mtu_now)) = (told(expected), told(found));
    let mut differences = Vec::new();
    if mac != mac_now {
        differences.push(format!("its Ethernet address was {mac} and is {mac_now}"));
    }
    if address != address_now {
        differences.push(format!("its address was {address} and is {address_now}"));
    }
    if mtu != mtu_now {
        differences.push(format!("its MTU was {mtu} and is {mtu_now}"));
    }
    (!differences.is_empty()).then(|| differences.join(", "))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use dataplane_core::MacAddr;

    use super::*;

    #[test]
    fn an_interface_is_another_one_by_its_mac_address_or_mtu() {
        let was = Interface {
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix_len: 24,
            address6: None,
            link_local: None,
            mtu: 1500,
        };
        let same = Interface {
            prefix_len: 16,
            address6: Some("2001:db8::2".parse().unwrap()),
            link_local: Some("fe80::2".parse().unwrap()),
            ..was.clone()
        };
        assert_eq!(difference(&was, &same), None);
        let other = Interface {
            mac: MacAddr([2, 0, 0, 0, 0, 9]),
            address: Ipv4Addr::new(10, 0, 0, 9),
            mtu: 9000,
            ..was.clone()
        };
        assert_eq!(
            difference(&was, &other).unwrap(),
            "its Ethernet address was 02:00:00:00:00:01 and is 02:00:00:00:00:09, its address was 10.0.0.2 and is 10.0.0.9, its MTU was 1500 and is 9000"
        );
        let narrow = Interface {
            mtu: 1400,
            ..was.clone()
        };
        assert_eq!(
            difference(&was, &narrow).unwrap(),
            "its MTU was 1500 and is 1400"
        );
    }
}
