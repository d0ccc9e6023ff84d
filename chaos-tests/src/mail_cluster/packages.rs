//! Which packages of Debian the mail cluster needs and this machine lacks.

use std::path::Path;

use crate::lab::tool_path;

/// Programs by name and files by path, and the package each is in.
const NEEDED: [(&str, &str); 8] = [
    ("postfix", "postfix"),
    ("dovecot", "dovecot-core"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd"),
    ("/usr/lib/dovecot/pop3", "dovecot-pop3d"),
    ("swaks", "swaks"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("hostname", "hostname"),
];

/// The packages that are missing; empty: the mail cluster can run.
#[must_use]
pub fn missing_packages() -> Vec<String> {
    let there = |what: &str| match what.starts_with('/') {
        true => Path::new(what).is_file(),
        false => tool_path(what).is_some(),
    };
    let missing = NEEDED.iter().filter(|(what, _)| !there(what));
    missing.map(|(_, package)| (*package).to_owned()).collect()
}

/// Python as Debian has it, which starts faster than what a version manager puts before it.
pub(super) fn python() -> String {
    let debian = "/usr/bin/python3";
    if Path::new(debian).is_file() {
        return debian.to_owned();
    }
    let found = tool_path("python3");
    found.map_or_else(
        || "python3".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}
