//! What a lab needs: root, or a user namespace.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use chaos_tests::lab::{Privileges, available, enter_user_namespace, require_decapsulation};

/// EX_UNAVAILABLE of sysexits(3).
const UNAVAILABLE: u8 = 69;

/// Returns if a lab can be built right here; without root the program begins anew in a user namespace.
///
/// # Errors
/// The exit code where there can be no lab.
pub(crate) fn settle() -> Result<(), ExitCode> {
    match available() {
        Ok(Privileges::Root | Privileges::UserNamespace) => {
            require_decapsulation().map_err(|error| {
                eprintln!("error: {error}");
                ExitCode::from(UNAVAILABLE)
            })
        }
        Ok(Privileges::NeedsUserNamespace) => {
            let args: Vec<OsString> = env::args_os().skip(1).collect();
            let error = enter_user_namespace(&args);
            eprintln!("error: cannot enter a user namespace: {error}");
            Err(ExitCode::from(UNAVAILABLE))
        }
        Err(reason) => {
            eprintln!("skipped: no namespaces: {reason}");
            Err(ExitCode::from(UNAVAILABLE))
        }
    }
}
