//! Whether this process can have network namespaces, and how to get them without root.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Set in a process that was re-executed inside a user namespace of its own.
const INSIDE: &str = "ATM_LAB_USER_NAMESPACE";

/// The programs the lab calls.
const PROGRAMS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// How namespaces can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// Root of the machine, or of a container that may make namespaces.
    Root,
    /// Already inside a user namespace made for the lab.
    UserNamespace,
    /// Not yet: the process has to re-execute itself in a user namespace, see [`enter_user_namespace`].
    NeedsUserNamespace,
}

/// Namespaces cannot be had at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Unavailable {
    /// For a process that has not entered its user namespace yet.
    pub(crate) fn not_entered() -> Self {
        Self("not root; `lab` and `lab::ready` enter a user namespace first".to_owned())
    }
}

/// Finds out by trying, without leaving anything behind.
///
/// # Errors
/// [`Unavailable`] with the reason, if neither root nor a user namespace gives network namespaces, or a program is missing.
pub fn available() -> Result<Privileges, Unavailable> {
    for (program, package) in PROGRAMS {
        if locate(program).is_none() {
            return Err(Unavailable(format!(
                "no {program} command; install the package {package}"
            )));
        }
    }
    if env::var_os(INSIDE).is_some() {
        return Ok(Privileges::UserNamespace);
    }
    let plain = attempt(&["-n", "-m"]);
    if rustix::process::geteuid().is_root() && plain.is_ok() {
        return Ok(Privileges::Root);
    }
    match attempt(&["-U", "-r", "-n", "-m"]) {
        Ok(()) => Ok(Privileges::NeedsUserNamespace),
        Err(reason) => Err(Unavailable(match plain {
            Err(first) if rustix::process::geteuid().is_root() => format!("{first}; {reason}"),
            _ => format!("not root, and {reason}"),
        })),
    }
}

/// What a lab inside a user namespace leaves out, one sentence each.
#[must_use]
pub fn left_out() -> Vec<String> {
    let mut missing = vec!["no eBPF or XDP: packets take the portable path".to_owned()];
    let tun = Path::new("/dev/net/tun");
    if std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(tun)
        .is_err()
    {
        missing.push("no TUN device (/dev/net/tun is not 0666): a server without kernel ipip cannot decapsulate".to_owned());
    }
    missing
}

/// Replaces this process by itself in new user, network and mount namespaces, with an empty `/run`.
///
/// Returns only if that fails. `args` are the arguments after the program's name.
#[must_use]
pub fn enter_user_namespace(args: &[OsString]) -> std::io::Error {
    user_namespace_command(args).map_or_else(|e| e, |mut command| command.exec())
}

/// The command that [`enter_user_namespace`] executes.
pub(crate) fn user_namespace_command(args: &[OsString]) -> std::io::Result<Command> {
    let program = env::current_exe()?;
    let mut command = tool("unshare");
    command
        .args(["-U", "-r", "-n", "-m", "--propagation", "private", "--"])
        .args([
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /run && exec \"$@\"",
            "lab",
        ])
        .arg(program)
        .args(args)
        .env(INSIDE, "1");
    Ok(command)
}

/// Replaces this process by itself inside the namespaces that the process `anchor` holds.
///
/// Returns only if that fails.
#[must_use]
pub fn join_user_namespace(anchor: u32, args: &[OsString]) -> std::io::Error {
    let run = || -> std::io::Result<std::io::Error> {
        let program = env::current_exe()?;
        let here = env::current_dir()?;
        // Entering a mount namespace loses the working directory.
        Ok(tool("nsenter")
            .args([
                "--preserve-credentials",
                "-U",
                "-m",
                "-n",
                "-t",
                &anchor.to_string(),
                "--",
            ])
            .args(["sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "lab"])
            .arg(here)
            .arg(program)
            .args(args)
            .env(INSIDE, "1")
            .exec())
    };
    run().unwrap_or_else(|e| e)
}

fn attempt(flags: &[&str]) -> Result<(), String> {
    match tool("unshare").args(flags).arg("true").output() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("`unshare {}` says: {said}", flags.join(" ")))
        }
        Err(error) => Err(format!("unshare cannot be run: {error}")),
    }
}

/// Directories of system programs that Debian leaves out of an ordinary user's PATH.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A command for one of [`PROGRAMS`], found also where an ordinary user's PATH does not look.
pub(crate) fn tool(program: &str) -> Command {
    let mut command = Command::new(locate(program).unwrap_or_else(|| program.into()));
    command.env("PATH", search_path());
    command
}

/// PATH with the system directories appended.
fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    for dir in SYSTEM_DIRECTORIES {
        path.push(":");
        path.push(dir);
    }
    path
}

/// Where `program` is, also where only root's search path has it; `None`: it is not installed.
#[must_use]
pub fn tool_path(program: &str) -> Option<PathBuf> {
    locate(program)
}

fn locate(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
