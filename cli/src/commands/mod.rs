//! The commands: each asks, and shows the answer as a table or as JSON.

mod atm;
mod config;
mod connections;
mod counters;
mod digest;
mod events;
mod explain;
mod failover;
mod local;
mod order;
mod server;
mod status;
mod trace;

use std::time::Duration;

use crate::args::{Args, Command};
use crate::failure::Failure;

/// For what an ATM knows, or asks the leader.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// For what the cluster has to agree on; a hand-over lets the successor catch up first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the command of `args`.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let global = &args.global;
    match &args.command {
        Command::Status => status::run(global).await,
        Command::Connections(filter) => connections::run(global, filter).await,
        Command::Failover { to } => failover::run(global, to.as_deref()).await,
        Command::Atm(command) => atm::run(global, command).await,
        Command::Server(command) => server::run(global, command).await,
        Command::Config(command) => config::run(global, command).await,
        Command::Counters(filter) => counters::run(global, filter).await,
        Command::Trace(arguments) => trace::run(global, arguments).await,
        Command::Digest => digest::run(global).await,
        Command::Events(arguments) => events::run(global, arguments).await,
        Command::Explain(arguments) => explain::run(global, arguments),
        Command::Version => local::version(global),
        Command::Completions { shell } => local::completions(*shell),
    }
}
