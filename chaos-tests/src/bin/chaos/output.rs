//! What every subcommand that judges a run says in the end.

use std::process::ExitCode;

use chaos_tests::run::{Judgement, RunError};
use clap::ValueEnum;

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Prints the result: 0 if every promise was kept, 1 if not, or if nothing could be judged.
pub(crate) fn end(outcome: Result<Judgement, RunError>, output: Output) -> ExitCode {
    match outcome {
        Ok(judgement) => {
            match output {
                Output::Table => print!("{judgement}"),
                Output::Json => println!("{}", judgement.json()),
            }
            if judgement.passed() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                if !text.contains(&inner.to_string()) {
                    text = format!("{text}: {inner}");
                }
                cause = inner.source();
            }
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}
