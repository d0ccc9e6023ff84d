//! What a power cut leaves, where the library `faulty-disk` kept what unsynced writes had replaced.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::error::EquipmentError;

/// Files below a data directory at most: far more than any log has, and an end to a loop of links.
const FILES_MAX: usize = 100_000;

/// What becomes of the last write of each file that was not synced. All before it is lost in either case, or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing that was not synced is left.
    Lost,
    /// Everything but the last write was written back by chance, and of the last so many thousandths.
    Torn(u64),
}

/// One write.
#[derive(Debug)]
struct Written {
    offset: u64,
    len: u64,
    /// Size of the file before.
    size: u64,
    /// What stood there before.
    old: Vec<u8>,
}

/// Takes back every write below `data` that was not synced, by the records in `undo`, and forgets the records.
///
/// The process that wrote is dead. Returns how many writes were taken back, whole or in part.
///
/// # Errors
/// A file cannot be read or written.
pub fn lose_unsynced(undo: &Path, data: &Path, tail: Tail) -> Result<usize, EquipmentError> {
    let mut files = BTreeMap::new();
    find(data, &mut files).map_err(EquipmentError::io(format!("read {}", data.display())))?;
    let entries = fs::read_dir(undo);
    let entries = entries.map_err(EquipmentError::io(format!("read {}", undo.display())))?;
    let mut taken = 0;
    for entry in entries.flatten() {
        let journal = entry.path();
        let inode = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let cannot = || EquipmentError::io(format!("take back what {} says", journal.display()));
        // A file that was removed has nothing left to lose.
        if let Some(path) = inode.and_then(|inode: u64| files.get(&inode)) {
            let bytes = fs::read(&journal).map_err(cannot())?;
            let records = parse(&bytes);
            taken += take_back(path, &records, tail).map_err(cannot())?;
        }
        fs::remove_file(&journal).map_err(cannot())?;
    }
    Ok(taken)
}

/// The complete records; the write of one that is cut short was never made.
fn parse(mut bytes: &[u8]) -> Vec<Written> {
    let mut records = Vec::new();
    while let Some((offset, rest)) = take_word(bytes) {
        let next = || {
            let (len, rest) = take_word(rest)?;
            let (size, rest) = take_word(rest)?;
            let (kept, rest) = take_word(rest)?;
            let (old, rest) = rest.split_at_checked(usize::try_from(kept).ok()?)?;
            Some((len, size, old.to_vec(), rest))
        };
        let Some((len, size, old, rest)) = next() else {
            break;
        };
        records.push(Written {
            offset,
            len,
            size,
            old,
        });
        bytes = rest;
    }
    records
}

fn take_word(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_ne_bytes(*word), rest))
}

fn take_back(path: &Path, records: &[Written], tail: Tail) -> io::Result<usize> {
    let Some(last) = records.last() else {
        return Ok(0);
    };
    let file = OpenOptions::new().write(true).open(path)?;
    match tail {
        Tail::Lost => {
            for record in records.iter().rev() {
                restore(&file, record, 0)?;
            }
            Ok(records.len())
        }
        Tail::Torn(thousandths) => {
            let kept = u128::from(last.len) * u128::from(thousandths.min(1000)) / 1000;
            restore(&file, last, u64::try_from(kept).unwrap_or(last.len))?;
            Ok(1)
        }
    }
}

/// Takes back all of a write but its first `kept` bytes.
fn restore(file: &File, record: &Written, kept: u64) -> io::Result<()> {
    if let Some(old) = usize::try_from(kept)
        .ok()
        .and_then(|kept| record.old.get(kept..))
    {
        file.write_all_at(old, record.offset + kept)?;
    }
    let end = if kept == 0 { 0 } else { record.offset + kept };
    file.set_len(record.size.max(end))
}

fn find(directory: &Path, files: &mut BTreeMap<u64, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find(&entry.path(), files)?;
        } else if kind.is_file() {
            if files.len() >= FILES_MAX {
                return Err(io::Error::other("too many files"));
            }
            files.insert(entry.metadata()?.ino(), entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, len: u64, size: u64, old: &[u8]) -> Vec<u8> {
        let words = [offset, len, size, old.len() as u64];
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        words.chain(old.iter().copied()).collect()
    }

    /// A file that was "synced" of eight bytes, overwritten at 6 by "NEWER" and appended to by "tail".
    fn scene(journal_end: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (undo, data) = (dir.path().join("undo"), dir.path().join("data"));
        fs::create_dir_all(data.join("log")).unwrap();
        fs::create_dir(&undo).unwrap();
        let file = data.join("log/0.jnl");
        fs::write(&file, "syncedNEWERtail").unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        let journal = [
            record(6, 5, 8, b"XX"),
            record(11, 4, 11, b""),
            journal_end.to_vec(),
        ];
        fs::write(undo.join(inode.to_string()), journal.concat()).unwrap();
        fs::write(undo.join("999999999"), record(0, 1, 0, b"")).unwrap();
        (dir, file)
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        for cut_short in [&b""[..], &record(15, 9, 15, b"")[..17]] {
            let (dir, file) = scene(cut_short);
            let (undo, data) = (dir.path().join("undo"), dir.path().join("data"));
            assert_eq!(lose_unsynced(&undo, &data, Tail::Lost).unwrap(), 2);
            assert_eq!(fs::read(&file).unwrap(), b"syncedXX");
            assert_eq!(lose_unsynced(&undo, &data, Tail::Lost).unwrap(), 0);
        }
    }

    #[test]
    fn a_torn_tail_keeps_what_came_before_it() {
        let (dir, file) = scene(b"");
        let (undo, data) = (dir.path().join("undo"), dir.path().join("data"));
        assert_eq!(lose_unsynced(&undo, &data, Tail::Torn(500)).unwrap(), 1);
        assert_eq!(fs::read(&file).unwrap(), b"syncedNEWERta");
    }
}
