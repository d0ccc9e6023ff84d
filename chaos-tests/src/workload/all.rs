//! All workloads of one run together.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::asking::{Atm, Task, run_inside};
use super::connections::Connections;
use super::leases::Leases;
use super::members::{self, Digest};
use super::pace::{Chance, Pace};
use super::probe::{Probed, Probes};
use super::register::{self, Shared};
use super::set::{self, Sealed};
use super::voice::Voices;
use crate::history::{Kind, Op, Probe, Recorder};
use crate::lab::{LINES_PORT, Lab, LabError, in_namespace};

/// How long one call of a client may take. Longer than a takeover, so that few outcomes stay unknown.
const CALL_MAX: Duration = Duration::from_secs(4);

/// Between two looks at what is still missing at the end.
const LOOK: Duration = Duration::from_millis(50);

/// What the workloads shall do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides what clients do when.
    pub seed: u64,
    /// Between two probes.
    pub probe_interval: Duration,
    /// Between two operations of one client of the register or the set, on the average.
    pub pace: Duration,
    /// How long a key of the register is used.
    pub key_span: Duration,
    /// Whether the ATMs tell of their leases in instants of this machine's clocks.
    pub leases: bool,
}

impl Options {
    /// For faults of `time`: a probe every 20 ms, or so many fewer in hours that the history stays below two million events;
    /// a new key every 20 s.
    #[must_use]
    pub fn new(seed: u64, time: Duration) -> Self {
        let hours = u32::try_from(time.as_secs() / 3600).unwrap_or(u32::MAX);
        let factor = 1 + hours.min(24);
        Self {
            seed,
            probe_interval: Duration::from_millis(20) * factor,
            pace: Duration::from_millis(400) * factor.isqrt(),
            key_span: Duration::from_secs(20),
            leases: true,
        }
    }
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Operations of the register and the set that were begun.
    pub operations: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Times in which no probe was answered for longer than it takes to call it an outage.
    pub outages: u64,
    /// Whether there is one right now.
    pub outage: bool,
}

/// All workloads while they run.
pub struct Workloads {
    shared: Shared,
    sealed: Sealed,
    hosts: Vec<(String, String)>,
    clients: Vec<JoinHandle<()>>,
    connections: Connections,
    probes: Option<Probes>,
    outages: Arc<Mutex<Outages>>,
    voices: Voices,
    leases: Leases,
}

impl Workloads {
    /// Starts all of them on `lab`, whose cluster serves `lines` and whose ATMs tell of their leases.
    ///
    /// # Errors
    /// The lab has no client, or a thread or socket cannot be had.
    pub fn start(lab: &Lab, recorder: &Recorder, options: &Options) -> Result<Self, LabError> {
        let mut chance = Chance::new(options.seed);
        let hosts: Vec<_> = lab
            .hosts()
            .into_iter()
            .filter(|host| host.is_atm())
            .collect();
        let leases = Leases::new(lab, recorder.clone(), options.leases);
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| (host.name().to_owned(), host.namespace().to_owned()))
            .collect();
        let voices = Voices::start(lab)?;
        let cannot = LabError::io;

        let client = lab.host("client")?.namespace().to_owned();
        let vip = lab.vips().first().copied();
        let vip = vip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let service = SocketAddr::from((vip, LINES_PORT));
        let outages: Arc<Mutex<Outages>> = Arc::default();
        let hear = {
            let (recorder, process) = (recorder.clone(), recorder.process());
            let outages = Arc::clone(&outages);
            move |probed: Probed| {
                lock(&outages).take(&probed);
                record(&recorder, process, &probed);
            }
        };
        let probes = Probes::start(&client, service, options.probe_interval, hear)
            .map_err(cannot("start the probes"))?;
        let connections = Connections::start(&client, service, recorder.clone(), chance.draw())
            .map_err(cannot("start the connections"))?;

        let shared = Shared::new(recorder.clone(), options.key_span);
        let sealed = Sealed::default();
        let mut clients = Vec::new();
        for (number, (host, namespace)) in hosts.iter().enumerate() {
            let (shared, sealed, host) = (shared.clone(), sealed.clone(), host.clone());
            let paces = [(); 4].map(|()| Pace::new(chance.draw(), options.pace));
            let tasks = move || tasks(number == 0, &shared, &sealed, &host, paces);
            clients.push(run_inside(namespace, tasks).map_err(cannot("start the clients"))?);
        }
        Ok(Self {
            shared,
            sealed,
            hosts,
            clients,
            connections,
            probes: Some(probes),
            outages,
            voices,
            leases,
        })
    }

    /// To be called every second or so: takes over what was observed.
    ///
    /// # Errors
    /// The log of an ATM cannot be read.
    pub fn follow(&mut self) -> io::Result<()> {
        self.voices.follow();
        self.leases.follow()
    }

    /// How things stand.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let counts = self.connections.counts();
        let outages = lock(&self.outages);
        Progress {
            operations: self.shared.operations.load(Ordering::Relaxed),
            connections: counts.opened.load(Ordering::Relaxed),
            broken: counts.broken.load(Ordering::Relaxed),
            outages: outages.count,
            outage: outages.now,
        }
    }

    /// A fault is about to begin: opens connections right before it.
    pub fn before_fault(&self) {
        self.connections.burst();
    }

    /// Ends what changes anything; connections stay open.
    pub fn settle(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
        self.probes = None;
        self.connections.settle();
    }

    /// After [`Self::settle`]: waits until every ATM has the same state, then asks each for its part of the set and its connections.
    ///
    /// # Errors
    /// What is still missing after `limit`.
    pub fn demand(&self, limit: Duration) -> Result<(), String> {
        let by = Instant::now() + limit;
        loop {
            let missing = match self.same_state() {
                Ok(applied) => match self.tell_all(applied) {
                    Ok(()) => return Ok(()),
                    Err(missing) => missing,
                },
                Err(missing) => missing,
            };
            if Instant::now() >= by {
                return Err(missing);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends everything and records what is left to record.
    ///
    /// # Errors
    /// The log of an ATM cannot be read.
    pub fn finish(mut self) -> io::Result<()> {
        self.settle();
        let recorder = self.shared.recorder.clone();
        drop(self.connections);
        self.voices.finish(&recorder);
        self.leases.finish()
    }

    fn same_state(&self) -> Result<u64, String> {
        let digests = self.each(|host, atm| {
            Box::pin(async move {
                let digest = members::digest(&host, &atm).await;
                digest.map_err(|error| format!("{host}: {}", error.why()))
            })
        })?;
        for digest in &digests {
            self.shared.recorder.fact(digest.fact());
        }
        let seen = || {
            let seen: Vec<_> = digests
                .iter()
                .map(
                    |Digest {
                         atm,
                         applied,
                         digest,
                     }| {
                        format!("{atm} {applied} {}", digest.get(..8).unwrap_or(digest))
                    },
                )
                .collect();
            seen.join(", ")
        };
        let first = digests.first().ok_or("there are no ATMs")?;
        let same =
            |digest: &Digest| (digest.applied, &digest.digest) == (first.applied, &first.digest);
        if digests.iter().all(same) {
            Ok(first.applied)
        } else {
            Err(format!("the ATMs have different states: {}", seen()))
        }
    }

    fn tell_all(&self, applied: u64) -> Result<(), String> {
        let told = self.each(|host, atm| {
            let (shared, sealed) = (self.shared.clone(), self.sealed.clone());
            Box::pin(async move {
                let process = shared.recorder.process();
                if !set::read(&shared, &sealed, &atm, process, true).await {
                    return Err(format!("{host} does not tell its set"));
                }
                if !members::listing(&shared, &host, &atm, applied).await {
                    return Err(format!("{host} does not tell its connections"));
                }
                Ok(())
            })
        });
        told.map(drop)
    }

    /// Asks each ATM from inside of its host, and returns all answers or the first that is missing.
    fn each<T: Send>(
        &self,
        ask: impl Fn(String, Atm) -> Asking<T> + Send + Sync,
    ) -> Result<Vec<T>, String> {
        let mut answers = Vec::new();
        for (host, namespace) in &self.hosts {
            let asked = in_namespace(namespace, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .enable_time()
                    .build()
                    .map_err(|error| error.to_string())?;
                runtime.block_on(async {
                    let atm = Atm::new(CALL_MAX).map_err(|error| error.to_string())?;
                    ask(host.clone(), atm).await
                })
            });
            answers.push(asked.map_err(|error| error.to_string())??);
        }
        Ok(answers)
    }
}

type Asking<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// What runs inside of one ATM's host.
fn tasks(first: bool, shared: &Shared, sealed: &Sealed, host: &str, paces: [Pace; 4]) -> Vec<Task> {
    let [a, b, c, d] = paces;
    // Each has a channel of its own: one that hangs keeps nobody else waiting.
    let atm = || Atm::new(CALL_MAX);
    let mut tasks: Vec<Task> = Vec::new();
    if let Ok(atm) = atm() {
        tasks.push(register::client(shared.clone(), atm, a));
    }
    if let Ok(atm) = atm() {
        tasks.push(register::client(shared.clone(), atm, b));
    }
    if let Ok(atm) = atm() {
        tasks.push(set::client(shared.clone(), sealed.clone(), atm, c));
    }
    if let Ok(atm) = atm() {
        tasks.push(members::digests(shared.clone(), host.to_owned(), atm));
    }
    if first && let Ok(atm) = atm() {
        tasks.push(register::turner(shared.clone(), atm, d));
    }
    tasks
}

fn record(recorder: &Recorder, process: u64, probed: &Probed) {
    let probe = Probe {
        probe: "connect".to_owned(),
        latency_ns: probed.ended_ns.saturating_sub(probed.begun_ns),
    };
    let kind = if probed.answered {
        Kind::Ok
    } else {
        Kind::Fail
    };
    recorder.record(probed.ended_ns, process, kind, Op::Probe(probe));
}

/// Outages as they come, for whoever watches; the checker has its own eyes.
#[derive(Debug, Default)]
struct Outages {
    count: u64,
    now: bool,
}

impl Outages {
    fn take(&mut self, probed: &Probed) {
        if !probed.answered && !self.now {
            self.count += 1;
        }
        self.now = !probed.answered;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
