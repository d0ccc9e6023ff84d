//! The Nodes service: what the configuration asks of each server, told to all that follow this ATM, and what they report.
//!
//! Reports are not replicated: every server tells every ATM.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use model::Instant;
use model::ids::ConfigNumber;
use model::server::{Names, NodePlan, Resolved, ServerPart};
use model::state::Current;
use prost::bytes::Bytes;
use proto::v1;
use proto::v1::nodes_server::Nodes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::clock;
use crate::raft::Machine;
use crate::server_node::wire;

/// Servers that follow one ATM: each costs a connection and a few kB. Four times the default of `NumServers`.
const FOLLOWERS_MAX: usize = 4000;

/// A follower says who it is within this.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// Four reports were missed: the server has fallen silent.
const STALE_AFTER: Duration = Duration::from_secs(20);

/// A server has this long to put a version into force before anybody is told that it has not.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);

/// What is kept of the reason of a failure, in characters, and of its counters.
const ERROR_MAX: usize = 500;
const COUNTERS_MAX: usize = 32;

/// The service. Until the ATM takes part in consensus every server is sent away, with the reason.
#[derive(Clone, Default)]
pub(crate) struct NodesService {
    servers: Arc<OnceLock<Arc<Servers>>>,
}

/// The servers as this ATM hears them. One per process.
pub(crate) struct Servers {
    machine: Machine,
    group: Bytes,
    followers: Arc<Semaphore>,
    version: watch::Sender<InForce>,
    /// By the server's own address: a host may have several `Server` lines. No more than the configuration has servers.
    told: Mutex<BTreeMap<IpAddr, Told>>,
}

/// The version in force on this ATM, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InForce {
    version: ConfigNumber,
    since: Instant,
}

/// The last report of a server.
#[derive(Clone, Debug)]
struct Told {
    at: Instant,
    report: v1::NodeReport,
}

impl NodesService {
    /// From now on servers are answered.
    pub(crate) fn start(&self, servers: Arc<Servers>) {
        // There is one start in the life of a process.
        let _ = self.servers.set(servers);
    }
}

type Plans = Pin<Box<dyn Stream<Item = Result<v1::NodePlan, Status>> + Send>>;

#[tonic::async_trait]
impl Nodes for NodesService {
    type FollowStream = Plans;

    async fn follow(
        &self,
        request: Request<Streaming<v1::NodeReport>>,
    ) -> Result<Response<Plans>, Status> {
        let servers = self
            .servers
            .get()
            .ok_or_else(|| Status::unavailable("this ATM does not take part in consensus yet"))?;
        let place = Arc::clone(&servers.followers).try_acquire_owned();
        let place = place.map_err(|_full| {
            Status::resource_exhausted(format!("{FOLLOWERS_MAX} servers follow this ATM already"))
        })?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(FIRST_MAX, incoming.message()).await;
        let first = first.map_err(|_elapsed| {
            Status::deadline_exceeded(format!("no report within {FIRST_MAX:?}"))
        })??;
        let Some((names, first)) = first.and_then(|mut first| Some((first.names.take()?, first)))
        else {
            return Err(Status::invalid_argument("the first report has no names"));
        };
        let names =
            wire::names_from(names).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut follower = Follower {
            servers: Arc::clone(servers),
            names,
            incoming,
            versions: servers.version.subscribe(),
            address: None,
            last: Told {
                at: clock::now(),
                report: bounded(first),
            },
            _place: place,
        };
        // What is in force now is the first thing to say.
        follower.versions.mark_changed();
        let plans = stream::unfold(follower, |mut follower| async move {
            let plan = follower.next().await?;
            Some((plan, follower))
        });
        Ok(Response::new(plans.boxed()))
    }
}

/// One server that follows.
struct Follower {
    servers: Arc<Servers>,
    names: Names,
    incoming: Streaming<v1::NodeReport>,
    versions: watch::Receiver<InForce>,
    /// Its own address in the present version; `None`: that has no such server.
    address: Option<IpAddr>,
    last: Told,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next thing to say; `None`: the server has ended the connection.
    async fn next(&mut self) -> Option<Result<v1::NodePlan, Status>> {
        loop {
            tokio::select! {
                changed = self.versions.changed() => {
                    changed.ok()?;
                    if let Some(plan) = self.plan() {
                        return Some(Ok(plan));
                    }
                }
                report = self.incoming.message() => match report {
                    Ok(Some(report)) => {
                        self.last = Told { at: clock::now(), report: bounded(report) };
                        self.note();
                    }
                    Ok(None) => return None,
                    Err(status) => {
                        debug!(server = ?self.address, %status, "a server is not heard any more");
                        return None;
                    }
                },
            }
        }
    }

    /// What the present version asks of the server. There is no version in a group that has just been made.
    fn plan(&mut self) -> Option<v1::NodePlan> {
        let current = self
            .servers
            .machine
            .read(|state| state.current().cloned())?;
        let plan = plan(&self.servers.group, &current, &self.names);
        let address = plan.part.as_ref().map(|part| part.address);
        if address != self.address {
            self.address = address;
            self.note();
        }
        Some(wire::plan_to(&plan))
    }

    fn note(&self) {
        if let Some(address) = self.address {
            self.servers.note(address, &self.last);
        }
    }
}

/// What a version asks of the host that is called by one of `names`.
fn plan(group: &[u8], current: &Current, names: &Names) -> NodePlan {
    let version = Resolved {
        config: &current.config,
        hosts: &current.hosts,
    };
    let line = names.server(&version);
    NodePlan {
        group: group.to_vec(),
        version: current.number,
        part: line.and_then(|line| ServerPart::of(&version, &line.name)),
        atms: version.atms(),
    }
}

/// A report without what nobody would read.
fn bounded(mut report: v1::NodeReport) -> v1::NodeReport {
    if let Some((end, _)) = report.error.char_indices().nth(ERROR_MAX) {
        report.error.truncate(end);
    }
    report.counters.truncate(COUNTERS_MAX);
    report.load_1m = report.load_1m.filter(|load| load.is_finite());
    report
}

impl Servers {
    /// The servers of a group, as an ATM with this state hears them.
    pub(crate) fn new(machine: Machine, group: Bytes) -> Self {
        Self {
            machine,
            group,
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            version: watch::Sender::new(InForce {
                version: ConfigNumber(0),
                since: Instant::from_nanos(0),
            }),
            told: Mutex::default(),
        }
    }

    /// Tells all followers of each version, until `stop`. One task looks at the state for all of them: it changes with every
    /// entry of the log, and versions are rare.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut glimpses = self.machine.watch();
        loop {
            let version = glimpses.borrow_and_update().config;
            if version != self.version.borrow().version {
                let addresses = self.machine.read(|state| {
                    let servers = state.servers().values();
                    servers.map(|server| server.address).collect::<Vec<_>>()
                });
                self.told().retain(|address, _| addresses.contains(address));
                self.version.send_replace(InForce {
                    version,
                    since: clock::now(),
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = glimpses.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Adds to each server what it reported last, and returns what an operator should know of them.
    pub(super) fn tell(&self, servers: &mut [v1::ServerStatus]) -> Vec<String> {
        let (now, in_force) = (clock::now(), *self.version.borrow());
        let told = self.told();
        let mut notices = BTreeMap::new();
        for server in servers {
            let address = server.address.parse().ok();
            let Some((address, told)) = address.and_then(|at| told.get_key_value(&at)) else {
                continue;
            };
            server.report = Some(seen(told, now));
            if let Some(notice) = notice(&server.name, told, &self.group, in_force, now) {
                // Several lines of one host have one notice.
                notices.entry(*address).or_insert(notice);
            }
        }
        notices.into_values().collect()
    }

    fn note(&self, address: IpAddr, told: &Told) {
        if told.report.leaving {
            self.told().remove(&address);
        } else {
            self.told().insert(address, told.clone());
        }
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seen(told: &Told, now: Instant) -> v1::ServerReport {
    let (age, report) = (now.saturating_since(told.at), &told.report);
    let counters = report.counters.iter().map(|counter| v1::Counter {
        name: counter.name.clone(),
        value: counter.value,
    });
    v1::ServerReport {
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        stale: age > STALE_AFTER,
        from_file: report.config_version == 0,
        config_version: report.config_version,
        error: report.error.clone(),
        load_1m: report.load_1m,
        connections: report.connections,
        counters: counters.collect(),
    }
}

/// What an operator should know of a server. One that has fallen silent may have been ended on purpose.
fn notice(
    name: &str,
    told: &Told,
    group: &[u8],
    in_force: InForce,
    now: Instant,
) -> Option<String> {
    let (report, wanted) = (&told.report, in_force.version.0);
    if now.saturating_since(told.at) > STALE_AFTER {
        return None;
    }
    if !report.error.is_empty() {
        return Some(format!(
            "server {name} has not put version {wanted} into force: {}",
            report.error
        ));
    }
    if now.saturating_since(in_force.since) <= IN_FORCE_WITHIN {
        return None;
    }
    if report.config_version == 0 {
        return Some(format!(
            "server {name} does what its own file says; version {wanted} is in force"
        ));
    }
    if report.group != group {
        return Some(format!(
            "server {name} follows ATMs of another group (version {} there): stop those ATMs",
            report.config_version
        ));
    }
    (report.config_version != wanted).then(|| {
        format!(
            "server {name} does what version {} says; version {wanted} is in force",
            report.config_version
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &[u8] = b"ours";

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn told(version: u64, error: &str) -> Told {
        Told {
            at: at(100),
            report: v1::NodeReport {
                group: GROUP.into(),
                config_version: version,
                error: error.into(),
                load_1m: Some(0.5),
                connections: Some(3),
                ..Default::default()
            },
        }
    }

    #[test]
    fn an_operator_is_told_of_what_lasts() {
        let strange = Told {
            report: v1::NodeReport {
                group: Bytes::from_static(b"theirs"),
                ..told(9, "").report
            },
            ..told(9, "")
        };
        for (told, since, now, expected) in [
            (told(5, ""), 90, 101, None),
            // Older, and for how long the newer one has been in force.
            (told(4, ""), 91, 101, None),
            (told(4, ""), 90, 101, Some("version 4 says; version 5")),
            (told(0, ""), 90, 101, Some("its own file")),
            (
                told(4, "no room"),
                100,
                101,
                Some("not put version 5 into force: no room"),
            ),
            (strange, 90, 101, Some("another group (version 9 there)")),
            // Fallen silent: an older version is no wonder.
            (told(4, "no room"), 90, 121, None),
        ] {
            let in_force = InForce {
                version: ConfigNumber(5),
                since: at(since),
            };
            let said = notice("serv1", &told, GROUP, in_force, at(now));
            match (said, expected) {
                (None, None) => {}
                (Some(said), Some(words)) => assert!(
                    said.starts_with("server serv1 ") && said.contains(words),
                    "{said}"
                ),
                (said, expected) => panic!("{said:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_report_is_stale_when_four_were_missed() {
        let seen_at = |seconds| seen(&told(5, ""), at(seconds));
        assert_eq!((seen_at(102).age_ms, seen_at(102).stale), (2000, false));
        assert!(!seen_at(120).stale);
        assert!(seen_at(121).stale);
        assert_eq!(seen_at(102).connections, Some(3));
    }

    #[test]
    fn reports_are_cut_to_what_is_kept() {
        let report = v1::NodeReport {
            error: "ü".repeat(ERROR_MAX + 1),
            load_1m: Some(f64::NAN),
            counters: vec![v1::NodeCounter::default(); COUNTERS_MAX + 1],
            ..Default::default()
        };
        let kept = bounded(report);
        assert_eq!(kept.error, "ü".repeat(ERROR_MAX));
        assert_eq!(kept.counters.len(), COUNTERS_MAX);
        assert_eq!(kept.load_1m, None);
    }
}
