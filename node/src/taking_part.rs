//! An ATM takes part: it finds its group, starts consensus, and owns every task around it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use model::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use proto::v1::admin_server::AdminServer;
use proto::v1::nodes_server::NodesServer;
use proto::v1::peer_server::PeerServer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{AdminService, Cluster, EventFollowers, NodesService, Servers};
use crate::atm_role::Prepared;
use crate::bootstrap::{self, Beginning, Myself, Other};
use crate::channels::{self, MESSAGE_MAX, NODE_MESSAGE_MAX, TcpListener};
use crate::cluster_file::peer_address;
use crate::failure::Reason;
use crate::health::{Health, HealthView, REPORTS_MAX};
use crate::housekeeping::keep_house;
use crate::identity::{DataDir, Member};
use crate::lease::LeaseKeeper;
use crate::raft::{
    Atm, Consensus, LogStore, Machine, Network, PeerService, Raft, Suspecting, TOLD_MAX, seeded,
};
use crate::replicator::{Replicator, ReplicatorCounters};
use crate::tenure::{HandOver, Tenures};
use crate::timing::Timing;

/// Finds the group and takes part in it until `stop`.
pub(crate) async fn take_part(
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
    let nodes_service = NodesService::default();
    let mut tasks = JoinSet::new();
    serve(
        &mut tasks,
        prepared.peers,
        prepared.admins,
        &peer_service,
        &admin_service,
        &nodes_service,
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
    #[cfg(atm_sim)]
    crate::simulation::takes_part(&raft, &prepared.machine);
    myself.takes_part(
        &member,
        raft.clone(),
        prepared.machine.clone(),
        prepared.conflicts.clone(),
    );
    let (suspicions, told) = mpsc::channel(TOLD_MAX);
    let (reports, arrived) = mpsc::channel(REPORTS_MAX);
    let view = HealthView::default();
    peer_service.start(Consensus {
        me: me.0,
        group: member.group(),
        raft: raft.clone(),
        lease: lease.clone(),
        votes: Arc::clone(&votes),
        suspicions,
        reports,
    });
    let suspecting = Suspecting {
        me,
        group: member.group(),
        raft: raft.clone(),
        lease: lease.clone(),
        votes: Arc::clone(&votes),
        timing,
        told,
    };
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
    let servers = Arc::new(Servers::new(prepared.machine.clone(), member.group()));
    nodes_service.start(Arc::clone(&servers));
    tasks.spawn(Arc::clone(&servers).run(stop.clone()));
    admin_service.start(Arc::new(Cluster {
        myself: Arc::clone(&myself),
        others: others.clone(),
        raft: raft.clone(),
        machine: prepared.machine.clone(),
        lease: lease.clone(),
        packets: Arc::clone(&prepared.packets),
        conflicts: prepared.conflicts,
        health: view.clone(),
        servers: Arc::clone(&servers),
        timeline: Arc::clone(&timeline),
        hand_overs,
        event_followers: EventFollowers::new(),
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
        me,
        group: member.group(),
        others: others.clone(),
        machine: prepared.machine.clone(),
        raft: raft.clone(),
        lease: tenures.lease.clone(),
        arrived,
        view,
        servers,
    };
    tasks.spawn(suspecting.run(stop.clone()));
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
    nodes_service: &NodesService,
    stop: &CancellationToken,
) {
    let admin = AdminServer::new(admin_service.clone());
    let peer = PeerServer::new(peer_service.clone())
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let nodes = NodesServer::new(nodes_service.clone())
        .max_decoding_message_size(NODE_MESSAGE_MAX)
        .max_encoding_message_size(NODE_MESSAGE_MAX);
    // The other ATMs relay requests to the leader's Peer address: its Admin address may be on its loopback only.
    let for_peers = channels::server()
        .add_service(peer)
        .add_service(nodes)
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
    seeded(Raft::new(
        me.0,
        Arc::new(config),
        network,
        store.clone(),
        machine.clone(),
    ))
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
