//! The process: what is opened in which order, and how all of it ends.
//!
//! Everything that can fail for a reason an operator must remove (a taken port, a missing interface, no permission, a
//! foreign directory) is opened before anything on the host is changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane::{EngineConfig, Handle, LeaseCell};
use dataplane_core::Limits;
use model::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use proto::v1::admin_server::AdminServer;
use proto::v1::peer_server::PeerServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{AdminService, Cluster};
use crate::bootstrap::{self, Beginning, BootstrapError, Myself, Other};
use crate::channels::{self, MESSAGE_MAX};
use crate::cluster_file::{ClusterFile, ClusterFileError, peer_address};
use crate::health::Health;
use crate::identity::{self, DataDir, DataDirError, Member};
use crate::lease::LeaseKeeper;
use crate::packets::Packets;
use crate::raft::{
    Atm, Consensus, LogStore, Machine, Network, PeerService, Raft, SnapshotError, StoreError,
};
use crate::replicator::{Replicator, ReplicatorCounters};
use crate::server_role::{self, ServerRole, ServerRoleError};
use crate::settings::{PortKind, Settings, SettingsError};
use crate::tenure::{HandOver, HandOverError, Tenures};
use crate::timing::Timing;

/// Log bytes after which a snapshot replaces them: a second's worth of a very busy cluster, and a small file to send.
const SNAPSHOT_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Connections that may wait for their records: 250 ms of 40,000 new ones a second; each holds one frame.
const PENDING_MAX: usize = 10_000;

/// Hand-overs asked for and not yet begun.
const HAND_OVERS_MAX: usize = 4;

/// An orderly end that takes longer is a kill: the lease has run out by then in any case.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);

/// Why the daemon did not start, or stopped: one sentence, and its exit code.
#[derive(Debug)]
pub struct Failure(Reason);

#[derive(Debug)]
enum Reason {
    /// atmd.toml.
    Settings(SettingsError),
    /// clusterserver.conf.
    ClusterFile(ClusterFileError),
    /// This host has no part in the configuration.
    NoPart,
    /// The data directory.
    DataDir(DataDirError),
    /// The log.
    Store(StoreError),
    /// The snapshot.
    Snapshot(SnapshotError),
    /// An address is taken or not ours.
    Listen(SocketAddr, io::Error),
    /// The packet engine.
    Engine(dataplane::StartError),
    /// The group.
    Bootstrap(BootstrapError),
    /// The server role.
    ServerRole(ServerRoleError),
    /// An ATM's address that is none.
    PeerAddress(String),
    /// Threads, signals.
    Runtime(io::Error),
    /// The engine ended by itself.
    EngineEnded(String),
    /// Consensus ended by itself, as after a failed write.
    ConsensusEnded(String),
}

impl Failure {
    /// The system refused what every process needs.
    pub fn runtime(error: io::Error) -> Self {
        Self(Reason::Runtime(error))
    }

    /// Exit code by sysexits.h: 78 EX_CONFIG, 77 EX_NOPERM, 69 EX_UNAVAILABLE, 71 EX_OSERR, 70 EX_SOFTWARE.
    pub fn exit_code(&self) -> u8 {
        self.0.exit_code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Into<Reason>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Reason {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_)
            | Self::ClusterFile(_)
            | Self::NoPart
            | Self::DataDir(DataDirError::Foreign { .. } | DataDirError::Damaged { .. })
            | Self::Store(_)
            | Self::Snapshot(_)
            | Self::Bootstrap(_)
            | Self::PeerAddress(_) => 78,
            Self::DataDir(DataDirError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                77
            }
            Self::Listen(_, source) if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Engine(dataplane::StartError::NotPermitted) => 77,
            Self::ServerRole(error) => error.exit_code(),
            Self::DataDir(_) | Self::Listen(..) | Self::Engine(_) => 69,
            Self::Runtime(_) => 71,
            Self::EngineEnded(_) | Self::ConsensusEnded(_) => 70,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_causes = |f: &mut fmt::Formatter<'_>, error: &dyn std::error::Error| {
            write!(f, "{error}")?;
            let mut said = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                // toml's and tonic's errors repeat their cause in their own text.
                let text = error.to_string();
                if !said.contains(&text) {
                    write!(f, ": {text}")?;
                    said.push_str(&text);
                }
                cause = error.source();
            }
            Ok(())
        };
        match self {
            Self::Settings(error) => with_causes(f, error),
            Self::ClusterFile(error) => with_causes(f, error),
            Self::NoPart => f.write_str(
                "this host is neither an ATM nor a server of the configuration: set name in atmd.toml (or --name) to what an \
                 AddAtm or Server line says",
            ),
            Self::DataDir(error) => with_causes(f, error),
            Self::Store(error) => with_causes(f, error),
            Self::Snapshot(error) => with_causes(f, error),
            Self::Listen(address, error) => write!(
                f,
                "cannot listen on {address}: {error}; stop what uses it, or change peer_listen or admin_listen in atmd.toml"
            ),
            Self::Engine(error) => with_causes(f, error),
            Self::Bootstrap(error) => with_causes(f, error),
            Self::ServerRole(error) => with_causes(f, error),
            Self::PeerAddress(address) => write!(f, "{address} is not an address other ATMs can be reached at"),
            Self::Runtime(error) => write!(f, "the system refuses what every process needs: {error}"),
            Self::EngineEnded(reason) => write!(f, "the packet engine ended: {reason}"),
            Self::ConsensusEnded(reason) => write!(f, "consensus ended: {reason}"),
        }
    }
}

macro_rules! failure_from {
    ($($variant:ident($error:ty)),* $(,)?) => {
        $(impl From<$error> for Reason {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

failure_from!(
    Settings(SettingsError),
    ClusterFile(ClusterFileError),
    DataDir(DataDirError),
    Store(StoreError),
    Snapshot(SnapshotError),
    Engine(dataplane::StartError),
    Bootstrap(BootstrapError),
    ServerRole(ServerRoleError),
);

/// Signals that end the process in order.
struct Stop {
    term: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, Reason> {
        let listen = |kind| signal(kind).map_err(Reason::Runtime);
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The running daemon.
pub struct App {
    stop: Stop,
    server: Option<ServerRole>,
    atm: Option<AtmRole>,
}

impl App {
    /// Checks both files as a start would, and changes nothing.
    pub async fn check(settings: &Settings) -> Result<(), Failure> {
        let file = ClusterFile::load(&settings.cluster_config).await?;
        let part = file.part(settings.name.as_deref());
        if part.atm.is_none() && part.server.is_none() {
            return Err(Reason::NoPart.into());
        }
        for limitation in crate::packets::limitations(&file.config) {
            println!("warning: {limitation}");
        }
        let role = |name: Option<String>, what: &str| name.map(|name| format!("{what} {name}"));
        let roles: Vec<String> = [role(part.atm, "ATM"), role(part.server, "server")]
            .into_iter()
            .flatten()
            .collect();
        println!(
            "{} is valid; this host is {}",
            settings.cluster_config.display(),
            roles.join(" and ")
        );
        Ok(())
    }

    /// Opens and starts everything this host has a part in.
    pub async fn start(settings: Settings) -> Result<Self, Failure> {
        let stop = Stop::new()?;
        let file = ClusterFile::load(&settings.cluster_config).await?;
        let part = file.part(settings.name.as_deref());
        if part.atm.is_none() && part.server.is_none() {
            return Err(Reason::NoPart.into());
        }
        let prepared = match &part.atm {
            Some(name) => Some(Prepared::open(&settings, name, file.clone()).await?),
            None => None,
        };
        let server = match &part.server {
            Some(name) => Some(start_server_role(&settings, &file, name).await?),
            None => None,
        };
        let atm = prepared.map(AtmRole::start);
        Ok(Self { stop, server, atm })
    }

    /// Runs until a signal or a failure, and ends in order.
    pub async fn run(mut self) -> Result<(), Failure> {
        let outcome = match &mut self.atm {
            None => {
                self.stop.wait().await;
                Ok(())
            }
            Some(atm) => tokio::select! {
                () = self.stop.wait() => Ok(()),
                failure = atm.failure() => Err(failure),
            },
        };
        match &outcome {
            Ok(()) => info!("ending in order"),
            Err(failure) => error!(%failure, "ending"),
        }
        if let Some(atm) = self.atm {
            atm.shutdown().await;
        }
        if let Some(server) = self.server {
            server.stop().await?;
        }
        outcome.map_err(Failure)
    }
}

async fn start_server_role(
    settings: &Settings,
    file: &ClusterFile,
    name: &str,
) -> Result<ServerRole, Reason> {
    let method = match file
        .config
        .servers
        .iter()
        .find(|server| server.name == name)
        .map(|server| server.method)
    {
        Some(model::conf::ForwardingMethod::Direct) => server_role::Method::Direct,
        Some(model::conf::ForwardingMethod::Tunnel | model::conf::ForwardingMethod::Nat) | None => {
            server_role::Method::Tunnel
        }
    };
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let hosts = file.config.virtual_hosts.iter();
    let vips = hosts.flat_map(|host| {
        let own = host
            .addresses
            .is_empty()
            .then(|| file.address(&host.host))
            .flatten();
        own.into_iter().chain(host.addresses.iter().copied())
    });
    let plan = server_role::Plan {
        interface: settings.interface.clone(),
        vips: vips.filter_map(v4).collect(),
        method,
        atms: file
            .atms()
            .into_iter()
            .filter_map(|(_, address)| v4(address))
            .collect(),
        state_dir: settings.data_dir.clone(),
    };
    let role = server_role::start(plan).await?;
    info!(server = name, "server role started");
    Ok(role)
}

/// Everything of an ATM that can be refused, opened.
struct Prepared {
    settings: Settings,
    name: String,
    file: ClusterFile,
    peers: TcpListener,
    admins: TcpListener,
    data: DataDir,
    store: LogStore,
    cell: Arc<LeaseCell>,
    engine: Handle,
    events: mpsc::Receiver<dataplane::Event>,
    machine: Machine,
    packets: Arc<Packets>,
}

impl Prepared {
    async fn open(settings: &Settings, name: &str, file: ClusterFile) -> Result<Self, Reason> {
        let bind = |address| async move {
            channels::bind(address)
                .await
                .map_err(|error| Reason::Listen(address, error))
        };
        let peers = bind(settings.peer_listen).await?;
        let admins = bind(settings.admin_listen).await?;
        let data = DataDir::open(&settings.data_dir, name)?;
        let file = in_force(&data, file).await;
        let store = LogStore::open(&data.log())?;
        let cell = Arc::new(LeaseCell::new());
        let config = EngineConfig {
            interface: settings.interface.clone(),
            port: match settings.port {
                PortKind::Ring => dataplane::PortKind::Ring,
                PortKind::Pnet => dataplane::PortKind::Pnet,
            },
            address: own_address(&file, name),
            limits: Limits {
                pending_max: PENDING_MAX,
                connections_max: file.config.atm_pool.num_connections as usize,
            },
        };
        let (engine, events) = dataplane::start(config, Arc::clone(&cell))?;
        let packets = Arc::new(Packets::new(
            engine.clone(),
            engine.interface().clone(),
            settings.interface.clone(),
        ));
        let machine = Machine::open(data.path(), Arc::<Packets>::clone(&packets)).await?;
        Ok(Self {
            settings: settings.clone(),
            name: name.to_owned(),
            file,
            peers,
            admins,
            data,
            store,
            cell,
            engine,
            events,
            machine,
            packets,
        })
    }
}

/// A member goes on with the version that was in force when it last ran; the file is for first starts.
async fn in_force(data: &DataDir, file: ClusterFile) -> ClusterFile {
    let Some(source) = data.member().and_then(|_| data.last_config()) else {
        return file;
    };
    match ClusterFile::parse("the last version in force", source).await {
        Ok((last, _)) => last,
        Err(error) => {
            warn!(%error, "starting with the file instead");
            file
        }
    }
}

/// The address AtmPool gives this ATM, if it is an IPv4 address of this host; else the interface's own is taken.
fn own_address(file: &ClusterFile, name: &str) -> Option<std::net::Ipv4Addr> {
    let local = crate::host::local_addresses();
    file.atms()
        .into_iter()
        .find(|(atm, _)| atm == name)
        .and_then(|(_, address)| match address {
            IpAddr::V4(v4) if local.contains(&address) => Some(v4),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
}

/// The ATM: servers and tasks. Consensus starts when the group is found.
struct AtmRole {
    tasks: JoinSet<Result<(), Reason>>,
    stop: CancellationToken,
    hand_overs: mpsc::Sender<HandOver>,
    engine: Handle,
    packets: Arc<Packets>,
}

impl AtmRole {
    fn start(prepared: Prepared) -> Self {
        let stop = CancellationToken::new();
        let (hand_overs, requests) = mpsc::channel(HAND_OVERS_MAX);
        let (engine, packets) = (prepared.engine.clone(), Arc::clone(&prepared.packets));
        let mut tasks = JoinSet::new();
        tasks.spawn(take_part(
            prepared,
            requests,
            hand_overs.clone(),
            stop.clone(),
        ));
        let watched = engine.clone();
        let ending = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = ending.cancelled() => Ok(()),
                ended = watched.closed() => Err(Reason::EngineEnded(format!("{ended:?}"))),
            }
        });
        Self {
            tasks,
            stop,
            hand_overs,
            engine,
            packets,
        }
    }

    /// Returns when a task has failed.
    async fn failure(&mut self) -> Reason {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => return failure,
                Some(Err(panic)) => return Reason::ConsensusEnded(panic.to_string()),
                None => return Reason::ConsensusEnded("every task has ended".into()),
            }
        }
    }

    /// Hands over if it is active, then falls silent and ends.
    async fn shutdown(mut self) {
        let (answer, wait) = oneshot::channel();
        if self
            .hand_overs
            .try_send(HandOver { to: None, answer })
            .is_ok()
        {
            match tokio::time::timeout(SHUTDOWN_TIMEOUT, wait).await {
                Ok(Ok(Ok(done))) => info!(to = done.to, epoch = done.epoch.0, "handed over"),
                Ok(Ok(Err(HandOverError::NotActive))) | Ok(Err(_)) => {}
                Ok(Ok(Err(error))) => warn!(%error, "not handed over"),
                Err(_) => warn!("not handed over in time"),
            }
        }
        self.stop.cancel();
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, async {
            while self.tasks.join_next().await.is_some() {}
        })
        .await;
        self.engine.shutdown().await;
        self.packets.unguard();
    }
}

/// Finds the group and takes part in it until `stop`.
async fn take_part(
    mut prepared: Prepared,
    requests: mpsc::Receiver<HandOver>,
    hand_overs: mpsc::Sender<HandOver>,
    stop: CancellationToken,
) -> Result<(), Reason> {
    let port = prepared.settings.peer_listen.port();
    let atms = prepared.file.atms();
    let names: Vec<String> = atms.iter().map(|(name, _)| name.clone()).collect();
    let mut others = Vec::new();
    for (name, address) in atms.iter().filter(|(name, _)| *name != prepared.name) {
        let address = peer_address(*address, port);
        others.push(Other::new(name.clone(), &address).map_err(|_| Reason::PeerAddress(address))?);
    }
    let incarnation = prepared.data.incarnation().to_owned();
    let myself = Arc::new(Myself::new(
        prepared.name.clone(),
        prepared.file.digest(),
        incarnation,
    ));
    let peer_service = PeerService::new(Arc::<Myself>::clone(&myself));
    let admin_service = AdminService::default();
    let mut tasks = JoinSet::new();
    serve(
        &mut tasks,
        prepared.peers,
        prepared.admins,
        &peer_service,
        &admin_service,
        &stop,
    );

    let (member, beginning) = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        found = begin(&myself, &mut prepared.data, &names, &others) => found?,
    };
    let me = NodeId(member.node);
    let lease = LeaseKeeper::new(me, prepared.cell);
    let timing = Timing::of(&prepared.file.config.atm_pool);
    let network = Network::new(me, member.group(), lease.clone());
    let raft = start_raft(me, timing, network, &prepared.store, &prepared.machine).await?;
    let votes = Arc::new(AtomicBool::new(member.votes_from == 0));
    if member.votes_from != 0 {
        info!(
            index = member.votes_from,
            "no vote before this much of the log is applied"
        );
        raft.runtime_config().elect(false);
    }
    myself.takes_part(&member, raft.clone(), prepared.machine.clone());
    peer_service.start(Consensus {
        me: me.0,
        group: member.group(),
        raft: raft.clone(),
        lease: lease.clone(),
        votes: Arc::clone(&votes),
    });
    info!(
        node = me.0,
        name = prepared.name,
        "taking part in consensus"
    );

    let members: BTreeMap<u64, Atm> = (1..)
        .zip(&atms)
        .map(|(id, (name, address))| {
            (
                id,
                Atm {
                    name: name.clone(),
                    address: peer_address(*address, port),
                },
            )
        })
        .collect();
    let (timeline, replicator) = (
        Arc::new(Mutex::default()),
        Arc::new(ReplicatorCounters::default()),
    );
    admin_service.start(Arc::new(Cluster {
        myself: Arc::clone(&myself),
        others: others.clone(),
        raft: raft.clone(),
        machine: prepared.machine.clone(),
        lease: lease.clone(),
        packets: Arc::clone(&prepared.packets),
        timeline: Arc::clone(&timeline),
        hand_overs,
        replicator: Arc::clone(&replicator),
        connections_max: prepared.file.config.atm_pool.num_connections as usize,
        timing,
    }));
    let tenures = Tenures {
        me,
        name: prepared.name,
        raft: raft.clone(),
        machine: prepared.machine.clone(),
        lease: lease.clone(),
        packets: prepared.packets,
        store: prepared.store.clone(),
        timing,
        file: prepared.file,
        requests,
        timeline,
    };
    let replicate = Replicator {
        events: prepared.events,
        raft: raft.clone(),
        lease,
        engine: prepared.engine,
        counters: replicator,
    };
    let health = Health {
        machine: prepared.machine.clone(),
        raft: raft.clone(),
        lease: tenures.lease.clone(),
    };
    tasks.spawn(health.run(stop.clone()));
    tasks.spawn(tenures.run(stop.clone()));
    tasks.spawn(replicate.run(stop.clone()));
    tasks.spawn(keep_house(
        raft.clone(),
        prepared.store,
        prepared.machine,
        prepared.data,
        votes,
        stop.clone(),
    ));
    tasks.spawn({
        let (raft, myself, stop) = (raft.clone(), Arc::clone(&myself), stop.clone());
        async move {
            let found = async {
                if let Beginning::Found(_, pause) = beginning {
                    bootstrap::found(&raft, members, pause).await;
                }
            };
            let register = async { tokio::join!(found, myself.register(&others)) };
            tokio::select! {
                () = stop.cancelled() => {}
                ((), ()) = register => {}
            }
        }
    });

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = consensus_end(&raft) => Err(Reason::ConsensusEnded(reason)),
    };
    // The tasks end with `stop`, or are aborted here when consensus has failed.
    if let Err(error) = raft.shutdown().await {
        warn!(%error, "consensus did not end in order");
    }
    tasks.shutdown().await;
    outcome
}

fn serve(
    tasks: &mut JoinSet<()>,
    peers: TcpListener,
    admins: TcpListener,
    peer_service: &PeerService,
    admin_service: &AdminService,
    stop: &CancellationToken,
) {
    let admin = AdminServer::new(admin_service.clone());
    let peer = PeerServer::new(peer_service.clone())
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    // The other ATMs relay requests to the leader's Peer address: its Admin address may be on its loopback only.
    let for_peers = channels::server()
        .add_service(peer)
        .add_service(admin.clone());
    let for_admins = channels::server().add_service(admin);
    for (router, listener) in [(for_peers, peers), (for_admins, admins)] {
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                served = router.serve_with_incoming(channels::incoming(listener)) => {
                    if let Err(error) = served {
                        error!(%error, "a gRPC server has ended");
                    }
                }
            }
        });
    }
}

/// Decides how to begin, and remembers the membership before any vote.
async fn begin(
    myself: &Myself,
    data: &mut DataDir,
    names: &[String],
    others: &[Other],
) -> Result<(Member, Beginning), Reason> {
    if let Some(member) = data.member().cloned() {
        myself.check_return(&member, others).await?;
        return Ok((member, Beginning::Return));
    }
    let beginning = myself.find_group(names, others).await?;
    match &beginning {
        Beginning::Join(member) | Beginning::Found(member, _) => {
            data.set_member(member.clone())?;
            Ok((member.clone(), beginning))
        }
        Beginning::Return => Err(Reason::NoPart),
    }
}

async fn start_raft(
    me: NodeId,
    timing: Timing,
    network: Network,
    store: &LogStore,
    machine: &Machine,
) -> Result<Raft, Reason> {
    let ended = |error: &dyn fmt::Display| Reason::ConsensusEnded(error.to_string());
    let config = timing
        .raft_config()
        .validate()
        .map_err(|error| ended(&error))?;
    Raft::new(
        me.0,
        Arc::new(config),
        network,
        store.clone(),
        machine.clone(),
    )
    .await
    .map_err(|error| ended(&error))
}

/// Returns when consensus has failed for good, as after a write that failed.
async fn consensus_end(raft: &Raft) -> String {
    let mut metrics = raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_watched().running_state {
            return fatal.to_string();
        }
        if metrics.changed().await.is_err() {
            return "its task is gone".into();
        }
    }
}

/// Snapshots when the log has grown, the copy of the version in force, and the vote of an ATM that has caught up.
async fn keep_house(
    raft: Raft,
    store: LogStore,
    machine: Machine,
    mut data: DataDir,
    votes: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut glimpses = machine.watch();
    let mut saved = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = glimpses.changed() => if changed.is_err() { return },
            _ = tick.tick() => {
                if store.snapshot_due(SNAPSHOT_LOG_BYTES) && let Err(error) = raft.trigger().snapshot().await {
                    warn!(%error, "no snapshot");
                }
            }
        }
        let glimpse = glimpses.borrow_and_update().clone();
        if !votes.load(Ordering::Acquire) {
            gain_vote(&raft, &mut data, glimpse.applied, &votes);
        }
        let number = glimpse.config;
        if saved != Some(number) {
            let source = machine.read(|state| {
                state
                    .versions()
                    .get(&number)
                    .map(|version| version.source.clone())
            });
            if let Some(source) = source
                && let Err(error) = identity::save_last_config(data.path(), &source)
            {
                warn!(%error, "the version in force is not kept for the next start");
            }
            saved = Some(number);
        }
    }
}

/// An ATM that has applied what it must know before it votes may vote from now on.
fn gain_vote(raft: &Raft, data: &mut DataDir, applied: u64, votes: &AtomicBool) {
    let Some(member) = data
        .member()
        .cloned()
        .filter(|member| member.votes_from <= applied)
    else {
        return;
    };
    match data.set_member(member.voting()) {
        Ok(()) => {
            votes.store(true, Ordering::Release);
            raft.runtime_config().elect(true);
            info!(applied, "caught up; this ATM votes");
        }
        Err(error) => warn!(%error, "this ATM does not vote yet"),
    }
}
