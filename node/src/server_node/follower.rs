//! Following one ATM: what it says comes in, what this server reports goes out, and a broken connection is made again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, stream};
use model::server::NodePlan;
use proto::v1;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tracing::{debug, info};

use super::wire;
use crate::channels;
use crate::cluster_file::{own_names, peer_address};

/// Pauses between two attempts: the first, and the longest. An ATM that is back is followed within the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// An ATM that takes a connection and does not answer within this counts as one that is down.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What a follower tells the server.
#[derive(Debug)]
pub(super) enum Word {
    /// The ATM at this address said what to do.
    Said(IpAddr, NodePlan),
    /// It cannot be heard any more.
    Lost(IpAddr),
}

/// Who is followed, and how the server is called.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    /// The ATM.
    pub(super) atm: IpAddr,
    /// The port of all ATMs' Peer addresses.
    pub(super) port: u16,
    /// The name in atmd.toml.
    pub(super) given: Option<String>,
    /// What this server reports; ends with it.
    pub(super) reports: watch::Receiver<v1::NodeReport>,
    /// Where words go.
    pub(super) words: mpsc::Sender<Word>,
}

impl Follower {
    /// Runs until the reports end, or it is dropped.
    pub(super) async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let mut heard = false;
            let ended = self.session(&mut heard).await;
            if self.reports.has_changed().is_err() {
                return;
            }
            let why = match ended {
                Ok(()) => "it ended the connection".to_owned(),
                Err(status) => status.message().to_owned(),
            };
            if heard {
                info!(atm = %self.atm, why, "this server does not hear an ATM any more");
                pause = PAUSE_MIN;
                if self.words.send(Word::Lost(self.atm)).await.is_err() {
                    return;
                }
            } else {
                debug!(atm = %self.atm, why, "no word from an ATM");
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection, until it breaks. `heard`: whether the ATM said anything.
    async fn session(&self, heard: &mut bool) -> Result<(), Status> {
        let address = peer_address(self.atm, self.port);
        let channel = channels::to_atm(&address)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut client = channels::node_client(channel);
        let names = wire::names_to(&own_names(self.given.as_deref()));
        let reports = outgoing(self.reports.clone(), names);
        let answer = tokio::time::timeout(ANSWER_MAX, client.follow(reports));
        let mut plans = answer
            .await
            .map_err(|_elapsed| {
                Status::deadline_exceeded(format!("no answer within {ANSWER_MAX:?}"))
            })??
            .into_inner();
        while let Some(plan) = plans.message().await? {
            let plan = wire::plan_from(plan)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            if !*heard {
                info!(atm = %self.atm, version = plan.version.0, "this server follows an ATM");
            }
            *heard = true;
            if self.words.send(Word::Said(self.atm, plan)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The reports as they change, the present one first, with the names.
fn outgoing(
    reports: watch::Receiver<v1::NodeReport>,
    names: v1::NodeNames,
) -> impl Stream<Item = v1::NodeReport> {
    stream::unfold((reports, Some(names)), |(mut reports, names)| async move {
        if names.is_none() {
            reports.changed().await.ok()?;
        }
        let mut report = reports.borrow_and_update().clone();
        report.names = names;
        Some((report, (reports, None)))
    })
}

/// A random time around this one, so that servers that began together do not come together.
pub(super) fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    // 75 to 125 per cent.
    let percent = 75 + u32::try_from(random % 51).unwrap_or(25);
    time * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_around_what_was_asked_for() {
        let times: Vec<Duration> = (0..200).map(|_| jittered(PAUSE_MAX)).collect();
        let bounds = Duration::from_millis(3750)..=Duration::from_millis(6250);
        assert!(times.iter().all(|time| bounds.contains(time)), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]));
    }
}
