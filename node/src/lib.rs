//! The ATM daemon: consensus, the lease, the API and the server role, around the pure model and the packet path.
//!
//! Every decision about frames is made by `dataplane-core`, every decision about shared state by `model`.

mod api;
mod app;
mod bootstrap;
mod channels;
mod clock;
mod cluster_file;
mod health;
mod host;
mod identity;
mod lease;
mod packets;
mod raft;
mod replicator;
pub mod server_role;
mod settings;
mod telemetry;
mod tenure;
mod timing;

pub use app::{App, Failure};
pub use settings::{DEFAULT_PATH, Settings, SettingsError};
pub use telemetry::init as init_telemetry;
