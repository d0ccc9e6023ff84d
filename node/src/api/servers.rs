//! The Nodes service: what the configuration asks of each server, told to all that follow this ATM, and what they report.
//!
//! Reports are not replicated: every server tells every ATM.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use model::Instant;
use model::conf::ForwardingMethod;
use model::ids::{ConfigNumber, ServerId};
use model::server::{Names, NodePlan, Presence, Remnant, Resolved, ServerPart, remnants};
use model::state::{Current, ServerEntry};
use prost::bytes::Bytes;
use proto::v1;
use proto::v1::nodes_server::Nodes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use super::reports::{InForce, Told, notice, seen};
use crate::clock;
use crate::raft::Machine;
use crate::server_node::wire;

/// Servers that follow one ATM: each costs a connection and a few kB. Four times the default of `NumServers`.
const FOLLOWERS_MAX: usize = 4000;

/// How often it is looked whether connections of earlier versions have ended. What is left over for them does no harm.
const REMNANTS_EVERY: Duration = Duration::from_secs(5);

/// A follower says who it is within this.
const FIRST_MAX: Duration = Duration::from_secs(5);

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
    presence: Mutex<Presence>,
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
            last: Told::now(first),
            said: None,
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
    said: Option<NodePlan>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next thing to say that is not what was said last; `None`: the server has ended the connection.
    async fn next(&mut self) -> Option<Result<v1::NodePlan, Status>> {
        loop {
            tokio::select! {
                changed = self.versions.changed() => {
                    changed.ok()?;
                    if let Some(plan) = self.plan()
                        && self.said.as_ref() != Some(&plan)
                    {
                        let said = wire::plan_to(&plan);
                        self.said = Some(plan);
                        return Some(Ok(said));
                    }
                }
                report = self.incoming.message() => match report {
                    Ok(Some(report)) => {
                        self.last = Told::now(report);
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
    fn plan(&mut self) -> Option<NodePlan> {
        let in_force = self.versions.borrow_and_update().clone();
        let (current, remnants) = (in_force.current?, in_force.remnants);
        let plan = plan(&self.servers.group, &current, &self.names, &remnants);
        let address = plan.part.as_ref().map(|part| part.address);
        if address != self.address {
            if let Some(address) = self.address.take() {
                self.servers.presence().moved(address);
            }
            self.address = address;
            if let Some(address) = address {
                self.servers.presence().came(address);
            }
            self.note();
        }
        Some(plan)
    }

    fn note(&self) {
        if let Some(address) = self.address {
            self.servers.note(address, &self.last);
        }
    }
}

impl Drop for Follower {
    /// However the connection ends.
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.servers.presence().left(address, clock::now());
        }
    }
}

/// What a version asks of the host that is called by one of `names`.
fn plan(
    group: &[u8],
    current: &Current,
    names: &Names,
    remnants: &BTreeMap<IpAddr, Remnant>,
) -> NodePlan {
    let version = Resolved {
        config: &current.config,
        hosts: &current.hosts,
    };
    let line = names.server(&version);
    NodePlan {
        group: group.to_vec(),
        version: current.number,
        part: ServerPart::with_remnants(
            line.and_then(|line| ServerPart::of(&version, &line.name)),
            names,
            remnants,
        ),
        atms: version.atms(),
    }
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
                since: Instant::BOOT,
                current: None,
                by_tunnel: Arc::default(),
                remnants: Arc::default(),
            }),
            told: Mutex::default(),
            presence: Mutex::default(),
        }
    }

    /// Tells all followers of each version, until `stop`. One task looks at the state for all of them: it changes with every
    /// entry of the log, and versions are rare.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut glimpses = self.machine.watch();
        let mut tick = tokio::time::interval(REMNANTS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let version = glimpses.borrow_and_update().config;
            if version != self.version.borrow().version {
                self.look();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = glimpses.changed() => if changed.is_err() { return },
                _ = tick.tick() => self.look(),
            }
        }
    }

    /// Wakes the followers if another version is in force, or less is left of earlier ones.
    fn look(&self) {
        let (state, _) = self.machine.state();
        let version = state.config_number();
        let left = remnants(&state);
        let changed = {
            let last = self.version.borrow();
            last.version != version || *last.remnants != left
        };
        if !changed {
            return;
        }
        let known: BTreeSet<IpAddr> = state
            .servers()
            .values()
            .map(|server| server.address)
            .collect();
        self.told().retain(|address, _| known.contains(address));
        // One that left the configuration is forgotten at once, and so can be put in again as a server without a daemon.
        let configured = state.servers().values().filter(|server| server.configured);
        let configured = configured.map(|server| server.address).collect();
        self.presence().keep(&configured);
        let is_by_tunnel = |server: &ServerEntry| {
            let method = |current: &Current| current.reached_by(server.method, server.address);
            server.configured && state.current().map(method) == Some(ForwardingMethod::Tunnel)
        };
        let servers = state.servers().iter();
        let by_tunnel = servers
            .filter(|(_, server)| is_by_tunnel(server))
            .map(|(id, server)| (*id, server.address))
            .collect();
        self.version.send_modify(|last| {
            if last.version != version {
                last.since = clock::now();
            }
            last.version = version;
            last.current = state.current().cloned();
            last.by_tunnel = Arc::new(by_tunnel);
            last.remnants = Arc::new(left);
        });
    }

    /// Adds to each server what it reported last, and returns what an operator should know of them.
    pub(super) fn tell(&self, servers: &mut [v1::ServerStatus]) -> Vec<String> {
        let (now, in_force) = (clock::now(), self.version.borrow().clone());
        let told = self.told();
        let mut notices = BTreeMap::new();
        for server in servers {
            let address = server.address.parse().ok();
            let Some((address, told)) = address.and_then(|at| told.get_key_value(&at)) else {
                continue;
            };
            server.report = Some(seen(told, now));
            if let Some(notice) = notice(&server.name, told, &self.group, &in_force, now) {
                // Several lines of one host have one notice.
                notices.entry(*address).or_insert(notice);
            }
        }
        notices.into_values().collect()
    }

    /// Servers that pass checks, perhaps, and serve nobody: their daemon is away.
    pub(crate) fn gone(&self) -> BTreeSet<ServerId> {
        let gone = self.presence().gone(clock::now());
        let by_tunnel = Arc::clone(&self.version.borrow().by_tunnel);
        let servers = by_tunnel.iter();
        servers
            .filter(|(_, address)| gone.contains(address))
            .map(|(id, _)| *id)
            .collect()
    }

    fn note(&self, address: IpAddr, told: &Told) {
        self.presence().said(address, told.needs_daemon());
        if told.is_leaving() {
            self.told().remove(&address);
        } else {
            self.told().insert(address, told.clone());
        }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
