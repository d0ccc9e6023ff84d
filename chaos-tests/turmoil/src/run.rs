//! One run: form the group, faults from the seed, then heal and demand that everything works.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane_core::Interface;
use model::connections::ConnectionKey;
use model::lease::Lease;
use node::simulation::{self, Client, Clock, Disk, Host};
use serde::Serialize;
use turmoil::Sim;

use crate::chance::Chance;
use crate::configuration::{self, SERVERS};
use crate::connections::Connections;
use crate::fault::{Fault, Schedule};
use crate::frames::{self, Seen};
use crate::judge::{CLAIM_GATE, CONNECTIONS, ENDED, Judge, LIVENESS, REGISTER, VOICE, Violation};
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
    let quiet = chance.below(3) == 0;
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

    /// Looks at everything after a millisecond.
    fn look(&mut self) {
        let now = self.now();
        let mut held = Vec::new();
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
            && self.now_ms.is_multiple_of(5)
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

    fn active(&self) -> Option<usize> {
        let now = self.now();
        self.atms.iter().position(|atm| {
            atm.lease
                .is_some_and(|lease| now < atm.host.clock.true_time(lease.until))
        })
    }

    fn begin(&mut self, fault: Fault) {
        self.faults += 1;
        if self.plan.verbose {
            eprintln!("{} ms: {fault:?}", self.now_ms);
        }
        let after = match fault {
            Fault::Crash { atm, down_ms } => {
                if self.atms[atm].starts_at.is_none() {
                    self.sim.crash(self.atms[atm].address);
                    self.atms[atm].host.crashed();
                }
                self.atms[atm].starts_at = Some(self.now_ms + down_ms);
                return;
            }
            Fault::Cut { a, b, for_ms } => {
                self.sim
                    .partition(self.atms[a].address, self.atms[b].address);
                for_ms
            }
            Fault::OneWay { from, to, for_ms } => {
                self.sim
                    .partition_oneway(self.atms[from].address, self.atms[to].address);
                for_ms
            }
            Fault::Isolate { atm, for_ms } => {
                for other in self.others(atm) {
                    self.sim.partition(self.atms[atm].address, other);
                }
                for_ms
            }
            Fault::Bridge { atm, for_ms } => {
                let others = self.others(atm);
                for (position, a) in others.iter().enumerate() {
                    for b in &others[position + 1..] {
                        self.sim.partition(*a, *b);
                    }
                }
                for_ms
            }
            Fault::Hold { a, b, for_ms } => {
                self.sim.hold(self.atms[a].address, self.atms[b].address);
                for_ms
            }
            Fault::Latency { max_ms, for_ms } => {
                self.sim
                    .set_max_message_latency(Duration::from_millis(max_ms));
                for_ms
            }
            Fault::Loss { permille, for_ms } => {
                self.sim.set_fail_rate(permille as f64 / 1000.0);
                for_ms
            }
            Fault::SlowDisk {
                atm,
                sync_ms,
                for_ms,
            } => {
                let slow = simulation::Fault::Slow(Duration::from_millis(sync_ms));
                self.disk(atm).set_fault(slow);
                for_ms
            }
            Fault::FullDisk { atm, for_ms } => {
                self.disk(atm).set_fault(simulation::Fault::Full);
                for_ms
            }
            Fault::BrokenDisk { atm, for_ms } => {
                self.disk(atm).set_fault(simulation::Fault::Error);
                for_ms
            }
            Fault::StalledEngine { atm, for_ms } => {
                self.atms[atm].host.cable.stall(true);
                for_ms
            }
            Fault::Transfer { to } => {
                let probes: Vec<_> = self.atms.iter().map(|atm| atm.host.probe()).collect();
                for probe in probes {
                    probe.transfer(&self.atms[to].host.name);
                }
                return;
            }
            Fault::HandOver { to } => {
                self.requests.borrow_mut().push(to);
                return;
            }
        };
        self.undo.push(Undo {
            at_ms: self.now_ms + after,
            fault,
        });
    }

    fn others(&self, atm: usize) -> Vec<IpAddr> {
        let all = self.atms.iter().enumerate();
        all.filter(|(index, _)| *index != atm)
            .map(|(_, other)| other.address)
            .collect()
    }

    fn disk(&self, atm: usize) -> &Disk {
        &self.atms[atm].host.disk
    }

    fn undo_due(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = self
            .undo
            .drain(..)
            .partition(|undo: &Undo| undo.at_ms <= now_ms);
        self.undo = later;
        for Undo { fault, .. } in due {
            match fault {
                Fault::Cut { a, b, .. } => {
                    self.sim.repair(self.atms[a].address, self.atms[b].address)
                }
                Fault::OneWay { from, to, .. } => {
                    self.sim
                        .repair(self.atms[from].address, self.atms[to].address);
                }
                Fault::Isolate { atm, .. } => {
                    for other in self.others(atm) {
                        self.sim.repair(self.atms[atm].address, other);
                    }
                }
                Fault::Bridge { atm, .. } => {
                    let others = self.others(atm);
                    for (position, a) in others.iter().enumerate() {
                        for b in &others[position + 1..] {
                            self.sim.repair(*a, *b);
                        }
                    }
                }
                Fault::Hold { a, b, .. } => {
                    self.sim.release(self.atms[a].address, self.atms[b].address)
                }
                Fault::Latency { .. } => self.sim.set_max_message_latency(LATENCY),
                Fault::Loss { .. } => self.sim.set_fail_rate(0.0),
                Fault::SlowDisk { atm, .. }
                | Fault::FullDisk { atm, .. }
                | Fault::BrokenDisk { atm, .. } => {
                    self.disk(atm).set_fault(simulation::Fault::None);
                }
                Fault::StalledEngine { atm, .. } => self.atms[atm].host.cable.stall(false),
                Fault::Crash { .. } | Fault::Transfer { .. } | Fault::HandOver { .. } => {}
            }
        }
    }

    fn restart_due(&mut self) {
        for index in 0..self.atms.len() {
            if self.atms[index]
                .starts_at
                .is_some_and(|at| at <= self.now_ms)
            {
                self.atms[index].starts_at = None;
                if self.plan.verbose {
                    eprintln!("{} ms: atm{} starts", self.now_ms, index + 1);
                }
                self.sim.bounce(self.atms[index].address);
            }
        }
    }

    /// Nothing is wrong any more.
    fn heal(&mut self) {
        for undo in &mut self.undo {
            undo.at_ms = 0;
        }
        self.undo_due();
        for atm in &mut self.atms {
            atm.host.disk.set_fault(simulation::Fault::None);
            atm.host.cable.stall(false);
            if let Some(at) = &mut atm.starts_at {
                *at = self.now_ms;
            }
        }
        let addresses: Vec<_> = self.atms.iter().map(|atm| atm.address).collect();
        for (position, a) in addresses.iter().enumerate() {
            for b in &addresses[position + 1..] {
                self.sim.release(*a, *b);
                self.sim.repair(*a, *b);
            }
        }
    }

    /// After healing: somebody is active, changes are made, everybody has the same state, and what operators saw was one register.
    fn demand(&mut self, operations_at_heal: usize) {
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
