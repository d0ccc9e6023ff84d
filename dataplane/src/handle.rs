//! The node's grip on an engine.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use dataplane_core::{Forwarder, ForwardingTable, Interface, Limits, OtherAtms};
use model::connections::{ConnectionChange, ConnectionKey, Pin};
use model::ids::ServerId;
use model::planted::{self, Bug};
use model::sticky::StickyKey;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use crate::engine::{Control, Ended, Engine, Opener, Snapshot};
use crate::lease_cell::LeaseCell;
use crate::offload::EgressGate;
use crate::outlet::{Event, Outlet};
use crate::port::{self, Addresses6, InterfaceError, PortKind};
use crate::stats::Stats;
use crate::trace::{self, Trace, TraceError, TraceFilter, Traces};
use crate::wake;

/// Messages that wait for the engine. It takes up to 64 per batch, so this is a few milliseconds; past it the node waits.
const CONTROL_MAX: usize = 256;
/// Events that wait for the node: what arrives in 100 ms at 40,000 new connections a second. Past it new connections are
/// refused by name, and the client's TCP tries again.
const EVENTS_MAX: usize = 4096;

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The interface's name.
    pub interface: String,
    /// How packets are received and sent.
    pub port: PortKind,
    /// Which of the interface's IPv4 addresses is ours; `None`: its first.
    pub address: Option<Ipv4Addr>,
    /// Bounds of the forwarder.
    pub limits: Limits,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Packet sockets are not allowed: the process lacks CAP_NET_RAW. Exit code 77 (EX_NOPERM).
    #[error(
        "no permission for packet sockets: run as root or give the program CAP_NET_RAW and CAP_NET_ADMIN"
    )]
    NotPermitted,
    /// The interface cannot be used.
    #[error(transparent)]
    Interface(InterfaceError),
    /// The cell already belongs to an engine.
    #[error("this lease already belongs to another engine")]
    LeaseInUse,
    /// The system has no room for a thread or an eventfd.
    #[error("cannot start the packet engine")]
    System(#[from] io::Error),
}

impl From<InterfaceError> for StartError {
    fn from(error: InterfaceError) -> Self {
        match error {
            InterfaceError::NotPermitted => Self::NotPermitted,
            InterfaceError::Missing { .. }
            | InterfaceError::NotEthernet(_)
            | InterfaceError::NoIpv4(_)
            | InterfaceError::NoSuchAddress { .. }
            | InterfaceError::Io { .. } => Self::Interface(error),
        }
    }
}

/// The engine is gone: see [`Handle::closed`] for the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet engine has ended")]
pub struct Gone;

/// An engine from outside. Clones are the same engine; it ends with `shutdown` or with the last clone.
#[derive(Clone, Debug)]
pub struct Handle {
    control: mpsc::Sender<Control>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waker: Arc<OwnedFd>,
    stats: Arc<Stats>,
    interface: Interface,
    gate: Option<Arc<EgressGate>>,
    ended: watch::Receiver<Option<Ended>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    /// The control channel closes just before or after; the engine must look.
    fn drop(&mut self) {
        wake::ring(&self.waker);
    }
}

/// Opens the port, in this thread's network namespace, and starts the engine's thread. `lease` serves this engine alone.
pub fn start(
    config: EngineConfig,
    lease: Arc<LeaseCell>,
) -> Result<(Handle, mpsc::Receiver<Event>), StartError> {
    let found = port::find(&config.interface, config.address)?;
    let port = port::open(config.port, &found)
        .map_err(|source| InterfaceError::io(&config.interface, source))?;
    let gate = egress_gate(&found);
    let name = format!("dp-{}", config.interface);
    let (handle, events, engine, tell_end) = assemble(config, found.interface, port, gate, lease)?;
    let thread = thread::Builder::new().name(name).spawn(move || {
        // A panic drops the sender without a word: that is how it is told.
        let end = engine.run();
        tell_end.send_replace(Some(end));
    })?;
    *handle
        .shared
        .thread
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(thread);
    Ok((handle, events))
}

/// An engine that does not run yet, the grip on it, and where its end is to be told.
type Assembled = (
    Handle,
    mpsc::Receiver<Event>,
    Engine,
    watch::Sender<Option<Ended>>,
);

/// Puts an engine together around an open port.
pub(crate) fn assemble(
    config: EngineConfig,
    interface: Interface,
    (receiver, sender): (port::Receiver, port::Sender),
    gate: Option<Arc<EgressGate>>,
    lease: Arc<LeaseCell>,
) -> Result<Assembled, StartError> {
    let waker = wake::waker().map_err(io::Error::from)?;
    if !lease.attach(Arc::clone(&waker)) {
        return Err(StartError::LeaseInUse);
    }
    let stats = Arc::new(Stats::default());
    let (control, control_receiver) = mpsc::channel(CONTROL_MAX);
    let (events, event_receiver) = mpsc::channel(EVENTS_MAX);
    let frame_len_max = port::ETHERNET_OVERHEAD + usize::from(interface.mtu);
    let mut outlet = Outlet::new(
        frame_len_max,
        Arc::clone(&lease),
        events,
        Arc::clone(&stats),
    );
    if let Some(gate) = &gate {
        lease.guard_with(Arc::clone(gate));
    }
    outlet.gate = gate.clone();
    outlet.use_sender(Some(sender));
    let engine = Engine {
        forwarder: Forwarder::new(interface.clone(), config.limits),
        receiver: Some(receiver),
        outlet,
        control: control_receiver,
        waker: Arc::clone(&waker),
        stats: Arc::clone(&stats),
        traces: Traces::default(),
        opener: Opener::new(
            config.interface,
            config.address,
            config.port,
            interface.clone(),
            gate.clone(),
        ),
    };
    let (tell_end, ended) = watch::channel(None);
    let shared = Shared {
        waker,
        stats,
        interface,
        gate,
        ended,
        thread: Mutex::new(None),
    };
    let handle = Handle {
        control,
        shared: Arc::new(shared),
    };
    Ok((handle, event_receiver, engine, tell_end))
}

/// The kernel's look at the lease; without it the engine's own is all there is, and the log says so.
fn egress_gate(found: &port::Found) -> Option<Arc<EgressGate>> {
    if planted::is(Bug::LeaseOff) || planted::is(Bug::StaleFramesAfterPause) {
        return None;
    }
    let loaded = EgressGate::load().and_then(|gate| gate.attach(found.device.index).map(|()| gate));
    match loaded {
        Ok(gate) => Some(Arc::new(gate)),
        Err(error) => {
            info!(interface = found.device.name, %error, "the kernel does not check the lease (it needs Linux 6.6 and CAP_BPF)");
            None
        }
    }
}

impl Handle {
    /// The interface as found at the start. Its IPv6 addresses may have changed since.
    pub fn interface(&self) -> &Interface {
        &self.shared.interface
    }

    /// Frames that the kernel's look at the lease threw away; `None`: there is no such look.
    pub fn gate_dropped(&self) -> Option<u64> {
        self.shared.gate.as_ref().map(|gate| gate.dropped())
    }

    /// Counters and instants that are read without asking the engine.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Swaps the forwarding table between two batches. Waits while the engine has 256 messages before it.
    pub async fn install(&self, table: ForwardingTable) -> Result<(), Gone> {
        self.send(Control::Install(Box::new(table))).await
    }

    /// The interface's IPv6 addresses are these from the next batch on.
    pub async fn set_addresses6(&self, ours: Addresses6) -> Result<(), Gone> {
        self.send(Control::Addresses6(ours)).await
    }

    /// The other ATMs, and which of them is active, are these from the next batch on.
    pub async fn set_other_atms(&self, others: OtherAtms) -> Result<(), Gone> {
        self.send(Control::OtherAtms(Box::new(others))).await
    }

    /// Hands over committed records; frames held for them leave with this batch (while the lease is held).
    pub async fn commit(&self, changes: Vec<ConnectionChange>) -> Result<(), Gone> {
        self.send(Control::Commit(changes)).await
    }

    /// Replaces the whole connection table and the sticky clients, as after a snapshot. The engine is busy for about 100 ns per entry.
    pub async fn replace_connections(
        &self,
        all: Vec<(ConnectionKey, Pin)>,
        sticky: Vec<(StickyKey, ServerId)>,
    ) -> Result<(), Gone> {
        self.send(Control::Replace(all, sticky)).await
    }

    /// The record of this connection was refused: its held frame is thrown away.
    pub async fn refuse(&self, key: ConnectionKey) -> Result<(), Gone> {
        self.send(Control::Refuse(key)).await
    }

    /// Returns when everything sent before is in the forwarder, and what it made leave has left.
    pub async fn barrier(&self) -> Result<(), Gone> {
        self.ask(Control::Barrier).await
    }

    /// Returns when nothing of the present epoch will be sent any more: all of it is on the wire or thrown away. Only
    /// a newer epoch in the cell lets the engine speak again. Revoke the cell first.
    pub async fn relinquish(&self) -> Result<(), Gone> {
        self.ask(Control::Relinquish).await
    }

    /// Counters and sizes between two batches; costs the engine one copy of them.
    pub async fn snapshot(&self) -> Result<Snapshot, Gone> {
        self.ask(Control::Snapshot).await
    }

    /// Follows the decisions on the frames that pass `filter`, from the next batch on, until the trace is dropped. The packet
    /// path never waits for whoever follows: it loses decisions, and learns how many.
    pub async fn trace(&self, filter: TraceFilter) -> Result<Trace, TraceError> {
        let (new, trace) = trace::new(filter, Arc::clone(&self.shared.waker));
        self.ask(|begun| Control::Trace(new, begun))
            .await
            .map_err(|Gone| TraceError::Gone)??;
        Ok(trace)
    }

    /// Entries of the connection table.
    pub async fn connections(&self) -> Result<usize, Gone> {
        Ok(self.snapshot().await?.connections)
    }

    /// Returns when the engine has ended, with the reason.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ended::Panicked),
            Err(_sender_dropped) => Ended::Panicked,
        }
    }

    /// Ends the engine after what was sent before, and joins its thread.
    pub async fn shutdown(&self) -> Ended {
        // An engine that is already gone ended for another reason, which `closed` knows.
        let _gone = self.send(Control::Shutdown).await;
        let end = self.closed().await;
        let thread = self
            .shared
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // The thread has spoken its last word, so this does not wait; its panic is already told by `closed`.
            let _panicked = thread.join();
        }
        end
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.send(question(sender)).await?;
        receiver.await.map_err(|_dropped| Gone)
    }

    async fn send(&self, message: Control) -> Result<(), Gone> {
        self.control.send(message).await.map_err(|_closed| Gone)?;
        wake::ring(&self.shared.waker);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dataplane_core::MacAddr;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_panic_of_the_engine_is_told_to_whoever_waits() {
        let (control, engine) = mpsc::channel(1);
        let (tell_end, ended) = watch::channel(None);
        let thread = thread::spawn(move || {
            let (_control, _tell_end): (mpsc::Receiver<Control>, watch::Sender<Option<Ended>>) =
                (engine, tell_end);
            std::panic::resume_unwind(Box::new("without a message on stderr"));
        });
        let interface = Interface {
            mac: MacAddr::ZERO,
            address: Ipv4Addr::LOCALHOST,
            prefix_len: 8,
            address6: None,
            link_local: None,
            mtu: 1500,
        };
        let (waker, stats) = (wake::waker().unwrap(), Arc::new(Stats::default()));
        let shared = Shared {
            waker,
            stats,
            interface,
            ended,
            thread: Mutex::new(Some(thread)),
            gate: None,
        };
        let handle = Handle {
            control,
            shared: Arc::new(shared),
        };
        assert_eq!(block_on(handle.closed()), Ended::Panicked);
        assert_eq!(block_on(handle.barrier()), Err(Gone));
        assert_eq!(block_on(handle.shutdown()), Ended::Panicked);
    }
}
