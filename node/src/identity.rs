//! The data directory: whose it is, that only one process uses it, and whether it can be trusted to remember its promises.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A data directory in use by this process; the lock is held until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    identity: Identity,
    lock: File,
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Otherwise it is given up by the last one that has the file open (flock(2)), which may be a child that was just forked.
        let _closed_in_any_case = self.lock.unlock();
    }
}

/// What `identity.toml` says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    name: String,
    /// Random, made with the directory: tells it from one that was lost.
    incarnation: String,
    /// Once this ATM is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<Member>,
}

/// Membership of a group.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Number of this ATM in the group; never reused.
    pub(crate) node: u64,
    /// The group's identity, hexadecimal.
    group: String,
    /// Gives no vote before it has applied this much of the log: a directory that joins a group which is already there may
    /// stand in for one that was lost, and must first know everything that one helped to commit. 0: votes.
    #[serde(default)]
    pub(crate) votes_from: u64,
}

impl Member {
    /// Membership as `node` of the group of this identity.
    pub(crate) fn new(node: u64, group: &[u8], votes_from: u64) -> Self {
        Self {
            node,
            group: group.iter().map(|byte| format!("{byte:02x}")).collect(),
            votes_from,
        }
    }

    /// The same, with a vote.
    pub(crate) fn voting(self) -> Self {
        Self {
            votes_from: 0,
            ..self
        }
    }

    /// The group's identity.
    pub(crate) fn group(&self) -> Bytes {
        let pairs = self.group.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        pairs.map(|pair| byte(pair).unwrap_or(0)).collect()
    }
}

const FORMAT: u32 = 1;

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// The directory or a file in it.
    #[error("data directory: {} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process.
    #[error("data directory {} is in use by another atmd; stop it, or give this one its own data_dir", .0.display())]
    Busy(PathBuf),
    /// Somebody else's.
    #[error("data directory {} belongs to ATM {owner}, not {name}; set data_dir to this ATM's own directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who we are.
        name: String,
    },
    /// Not what we wrote.
    #[error("data directory {} is damaged: {what}; restore it, or move it away, let the group forget it (atmctl atm forget) and start again", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl DataDir {
    /// Opens the directory of the ATM of this name, making it at the first start.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, DataDirError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(io_error(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::Io {
                    path: lock_path,
                    source,
                });
            }
        }
        let file = path.join("identity.toml");
        let damaged = |what: String| DataDirError::Damaged {
            path: path.to_owned(),
            what,
        };
        let identity = match fs::read_to_string(&file) {
            Ok(text) => {
                let identity: Identity = toml::from_str(&text)
                    .map_err(|error| damaged(format!("identity.toml: {}", error.message())))?;
                if identity.format != FORMAT {
                    return Err(damaged(format!(
                        "identity.toml has format {}, this version knows {FORMAT}",
                        identity.format
                    )));
                }
                if identity.name != name {
                    return Err(DataDirError::Foreign {
                        path: path.to_owned(),
                        owner: identity.name,
                        name: name.into(),
                    });
                }
                if identity.member.is_some() && !path.join("log").exists() {
                    return Err(damaged(
                        "its log is gone, and with it the votes this ATM gave".into(),
                    ));
                }
                identity
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.join("log").exists() {
                    return Err(damaged("there is a log but no identity.toml".into()));
                }
                let identity = Identity {
                    format: FORMAT,
                    name: name.into(),
                    incarnation: new_incarnation()?,
                    member: None,
                };
                store(path, &identity)?;
                identity
            }
            Err(source) => return Err(DataDirError::Io { path: file, source }),
        };
        Ok(Self {
            path: path.to_owned(),
            identity,
            lock,
        })
    }

    /// Where the log goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The random name it was given when it was made.
    pub(crate) fn incarnation(&self) -> &str {
        &self.identity.incarnation
    }

    /// The group it belongs to.
    pub(crate) fn member(&self) -> Option<&Member> {
        self.identity.member.as_ref()
    }

    /// Remembers, before the first vote, which group this ATM belongs to.
    pub(crate) fn set_member(&mut self, member: Member) -> Result<(), DataDirError> {
        self.identity.member = Some(member);
        store(&self.path, &self.identity)
    }

    /// The configuration that was in force last, for the timing of the next start. Not synced: an older one is no harm.
    pub(crate) fn last_config(&self) -> Option<String> {
        fs::read_to_string(self.path.join("clusterserver.conf")).ok()
    }
}

/// Keeps a copy of the version in force; see [`DataDir::last_config`].
pub(crate) fn save_last_config(directory: &Path, source: &str) -> io::Result<()> {
    let beside = directory.join("clusterserver.conf.new");
    fs::write(&beside, source)?;
    fs::rename(beside, directory.join("clusterserver.conf"))
}

#[cfg(not(atm_sim))]
fn new_incarnation() -> Result<String, DataDirError> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let random = fs::read_to_string(path).map_err(|source| DataDirError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(random.trim().to_owned())
}

#[cfg(atm_sim)]
fn new_incarnation() -> Result<String, DataDirError> {
    Ok(crate::simulation::incarnation())
}

fn store(directory: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let path = directory.join("identity.toml");
    let write = || {
        let beside = directory.join("identity.toml.new");
        let text = toml::to_string(identity).map_err(io::Error::other)?;
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| DataDirError::Io {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_remembers_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _file) = {
            let mut data = DataDir::open(dir.path(), "atm1").unwrap();
            assert!(matches!(
                DataDir::open(dir.path(), "atm1"),
                Err(DataDirError::Busy(_))
            ));
            data.set_member(Member::new(2, &[0xab, 0x01], 0)).unwrap();
            fs::create_dir(data.log()).unwrap();
            // As if in a child.
            let file = data.lock.try_clone().unwrap();
            (data.incarnation().to_owned(), file)
        };
        let data = DataDir::open(dir.path(), "atm1").unwrap();
        assert_eq!(data.incarnation(), first);
        assert_eq!(
            data.member().map(|member| (member.node, member.group())),
            Some((2, vec![0xab, 0x01].into()))
        );
        drop(data);
        assert!(matches!(
            DataDir::open(dir.path(), "atm2"),
            Err(DataDirError::Foreign { .. })
        ));
        fs::remove_dir(dir.path().join("log")).unwrap();
        let error = DataDir::open(dir.path(), "atm1").unwrap_err().to_string();
        assert!(error.contains("votes"), "{error}");
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.toml"), "format = ").unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), "atm1"),
            Err(DataDirError::Damaged { .. })
        ));
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("log")).unwrap();
        assert!(matches!(
            DataDir::open(other.path(), "atm1"),
            Err(DataDirError::Damaged { .. })
        ));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            DataDir::open(file.path(), "atm1"),
            Err(DataDirError::Io { .. })
        ));
    }
}
