//! Starting programs inside hosts.
//!
//! A process of a lab leads a session of its own, so that Ctrl-C at the owner's terminal does not reach it; unless the lab
//! persists it is killed by the kernel when its owner dies.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::error::LabError;
use super::privileges::tool;
use super::record::Record;

/// Name of the daemon's program, and of its process on a host.
pub const ATMD: &str = "atmd";

/// Binds the lab's hosts file over `/etc/hosts` (`ip netns exec` has made a mount namespace) and becomes the program.
const HOST_SCRIPT: &str = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";

/// File of the lab's directory that hosts see as `/etc/hosts`.
pub(crate) const HOSTS_FILE: &str = "hosts";

/// Where a program of this project is: `$ATM_BIN_DIR`, or beside the running executable.
///
/// # Errors
/// [`LabError::MissingBinary`].
pub fn program(name: &str) -> Result<PathBuf, LabError> {
    let missing = |dir: &Path| LabError::MissingBinary {
        name: name.to_owned(),
        dir: dir.to_owned(),
    };
    if let Some(dir) = env::var_os("ATM_BIN_DIR") {
        let dir = PathBuf::from(dir);
        let file = fs::canonicalize(dir.join(name)).map_err(|_| missing(&dir))?;
        return Ok(file);
    }
    let own = env::current_exe().map_err(LabError::io("find the running executable"))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    // Test executables live in `deps`, one level below the programs.
    [beside, beside.parent().unwrap_or(beside)]
        .iter()
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| missing(beside))
}

/// How a program is started in a host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In the foreground of the caller, with its terminal.
    Foreground,
    /// In the foreground, killed when the calling thread ends.
    BoundForeground,
    /// In a session of its own, outliving the caller.
    Detached,
    /// In a session of its own, killed when the starting thread ends.
    Bound,
}

/// The command that runs `argv` in the namespace `namespace` of `record`.
pub(crate) fn command_in(
    record: &Record,
    namespace: &str,
    argv: &[String],
    env: &[(String, String)],
    mode: Mode,
) -> Command {
    let mut words: Vec<&str> = match mode {
        Mode::Foreground => vec![],
        Mode::BoundForeground => vec!["setpriv", "--pdeathsig", "KILL"],
        Mode::Detached => vec!["setsid"],
        Mode::Bound => vec!["setsid", "setpriv", "--pdeathsig", "KILL"],
    };
    words.extend([
        "ip",
        "netns",
        "exec",
        namespace,
        "sh",
        "-c",
        HOST_SCRIPT,
        "lab-host",
    ]);
    let mut command = tool(words[0]);
    command
        .args(&words[1..])
        .arg(record.dir.join(HOSTS_FILE))
        .args(argv);
    command.envs(env.iter().map(|(k, v)| (k, v)));
    command
}

/// Opens the log of a process for both of its outputs; earlier runs stay in it.
pub(crate) fn with_log(command: &mut Command, log: &Path) -> io::Result<()> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(())
}

/// A thread that starts processes and lives as long as the lab.
///
/// The kernel's parent-death signal follows the *thread* that made a process, not its program.
pub(crate) struct Spawner {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

impl Spawner {
    pub(crate) fn start() -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let thread = std::thread::Builder::new()
            .name("lab-spawner".to_owned())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    let _ = reply.send(command.spawn());
                }
            })?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    pub(crate) fn spawn(&self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the lab's spawner has ended");
        let (reply, answer) = mpsc::channel();
        self.requests
            .as_ref()
            .ok_or_else(gone)?
            .send((command, reply))
            .map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A shell that waits for the end of the owner, however it comes, and removes the lab's namespaces.
///
/// It holds the read end of a pipe whose write end only the owner has. In a session of its own, so Ctrl-C spares it.
pub(crate) struct Janitor(Child);

impl Janitor {
    pub(crate) fn start(record: &Record) -> io::Result<Self> {
        tool("setsid")
            .args([
                "sh",
                "-c",
                "read -r _; for n in \"$@\"; do ip netns del \"$n\"; done",
                "lab-janitor",
            ])
            .args(record.namespaces())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
    }

    /// Sends it away without letting it clean up: the lab persists.
    pub(crate) fn dismiss(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Lets it see the end of its input and waits until it is done.
    pub(crate) fn finish(mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
