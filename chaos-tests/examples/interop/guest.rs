//! What runs in the guest: as root of a kernel of its own, on the files of the machine outside.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::report::Served;
use crate::{director, servers};

const FILE: &str = "guest.json";

/// What the guest tells besides the frames.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// `uname -r`.
    pub(crate) kernel: String,
    pub(crate) servers: Vec<Served>,
}

impl Found {
    pub(crate) fn read(dir: &Path) -> Result<Self, String> {
        let path = dir.join(FILE);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Lets IPVS answer, then real servers; writes both down.
pub(crate) fn main(dir: &Path) -> Result<(), String> {
    let kernel = rustix::system::uname();
    // Its settings would be this machine's anywhere else.
    if !fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("rootfstype=hostfs")) {
        return Err("this part runs in user-mode-linux only".to_owned());
    }
    director::run(dir)?;
    println!("director: done");
    let found = Found {
        kernel: kernel.release().to_string_lossy().into_owned(),
        servers: servers::run(dir)?,
    };
    println!("servers: done");
    let json = serde_json::to_vec(&found).map_err(|error| error.to_string())?;
    fs::write(dir.join(FILE), json).map_err(|error| format!("{FILE}: {error}"))
}

/// Runs `ip -batch`, in a namespace if one is named.
pub(crate) fn ip(namespace: Option<&str>, batch: &str) -> Result<(), String> {
    let mut args = Vec::new();
    if let Some(namespace) = namespace {
        args.extend(["-n", namespace]);
    }
    args.extend(["-batch", "-"]);
    command("ip", &args, batch)
}

/// Runs a program to its end.
///
/// # Errors
/// What it said.
pub(crate) fn command(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let what = format!("{program} {}", args.join(" "));
    let failed = |error: std::io::Error| format!("{what}: {error}");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that gave up early closes its input; its exit status tells the story.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}: {}", output.status, said.trim()))
}

/// Writes settings of the kernel, `net.`-names with slashes, in the namespace of the calling thread.
pub(crate) fn settings(values: &[(&str, &str)]) -> Result<(), String> {
    for (name, value) in values {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}
