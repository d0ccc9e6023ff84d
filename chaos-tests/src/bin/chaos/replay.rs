//! `chaos replay`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use chaos_tests::nemesis::Schedule;
use chaos_tests::run::{Interrupt, Options, run};

use super::output::{self, Output};
use super::privileges;

/// What to make happen again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The schedule: `schedule.json` in the folder that a run left
    schedule: PathBuf,
    /// Number of ATMs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    atms: u8,
    /// Directory of the report [default: target/chaos/replay-SEED]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The form of the result
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Makes it happen.
pub(crate) fn main(args: &Args) -> ExitCode {
    if let Err(code) = privileges::settle() {
        return code;
    }
    let refused = |why: String| {
        eprintln!("error: {}: {why}", args.schedule.display());
        ExitCode::from(2)
    };
    let text = match fs::read_to_string(&args.schedule) {
        Ok(text) => text,
        Err(error) => return refused(error.to_string()),
    };
    let schedule = match Schedule::from_json(&text) {
        Ok(schedule) => schedule,
        Err(error) => return refused(error.to_string()),
    };
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => return refused(format!("cannot listen for Ctrl-C: {error}")),
    };
    let usual = || PathBuf::from(format!("target/chaos/replay-{}", schedule.seed));
    let options = Options {
        atms: usize::from(args.atms),
        report: args.report.clone().unwrap_or_else(usual),
        daemon: None,
    };
    eprintln!("{schedule}");
    output::end(run(&options, &schedule, &interrupt), args.output)
}
