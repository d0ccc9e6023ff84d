//! The daemon with every look at the lease switched off: for the test of the tests' observer, and for nothing else.
//!
//! An example, so that it is never installed; it exists only with the feature `planted-lease-off`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use node::{App, Failure, Settings};

#[derive(Debug, Parser)]
struct Args {
    /// Node-local settings
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
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
