//! What the server role changed on this host, written down before it is changed.
//!
//! Invariant: whatever of ours stands on the host is in the journal on disk; the journal may list more than stands.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::ServerRoleError;
use super::sysctl::Setting;

/// Everything there is to take back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// The boot and network namespace that were changed: no other has anything of ours.
    host: Host,
    /// Settings with their values before and after.
    pub(super) sysctls: Vec<Setting>,
    /// Addresses put on `lo` that were not there before.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether the tunnel device was made.
    pub(super) tunnel: bool,
    /// Whether the second tunnel device was made, for IPv6 in IPv4. Absent in the journals of earlier versions.
    #[serde(default)]
    pub(super) tunnel_6in4: bool,
    /// Whether `lo` was down and was set up.
    pub(super) raised_loopback: bool,
    /// Whether the nft table was made.
    pub(super) table: bool,
}

/// Where the changes of a journal are.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Host {
    boot_id: String,
    network_namespace: u64,
}

/// The journal's place on disk, held against other processes. The kernel lets go when the process and its `nft` are dead.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    lock: File,
}

/// What a predecessor left.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found {
    Nothing,
    /// Of an earlier boot or of a namespace that is not this one: there is nothing here to take back.
    Elsewhere,
    Changes(Journal),
}

const VERSION: u32 = 1;
const NAME: &str = "server-role.json";
/// A full journal of VIPS_MAX addresses and 1000 interfaces has 150 kB.
const BYTES_MAX: u64 = 1 << 20;
/// One second in all; a change by `nft` takes some 10 ms.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl Journal {
    /// An empty journal for the host and network namespace of this thread.
    pub(super) fn new(path: &Path) -> Result<Self, ServerRoleError> {
        let host = Host::this().map_err(at(path))?;
        Ok(Self {
            version: VERSION,
            host,
            sysctls: Vec::new(),
            addresses: Vec::new(),
            tunnel: false,
            tunnel_6in4: false,
            raised_loopback: false,
            table: false,
        })
    }
}

impl Host {
    fn this() -> io::Result<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim_end()
            .to_owned();
        Ok(Self {
            boot_id,
            network_namespace: fs::metadata("/proc/thread-self/ns/net")?.ino(),
        })
    }
}

/// Whether a journal lies in `state_dir`.
pub(super) fn exists(state_dir: &Path) -> Result<bool, ServerRoleError> {
    let path = state_dir.join(NAME);
    path.try_exists().map_err(at(&path))
}

impl JournalFile {
    /// Takes the journal's place in `state_dir`, which is made if it is missing. Waits a little for one that holds
    /// it: of a killed process the last `nft` may still be at work.
    pub(super) async fn lock(state_dir: &Path) -> Result<Self, ServerRoleError> {
        let path = state_dir.join("server-role.lock");
        fs::create_dir_all(state_dir).map_err(at(state_dir))?;
        let lock = File::create(&path).map_err(at(&path))?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self {
                        path: state_dir.join(NAME),
                        lock,
                    });
                }
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(errno) => return Err(at(&path)(errno.into())),
            }
        }
        Err(ServerRoleError::Busy(path))
    }

    /// A second handle of the lock: who has it keeps other processes out, also when this one is killed.
    pub(super) fn share(&self) -> Result<File, ServerRoleError> {
        self.lock.try_clone().map_err(at(&self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what a predecessor left.
    pub(super) fn load(&self) -> Result<Found, ServerRoleError> {
        let damaged = |reason: String| ServerRoleError::CorruptJournal {
            path: self.path.clone(),
            reason,
        };
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > BYTES_MAX => {
                return Err(damaged("it is longer than 1 MiB".to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(at(&self.path)(error)),
        }
        let bytes = fs::read(&self.path).map_err(at(&self.path))?;
        let journal = parse(&bytes).map_err(damaged)?;
        let here = Host::this().map_err(at(&self.path))?;
        Ok(if journal.host == here {
            Found::Changes(journal)
        } else {
            Found::Elsewhere
        })
    }

    /// Replaces the journal; when this returns it is on the disk, and a crash leaves the old one or the new one.
    pub(super) async fn store(&self, journal: &Journal) -> Result<(), ServerRoleError> {
        let path = self.path.clone();
        let text = serde_json::to_vec_pretty(journal).map_err(|error| at(&path)(error.into()))?;
        self.on_disk(move |path| {
            let draft = path.with_extension("json.new");
            let mut file = File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&draft, path)
        })
        .await
    }

    /// Forgets the journal: everything in it was taken back.
    pub(super) async fn remove(&self) -> Result<(), ServerRoleError> {
        self.on_disk(|path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// Runs `change` where blocking is allowed, then makes the directory's entry durable.
    async fn on_disk(
        &self,
        change: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ServerRoleError> {
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            change(&path)?;
            path.parent()
                .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        });
        done.await
            .map_err(io::Error::other)
            .flatten()
            .map_err(at(&self.path))
    }
}

/// Reads a journal's text. A name that could lead out of `/proc/sys/net/ipv4/conf` makes it invalid.
fn parse(bytes: &[u8]) -> Result<Journal, String> {
    let journal: Journal = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if journal.version != VERSION {
        return Err(format!(
            "it has version {} and this atmd writes {VERSION}",
            journal.version
        ));
    }
    match journal.sysctls.iter().find(|setting| !setting.is_sound()) {
        Some(setting) => Err(format!(
            "{:?} is no name of an interface",
            setting.interface
        )),
        None => Ok(journal),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ServerRoleError {
    let path = path.to_path_buf();
    move |source| ServerRoleError::Journal { path, source }
}

#[cfg(test)]
mod tests {
    use super::super::sysctl::Key;
    use super::*;
    use proptest::prelude::*;

    fn full() -> Journal {
        let path = Path::new("journal");
        Journal {
            sysctls: vec![
                Setting {
                    interface: "all".to_owned(),
                    key: Key::ArpIgnore,
                    before: 0,
                    after: 1,
                },
                Setting {
                    interface: "eth0.100".to_owned(),
                    key: Key::RpFilter,
                    before: 0,
                    after: 1,
                },
            ],
            addresses: ["10.1.0.100", "2001:db8::100"]
                .map(|address| address.parse().unwrap())
                .into(),
            tunnel: true,
            tunnel_6in4: true,
            raised_loopback: true,
            table: true,
            ..Journal::new(path).unwrap()
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_loaded_and_what_is_removed_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!exists(directory.path()).unwrap());
        let file = JournalFile::lock(directory.path()).await.unwrap();
        assert_eq!(file.load().unwrap(), Found::Nothing);
        file.store(&full()).await.unwrap();
        assert!(exists(directory.path()).unwrap());
        assert_eq!(file.load().unwrap(), Found::Changes(full()));
        file.remove().await.unwrap();
        file.remove().await.unwrap();
        assert_eq!(file.load().unwrap(), Found::Nothing);
    }

    #[tokio::test]
    async fn a_journal_of_the_version_before_ipv6_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::lock(directory.path()).await.unwrap();
        let mut journal = full();
        journal.addresses.pop();
        journal.tunnel_6in4 = false;
        let text = serde_json::to_string(&journal).unwrap();
        let before = text.replace("\"tunnel_6in4\":false,", "");
        assert_ne!(before, text);
        fs::write(file.path(), before).unwrap();
        assert_eq!(file.load().unwrap(), Found::Changes(journal));
    }

    #[tokio::test]
    async fn another_boot_or_namespace_has_nothing_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::lock(directory.path()).await.unwrap();
        let mut rebooted = full();
        rebooted.host.boot_id = "another".to_owned();
        let mut elsewhere = full();
        elsewhere.host.network_namespace += 1;
        for journal in [rebooted, elsewhere] {
            file.store(&journal).await.unwrap();
            assert_eq!(file.load().unwrap(), Found::Elsewhere);
        }
    }

    #[tokio::test]
    async fn two_processes_cannot_hold_one_journal() {
        let directory = tempfile::tempdir().unwrap();
        let held = JournalFile::lock(directory.path()).await.unwrap();
        assert!(matches!(
            JournalFile::lock(directory.path()).await,
            Err(ServerRoleError::Busy(_))
        ));
        drop(held);
        JournalFile::lock(directory.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_journal_names_the_file_and_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let file = JournalFile::lock(directory.path()).await.unwrap();
        let good = serde_json::to_string(&full()).unwrap();
        let cases = [
            ("empty", String::new(), "EOF"),
            ("cut", good[..good.len() / 2].to_owned(), "EOF"),
            (
                "newer",
                good.replace("\"version\":1", "\"version\":2"),
                "version 2",
            ),
            (
                "a field nobody knows",
                good.replace("\"tunnel\"", "\"tunel\""),
                "tunel",
            ),
            (
                "a way out of /proc/sys",
                good.replace("eth0.100", "../../kernel"),
                "no name of an interface",
            ),
            ("long", " ".repeat(1 << 21), "longer than"),
        ];
        for (name, text, reason) in cases {
            fs::write(file.path(), text).unwrap();
            let error = file.load().unwrap_err();
            assert!(
                matches!(error, ServerRoleError::CorruptJournal { .. }),
                "{name}: {error}"
            );
            let sentence = error.to_string();
            assert!(
                sentence.contains(reason) && sentence.contains("server-role.json"),
                "{name}: {sentence}"
            );
            assert_eq!(error.exit_code(), 78, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn no_damage_to_one_byte_panics(at in 0_usize..400, byte in any::<u8>()) {
            let mut text = serde_json::to_vec(&full()).unwrap();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(journal) = parse(&text) {
                prop_assert!(journal.sysctls.iter().all(Setting::is_sound));
            }
        }
    }
}
