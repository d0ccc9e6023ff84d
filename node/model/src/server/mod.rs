//! The server's side of the cluster, as far as it can be decided without looking at a host: what a configuration asks of it,
//! whose word it follows, and the numbers and texts that `atmd` and `atmctl server setup` have in common.

mod following;
mod names;
pub mod nft;
mod numbers;
mod plan;
mod presence;
mod script;

use serde::{Deserialize, Serialize};

pub use following::{Following, NodePlan};
pub use names::{Names, Resolved};
pub use numbers::*;
pub use plan::{Remnant, ServerPart, remnants, same_version, senders};
pub use presence::{AWAY_MAX, GONE, Presence};
pub use script::{Setup, SetupError};

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Inside IP packets (RFC 2003, RFC 4213, RFC 2473) to an address of the host.
    Tunnel,
    /// As they are, to the host's MAC address: only the VIPs and their silence are needed.
    Direct,
    /// With the host's own address as their destination: nothing is needed there, and there are no VIPs.
    Nat,
}
