//! `atmd`: one daemon on every host of the cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use node::{App, DEFAULT_PATH, Failure, Settings};

/// Daemon of an ATM or of a server; the configuration says which this host is.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Node-local settings
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// This host as the cluster's configuration writes it (overrides `name` in the settings)
    #[arg(long)]
    name: Option<String>,
    /// Check the settings and the cluster's configuration, and end
    #[arg(long)]
    check: bool,
    /// Take back what a killed atmd left on this host as a server, and end
    #[arg(long, conflicts_with = "check")]
    clean_up: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match try_main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("atmd: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn try_main(args: &Args) -> Result<(), Failure> {
    let mut settings = Settings::load(&args.config)?;
    settings.name = args.name.clone().or(settings.name);
    let runtime = node::runtime().map_err(Failure::runtime)?;
    runtime.block_on(async {
        if args.check {
            return App::check(&settings).await;
        }
        if args.clean_up {
            return App::clean_up(&settings).await;
        }
        node::init_telemetry(&settings);
        App::start(settings).await?.run().await
    })
}
