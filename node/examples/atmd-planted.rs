//! The daemon with one known bug, named by the environment variable `ATM_PLANTED` (`model::planted` has the names): for
//! tests of the tests, and for nothing else.
//!
//! An example, so that it is never installed; it exists only with the feature `planted`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use model::planted::{self, Bug};
use node::{App, Failure, Settings};

/// As clap exits for a wrong command line.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
struct Args {
    /// Node-local settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match std::env::var("ATM_PLANTED")
        .unwrap_or_default()
        .parse::<Bug>()
    {
        Ok(bug) => {
            eprintln!("atmd-planted: with the bug {bug}");
            planted::plant(Some(bug));
        }
        Err(error) => {
            eprintln!("atmd-planted: the environment variable ATM_PLANTED: {error}");
            return ExitCode::from(USAGE);
        }
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("atmd-planted: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let settings = Settings::load(&args.config)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::runtime)?;
    runtime.block_on(async {
        node::init_telemetry(&settings);
        App::start(settings).await?.run().await
    })
}
