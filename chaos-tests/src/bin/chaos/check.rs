//! `chaos check`.

use std::path::PathBuf;
use std::process::ExitCode;

use chaos_tests::run;

use super::output::{self, Output};

/// What to judge.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that a run left
    report: PathBuf,
    /// The form of the result
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Judges it.
pub(crate) fn main(args: &Args) -> ExitCode {
    output::end(run::check(&args.report), args.output)
}
