//! Whether each service of each server answers: a TCP connect every CheckPortFrequency, from every ATM; the active one
//! proposes what changed.
//!
//! A service is taken out of rotation when it fails after it has answered this ATM, and comes back with its first answer.
//! One that never answered stays: its server may be starting, and nobody has seen it work yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::command::{Command, Control, Response};
use model::conf::{Agent, Protocol};
use model::ids::ServerId;
use model::state::State;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::lease::LeaseKeeper;
use crate::raft::{Machine, Raft, StoredCommand};

/// Checks under way at once: 1000 servers with 4 services at 30 s are 133 a second, each a round trip long unless it fails.
const CHECKS_MAX: usize = 256;

/// A verdict that is not committed by then is proposed again with the next check.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What is checked: one service of one server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    server: ServerId,
    service: String,
    address: SocketAddr,
    frequency: Duration,
    timeout: Duration,
}

/// The checks of one ATM. One task, and one more for each target.
pub(crate) struct Health {
    /// The replicated state.
    pub(crate) machine: Machine,
    /// Where verdicts go.
    pub(crate) raft: Raft,
    /// Whether this ATM is active.
    pub(crate) lease: LeaseKeeper,
}

impl Health {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut glimpses = self.machine.watch();
        let (reports, mut results) = mpsc::channel(CHECKS_MAX);
        let permits = Arc::new(Semaphore::new(CHECKS_MAX));
        let mut checks = JoinSet::new();
        let mut version = None;
        let mut answered = BTreeSet::new();
        loop {
            let config = glimpses.borrow_and_update().config;
            if version != Some(config) {
                version = Some(config);
                checks.abort_all();
                checks = JoinSet::new();
                let targets = self.machine.read(targets);
                answered.retain(|(server, service)| {
                    targets
                        .iter()
                        .any(|target| target.server == *server && target.service == *service)
                });
                let all = u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
                for (position, target) in (0..).zip(targets) {
                    // Spread over the interval, so that checks never come in bursts.
                    let first = target.frequency * position / all;
                    checks.spawn(check_for_ever(
                        target,
                        first,
                        Arc::clone(&permits),
                        reports.clone(),
                    ));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = glimpses.changed() => if changed.is_err() { return },
                Some((target, answers)) = results.recv() => self.report(target, answers, &mut answered).await,
            }
        }
    }

    async fn report(
        &self,
        target: Target,
        answers: bool,
        answered: &mut BTreeSet<(ServerId, String)>,
    ) {
        let key = (target.server, target.service.clone());
        if answers {
            answered.insert(key.clone());
        } else if !answered.contains(&key) {
            debug!(
                server = target.server.0,
                service = target.service,
                "no answer yet"
            );
            return;
        }
        let healthy = self
            .machine
            .read(|state| state.is_healthy(target.server, &target.service));
        if healthy == answers || self.lease.left().is_zero() {
            return;
        }
        let command = Command::Control(Control::Health {
            server: target.server,
            service: target.service.clone(),
            healthy: answers,
        });
        let write = self.raft.client_write(StoredCommand::from(&command));
        let committed = tokio::time::timeout(COMMIT_TIMEOUT, write).await;
        if let Ok(Ok(written)) = committed
            && written.data == Response::Health(true)
        {
            info!(address = %target.address, service = target.service, healthy = answers, "health changed");
        }
    }
}

/// Checks one target until the task is aborted.
async fn check_for_ever(
    target: Target,
    first: Duration,
    permits: Arc<Semaphore>,
    reports: mpsc::Sender<(Target, bool)>,
) {
    tokio::time::sleep(first).await;
    let mut tick = tokio::time::interval(target.frequency);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Ok(permit) = permits.acquire().await else {
            return;
        };
        let connect = tokio::time::timeout(target.timeout, TcpStream::connect(target.address));
        let answers = matches!(connect.await, Ok(Ok(_)));
        drop(permit);
        if reports.send((target.clone(), answers)).await.is_err() {
            return;
        }
    }
}

/// Every TCP service of every server that the current version offers, unless its agent is `none`.
fn targets(state: &State) -> Vec<Target> {
    let Some(current) = state.current() else {
        return Vec::new();
    };
    let mut found = BTreeMap::new();
    for (id, entry) in state
        .services()
        .iter()
        .filter(|(_, entry)| entry.protocol == Protocol::Tcp)
    {
        let agent = current
            .config
            .services
            .iter()
            .find(|service| service.name == entry.name);
        if agent.is_none_or(|service| service.agent == Agent::None) {
            continue;
        }
        for (server, _) in state.offered(*id) {
            let Some(known) = state.servers().get(&server) else {
                continue;
            };
            let pools = &current.config.server_pools;
            let pool = pools
                .iter()
                .find(|pool| pool.servers.iter().any(|added| added.server == known.name));
            let Some(pool) = pool else { continue };
            let address: IpAddr = known.address;
            found.insert(
                (server, entry.name.clone()),
                Target {
                    server,
                    service: entry.name.clone(),
                    address: SocketAddr::new(address, entry.port),
                    frequency: pool.check_port_frequency,
                    timeout: pool.check_port_timeout,
                },
            );
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "Services\nService web tcp:80 connect\nService echo tcp:7 none\nService dns udp:53 none\nEndServices\n\
        Servers\nServer s1 10.0.0.11 tunnel\nServer s2 10.0.0.12 tunnel\nEndServers\n\
        ServerPool p\nAddServer s1 web/1 echo/1 dns/1\nAddServer s2 web/1\nCheckPortFrequency 7\nCheckPortTimeout 3\nEndServerPool\n\
        AtmPool a\nAddAtm 10.0.0.1\nEndAtmPool\nVirtualHost 10.0.0.100\nAddAtmPool a\nAddServerPool p\nEndVirtualHost\n";

    #[test]
    fn tcp_services_are_checked_unless_their_agent_is_none() {
        let mut state = State::default();
        let applied = state.apply(Command::Control(Control::ApplyConfig {
            source: FILE.into(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "a".into(),
        }));
        assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
        let targets = targets(&state);
        let addresses: Vec<_> = targets
            .iter()
            .map(|target| target.address.to_string())
            .collect();
        assert_eq!(addresses, ["10.0.0.11:80", "10.0.0.12:80"]);
        assert!(
            targets
                .iter()
                .all(|target| target.frequency == Duration::from_secs(7))
        );
        assert!(
            targets
                .iter()
                .all(|target| target.timeout == Duration::from_secs(3))
        );
    }

    #[tokio::test]
    async fn an_open_port_answers_and_a_closed_one_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            server: ServerId(1),
            service: "web".into(),
            address: listener.local_addr().unwrap(),
            frequency: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
        };
        let (reports, mut results) = mpsc::channel(1);
        let check = tokio::spawn(check_for_ever(
            target,
            Duration::ZERO,
            Arc::new(Semaphore::new(1)),
            reports,
        ));
        assert!(results.recv().await.unwrap().1);
        drop(listener);
        while results.recv().await.unwrap().1 {}
        check.abort();
    }
}
