//! The engine without its thread, its sockets and its clock, for the deterministic simulation: everything else of it is
//! the real one. Exists with `--cfg atm_sim` only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane_core::{Interface, Limits};
use model::Instant;
use tokio::sync::{mpsc, watch};

use crate::engine::{Answers, Ended, Engine};
use crate::handle::{self, EngineConfig, Handle, StartError};
use crate::lease_cell::LeaseCell;
use crate::outlet::Event;
use crate::port::{self, PortKind, simulated};

/// Frames that wait for an engine: more than it takes in 100 ms of simulated time, in which the core calls them stale.
const FRAMES_MAX: usize = 4096;

type Clock = Box<dyn Fn() -> u64>;

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// What [`boottime`](crate::boottime) says in this thread from now on: nanoseconds of the host whose code runs.
pub fn set_clock(clock: impl Fn() -> u64 + 'static) {
    CLOCK.set(Some(Box::new(clock)));
}

/// The boot-time clock of the simulated host whose code runs; zero without a simulation.
pub fn boottime() -> Instant {
    CLOCK.with_borrow(|clock| Instant::from_nanos(clock.as_ref().map_or(0, |clock| clock())))
}

/// The cable of one simulated interface. Clones are the same cable.
#[derive(Clone, Debug, Default)]
pub struct Cable(Arc<Mutex<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    received: VecDeque<(Instant, Vec<u8>)>,
    sent: Vec<(Instant, Vec<u8>)>,
    stalled: bool,
}

impl Cable {
    /// A frame arrives at the host, at this instant of its clock. `false`: its queue is full, the frame is lost.
    pub fn deliver(&self, at: Instant, frame: Vec<u8>) -> bool {
        let mut ends = self.ends();
        let room = ends.received.len() < FRAMES_MAX;
        if room {
            ends.received.push_back((at, frame));
        }
        room
    }

    /// Takes what the host has sent, each with the instant of its clock.
    pub fn take_sent(&self) -> Vec<(Instant, Vec<u8>)> {
        std::mem::take(&mut self.ends().sent)
    }

    /// The engine gets no processor while it is stalled: frames and messages wait for it.
    pub fn stall(&self, stalled: bool) {
        self.ends().stalled = stalled;
    }

    /// Whether it is.
    pub fn stalled(&self) -> bool {
        self.ends().stalled
    }

    /// What waits for a process that has died is lost.
    pub fn clear(&self) {
        *self.ends() = Ends::default();
    }

    pub(crate) fn take_received(&self, frames_max: usize) -> Vec<(Instant, Vec<u8>)> {
        let mut ends = self.ends();
        let frames = ends.received.len().min(frames_max);
        ends.received.drain(..frames).collect()
    }

    pub(crate) fn send(&self, frame: Vec<u8>) {
        self.ends().sent.push((boottime(), frame));
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine that takes a step when it is told to.
pub struct Driver {
    engine: Engine,
    answers: Answers,
    cable: Cable,
    tell_end: watch::Sender<Option<Ended>>,
}

impl Driver {
    /// One batch. `false`: the engine has ended, and there is no further step.
    pub fn step(&mut self) -> bool {
        if self.cable.stalled() {
            return true;
        }
        let end = match self.engine.batch(&mut self.answers) {
            Err(ended) => ended,
            Ok(()) if self.answers.shutdown => Ended::Shutdown,
            Ok(()) => return true,
        };
        self.tell_end.send_replace(Some(end));
        false
    }
}

/// An engine on a cable; whoever drives it must do so at least every millisecond.
pub fn start(
    interface: Interface,
    limits: Limits,
    cable: &Cable,
    lease: Arc<LeaseCell>,
) -> Result<(Handle, mpsc::Receiver<Event>, Driver), StartError> {
    let config = EngineConfig {
        interface: "sim0".into(),
        port: PortKind::Pnet,
        address: Some(interface.address),
        limits,
    };
    let (receiver, sender) = simulated::open(cable)?;
    let port = (
        port::Receiver::Simulated(receiver),
        port::Sender::Simulated(sender),
    );
    let (handle, events, engine, tell_end) =
        handle::assemble(config, interface, port, None, lease)?;
    let driver = Driver {
        engine,
        answers: Answers::default(),
        cable: cable.clone(),
        tell_end,
    };
    Ok((handle, events, driver))
}
