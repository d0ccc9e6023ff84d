//! Why the daemon did not start, or stopped: one sentence for people, and an exit code for programs.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::bootstrap::BootstrapError;
use crate::cluster_file::ClusterFileError;
use crate::identity::DataDirError;
use crate::raft::{SnapshotError, StoreError};
use crate::realtime::RealtimeError;
use crate::server_role::ServerRoleError;
use crate::settings::SettingsError;

/// Why the daemon did not start, or stopped: one sentence, and its exit code.
#[derive(Debug)]
pub struct Failure(pub(crate) Reason);

#[derive(Debug)]
pub(crate) enum Reason {
    /// atmd.toml.
    Settings(SettingsError),
    /// clusterserver.conf.
    ClusterFile(ClusterFileError),
    /// This host has no part in the configuration.
    NoPart,
    /// The data directory.
    DataDir(DataDirError),
    /// The log.
    Store(StoreError),
    /// The snapshot.
    Snapshot(SnapshotError),
    /// An address is taken or not ours.
    Listen(SocketAddr, io::Error),
    /// The packet engine.
    Engine(dataplane::StartError),
    /// The group.
    Bootstrap(BootstrapError),
    /// Real-time scheduling, locked memory.
    Realtime(RealtimeError),
    /// The server role.
    ServerRole(ServerRoleError),
    /// An ATM's address that is none.
    PeerAddress(String),
    /// Threads, signals.
    Runtime(io::Error),
    /// The engine ended by itself.
    EngineEnded(String),
    /// The task of the server ended by itself.
    ServerEnded(String),
    /// Consensus ended by itself, as after a failed write.
    ConsensusEnded(String),
}

impl Failure {
    /// The system refused what every process needs.
    pub fn runtime(error: io::Error) -> Self {
        Self(Reason::Runtime(error))
    }

    /// Exit code by sysexits.h: 78 EX_CONFIG, 77 EX_NOPERM, 69 EX_UNAVAILABLE, 71 EX_OSERR, 70 EX_SOFTWARE.
    pub fn exit_code(&self) -> u8 {
        self.0.exit_code()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Into<Reason>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Reason {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_)
            | Self::ClusterFile(_)
            | Self::NoPart
            | Self::DataDir(DataDirError::Foreign { .. } | DataDirError::Damaged { .. })
            | Self::Store(_)
            | Self::Snapshot(_)
            | Self::Bootstrap(_)
            | Self::PeerAddress(_) => 78,
            Self::DataDir(DataDirError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                77
            }
            Self::Listen(_, source) if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Engine(dataplane::StartError::NotPermitted) | Self::Realtime(_) => 77,
            Self::ServerRole(error) => error.exit_code(),
            Self::DataDir(_) | Self::Listen(..) | Self::Engine(_) => 69,
            Self::Runtime(_) => 71,
            Self::EngineEnded(_) | Self::ServerEnded(_) | Self::ConsensusEnded(_) => 70,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_causes = |f: &mut fmt::Formatter<'_>, error: &dyn std::error::Error| {
            write!(f, "{error}")?;
            let mut said = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                // toml's and tonic's errors repeat their cause in their own text.
                let text = error.to_string();
                if !said.contains(&text) {
                    write!(f, ": {text}")?;
                    said.push_str(&text);
                }
                cause = error.source();
            }
            Ok(())
        };
        match self {
            Self::Settings(error) => with_causes(f, error),
            Self::ClusterFile(error) => with_causes(f, error),
            Self::NoPart => f.write_str(
                "this host is neither an ATM nor a server of the configuration: set name in atmd.toml (or --name) to what an \
                 AddAtm or Server line says",
            ),
            Self::DataDir(error) => with_causes(f, error),
            Self::Store(error) => with_causes(f, error),
            Self::Snapshot(error) => with_causes(f, error),
            Self::Listen(address, error) => write!(
                f,
                "cannot listen on {address}: {error}; stop what uses it, or change peer_listen or admin_listen in atmd.toml"
            ),
            Self::Engine(error) => with_causes(f, error),
            Self::Bootstrap(error) => with_causes(f, error),
            Self::Realtime(error) => with_causes(f, error),
            Self::ServerRole(error) => with_causes(f, error),
            Self::PeerAddress(address) => write!(f, "{address} is not an address other ATMs can be reached at"),
            Self::Runtime(error) => write!(f, "the system refuses what every process needs: {error}"),
            Self::EngineEnded(reason) => write!(f, "the packet engine ended: {reason}"),
            Self::ServerEnded(reason) => write!(f, "the server role ended: {reason}; start atmd again, which takes back what it left"),
            Self::ConsensusEnded(reason) => write!(f, "consensus ended: {reason}"),
        }
    }
}

macro_rules! failure_from {
    ($($variant:ident($error:ty)),* $(,)?) => {
        $(impl From<$error> for Reason {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

failure_from!(
    Settings(SettingsError),
    ClusterFile(ClusterFileError),
    DataDir(DataDirError),
    Store(StoreError),
    Snapshot(SnapshotError),
    Engine(dataplane::StartError),
    Bootstrap(BootstrapError),
    Realtime(RealtimeError),
    ServerRole(ServerRoleError),
);
