//! Health: every ATM checks every server and service, reports to the active one, and that one judges (`model::health`).
//!
//! One task, and one more for each subject that is checked, each ping, agent and script that is under way. The active ATM proposes
//! what a majority says and the log does not have; verdicts, and the scripts that follow from them, are replicated.

mod pace;
mod ping;
mod probes;
mod reports;
mod scripts;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::command::{Command, Control, Response};
use model::health::judge::Judge;
use model::health::{ScriptStep, Subject};
use model::ids::{ConfigNumber, Epoch, NodeId};
use openraft::async_runtime::WatchReceiver;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use reports::{Arrived, from_wire};

use crate::api::Servers;
use crate::bootstrap::Other;
use crate::clock;
use crate::lease::LeaseKeeper;
use crate::raft::{Machine, Raft, StoredCommand};
use pace::Paced;
use probes::Probes;
use scripts::{Here, Next, Scripts};

/// Reports are sent this often, and when one ATM's word about something has changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// Reports that wait to be heard: a few from each other ATM.
pub(crate) const REPORTS_MAX: usize = 32;

/// A report that takes longer is not worth waiting for: the next one says it all again.
const REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// A proposal that is not committed by then is made again if it is still true.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long what was refused is not proposed again: short beside a check, long beside a round of the loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Proposals under way at once: a thousand servers that go down together are in the log within some round trips.
const PROPOSALS_MAX: usize = 64;

/// What the API shows of health beside the replicated state.
#[derive(Clone, Debug, Default)]
pub(crate) struct HealthView(Arc<Mutex<BTreeSet<NodeId>>>);

impl HealthView {
    /// ATMs that alone see everything down, as the active ATM judges; empty on others.
    pub(crate) fn suspected(&self) -> BTreeSet<NodeId> {
        self.lock().clone()
    }

    fn set(&self, suspected: BTreeSet<NodeId>) {
        let mut shown = self.lock();
        for atm in suspected.difference(&shown) {
            warn!(
                node = atm.0,
                "this ATM alone sees every server down: its own way to them is suspected"
            );
        }
        for atm in shown.difference(&suspected) {
            info!(
                node = atm.0,
                "this ATM is not alone in what it sees any more"
            );
        }
        *shown = suspected;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What health needs of this ATM.
pub(crate) struct Health {
    /// Its node id.
    pub(crate) me: NodeId,
    /// The group's identity.
    pub(crate) group: Bytes,
    /// The other ATMs.
    pub(crate) others: Vec<Other>,
    /// The replicated state.
    pub(crate) machine: Machine,
    /// Where verdicts go.
    pub(crate) raft: Raft,
    /// Whether this ATM is active.
    pub(crate) lease: LeaseKeeper,
    /// Reports of the others.
    pub(crate) arrived: mpsc::Receiver<Arrived>,
    /// What the API shows.
    pub(crate) view: HealthView,
    /// The servers as this ATM hears them.
    pub(crate) servers: Arc<Servers>,
}

/// What a proposal was about, so that it is not made twice at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Subject(Subject),
    Run(u64),
    Tenure(Epoch),
}

/// A proposal under way: what became of it.
type Proposal = BoxFuture<'static, (About, Command, Option<Response>)>;

/// The task's own state.
struct Task {
    health: Health,
    probes: Probes,
    scripts: Scripts,
    /// Everything that is checked, and how long a report about it is fresh.
    fresh_for: BTreeMap<Subject, Duration>,
    version: Option<ConfigNumber>,
    /// The youngest event in the log: no run of a script comes or goes without one.
    events: u64,
    /// Whether something has happened that the scripts wait for.
    scripts_are_due: bool,
    /// The tenure that is judged in.
    judging: Option<(Here, Judge)>,
    announced: Option<Epoch>,
    /// What was found when it was judged last, and for want of room is not proposed yet.
    news: BTreeMap<Subject, (bool, String)>,
    proposals: FuturesUnordered<Proposal>,
    proposed: BTreeSet<About>,
    /// The report under way.
    reporting: Option<BoxFuture<'static, ()>>,
    report: Paced,
    /// Called for where something was heard, a proposal has ended or time has passed.
    judgement: Paced,
}

impl Health {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut glimpses = self.machine.watch();
        let now = tokio::time::Instant::now();
        let mut task = Task {
            probes: Probes::new(self.me.0),
            scripts: Scripts::default(),
            fresh_for: BTreeMap::new(),
            version: None,
            events: 0,
            scripts_are_due: false,
            judging: None,
            announced: None,
            news: BTreeMap::new(),
            proposals: FuturesUnordered::new(),
            proposed: BTreeSet::new(),
            reporting: None,
            report: Paced::new(now),
            judgement: Paced::new(now),
            health: self,
        };
        let mut tick = tokio::time::interval(REPORT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (config, events) = {
                let glimpse = glimpses.borrow_and_update();
                (glimpse.config, glimpse.events)
            };
            if task.events != events {
                task.events = events;
                task.scripts_are_due = true;
            }
            if task.version != Some(config) {
                task.version = Some(config);
                task.follow_the_version();
            }
            task.act();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = glimpses.changed() => if changed.is_err() { return },
                _ = tick.tick() => {
                    task.report.call();
                    task.judgement.call();
                    task.scripts_are_due = true;
                }
                result = task.probes.next() => {
                    if task.probes.note(result) {
                        task.report.call();
                    }
                }
                Some(arrived) = task.health.arrived.recv() => task.hear(arrived),
                () = task.scripts.ended() => {
                    task.report.call();
                    task.scripts_are_due = true;
                }
                Some((about, command, response)) = task.proposals.next(),
                    if !task.proposals.is_empty() => task.settle(about, &command, response),
                () = task.report.its_time(), if task.can_report() => {}
                () = task.judgement.its_time(), if task.judging.is_some() => {}
                () = wait(&mut task.reporting) => task.reporting = None,
            }
        }
    }
}

/// Waits for a future that may not be there.
async fn wait(future: &mut Option<BoxFuture<'static, ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// Checks what the version in force has checked.
    fn follow_the_version(&mut self) {
        // A simulated host has neither servers nor a network that the checks could reach.
        let targets = if cfg!(atm_sim) {
            BTreeMap::new()
        } else {
            self.health.machine.read(|state| state.targets())
        };
        self.probes.follow(&targets);
        let fresh = targets.into_iter();
        self.fresh_for = fresh
            .map(|(subject, target)| (subject, target.fresh_for()))
            .collect();
        // The servers of the news may have other numbers.
        self.news.clear();
        self.report.call();
        self.judgement.call();
    }

    /// Everything that follows from what is known now.
    fn act(&mut self) {
        self.follow_the_lease();
        let now = tokio::time::Instant::now();
        if self.can_report() && self.report.begins(now) {
            self.tell();
        }
        let Some(here) = self.judging.as_ref().map(|(here, _)| *here) else {
            return;
        };
        if self.announced != Some(here.epoch) {
            let epoch = here.epoch;
            let at_ms = unix_ms();
            self.propose(About::Tenure(epoch), Control::Active { epoch, at_ms });
        }
        if std::mem::replace(&mut self.scripts_are_due, false) {
            self.run_scripts(here);
        }
        if self.judgement.begins(now) {
            self.judge();
        }
        self.propose_news(here);
    }

    /// Finds what the log does not have of what a majority says.
    fn judge(&mut self) {
        let Some((_, judge)) = &self.judging else {
            return;
        };
        let atms = self.health.others.len() + 1;
        let judgement = judge.judge(&self.fresh_for, atms, clock::now());
        self.health.view.set(judgement.suspected);
        self.news = self.health.machine.read(|state| {
            let verdicts = judgement.verdicts.into_iter();
            let news = verdicts.filter(|((server, service), (up, _))| {
                state.finding(*server, service).is_none() != *up
            });
            news.collect()
        });
    }

    /// Proposes as much of the news as there is room for.
    fn propose_news(&mut self, here: Here) {
        while self.proposals.len() < PROPOSALS_MAX
            && let Some((subject, (healthy, reason))) = self.news.pop_first()
        {
            let about = About::Subject(subject.clone());
            let verdict = Control::Verdict {
                epoch: here.epoch,
                subject,
                healthy,
                at_ms: unix_ms(),
                reason,
            };
            self.propose(about, verdict);
        }
    }

    /// Tells the log what is to be told of scripts.
    fn run_scripts(&mut self, here: Here) {
        let (scripts, now) = (&mut self.scripts, clock::now());
        let found = self
            .health
            .machine
            .read(|state| scripts.next(state.script_runs(), here, now));
        for (run, next) in found {
            let step = match next {
                Next::Begin => ScriptStep::Begin,
                Next::End(how) => ScriptStep::End(how),
            };
            let script = Control::Script {
                epoch: here.epoch,
                run,
                step,
                at_ms: unix_ms(),
            };
            self.propose(About::Run(run), script);
        }
    }

    /// Begins and ends to judge with the lease.
    fn follow_the_lease(&mut self) {
        let lease = self.health.lease.current();
        let now = clock::now();
        let epoch = lease
            .filter(|lease| now < lease.until)
            .map(|lease| lease.epoch);
        if self.judging.as_ref().map(|(here, _)| here.epoch) == epoch {
            return;
        }
        self.judging = epoch.map(|epoch| {
            let (me, since) = (self.health.me, now);
            (Here { me, epoch, since }, Judge::new(now))
        });
        self.scripts.begin_tenure();
        self.scripts_are_due = true;
        self.news.clear();
        self.health.view.set(BTreeSet::new());
        self.report.call();
    }

    /// Whether a report would go out: to another ATM one after the other does.
    fn can_report(&self) -> bool {
        self.judging.is_some() || self.reporting.is_none()
    }

    /// Tells this ATM's word to the active one: to itself, or to who leads.
    fn tell(&mut self) {
        if let Some((here, judge)) = &mut self.judging {
            let reports = self.probes.reports(&self.health.servers.gone());
            judge.hear(here.me, reports, clock::now());
            self.judgement.call();
            return;
        }
        let leader = {
            let metrics = self.health.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader.filter(|id| *id != self.health.me.0);
            leader.and_then(|id| {
                let atm = metrics.membership_config.get_node(&id)?;
                Some((id, atm.name.clone()))
            })
        };
        let Some((target, name)) = leader else {
            return;
        };
        let Some(other) = self.health.others.iter().find(|other| other.name == name) else {
            return;
        };
        let live = self.health.machine.read(|state| {
            let runs = state.script_runs().keys();
            runs.copied().collect::<BTreeSet<_>>()
        });
        self.scripts.forget_all_but(&live);
        let address = (self.health.group.clone(), target, self.health.me.0);
        let version = self.version.unwrap_or(ConfigNumber(0));
        let words = self.scripts.words();
        let reports = self.probes.reports(&self.health.servers.gone());
        let report = reports::to_wire(address, version, reports, words);
        let other = other.clone();
        self.reporting = Some(Box::pin(async move {
            if let Err(status) = other.report(report, REPORT_TIMEOUT).await {
                debug!(to = other.name, %status, "the health report did not arrive");
            }
        }));
    }

    fn hear(&mut self, arrived: Arrived) {
        let Some((_, judge)) = &mut self.judging else {
            return;
        };
        self.scripts.hear(arrived.from, arrived.scripts);
        self.scripts_are_due = true;
        // Servers may have other numbers in another version; the next report will be of this one.
        if Some(arrived.version) == self.version {
            judge.hear(arrived.from, arrived.reports, clock::now());
            self.judgement.call();
        }
    }

    fn propose(&mut self, about: About, control: Control) {
        if self.proposals.len() >= PROPOSALS_MAX || !self.proposed.insert(about.clone()) {
            return;
        }
        let command = Command::Control(control);
        let raft = self.health.raft.clone();
        self.proposals.push(Box::pin(async move {
            let write = raft.client_write(StoredCommand::from(&command));
            let response = match tokio::time::timeout(COMMIT_TIMEOUT, write).await {
                Ok(Ok(written)) => Some(written.data),
                Ok(Err(error)) => {
                    debug!(%error, "a verdict is not committed");
                    None
                }
                Err(_) => None,
            };
            // Refused at once, under a lease that is still good: by a leader that hands over, or by the state, whose epoch has ended.
            if matches!(response, None | Some(Response::Refused(_))) {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            (about, command, response)
        }));
    }

    /// A proposal has ended.
    fn settle(&mut self, about: About, command: &Command, response: Option<Response>) {
        self.proposed.remove(&about);
        self.scripts_are_due = true;
        if let About::Subject(_) = about {
            // What was not accepted may still be true, and the reports may say something else by now.
            self.judgement.call();
        }
        let Command::Control(control) = command else {
            return;
        };
        match (control, response) {
            (
                Control::Verdict {
                    subject: (server, service),
                    healthy,
                    reason,
                    ..
                },
                Some(Response::Health(true)),
            ) => {
                let name = self
                    .health
                    .machine
                    .read(|state| state.servers().get(server).map(|known| known.name.clone()));
                info!(server = name, service, healthy, reason, "health changed");
            }
            (
                Control::Script {
                    run,
                    step: ScriptStep::Begin,
                    ..
                },
                Some(Response::Noted(_)),
            ) => {
                let wanted = self
                    .health
                    .machine
                    .read(|state| state.script_runs().get(run).cloned());
                // An answer that came too late for the first proposal is a begin all the same.
                if let Some(wanted) = wanted
                    && wanted
                        .begun
                        .is_some_and(|begun| begun.node == self.health.me)
                {
                    self.scripts.start(*run, &wanted);
                }
            }
            (Control::Active { epoch, .. }, Some(_)) => self.announced = Some(*epoch),
            _ => {}
        }
    }
}

/// Now, in milliseconds since 1970, by the wall clock: for people who read events.
#[cfg(not(atm_sim))]
pub(crate) fn unix_ms() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Simulated time began in 1970.
#[cfg(atm_sim)]
pub(crate) fn unix_ms() -> u64 {
    clock::now().as_nanos() / 1_000_000
}
