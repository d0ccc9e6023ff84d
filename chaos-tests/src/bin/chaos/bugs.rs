//! `chaos bugs`.

use std::path::PathBuf;
use std::process::ExitCode;

use chaos_tests::bugs::{self, Bounds, Catch, HuntError, Hunters, Rung};
use chaos_tests::run::Interrupt;
use model::planted::Bug;

use super::output::Output;

/// What to hunt.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this bug; may be given more than once
    #[arg(long = "bug", value_name = "NAME")]
    bugs: Vec<Bug>,
    /// Only this rung; may be given more than once
    #[arg(long = "rung", value_name = "N", value_enum)]
    rungs: Vec<Rung>,
    /// Seeds of the simulator for each bug
    #[arg(long, value_name = "N", default_value_t = Bounds::default().simulator_seeds)]
    simulator_seeds: u64,
    /// Seeds of the simulated node library for each bug
    #[arg(long, value_name = "N", default_value_t = Bounds::default().node_seeds)]
    node_seeds: u64,
    /// Runs of half a minute in the lab for each bug
    #[arg(long, value_name = "N", default_value_t = Bounds::default().lab_runs)]
    lab_runs: u64,
    /// The simulated node library
    #[arg(long, value_name = "FILE", default_value = "target/sim/debug/sim-node")]
    node: PathBuf,
    /// Directory of the reports of labs
    #[arg(long, value_name = "DIR", default_value = "target/chaos/bugs")]
    reports: PathBuf,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Hunts. Exit code 0: every bug was found.
pub(crate) fn main(args: &Args) -> ExitCode {
    match hunt_all(args) {
        Ok(catches) => {
            print(args.output, &catches);
            if catches.iter().all(|catch| catch.found) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(69)
        }
    }
}

/// The last catch of each bug: where it was found, or the last rung that did not find it.
fn hunt_all(args: &Args) -> Result<Vec<Catch>, HuntError> {
    let interrupt = Interrupt::listen().map_err(|error| HuntError::Failed {
        program: "chaos".into(),
        what: error.to_string(),
    })?;
    let hunters = Hunters::find(args.node.clone(), args.reports.clone(), interrupt)?;
    let mut bounds = Bounds {
        simulator_seeds: args.simulator_seeds,
        node_seeds: args.node_seeds,
        lab_runs: args.lab_runs,
        ..Bounds::default()
    };
    if !args.rungs.is_empty() {
        bounds.rungs.clone_from(&args.rungs);
        bounds.rungs.sort_unstable();
    }
    let wanted = if args.bugs.is_empty() {
        &Bug::ALL[..]
    } else {
        &args.bugs
    };
    let mut catches = Vec::new();
    for bug in wanted {
        let tried = bugs::hunt(*bug, &bounds, &hunters, &mut |what| eprintln!("{what}"))?;
        match tried.into_iter().last() {
            Some(catch) => {
                eprintln!("    {}", outcome(&catch));
                catches.push(catch);
            }
            None => eprintln!("{bug}: its code does not run on the rungs that were asked for"),
        }
    }
    Ok(catches)
}

fn print(output: Output, catches: &[Catch]) {
    match output {
        Output::Json => match serde_json::to_string_pretty(catches) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("error: {error}"),
        },
        Output::Table => {
            println!("| bug | checker | rung | seeds | seconds |");
            println!("|---|---|---|---|---|");
            for catch in catches {
                let checker = catch.checker.as_deref().unwrap_or("NOT FOUND");
                println!(
                    "| {} | {checker} | {} | {} | {:.1} |",
                    catch.bug, catch.rung, catch.seeds, catch.seconds
                );
            }
        }
    }
}

fn outcome(catch: &Catch) -> String {
    match (&catch.checker, &catch.what, catch.seed) {
        (Some(checker), Some(what), Some(seed)) => {
            let first = what.lines().next().unwrap_or_default();
            format!(
                "found by {checker}, seed {seed}, after {:.1} s: {first}",
                catch.seconds
            )
        }
        _ => format!("not found in {} seeds, {:.1} s", catch.seeds, catch.seconds),
    }
}
