//! `chaos bench-failover`.

use std::process::ExitCode;

use chaos_tests::peers;

pub(super) use chaos_tests::peers::BenchArgs as Args;

use super::privileges;

pub(super) fn main(args: &Args) -> ExitCode {
    if let Err(code) = privileges::settle() {
        return code;
    }
    peers::run(args).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
