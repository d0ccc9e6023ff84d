//! What each ATM says of itself alone: the digest of its state, its part of the set, its connection table.

use std::net::SocketAddr;
use std::time::Duration;

use super::asking::{Atm, NoAnswer, Task};
use super::register::Shared;
use crate::history::{Link, Listing, Op};

/// Between two digests of one ATM. Each takes the processor as long as encoding the state does.
const DIGEST_INTERVAL: Duration = Duration::from_millis(500);

/// The digest of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) atm: String,
    pub(crate) applied: u64,
    pub(crate) digest: String,
}

/// Asks an ATM for the digest of its state until it is stopped.
pub(crate) fn digests(shared: Shared, host: String, atm: Atm) -> Task {
    Box::pin(async move {
        while !shared.stopped() {
            tokio::time::sleep(DIGEST_INTERVAL).await;
            if let Ok(digest) = digest(&host, &atm).await {
                shared.recorder.fact(digest.fact());
            }
        }
    })
}

impl Digest {
    pub(crate) fn fact(&self) -> Op {
        Op::Digest {
            atm: self.atm.clone(),
            applied: self.applied,
            digest: self.digest.clone(),
        }
    }
}

/// The digest of the state that the ATM on `host` has at the moment.
pub(crate) async fn digest(host: &str, atm: &Atm) -> Result<Digest, NoAnswer> {
    let reply = atm.digest().await?;
    Ok(Digest {
        atm: host.to_owned(),
        applied: reply.applied_index,
        digest: hex(&reply.sha256),
    })
}

/// Asks the ATM on `host`, which has applied everything up to `applied`, for its connections; says whether that was still so after
/// it had answered.
pub(crate) async fn listing(shared: &Shared, host: &str, atm: &Atm, applied: u64) -> bool {
    let process = shared.recorder.process();
    let asked = Listing {
        atm: host.to_owned(),
        ..Listing::default()
    };
    let op = Op::ConnectionListing(Box::new(asked.clone()));
    shared.recorder.invoke(process, op.clone());
    let answer = atm.connections().await;
    let after = digest(host, atm).await;
    let (Ok(connections), Ok(true)) = (answer, after.map(|after| after.applied == applied)) else {
        shared.recorder.fail(process, op);
        return false;
    };
    let connections = connections.iter().filter_map(|connection| {
        let client: SocketAddr = connection.client.parse().ok()?;
        let service: SocketAddr = connection.vip.parse().ok()?;
        Some((Link { client, service }, connection.server.clone()))
    });
    let told = Listing {
        applied,
        barrier: true,
        connections: connections.collect(),
        ..asked
    };
    shared
        .recorder
        .ok(process, Op::ConnectionListing(Box::new(told)));
    true
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
