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
