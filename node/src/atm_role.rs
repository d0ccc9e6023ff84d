//! The ATM role: what is opened before it starts, and how it ends.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Handle, LeaseCell};
use dataplane_core::Limits;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::channels::{self, TcpListener};
use crate::cluster_file::ClusterFile;
use crate::conflicts::Conflicts;
use crate::failure::Reason;
use crate::identity::DataDir;
use crate::packets::Packets;
use crate::raft::{LogStore, Machine};
#[cfg(not(atm_sim))]
use crate::settings::PortKind;
use crate::settings::Settings;
use crate::taking_part::take_part;
use crate::tenure::{HandOver, HandOverError};

/// Connections that may wait for their records: 250 ms of 40,000 new ones a second; each holds one frame.
const PENDING_MAX: usize = 10_000;

/// Hand-overs asked for and not yet begun.
const HAND_OVERS_MAX: usize = 4;

/// An orderly end that takes longer is a kill: the lease has run out by then in any case.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);

/// Everything of an ATM that can be refused, opened.
pub(crate) struct Prepared {
    pub(crate) settings: Settings,
    pub(crate) name: String,
    pub(crate) file: ClusterFile,
    pub(crate) peers: TcpListener,
    pub(crate) admins: TcpListener,
    pub(crate) data: DataDir,
    pub(crate) store: LogStore,
    pub(crate) cell: Arc<LeaseCell>,
    pub(crate) engine: Handle,
    pub(crate) events: mpsc::Receiver<dataplane::Event>,
    pub(crate) machine: Machine,
    pub(crate) packets: Arc<Packets>,
    pub(crate) conflicts: Conflicts,
}

impl Prepared {
    pub(crate) async fn open(
        settings: &Settings,
        name: &str,
        file: ClusterFile,
    ) -> Result<Self, Reason> {
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
        let limits = Limits {
            pending_max: PENDING_MAX,
            connections_max: file.config.atm_pool.num_connections as usize,
        };
        #[cfg(not(atm_sim))]
        let (engine, events) = {
            let address = own_address(&file, name);
            start_engine(settings, address, limits, Arc::clone(&cell))?
        };
        #[cfg(atm_sim)]
        let (engine, events) = crate::simulation::start_engine(limits, Arc::clone(&cell))?;
        let packets = Arc::new(Packets::new(
            engine.clone(),
            engine.interface().clone(),
            settings.interface.clone(),
        ));
        // Before the first table, which a snapshot brings at once. A simulated host has no kernel to ask.
        if !cfg!(atm_sim) {
            packets.look(own_address6(&file, name)).await;
        }
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
            conflicts: Conflicts::default(),
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

#[cfg(not(atm_sim))]
fn start_engine(
    settings: &Settings,
    address: Option<std::net::Ipv4Addr>,
    limits: Limits,
    cell: Arc<LeaseCell>,
) -> Result<(Handle, mpsc::Receiver<dataplane::Event>), dataplane::StartError> {
    let config = dataplane::EngineConfig {
        interface: settings.interface.clone(),
        port: match settings.port {
            PortKind::Ring => dataplane::PortKind::Ring,
            PortKind::Pnet => dataplane::PortKind::Pnet,
        },
        address,
        limits,
    };
    dataplane::start(config, cell)
}

/// The IPv6 address AtmPool gives this ATM, whichever interface has it.
fn own_address6(file: &ClusterFile, name: &str) -> Option<Ipv6Addr> {
    let atms = file.atms().into_iter();
    let mut own = atms.filter_map(|(atm, address)| match address {
        IpAddr::V6(v6) if atm == name => Some(v6),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    });
    own.next()
}

/// The address AtmPool gives this ATM, if it is an IPv4 address of this host; else the interface's own is taken.
#[cfg(not(atm_sim))]
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
pub(crate) struct AtmRole {
    tasks: JoinSet<Result<(), Reason>>,
    stop: CancellationToken,
    hand_overs: mpsc::Sender<HandOver>,
    engine: Handle,
    packets: Arc<Packets>,
}

impl AtmRole {
    pub(crate) fn start(prepared: Prepared) -> Self {
        let stop = CancellationToken::new();
        let (hand_overs, requests) = mpsc::channel(HAND_OVERS_MAX);
        let (engine, packets) = (prepared.engine.clone(), Arc::clone(&prepared.packets));
        let conflicts = prepared.conflicts.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let watching = conflicts.watch(engine.clone(), stop.clone());
            async move {
                watching.await;
                Ok(())
            }
        });
        tasks.spawn(take_part(
            prepared,
            requests,
            hand_overs.clone(),
            stop.clone(),
        ));
        tasks.spawn({
            let (packets, stop) = (Arc::clone(&packets), stop.clone());
            async move {
                packets.follow(stop).await;
                Ok(())
            }
        });
        tasks.spawn({
            let (packets, stop) = (Arc::clone(&packets), stop.clone());
            async move {
                packets.watch_guard(stop).await;
                Ok(())
            }
        });
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
    pub(crate) async fn failure(&mut self) -> Reason {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => return failure,
                Some(Err(panic)) => return Reason::ConsensusEnded(panic.to_string()),
                None => return Reason::ConsensusEnded("every task has ended".into()),
            }
        }
    }

    /// Hands over if it is active, then falls silent and ends. What is left is the guard of its VIPs: it goes when nothing on this host
    /// could answer for them.
    pub(crate) async fn shutdown(mut self) -> Arc<Packets> {
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
        self.packets
    }
}
