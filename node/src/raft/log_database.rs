//! The log's database: two keyspaces of fjall, changed in atomic batches. The only file that names fjall.

use std::path::Path;

use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions, PersistMode};

/// What the database says when it fails.
pub(crate) type DatabaseError = fjall::Error;

/// Which keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Entries, by index in big endian.
    Log,
    /// Vote and purge mark, by name.
    Meta,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Stores a value.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Remove(Space, Vec<u8>),
}

/// Key and value, each in the database's own bytes.
pub(crate) type Pair = (fjall::UserKey, fjall::UserValue);

/// An open database.
pub(crate) struct Database {
    database: Fjall,
    log: Keyspace,
    meta: Keyspace,
}

impl Database {
    /// Opens or creates the database in a directory.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let database = Fjall::builder(path).open()?;
        let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default)?;
        Ok(Self {
            database,
            log,
            meta,
        })
    }

    /// A value of the keyspace `Meta`.
    pub(crate) fn meta(&self, key: &str) -> Result<Option<fjall::UserValue>, DatabaseError> {
        self.meta.get(key)
    }

    /// The keyspace `Log` from a key on, in order.
    pub(crate) fn log_from(
        &self,
        key: [u8; 8],
    ) -> impl Iterator<Item = Result<Pair, DatabaseError>> {
        self.log.range(key..).map(fjall::Guard::into_inner)
    }

    /// Makes all changes or none. Durable on return when `sync`.
    pub(crate) fn commit(
        &self,
        changes: impl IntoIterator<Item = Change>,
        sync: bool,
    ) -> Result<(), DatabaseError> {
        let durability = if sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = self.database.batch().durability(Some(durability));
        for change in changes {
            match change {
                Change::Put(space, key, value) => batch.insert(self.space(space), key, value),
                Change::Remove(space, key) => batch.remove(self.space(space), key),
            }
        }
        batch.commit()
    }

    fn space(&self, space: Space) -> &Keyspace {
        match space {
            Space::Log => &self.log,
            Space::Meta => &self.meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const JOURNAL: &str = "0.jnl";

    fn put(database: &Database, index: u64) {
        let key = index.to_be_bytes().to_vec();
        let change = Change::Put(Space::Log, key, vec![7; 40]);
        database.commit([change], true).unwrap();
    }

    fn entries(database: &Database) -> usize {
        database.log_from([0; 8]).filter(Result::is_ok).count()
    }

    /// A power cut may leave any part of the last write, and zeros after it: seed 3 of `chaos run` found a place at which the
    /// database panicked.
    #[test]
    fn a_write_torn_anywhere_is_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        let database = Database::open(&whole).unwrap();
        put(&database, 1);
        let kept = used(&whole).len();
        put(&database, 2);
        drop(database);
        let written = used(&whole);
        assert!(written.len() > kept, "each batch is in the journal");
        // It is made longer than it needs to be; some zeros are enough here.
        fs::write(whole.join(JOURNAL), &written).unwrap();
        for cut in kept..written.len() {
            let torn = dir.path().join(format!("torn-{cut}"));
            fs::create_dir(&torn).unwrap();
            copy(&whole, &torn);
            let mut bytes = written[..cut].to_vec();
            bytes.resize(written.len() + 1000, 0);
            fs::write(torn.join(JOURNAL), bytes).unwrap();
            let database = Database::open(&torn).unwrap();
            assert_eq!(entries(&database), 1, "cut at {cut}");
            put(&database, 3);
        }
    }

    /// The journal without the zeros at its end.
    fn used(directory: &Path) -> Vec<u8> {
        let mut bytes = fs::read(directory.join(JOURNAL)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0);
        bytes.truncate(end.map_or(0, |end| end + 1));
        bytes
    }

    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
