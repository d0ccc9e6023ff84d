//! `chaos bench-failover`.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use chaos_tests::lab::{Privileges, available, enter_user_namespace};
use chaos_tests::peers;

pub(super) use chaos_tests::peers::BenchArgs as Args;

/// EX_UNAVAILABLE of sysexits(3).
const UNAVAILABLE: u8 = 69;

pub(super) fn main(args: &Args) -> ExitCode {
    match available() {
        Ok(Privileges::NeedsUserNamespace) => {
            let args: Vec<OsString> = env::args_os().skip(1).collect();
            let error = enter_user_namespace(&args);
            eprintln!("error: cannot enter a user namespace: {error}");
            return ExitCode::from(UNAVAILABLE);
        }
        Ok(Privileges::Root | Privileges::UserNamespace) => {}
        Err(reason) => {
            eprintln!("skipped: no namespaces: {reason}");
            return ExitCode::from(UNAVAILABLE);
        }
    }
    peers::run(args).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
