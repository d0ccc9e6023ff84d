//! `atmctl`: asks any ATM of the cluster, and says what it answered.
//!
//! Results go to stdout, everything else to stderr; the exit code tells what became of the command ([`failure`]).
//! Decides nothing about the cluster: what it cannot check by itself (a configuration file) it asks.

mod args;
mod client;
mod commands;
mod endpoint;
mod failure;
mod hosts;
mod json;
mod offline;
mod output;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::failure::Failure;

fn main() -> ExitCode {
    match try_main(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn try_main(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(commands::run(args));
    // A name server that does not answer keeps a thread busy; nobody waits for it.
    runtime.shutdown_background();
    outcome
}
