//! Whether the daemon can do what a configuration says, in its own words: `atmd --check`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::rig::RigError;
use crate::lab::{ATMD, LabError, PortKind, atmd_toml, program};

/// What the daemon lacks for a configuration; the first words of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs(pub String);

/// What `--check` prints before each thing that this version cannot do.
const LIMITATION: &str = "warning: ";

/// Codes of a file that says something this version has no word for. A file with none of them is wrong.
const NO_WORD_FOR: [&str; 6] = [
    "[unknown-option]",
    "[unknown-method]",
    "[unknown-keyword]",
    "[extra-argument]",
    "[bad-address]",
    "[bad-mask]",
];

/// Asks the daemon; `Some` if it lacks something.
///
/// # Errors
/// There is no daemon, or it calls the file wrong.
pub fn probe(conf: &str) -> Result<Option<Needs>, RigError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let daemon = program(ATMD)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("atm-probe-{}-{number}", std::process::id()));
    let scratch = Scratch(dir);
    let dir = &scratch.0;
    fs::create_dir_all(dir).map_err(LabError::io(format!("create {}", dir.display())))?;
    let own = std::net::Ipv4Addr::new(10, 1, 0, 1);
    let toml = atmd_toml(
        &own.to_string(),
        own,
        &dir.to_string_lossy(),
        PortKind::Ring,
    );
    for (name, text) in [("clusterserver.conf", conf), ("atmd.toml", &toml)] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
    }
    let output = Command::new(daemon)
        .arg("--config")
        .arg(dir.join("atmd.toml"))
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .map_err(LabError::io("run atmd --check"))?;
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    judge(output.status.success(), &said, &errors)
        .map_err(|why| RigError::Refused(format!("{why}\n{conf}")))
}

/// What an answer of `--check` says.
fn judge(accepted: bool, said: &str, errors: &str) -> Result<Option<Needs>, String> {
    if accepted {
        let limitation = said.lines().find_map(|line| line.strip_prefix(LIMITATION));
        return Ok(limitation.map(|what| Needs(what.to_owned())));
    }
    let is_unknown = |line: &&str| NO_WORD_FOR.iter().any(|code| line.contains(code));
    // Other errors may come of it: of an option that is not known nothing is known.
    match errors
        .lines()
        .filter(|line| line.contains("error["))
        .find(is_unknown)
    {
        Some(unknown) => Ok(Some(Needs(unknown.trim().to_owned()))),
        None => Err(errors.trim().to_owned()),
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_says_it_lacks_is_told_and_nothing_else_is() {
        let fine = "conf is valid; this host is ATM 10.1.0.1\n";
        assert_eq!(judge(true, fine, ""), Ok(None));
        let lacking = format!("warning: server serv1: forwarding by nat is not there yet\n{fine}");
        let needs = judge(true, &lacking, "").unwrap().unwrap();
        assert_eq!(needs.0, "server serv1: forwarding by nat is not there yet");
    }

    #[test]
    fn a_word_that_is_not_known_is_a_lack_and_every_other_error_is_one() {
        let unknown =
            "error[nat-without-gateway]: no gateway\nerror[unknown-option]: no option `source=`\n";
        let needs = judge(false, "", unknown).unwrap().unwrap();
        assert_eq!(needs.0, "error[unknown-option]: no option `source=`");
        for wrong in [
            "error[missing-argument]: too little\n",
            "atmd: no such file\n",
            "",
        ] {
            assert!(judge(false, "", wrong).is_err(), "{wrong}");
        }
    }
}
