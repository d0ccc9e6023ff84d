//! A server as a node of the cluster: it follows what the ATMs agree on, changes its host accordingly, and tells them how it is.
//!
//! Decides nothing: what a version asks of this host the model says (`model::server`), and so whose word counts.
//! Invariant: one task owns the role; an ATM that is down, behind or of another group never makes it do anything.

mod follower;
mod load;
mod memory;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::ids::ConfigNumber;
use model::server::nft;
use model::server::{Following, NodePlan, ServerPart, same_version, senders};
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cluster_file::ClusterFile;
use crate::failure::Reason;
use crate::filter_watch::{Family, FilterWatch};
use crate::host;
use crate::packets::Packets;
use crate::server_role::{self, Method, Plan, ServerRole, ServerRoleError, Unpacking};
use crate::settings::Settings;
use follower::{Follower, Word, jittered};
use load::Counting;
use memory::Memory;

/// A name server that does not answer within this counts as not knowing the name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Before what failed is tried again: its cause may be gone.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Words that may wait: one of each ATM of two versions.
const WORDS_MAX: usize = 2 * model::conf::ATMS_MAX;

/// The last report leaves within this, or does not.
const LEAVE_MAX: Duration = Duration::from_millis(500);

/// A running server. [`stop`](Self::stop) puts the host back.
pub(crate) struct ServerNode {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServerRoleError>>,
}

impl ServerNode {
    /// Takes the role that the last version asked for, or `file` if none is remembered, and begins to follow the ATMs. `guard`: this host
    /// is an ATM as well, whose kernel has to be kept from the VIPs that it serves.
    pub(crate) async fn start(
        settings: &Settings,
        file: &ClusterFile,
        name: &str,
        guard: Option<Arc<Packets>>,
    ) -> Result<Self, Reason> {
        let said = NodePlan {
            group: Vec::new(),
            version: ConfigNumber(0),
            part: Some(ServerPart::of(&file.resolved(), name).ok_or(Reason::NoPart)?),
            atms: file.atms(),
        };
        let called = settings.name.clone().unwrap_or_else(host::name);
        let memory = Memory::new(&settings.data_dir, called);
        let file_atms = said.atms.clone();
        let last = memory.recall();
        if let Some(last) = &last {
            info!(
                version = last.version.0,
                "this server goes on with the last version it heard of, not with its file"
            );
        }
        let (reports, _) = watch::channel(v1::NodeReport::default());
        let (words, incoming) = mpsc::channel(WORDS_MAX);
        let mut node = Node {
            interface: settings.interface.clone(),
            state_dir: settings.data_dir.clone(),
            port: settings.peer_listen.port(),
            // The name of an ATM need not be that of its server.
            given: match (&settings.name, &guard) {
                (Some(_), Some(_)) => Some(name.to_owned()),
                (given, _) => given.clone(),
            },
            guard,
            memory,
            following: Following::new(last.unwrap_or(said)),
            file_atms,
            role: None,
            in_force: None,
            error: String::new(),
            counting: Counting::default(),
            table_watch: FilterWatch::new(Family::Inet, nft::TABLE_NAME),
            reports,
            words,
            incoming,
            followers: JoinSet::new(),
            followed: BTreeMap::new(),
            strange: Vec::new(),
        };
        if let Err(error) = node.change().await {
            // Of a remembered version the ATMs may have a newer one, in which the reason is gone.
            if node.following.kept().version.0 == 0 || !error.is_of_the_configuration() {
                return Err(error.into());
            }
            node.failed(&error);
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(node.run(stop.clone()));
        Ok(Self { stop, task })
    }

    /// Returns when it has ended by itself. There is nothing to stop then.
    pub(crate) async fn failure(&mut self) -> Reason {
        match (&mut self.task).await {
            Ok(_) => Reason::ServerEnded("nobody has ended it".to_owned()),
            Err(panicked) => Reason::ServerEnded(panicked.to_string()),
        }
    }

    /// Tells the ATMs, and puts the host back as it was.
    pub(crate) async fn stop(self) -> Result<(), Reason> {
        self.stop.cancel();
        match self.task.await {
            Ok(stopped) => Ok(stopped?),
            Err(panicked) => Err(Reason::ServerEnded(panicked.to_string())),
        }
    }
}

/// What the task owns.
struct Node {
    interface: String,
    state_dir: PathBuf,
    port: u16,
    given: Option<String>,
    guard: Option<Arc<Packets>>,
    memory: Memory,
    following: Following,
    /// Those of the file are followed as well: the ATMs of the last version may all have been replaced since.
    file_atms: Vec<(String, IpAddr)>,
    role: Option<ServerRole>,
    /// Group and version that were last in force here as a whole.
    in_force: Option<(Vec<u8>, ConfigNumber)>,
    /// Why the version that is followed is not; empty: it is.
    error: String,
    counting: Counting,
    table_watch: FilterWatch,
    reports: watch::Sender<v1::NodeReport>,
    words: mpsc::Sender<Word>,
    incoming: mpsc::Receiver<Word>,
    followers: JoinSet<()>,
    followed: BTreeMap<IpAddr, AbortHandle>,
    strange: Vec<IpAddr>,
}

impl Node {
    async fn run(mut self, stop: CancellationToken) -> Result<(), ServerRoleError> {
        self.report().await;
        self.follow_all();
        let mut report_at = tokio::time::Instant::now() + jittered(REPORT_EVERY);
        let mut retry_at = tokio::time::Instant::now() + jittered(RETRY_AFTER);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(word) = self.incoming.recv() => if self.hear(word) {
                    self.obey().await;
                    retry_at = tokio::time::Instant::now() + jittered(RETRY_AFTER);
                },
                () = self.table_watch.touched() => self.mend_table().await,
                () = tokio::time::sleep_until(retry_at), if !self.error.is_empty() => {
                    self.obey().await;
                    retry_at = tokio::time::Instant::now() + jittered(RETRY_AFTER);
                }
                () = tokio::time::sleep_until(report_at) => {
                    self.report().await;
                    report_at = tokio::time::Instant::now() + jittered(REPORT_EVERY);
                }
                Some(_ended) = self.followers.join_next() => {}
            }
        }
        self.leave().await
    }

    /// Returns whether another word is followed from now on.
    fn hear(&mut self, word: Word) -> bool {
        let changed = match word {
            // Said before this ATM left the configuration.
            Word::Said(from, _) if !self.followed.contains_key(&from) => return false,
            Word::Said(from, plan) => self.following.heard(from, plan),
            Word::Lost(from) => self.following.lost(from),
        };
        let strange = self.following.strangers();
        if strange != self.strange && !strange.is_empty() {
            warn!(atms = ?strange, "ATMs of another group answer this server; it follows the group that more of them speak for");
        }
        self.strange = strange;
        changed
    }

    /// Puts the version that is followed into force, and follows its ATMs.
    async fn obey(&mut self) {
        // Each further turn is without an ATM that was followed before it.
        while self.follow_all() {}
        let kept = self.following.kept().clone();
        if kept.version.0 > 0 {
            self.memory.keep(kept.clone()).await;
        }
        match self.change().await {
            Ok(()) => info!(version = kept.version.0, "version in force on this server"),
            Err(error) => self.failed(&error),
        }
        self.report().await;
    }

    /// Changes the host to what the version that is followed asks of it. VIPs that stay are touched only where the way the
    /// packets come changes.
    async fn change(&mut self) -> Result<(), ServerRoleError> {
        let kept = self.following.kept().clone();
        let standing = self.role.as_ref().map_or(&[][..], ServerRole::vips);
        let standing = standing.to_vec();
        match &kept.part {
            None => {
                if let Some(role) = self.role.take() {
                    warn!(
                        version = kept.version.0,
                        "this host is no server of the version in force: its VIPs are taken off, and it goes on following"
                    );
                    role.stop().await?;
                } else {
                    // What a role that could not be stopped has left.
                    server_role::clean_up(&self.state_dir).await?;
                }
            }
            Some(part) => {
                let plan = self.plan(part, &kept.atms).await;
                // Before a VIP stands here, and for as long as one that goes does.
                self.keep_quiet(&[&standing[..], &plan.vips].concat()).await;
                if self.guard.is_some() && plan.method != Method::Tunnel {
                    warn!(
                        server = part.name, address = %plan.address,
                        "this host is an ATM, and AtmPool does not have the address of its server: while this ATM is active nothing \
                         reaches its server (write the ATM's address in the Server line, or tunnel)"
                    );
                }
                match self.role.take() {
                    Some(mut role) if role.can_become(&plan) => {
                        let updated = role.update(plan.vips, plan.atms).await;
                        // Half changed it is still ours to stop or to change once more.
                        self.role = Some(role);
                        updated?;
                    }
                    Some(role) => {
                        role.stop().await?;
                        self.role = Some(server_role::start(plan).await?);
                    }
                    None => self.role = Some(server_role::start(plan).await?),
                }
            }
        }
        let vips = kept.part.as_ref().map_or(&[][..], |part| &part.vips);
        self.keep_quiet(vips).await;
        self.error.clear();
        self.in_force = Some((kept.group, kept.version));
        Ok(())
    }

    /// Has the ATM on this host, if there is one, keep the kernel from these VIPs besides its own.
    async fn keep_quiet(&self, vips: &[IpAddr]) {
        if let Some(guard) = &self.guard {
            guard.guard_served(vips).await;
        }
    }

    /// Somebody, or this role itself, changed its table in the packet filter.
    async fn mend_table(&mut self) {
        let Some(role) = &mut self.role else { return };
        match role.mend_table().await {
            Ok(false) => {}
            Ok(true) => warn!(
                table = nft::TABLE,
                "somebody changed this table in the packet filter (nft flush ruleset?); it was put back"
            ),
            // It is tried again as everything that fails.
            Err(error) => {
                self.failed(&error);
                self.report().await;
            }
        }
    }

    async fn plan(&self, part: &ServerPart, atms: &[(String, IpAddr)]) -> Plan {
        let atms = match part.method {
            Method::Tunnel => accepted(atms, part.address).await,
            Method::Direct | Method::Nat => Vec::new(),
        };
        Plan {
            interface: self.interface.clone(),
            address: part.address,
            vips: part.vips.clone(),
            method: part.method,
            atms,
            nat_gateway: part.nat_gateway,
            state_dir: self.state_dir.clone(),
        }
    }

    fn failed(&mut self, why: &ServerRoleError) {
        error!(
            version = self.following.kept().version.0, error = %why, retry_s = RETRY_AFTER.as_secs(),
            "the version is not in force on this server"
        );
        self.error = why.to_string();
    }

    /// Begins to follow the ATMs of the version and of the file, and ends following all others. Returns whether another word is
    /// followed without those.
    fn follow_all(&mut self) -> bool {
        let kept = self.following.kept().atms.iter();
        let atms: Vec<IpAddr> = kept
            .chain(&self.file_atms)
            .map(|(_, address)| *address)
            .collect();
        let followed = self.followed.keys().copied();
        let gone: Vec<IpAddr> = followed.filter(|atm| !atms.contains(atm)).collect();
        let mut changed = false;
        for atm in gone {
            if let Some(follower) = self.followed.remove(&atm) {
                follower.abort();
            }
            changed |= self.following.lost(atm);
        }
        for atm in atms {
            if self.followed.contains_key(&atm) {
                continue;
            }
            let follower = Follower {
                atm,
                port: self.port,
                given: self.given.clone(),
                reports: self.reports.subscribe(),
                words: self.words.clone(),
            };
            self.followed
                .insert(atm, self.followers.spawn(follower.run()));
        }
        changed
    }

    async fn report(&mut self) {
        let vips = match &self.following.kept().part {
            Some(part) if self.role.is_some() => part.vips.clone(),
            Some(_) | None => Vec::new(),
        };
        let counters = self.role.as_ref().map(|role| role.counters());
        let counters = counters.into_iter().flat_map(|counters| counters.named());
        let (group, version) = self.in_force.clone().unwrap_or_default();
        let report = v1::NodeReport {
            names: None,
            group: group.into(),
            config_version: version.0,
            error: self.error.clone(),
            load_1m: load::load_1m(),
            connections: self.counting.count(&vips).await,
            counters: counters
                .map(|(name, value)| v1::NodeCounter {
                    name: name.to_owned(),
                    value,
                })
                .collect(),
            leaving: false,
            unpacks: self
                .role
                .as_ref()
                .is_some_and(|role| role.unpacking() == Unpacking::Process),
        };
        self.reports.send_replace(report);
    }

    async fn leave(self) -> Result<(), ServerRoleError> {
        let Self {
            reports,
            incoming,
            mut followers,
            role,
            ..
        } = self;
        reports.send_modify(|report| report.leaving = true);
        // The followers end with these, once the last report has left.
        drop((reports, incoming));
        let told = async { while followers.join_next().await.is_some() {} };
        let stopped = async {
            match role {
                Some(role) => role.stop().await,
                None => Ok(()),
            }
        };
        let (stopped, _late) = tokio::join!(stopped, tokio::time::timeout(LEAVE_MAX, told));
        stopped
    }
}

/// The addresses that the tunnel of a server at `address` is accepted from; none: from everywhere. The configuration has one
/// address of each ATM; where that is of the other IP version than the tunnel, its name may have more.
async fn accepted(atms: &[(String, IpAddr)], address: IpAddr) -> Vec<IpAddr> {
    let known = join_all(atms.iter().map(|(name, known)| async move {
        let mut known = vec![*known];
        if !same_version(known[0], address) && name.parse::<IpAddr>().is_err() {
            let lookup = tokio::net::lookup_host((name.as_str(), 0));
            if let Ok(Ok(found)) = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
                known.extend(found.map(|found| found.ip()));
            }
        }
        (name.clone(), known)
    }));
    match senders(&known.await, address) {
        Ok(senders) => senders,
        Err(atm) => {
            warn!(
                atm, server = %address,
                "an ATM has no known address in the IP version of the tunnel: the tunnel is accepted from every sender \
                 (give the name of the ATM an address in that version, or this server one in the ATM's)"
            );
            Vec::new()
        }
    }
}
