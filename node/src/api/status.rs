//! The cluster as one ATM sees it: its own state, what the others say of themselves, and the lease if it holds it.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use model::ids::NodeId;
use openraft::async_runtime::WatchReceiver;
use proto::v1;

use super::cluster::Cluster;
use super::convert;
use crate::clock;

impl Cluster {
    /// The whole status. `asked_leader`: what hindered asking the leader, if it was to be asked.
    pub(super) async fn status(&self, asked_leader: Option<String>) -> v1::StatusReply {
        let others = join_all(self.others.iter().map(|other| async move {
            (
                other.name.clone(),
                other.hello(&self.myself, false).await.ok(),
            )
        }))
        .await;
        let mut conflicts = self.conflicts.told_by(&self.myself.name);
        let heard = others.iter().filter_map(|(_, hello)| hello.as_ref());
        conflicts.extend(heard.flat_map(|hello| hello.conflicts.iter().cloned()));
        let (state, applied) = self.machine.state();
        let left = self.lease.left();
        let speaks = !left.is_zero();
        let leads = matches!(
            super::relay::leadership(&self.raft),
            super::relay::Leadership::Mine
        );
        let (members, last_log) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let members: Vec<_> = metrics
                .membership_config
                .nodes()
                .map(|(id, atm)| (*id, atm.clone()))
                .collect();
            (members, metrics.last_log_index.unwrap_or(0))
        };
        let suspected = self.health.suspected();
        let atms = members.into_iter().map(|(node, atm)| {
            let mine = atm.name == self.myself.name;
            let hello = others
                .iter()
                .find(|(name, _)| *name == atm.name)
                .and_then(|(_, hello)| hello.as_ref());
            let reachable = mine || hello.is_some();
            let applied_index = if mine {
                applied
            } else {
                hello.map_or(0, |hello| hello.applied_index)
            };
            let role = match (mine, reachable) {
                (true, _) if speaks => v1::atm_status::Role::Active,
                (true, _) if leads => v1::atm_status::Role::Claiming,
                // Only the leader knows that the others are backups; another ATM knows it of itself alone.
                (false, true) if !leads => v1::atm_status::Role::Unknown,
                (_, true) => v1::atm_status::Role::Backup,
                (_, false) => v1::atm_status::Role::Unknown,
            };
            v1::AtmStatus {
                name: atm.name,
                role: role.into(),
                applied_index,
                lag: if reachable {
                    last_log.saturating_sub(applied_index)
                } else {
                    0
                },
                reachable,
                node,
                address: atm.address,
                suspected: suspected.contains(&NodeId(node)),
            }
        });
        let atms = atms.collect();
        let mut notices = self.myself.notices();
        notices.extend(asked_leader);
        if leads
            && !speaks
            && state
                .tenure()
                .is_some_and(|tenure| tenure.name == self.myself.name)
        {
            let name = &self.myself.name;
            notices.push(format!("{name} was active and has lost the other ATMs: it is silent, and they may have another"));
        }
        if let Some(current) = state.current() {
            notices.extend(crate::packets::limitations(&current.config));
        }
        let mut servers = convert::servers(&state);
        notices.extend(self.servers.tell(&mut servers));
        let snapshot = self.packets.engine().snapshot().await.ok();
        let live = snapshot.map_or(0, |snapshot| {
            (snapshot.connections.saturating_sub(snapshot.pending)) as u64
        });
        let committed = state.connections().len() as u64;
        v1::StatusReply {
            answered_by: self.myself.name.clone(),
            active: speaks.then(|| self.myself.name.clone()),
            epoch: state.tenure().map_or(0, |tenure| tenure.epoch.0),
            lease_left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            config_version: state.config_number().0,
            applied_index: applied,
            atms,
            virtual_hosts: convert::virtual_hosts(&state),
            servers,
            connections: committed,
            connections_max: state.connections_max() as u64,
            replication_debt: if speaks {
                live.saturating_sub(committed)
            } else {
                0
            },
            notices,
            tenure: speaks.then(|| self.timeline()),
            conflicts,
        }
    }

    fn timeline(&self) -> v1::Tenure {
        let timeline = *self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = self.packets.engine().stats();
        let nanos = |at: Option<model::Instant>| at.map_or(0, model::Instant::as_nanos);
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        v1::Tenure {
            epoch: timeline.epoch.0,
            leader_at_ns: timeline.leader.as_nanos(),
            begun_at_ns: timeline.begun.as_nanos(),
            table_at_ns: timeline.table.as_nanos(),
            wait_until_ns: timeline.wait_until.as_nanos(),
            claimed_at_ns: timeline.claimed.as_nanos(),
            first_arp_at_ns: nanos(stats.first_gratuitous_arp_of_epoch_at()),
            first_forward_at_ns: nanos(stats.first_transmit_of_epoch_at()),
            now_ns: clock::now().as_nanos(),
            now_unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
            last_heard_at_ns: timeline.last_heard.as_nanos(),
        }
    }
}
