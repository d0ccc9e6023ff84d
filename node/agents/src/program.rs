//! Any other program as an agent: `<program> <ip> <port> <socktype>`.
//!
//! Invariant: nothing of its process group outlives the call, however that ends. A program that is meant to leave something
//! running gives it a session of its own (`setsid`).

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::agent::Target;
use crate::text::quoted;

/// Where programs are looked for by a program that is started by something without a PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a program that was killed may take to be gone. One that waits in the kernel, for a disk or a file server, may take
/// for ever; nobody waits with it, and it is reaped whenever it ends.
const REAP_TIME_MAX: Duration = Duration::from_secs(1);

/// What a program may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long it may run.
    pub time: Duration,
    /// How much of its output is kept: the first bytes. The rest is read and thrown away, so that it never waits for a reader.
    pub output_bytes: usize,
}

impl Limits {
    /// Of a program that may run for `time`: 4 KiB of output, enough for a reason.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self {
            time,
            output_bytes: 4096,
        }
    }
}

/// What a program wrote to its standard output and standard error, in the order in which it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The first of it.
    pub bytes: Vec<u8>,
    /// Bytes that were thrown away.
    pub dropped: u64,
}

/// How a program ended. Displayed it is one line.
#[derive(Debug)]
pub enum Ended {
    /// By itself; 0 means healthy.
    Exited {
        /// Its exit status.
        code: i32,
        /// What it said.
        output: Output,
    },
    /// By a signal that was none of ours.
    Signalled {
        /// The signal's number.
        signal: i32,
        /// What it had said.
        output: Output,
    },
    /// By us, at the time limit.
    TimedOut {
        /// What it had said.
        output: Output,
    },
    /// It never ran, or could not be watched.
    NotStarted(io::Error),
}

impl Ended {
    /// Whether the program says that the service is healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Exited { code: 0, .. })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self {
            Self::Exited { code, output } => {
                write!(f, "exit status {code}")?;
                output
            }
            Self::Signalled { signal, output } => {
                write!(f, "ended by signal {signal}")?;
                output
            }
            Self::TimedOut { output } => {
                f.write_str("no end within the time limit")?;
                output
            }
            Self::NotStarted(error) => return write!(f, "cannot be started: {error}"),
        };
        match output.bytes.trim_ascii() {
            [] => Ok(()),
            said => write!(f, ": {}", quoted(said)),
        }
    }
}

/// Runs `program <ip> <port> <socktype>` in a process group of its own, killed whole (SIGKILL) when the program has ended, at the
/// time limit, or when the future is dropped. One that cannot die is given up a second later.
///
/// Standard input is empty, the working directory is `/`, and of the environment there is `PATH` only. Needs a runtime of tokio
/// with IO and time enabled, and pidfds (Linux 5.3).
pub async fn run(program: &Path, target: &Target, limits: &Limits) -> Ended {
    match Running::start(program, target) {
        Ok(mut running) => running.attend(limits).await,
        Err(error) => Ended::NotStarted(error),
    }
}

struct Running {
    group: Group,
    /// Readable when the program has ended. It is not reaped by that, so its number is still its own.
    ended: AsyncFd<OwnedFd>,
    said: pipe::Receiver,
}

impl Running {
    fn start(program: &Path, target: &Target) -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let said = pipe::Receiver::from_owned_fd(read.into())?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
        let mut command = Command::new(program);
        command
            .arg(target.address.to_string())
            .arg(target.port.to_string())
            .arg(target.transport.socktype().to_string())
            .env_clear()
            .env("PATH", path)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0)
            .kill_on_drop(true);
        let group = Group(command.spawn()?);
        let pid = group.pid().ok_or_else(|| io::Error::other("no process"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        Ok(Self {
            group,
            ended: watched(pidfd)?,
            said,
        })
    }

    async fn attend(&mut self, limits: &Limits) -> Ended {
        let mut output = Output::default();
        let ended = tokio::select! {
            biased;
            ended = self.ended.readable() => Some(ended.map(drop)),
            () = tokio::time::sleep(limits.time) => None,
            never = listen(&mut self.said, &mut output, limits.output_bytes) => match never {},
        };
        self.group.kill();
        let reaped = tokio::time::timeout(REAP_TIME_MAX, self.group.0.wait()).await;
        drain(&self.said, &mut output, limits.output_bytes);
        match (ended, reaped) {
            (Some(Err(error)), _) | (_, Ok(Err(error))) => Ended::NotStarted(error),
            (Some(Ok(())), Ok(Ok(status))) => outcome(status, output),
            (None, _) | (_, Err(_)) => Ended::TimedOut { output },
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that lie about their descriptor, which OwnedFd does not"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

fn outcome(status: ExitStatus, output: Output) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited { code, output },
        (None, signal) => Ended::Signalled {
            signal: signal.unwrap_or_default(),
            output,
        },
    }
}

enum Never {}

/// Takes what the program says, for as long as it runs: the end of its output is not the end of it.
async fn listen(said: &mut pipe::Receiver, output: &mut Output, bytes_max: usize) -> Never {
    let mut chunk = [0; 4096];
    loop {
        match said.read(&mut chunk).await {
            Ok(count @ 1..) => output.add(&chunk[..count], bytes_max),
            Ok(0) | Err(_) => std::future::pending().await,
        }
    }
}

/// Takes what is left in the pipe. Whoever else holds its other end may go on writing, but is not listened to for longer than that.
fn drain(said: &pipe::Receiver, output: &mut Output, bytes_max: usize) {
    let mut chunk = [0; 4096];
    while output.bytes.len() < bytes_max {
        match said.try_read(&mut chunk) {
            Ok(count @ 1..) => output.add(&chunk[..count], bytes_max),
            Ok(0) | Err(_) => return,
        }
    }
}

impl Output {
    fn add(&mut self, bytes: &[u8], bytes_max: usize) {
        let room = bytes_max.saturating_sub(self.bytes.len());
        let (kept, dropped) = bytes.split_at(room.min(bytes.len()));
        self.bytes.extend_from_slice(kept);
        self.dropped = self.dropped.saturating_add(dropped.len() as u64);
    }
}

/// A program and whatever it has started. The leader is not reaped before the group is killed, so no other group can have its number.
struct Group(Child);

impl Group {
    /// None once the leader is reaped.
    fn pid(&self) -> Option<Pid> {
        let id = i32::try_from(self.0.id()?).ok()?;
        Pid::from_raw(id)
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Refused only where somebody in it has become another user; then nobody could do anything about it.
            let _ended_already = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
