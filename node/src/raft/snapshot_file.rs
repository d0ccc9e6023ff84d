//! Snapshots on disk: written beside, synced, renamed. One file; the last one counts.
//!
//! Layout: magic (8 bytes), length of the description (4 bytes, big endian), the description (`SnapshotMeta`), the state
//! in its canonical form, SHA-256 over everything before it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use proto::v1;
use sha2::{Digest, Sha256};

use super::SnapshotMeta;
use super::codec;

const MAGIC: &[u8; 8] = b"ATMSNAP1";
const DIGEST_LEN: usize = 32;

/// A snapshot that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file itself.
    #[error("snapshot {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Its content.
    #[error("snapshot {} is damaged ({what}); move the data directory away, let the group forget it (atmctl atm forget) and start again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Writes a snapshot; durable on return.
pub(crate) fn write(path: &Path, meta: &SnapshotMeta, state: &[u8]) -> Result<(), SnapshotError> {
    let file_error = |source| SnapshotError::File {
        path: path.to_owned(),
        source,
    };
    let description = codec::meta_to(meta).encode_to_vec();
    let mut head = Vec::with_capacity(MAGIC.len() + 4 + description.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(
        &u32::try_from(description.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    head.extend_from_slice(&description);
    let mut digest = Sha256::new();
    digest.update(&head);
    digest.update(state);
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(file_error)?;
    for part in [&head[..], state, &digest.finalize()[..]] {
        file.write_all(part).map_err(file_error)?;
    }
    file.sync_all().map_err(file_error)?;
    fs::rename(&beside, path).map_err(file_error)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(file_error)
}

/// Reads the snapshot; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(SnapshotError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    parse(bytes.into())
        .map(Some)
        .map_err(|what| SnapshotError::Damaged {
            path: path.to_owned(),
            what,
        })
}

fn parse(bytes: Bytes) -> Result<(SnapshotMeta, Bytes), String> {
    let body_len = bytes.len().checked_sub(DIGEST_LEN).ok_or("cut short")?;
    if Sha256::digest(&bytes[..body_len])[..] != bytes[body_len..] {
        return Err("its checksum does not match".into());
    }
    let rest = bytes[..body_len]
        .strip_prefix(MAGIC)
        .ok_or("not a snapshot, or of another version")?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or("cut short")?;
    let len = u32::from_be_bytes(*len) as usize;
    let description = rest.get(..len).ok_or("cut short")?;
    let description = v1::SnapshotMeta::decode(description).map_err(|error| error.to_string())?;
    let meta = codec::meta_from(description).map_err(|error| error.to_string())?;
    Ok((meta, bytes.slice(MAGIC.len() + 4 + len..body_len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{LogId, Membership, StoredMembership};
    use openraft::vote::leader_id_std::CommittedLeaderId;

    fn meta() -> SnapshotMeta {
        let id = LogId::new(CommittedLeaderId::new(4), 17);
        SnapshotMeta {
            last_log_id: Some(id),
            last_membership: StoredMembership::new(None, Membership::default()),
        }
    }

    #[test]
    fn a_snapshot_survives_and_replaces_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        assert!(read(&path).unwrap().is_none());
        write(&path, &meta(), b"old").unwrap();
        write(&path, &meta(), b"state").unwrap();
        let (found, state) = read(&path).unwrap().unwrap();
        assert_eq!(found, meta());
        assert_eq!(&state[..], b"state");
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("snapshot");
        write(&path, &meta(), b"state").unwrap();
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(parse(bad.into()).is_err(), "byte {position}");
            assert!(
                parse(good[..position].to_vec().into()).is_err(),
                "cut at {position}"
            );
        }
    }
}
