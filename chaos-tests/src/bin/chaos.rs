//! `chaos`: tries to break the cluster's promises, in a lab of network namespaces or in a simulation, and judges what it saw.

#[path = "chaos/bench_failover.rs"]
mod bench_failover;
#[path = "chaos/bugs.rs"]
mod bugs;
#[path = "chaos/check.rs"]
mod check;
#[path = "chaos/output.rs"]
mod output;
#[path = "chaos/privileges.rs"]
mod privileges;
#[path = "chaos/replay.rs"]
mod replay;
#[path = "chaos/run.rs"]
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tries to break the cluster's promises.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate ATMs, servers, clients, network and disks from a seed, in one thread.
    Sim(chaos_tests::sim::cli::Args),
    /// Measure takeovers of this product beside keepalived, conntrackd and ucarp.
    BenchFailover(bench_failover::Args),
    /// Run a cluster in a lab, break it in every way, and judge what it did.
    Run(run::Args),
    /// Make a stored schedule of faults happen again.
    Replay(replay::Args),
    /// Judge a stored run again.
    Check(check::Args),
    /// Plant each known bug and hunt it until a checker finds it (make bugs builds the hunters).
    Bugs(bugs::Args),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Sim(args) => args.run(),
        Command::BenchFailover(args) => bench_failover::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Replay(args) => replay::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Bugs(args) => bugs::main(&args),
    }
}
