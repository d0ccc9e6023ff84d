//! The shared storage: one Maildir per user, written so that a crash at any instant leaves whole mails only.
//!
//! Layout: `ROOT/USER/{tmp,new,cur}` and `uidlist`. A mail is written to `tmp/`, synced, renamed into `new/`, and the
//! directory synced; only then is it promised to anybody. Names are unique over all servers.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::address::MailboxName;
use super::date::since_epoch;
use super::flags::Flags;
use super::message::with_crlf;

/// Largest mail in bytes that is taken, and the SIZE that SMTP announces (RFC 1870).
pub const MESSAGE_BYTES_MAX: u64 = 25 * 1024 * 1024;

/// What our own header lines may add to a mail of the largest size, with room for a foreign server's.
const STORED_BYTES_MAX: u64 = MESSAGE_BYTES_MAX + 64 * 1024;

/// Mailboxes on one storage: they are made by the first mail, so a sender of random names must find an end.
pub const MAILBOXES_MAX: usize = 1000;

/// Mails in one mailbox: a listing holds them all in memory, some 200 bytes each.
pub const MESSAGES_MAX: usize = 100_000;

/// A file in `tmp/` that nobody finished for this long is abandoned: the 36 hours of the Maildir manual.
const ABANDONED_AFTER: Duration = Duration::from_secs(36 * 3600);

/// The directory that holds every mailbox.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    server: String,
}

/// One user's mails.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    path: PathBuf,
    server: String,
}

impl Store {
    /// Opens the storage at `root`, which must be a directory, for the server named `server`.
    pub(crate) fn open(root: &Path, server: &str) -> io::Result<Self> {
        fs::read_dir(root)?;
        let store = Self {
            root: root.to_owned(),
            server: server.to_owned(),
        };
        store.sweep();
        Ok(store)
    }

    /// The mailbox of `name`, if it exists.
    pub(crate) fn mailbox(&self, name: &MailboxName) -> Option<Mailbox> {
        let mailbox = self.at(name);
        mailbox.path.join("new").is_dir().then_some(mailbox)
    }

    /// The mailbox of `name`, made if need be.
    pub(crate) fn mailbox_or_new(&self, name: &MailboxName) -> io::Result<Mailbox> {
        if let Some(mailbox) = self.mailbox(name) {
            return Ok(mailbox);
        }
        if fs::read_dir(&self.root)?.count() >= MAILBOXES_MAX {
            return Err(io::Error::other(
                "the storage has its largest number of mailboxes",
            ));
        }
        let mailbox = self.at(name);
        for sub in ["", "tmp", "cur", "new"] {
            match DirBuilder::new().mode(0o700).create(mailbox.path.join(sub)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        sync_directory(&mailbox.path)?;
        sync_directory(&self.root)?;
        Ok(mailbox)
    }

    fn at(&self, name: &MailboxName) -> Mailbox {
        Mailbox {
            path: self.root.join(name.as_str()),
            server: self.server.clone(),
        }
    }

    /// Removes what dead servers left in `tmp/`. Failure only leaves it there.
    fn sweep(&self) {
        for mailbox in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            for file in fs::read_dir(mailbox.path().join("tmp"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let age = file
                    .metadata()
                    .and_then(|about| about.modified())
                    .map(|then| then.elapsed());
                if matches!(age, Ok(Ok(age)) if age > ABANDONED_AFTER) {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
    }
}

/// A mail file as its name and directory tell it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Still in `new/`: no IMAP session has seen it.
    pub(crate) fresh: bool,
    pub(crate) flags: Flags,
    /// The file name with its flags.
    name: String,
}

impl Mailbox {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Starts a mail; it exists for nobody until [`Draft::commit`].
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let unique = unique(&self.server);
        let path = self.path.join("tmp").join(&unique);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Draft {
            mailbox: self.clone(),
            unique,
            path,
            file: io::BufWriter::new(file),
            size: 0,
        })
    }

    /// The mails by their unique name. Only complete while the mailbox is locked.
    pub(crate) fn scan(&self) -> io::Result<BTreeMap<String, Found>> {
        let mut all = BTreeMap::new();
        for (sub, fresh) in [("new", true), ("cur", false)] {
            for entry in fs::read_dir(self.path.join(sub))? {
                let Ok(name) = entry?.file_name().into_string() else {
                    continue;
                };
                if name.starts_with('.') || name.contains(char::is_control) {
                    continue;
                }
                if all.len() >= MESSAGES_MAX {
                    return Err(io::Error::other(
                        "the mailbox has more mails than a listing may hold",
                    ));
                }
                let (base, info) = name.split_once(":2,").unwrap_or((&name, ""));
                let base = base.to_owned();
                all.insert(
                    base,
                    Found {
                        fresh,
                        flags: Flags::from_letters(info),
                        name,
                    },
                );
            }
        }
        Ok(all)
    }

    pub(crate) fn file(&self, found: &Found) -> PathBuf {
        self.path
            .join(if found.fresh { "new" } else { "cur" })
            .join(&found.name)
    }

    /// A number that changes when a mail comes, goes or changes its flags. Needs no lock: at worst it changes once
    /// too often.
    pub(crate) fn fingerprint(&self) -> io::Result<u64> {
        let mut hash = DefaultHasher::new();
        for found in self.scan()?.values() {
            (found.fresh, &found.name).hash(&mut hash);
        }
        Ok(hash.finish())
    }

    /// Gives the mail `base` other flags and moves it to `cur/`. The caller holds the lock.
    pub(crate) fn mark(&self, base: &str, found: &mut Found, flags: Flags) -> io::Result<()> {
        let name = format!("{base}:2,{}", flags.letters());
        fs::rename(self.file(found), self.path.join("cur").join(&name))?;
        *found = Found {
            fresh: false,
            flags,
            name,
        };
        Ok(())
    }

    /// The whole mail with CRLF line ends; `None` if it is gone or was renamed.
    pub(crate) fn read(&self, found: &Found) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.file(found)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(STORED_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > STORED_BYTES_MAX {
            return Err(io::Error::other(
                "the mail is larger than this server hands out",
            ));
        }
        Ok(Some(with_crlf(bytes)))
    }
}

/// A mail being written. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Draft {
    mailbox: Mailbox,
    unique: String,
    path: PathBuf,
    file: io::BufWriter<File>,
    size: u64,
}

impl Draft {
    pub(crate) fn unique(&self) -> &str {
        &self.unique
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// The same mail, so far, for another mailbox.
    pub(crate) fn copy_to(&mut self, mailbox: &Mailbox) -> io::Result<Draft> {
        self.file.flush()?;
        let mut copy = mailbox.draft()?;
        copy.size = io::copy(&mut File::open(&self.path)?, &mut copy.file)?;
        Ok(copy)
    }

    /// Makes the mail appear in `new/`. After `Ok` it survives a power cut.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        // W is the size with CRLF line ends, which is how it was written: readers need not open the file for it.
        let name = format!("{},S={},W={}", self.unique, self.size, self.size);
        let new = self.mailbox.path.join("new");
        fs::rename(&self.path, new.join(name))?;
        sync_directory(&new)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a commit there is no such file any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// The value of a `,X=` field in a mail's unique name.
pub(crate) fn name_field(base: &str, key: char) -> Option<u64> {
    base.split(',')
        .skip(1)
        .find_map(|part| part.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// When a mail came, in seconds since the epoch: every Maildir name starts with it.
pub(crate) fn name_seconds(base: &str) -> u64 {
    base.split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

/// A name that no other server, process, thread or moment gives.
pub(crate) fn unique(server: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = since_epoch(SystemTime::now());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Seeded by the kernel: servers with the same name and process id in two namespaces still differ.
    let random = RandomState::new().hash_one((std::process::id(), count, now));
    format!(
        "{}.M{:06}P{}Q{count}R{random:016x}.{server}",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id()
    )
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), "serv1").unwrap();
        (root, store)
    }

    #[test]
    fn a_mail_appears_whole_or_not_at_all() {
        let (_root, store) = store();
        let name = MailboxName::parse("somebody").unwrap();
        assert!(store.mailbox(&name).is_none());
        let mailbox = store.mailbox_or_new(&name).unwrap();
        let mut draft = mailbox.draft().unwrap();
        draft.append(b"Subject: a\r\n\r\nb\r\n").unwrap();
        assert!(mailbox.scan().unwrap().is_empty());
        draft.commit().unwrap();
        let mut abandoned = mailbox.draft().unwrap();
        abandoned.append(b"half").unwrap();
        drop(abandoned);

        let all = mailbox.scan().unwrap();
        assert_eq!(all.len(), 1);
        let (base, found) = all.iter().next().unwrap();
        assert_eq!(
            mailbox.read(found).unwrap().unwrap(),
            b"Subject: a\r\n\r\nb\r\n"
        );
        assert_eq!(name_field(base, 'W'), Some(17));
        assert!(name_seconds(base) > 1_700_000_000);
        assert_eq!(fs::read_dir(mailbox.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = (0..10_000).map(|_| unique("serv1")).collect();
        assert_eq!(names.len(), 10_000);
    }
}
