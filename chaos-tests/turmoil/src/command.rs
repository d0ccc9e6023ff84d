//! The command line: `sim-node run`, `sim-node hunt`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use model::planted::{self, Bug};
use serde::Serialize;

use crate::judge::PANIC;
use crate::run::schedule as schedule_of;
use crate::{Plan, Schedule, Violation, run};

/// The real node library in a simulation; everything comes from a seed.
#[derive(Parser)]
#[command(name = "sim-node")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs seeds until one breaks a promise.
    Run {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many, one after the other.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// How long faults go on, in milliseconds of simulated time.
        #[arg(long, default_value_t = 20_000)]
        ms: u64,
        /// Takes the faults from this file instead of the seed (JSON, as `--print-schedule` writes it).
        #[arg(long)]
        schedule: Option<PathBuf>,
        /// Writes the faults of the seed to stdout and ends.
        #[arg(long)]
        print_schedule: bool,
        /// Says on stderr what happens.
        #[arg(long)]
        verbose: bool,
        /// Plants a bug first.
        #[arg(long)]
        bug: Option<Bug>,
    },
    /// Plants a bug and runs seeds until a checker finds it; prints one line of JSON. Exit code 1: not found.
    Hunt {
        /// Which.
        bug: Bug,
        /// How many seeds at most.
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long faults go on, in milliseconds of simulated time.
        #[arg(long, default_value_t = 20_000)]
        ms: u64,
    },
}

/// What a hunt found.
#[derive(Clone, Serialize)]
struct Catch {
    bug: &'static str,
    rung: u8,
    found: bool,
    seed: Option<u64>,
    seeds: u64,
    seconds: f64,
    checker: Option<&'static str>,
    what: Option<String>,
}

/// Runs what the command line says.
pub fn main() -> ExitCode {
    match Args::parse().what {
        What::Run {
            seed,
            seeds,
            ms,
            schedule,
            print_schedule,
            verbose,
            bug,
        } => {
            planted::plant(bug);
            let schedule = match schedule.map(|path| read_schedule(&path)).transpose() {
                Ok(schedule) => schedule,
                Err(error) => return fail(&error),
            };
            if print_schedule {
                return match serde_json::to_string_pretty(&schedule_of(seed, ms)) {
                    Ok(text) => {
                        println!("{text}");
                        ExitCode::SUCCESS
                    }
                    Err(error) => fail(&error.to_string()),
                };
            }
            for seed in seed..seed.saturating_add(seeds) {
                eprintln!("seed {seed}");
                on_panic(move |what| {
                    let (checker, at_ms) = (PANIC, 0);
                    let violations = [Violation {
                        checker,
                        at_ms,
                        what,
                    }];
                    serde_json::json!({"seed": seed, "violations": violations}).to_string()
                });
                let plan = Plan {
                    seed,
                    faults_ms: ms,
                    schedule: schedule.clone(),
                    verbose,
                };
                match run(&plan) {
                    Ok(summary) => {
                        println!("{}", line(&summary));
                        if !summary.violations.is_empty() {
                            eprintln!("again: sim-node run --seed {seed} --ms {ms} --verbose");
                            return ExitCode::FAILURE;
                        }
                    }
                    Err(error) => return fail(&error.to_string()),
                }
            }
            ExitCode::SUCCESS
        }
        What::Hunt {
            bug,
            seeds,
            seed,
            ms,
        } => {
            planted::plant(Some(bug));
            match hunt(bug, seed, seeds, ms) {
                Ok(caught) => {
                    println!("{}", line(&caught));
                    if caught.found {
                        ExitCode::SUCCESS
                    } else {
                        ExitCode::FAILURE
                    }
                }
                Err(error) => fail(&error),
            }
        }
    }
}

fn hunt(bug: Bug, first: u64, seeds: u64, ms: u64) -> Result<Catch, String> {
    let begun = Instant::now();
    let mut caught = Catch {
        bug: bug.name(),
        rung: 2,
        found: false,
        seed: None,
        seeds: 0,
        seconds: 0.0,
        checker: None,
        what: None,
    };
    for seed in first..first.saturating_add(seeds) {
        eprintln!("seed {seed}");
        let panicked = Catch {
            found: true,
            seed: Some(seed),
            seeds: caught.seeds + 1,
            checker: Some(PANIC),
            ..caught.clone()
        };
        on_panic(move |what| {
            line(&Catch {
                what: Some(what),
                seconds: begun.elapsed().as_secs_f64(),
                ..panicked.clone()
            })
        });
        let plan = Plan {
            seed,
            faults_ms: ms,
            schedule: None,
            verbose: false,
        };
        let summary = run(&plan).map_err(|error| error.to_string())?;
        caught.seeds += 1;
        if let Some(violation) = summary.violations.first() {
            caught.found = true;
            caught.seed = Some(seed);
            caught.checker = Some(violation.checker);
            caught.what = Some(violation.to_string());
            break;
        }
    }
    caught.seconds = begun.elapsed().as_secs_f64();
    Ok(caught)
}

/// A panic in a host's task is a finding like any other. Tearing the simulation down in the middle of a step would panic
/// again and abort, so the finding is told here, in JSON, and the process ends.
fn on_panic(tell: impl Fn(String) -> String + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let said = panic.payload_as_str().unwrap_or("no message");
        let what = format!("{} at {}", said, place.unwrap_or_default());
        println!("{}", tell(what));
        std::process::exit(1);
    }));
}

fn read_schedule(path: &std::path::Path) -> Result<Schedule, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}
