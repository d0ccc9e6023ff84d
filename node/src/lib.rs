//! The ATM daemon: consensus, the lease, the API and the server role, around the pure model and the packet path.
//!
//! Every decision about frames is made by `dataplane-core`, every decision about shared state by `model`.

mod api;
mod app;
mod atm_role;
mod bootstrap;
mod channels;
mod clock;
mod cluster_file;
mod conflicts;
mod failure;
mod filter_watch;
mod health;
mod host;
mod housekeeping;
mod identity;
mod lease;
mod packets;
mod raft;
mod realtime;
mod replicator;
mod routing;
mod server_node;
pub mod server_role;
mod settings;
#[cfg(atm_sim)]
pub mod simulation;
mod taking_part;
mod telemetry;
mod tenure;
mod timing;

pub use app::App;
pub use failure::Failure;
pub use realtime::runtime;
pub use settings::{DEFAULT_PATH, Settings, SettingsError};
pub use telemetry::init as init_telemetry;
