//! One run: form the group, faults from the seed, then heal and demand that everything works.

mod look;
mod nemesis;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane_core::Interface;
use model::lease::Lease;
use node::simulation::{self, Client, Clock, Host};
use serde::Serialize;
use turmoil::Sim;

use crate::chance::Chance;
use crate::configuration;
use crate::connections::Connections;
use crate::fault::{Fault, Schedule};
use crate::judge::{ENDED, Judge, LIVENESS, Violation};
use crate::operators::{self, History};

/// Until then nothing is broken on purpose.
const FORMING_MS: u64 = 6_000;
/// After the last fault everything must work within this.
const HEALING_MS: u64 = 12_000;
/// An ATM that has ended for a reason of its own is started again after this, as a service manager would.
const RESTART_MS: u64 = 500;
/// Messages take up to this long when nothing is wrong.
const LATENCY: Duration = Duration::from_millis(4);
/// A client connects this often in a busy run, and in a quiet one, where heartbeats are nearly all that is sent.
const CONNECT_MS: (u64, u64) = (40, 900);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// How long faults go on, in milliseconds of simulated time.
    pub faults_ms: u64,
    /// The faults, if not drawn from the seed.
    pub schedule: Option<Schedule>,
    /// Says on stderr what happens.
    pub verbose: bool,
}

/// What came of it. The same plan gives the same summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// ATMs in the group.
    pub atms: usize,
    /// Faults that were done.
    pub faults: usize,
    /// Tenures that began.
    pub tenures: u64,
    /// Connections that were acknowledged.
    pub connections: usize,
    /// Calls of operators that were answered, or may have had an effect.
    pub operations: usize,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Over everything that was seen, in order.
    pub fingerprint: u64,
    /// What was broken; empty: every promise held.
    pub violations: Vec<Violation>,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> std::io::Result<Summary> {
    let directory = tempfile::Builder::new()
        .prefix("sim-node")
        .tempdir_in("/dev/shm")?;
    let mut chance = Chance::new(plan.seed);
    let atms = atms(&mut chance);
    let drawn = || schedule(plan.seed, plan.faults_ms);
    let schedule = plan.schedule.clone().unwrap_or_else(drawn);
    let quiet = chance.below(2) == 0;
    let world = World::new(plan, &mut chance, atms, quiet, directory.path());
    Ok(world.play(&schedule))
}

/// The faults of a seed.
pub(crate) fn schedule(seed: u64, faults_ms: u64) -> Schedule {
    let atms = atms(&mut Chance::new(seed));
    Schedule::draw(seed, atms, FORMING_MS, FORMING_MS + faults_ms)
}

fn atms(chance: &mut Chance) -> usize {
    if chance.below(4) == 0 { 5 } else { 3 }
}

struct Atm {
    address: IpAddr,
    host: Arc<Host>,
    /// Why its last life ended, if by itself.
    ended: Rc<RefCell<Option<String>>>,
    /// When it is started again.
    starts_at: Option<u64>,
    lease: Option<Lease>,
}

/// What is to be undone, and when.
struct Undo {
    at_ms: u64,
    fault: Fault,
}

struct World<'a> {
    plan: &'a Plan,
    sim: Sim<'a>,
    atms: Vec<Atm>,
    judge: Judge,
    connections: Connections,
    history: History,
    undo: Vec<Undo>,
    requests: Rc<RefCell<Vec<usize>>>,
    chance: Chance,
    faults: usize,
    fingerprint: u64,
    connect_ms: u64,
    now_ms: u64,
}

impl<'a> World<'a> {
    fn new(
        plan: &'a Plan,
        chance: &mut Chance,
        count: usize,
        quiet: bool,
        directory: &std::path::Path,
    ) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(chance.next())
            .simulation_duration(Duration::from_secs(1_000_000))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(0))
            .max_message_latency(LATENCY)
            .tcp_capacity(65_536)
            .epoch(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
            .enable_random_order()
            .build();
        let mut atms = Vec::new();
        for index in 0..count {
            let address = configuration::atm(index);
            let IpAddr::V4(own) = address else { continue };
            let interface = Interface {
                mac: configuration::atm_mac(index),
                address: own,
                prefix_len: 24,
                address6: None,
                link_local: None,
                mtu: 1500,
            };
            let ppm = i64::try_from(chance.below(100_001)).unwrap_or(0) - 50_000;
            let clock = Clock {
                ppm,
                offset: chance.between(1, 1_000_000) * 1_000_000,
            };
            let host = Arc::new(Host::new(
                address.to_string(),
                configuration::text(count, 0),
                directory.join(format!("atm{}", index + 1)),
                interface,
                clock,
                chance.next(),
            ));
            let ended = Rc::new(RefCell::new(None));
            let (life, end) = (Arc::clone(&host), Rc::clone(&ended));
            sim.host(address, move || {
                let (life, end) = (Arc::clone(&life), Rc::clone(&end));
                async move {
                    if let Err(reason) = simulation::run(life).await {
                        *end.borrow_mut() = Some(reason);
                    }
                    Ok(())
                }
            });
            atms.push(Atm {
                address,
                host,
                ended,
                starts_at: None,
                lease: None,
            });
        }
        let history = History::default();
        for index in 0..3 {
            let (history, seed) = (Rc::clone(&history), chance.next());
            sim.host(configuration::operator(index), move || {
                let history = Rc::clone(&history);
                async move {
                    let pause_ms = if quiet { 3000 } else { 400 };
                    operators::operate(index, count, seed, pause_ms, history).await;
                    Ok(())
                }
            });
        }
        // Hand-overs are asked for by an operator of their own, at the first ATM that answers.
        let requests = Rc::new(RefCell::new(Vec::new()));
        let asked = Rc::clone(&requests);
        sim.host(configuration::operator(9), move || {
            let asked = Rc::clone(&asked);
            async move { hand_overs(count, asked).await }
        });
        Self {
            plan,
            sim,
            atms,
            judge: Judge::default(),
            connections: Connections::default(),
            history,
            undo: Vec::new(),
            requests,
            chance: Chance::new(chance.next()),
            faults: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
            connect_ms: if quiet { CONNECT_MS.1 } else { CONNECT_MS.0 },
            now_ms: 0,
        }
    }

    fn play(mut self, schedule: &Schedule) -> Summary {
        let healed_at = FORMING_MS + self.plan.faults_ms;
        let mut steps = schedule.0.iter().copied().peekable();
        let mut active_since = None;
        let mut epoch_at_heal = None;
        while self.judge.found.is_empty() {
            while let Some(step) = steps.next_if(|step| step.at_ms <= self.now_ms) {
                self.begin(step.fault);
            }
            self.undo_due();
            self.restart_due();
            self.talk();
            if let Err(error) = self.sim.step() {
                self.judge.note(ENDED, self.now(), error.to_string());
                break;
            }
            self.now_ms += 1;
            self.look();
            let active = self.active();
            if active.is_some() != active_since.is_some() {
                active_since = active.map(|_| self.now_ms);
            }
            if self.now_ms == FORMING_MS && active.is_none() {
                self.judge
                    .note(LIVENESS, self.now(), "the group did not form".into());
            }
            if self.now_ms == healed_at {
                self.heal();
                epoch_at_heal = Some(self.history.borrow().len());
            }
            if self.now_ms >= healed_at + HEALING_MS {
                self.demand(epoch_at_heal.unwrap_or(0));
                break;
            }
        }
        self.summary()
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    /// Clients connect and talk; every ATM hears every frame, as on a hub.
    fn talk(&mut self) {
        if self.now_ms > 2000 && self.now_ms.is_multiple_of(self.connect_ms) {
            self.connections.open(self.now_ms);
        }
        let now = self.now();
        for (client, flags) in self.connections.speak(self.now_ms) {
            for (index, atm) in self.atms.iter().enumerate() {
                let frame = Connections::frame(index, client, flags);
                atm.host.cable.deliver(atm.host.clock.at(now), frame);
            }
        }
    }

    fn summary(mut self) -> Summary {
        let history = self.history.borrow().clone();
        for operation in &history {
            mix(
                &mut self.fingerprint,
                u64::try_from(operation.begun.as_nanos()).unwrap_or(0),
            );
        }
        let _ = self.chance.next();
        let applied = self.atms.iter().filter_map(|atm| atm.host.probe().role());
        Summary {
            seed: self.plan.seed,
            atms: self.atms.len(),
            faults: self.faults,
            tenures: self.judge.tenures,
            connections: self.connections.acknowledged().count(),
            operations: history.len(),
            applied: applied.map(|role| role.applied).max().unwrap_or(0),
            fingerprint: self.fingerprint,
            violations: self.judge.found,
        }
    }
}

/// Asks for the hand-overs that the schedule wants.
async fn hand_overs(atms: usize, asked: Rc<RefCell<Vec<usize>>>) -> turmoil::Result {
    let mut via = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let wanted = asked.borrow_mut().pop();
        let Some(to) = wanted else { continue };
        via = (via + 1) % atms;
        let address = format!("{}:7411", configuration::atm(via));
        if let Some(mut client) = Client::new(&address, Duration::from_secs(6)) {
            // Refusals are as good as success here: the promises are looked at elsewhere.
            let _ = client.hand_over(&configuration::atm(to).to_string()).await;
        }
    }
}

/// FNV-1a over the bytes of a number.
fn mix(fingerprint: &mut u64, number: u64) {
    for byte in number.to_be_bytes() {
        *fingerprint = (*fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}
