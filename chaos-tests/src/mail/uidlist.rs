//! Which number each mail has, the same from every server: the file `uidlist` of a mailbox.
//!
//! Format: `uidlist 1 <uidvalidity> <uidnext>`, then one `<uid> <unique name>` per mail in ascending order. It is
//! replaced whole by rename, under the mailbox's lock. A UID is never given twice under one UIDVALIDITY (RFC 3501
//! §2.3.1.1); a list that cannot be read is replaced by one with a larger UIDVALIDITY.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::SystemTime;

use super::date::since_epoch;
use super::flags::Flags;
use super::lock::Lock;
use super::maildir::{Found, Mailbox, name_field, name_seconds, sync_directory, unique};

const FILE: &str = "uidlist";

/// One mail of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) uid: u32,
    /// The unique name: what stays the same when flags change.
    pub(crate) base: String,
    pub(crate) found: Found,
}

impl Entry {
    /// When the mail came, in seconds since the epoch.
    pub(crate) fn seconds(&self) -> u64 {
        name_seconds(&self.base)
    }
}

/// A mailbox at one moment, in UID order.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) uid_validity: u32,
    pub(crate) uid_next: u32,
    pub(crate) entries: Vec<Entry>,
}

/// A mailbox held under its lock: what is listed stays so until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    mailbox: &'a Mailbox,
    lock: Lock,
    pub(crate) listing: Listing,
}

impl Mailbox {
    /// Locks the mailbox and lists it; mails without a number get one.
    pub(crate) fn locked(&self) -> io::Result<Locked<'_>> {
        let lock = Lock::acquire(self.path(), self.server())?;
        let found = self.scan()?;
        let (mut numbers, stored) = Numbers::load(self)?;
        // A new list is stored even if empty: its UIDVALIDITY must be the same for the next reader.
        if numbers.adopt(&found) || !stored {
            numbers.store(self, &lock)?;
        }
        let mut found = found;
        let entries = (numbers.bases.iter())
            .filter_map(|(uid, base)| Some((*uid, found.remove_entry(base)?)))
            .map(|(uid, (base, found))| Entry { uid, base, found })
            .collect();
        let listing = Listing {
            uid_validity: numbers.validity,
            uid_next: numbers.next,
            entries,
        };
        Ok(Locked {
            mailbox: self,
            lock,
            listing,
        })
    }

    /// The mailbox as it is.
    pub(crate) fn list(&self) -> io::Result<Listing> {
        Ok(self.locked()?.listing.clone())
    }

    /// A mail of an earlier listing, also if its flags changed since; `None` if it is gone.
    pub(crate) fn read_entry(&self, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.read(&entry.found)? {
            return Ok(Some(bytes));
        }
        let locked = self.locked()?;
        match locked
            .listing
            .entries
            .iter()
            .find(|other| other.uid == entry.uid)
        {
            Some(other) => self.read(&other.found),
            None => Ok(None),
        }
    }

    /// The size in bytes with CRLF line ends; `None` if the mail is gone.
    pub(crate) fn size(&self, entry: &Entry) -> io::Result<Option<u64>> {
        if let Some(size) = name_field(&entry.base, 'W') {
            return Ok(Some(size));
        }
        Ok(self.read_entry(entry)?.map(|bytes| bytes.len() as u64))
    }

    /// Removes mails by UID and says which of them this call removed.
    pub(crate) fn remove(&self, uids: &[u32]) -> io::Result<Vec<u32>> {
        let mut locked = self.locked()?;
        locked.remove(|entry| uids.contains(&entry.uid))
    }
}

impl Locked<'_> {
    /// Moves the mails of `new/` to `cur/` and says which they were: they are recent to the caller alone.
    pub(crate) fn take_fresh(&mut self) -> io::Result<Vec<u32>> {
        let mut taken = Vec::new();
        for entry in self
            .listing
            .entries
            .iter_mut()
            .filter(|entry| entry.found.fresh)
        {
            self.lock.confirm()?;
            let flags = entry.found.flags;
            self.mailbox.mark(&entry.base, &mut entry.found, flags)?;
            taken.push(entry.uid);
        }
        Ok(taken)
    }

    /// Changes the flags of the mails in `uids`; after `Ok` the change survives a power cut.
    pub(crate) fn change_flags(
        &mut self,
        uids: &[u32],
        change: impl Fn(Flags) -> Flags,
    ) -> io::Result<()> {
        let mut changed = false;
        for entry in &mut self.listing.entries {
            let flags = change(entry.found.flags);
            if uids.binary_search(&entry.uid).is_ok() && flags != entry.found.flags {
                self.lock.confirm()?;
                self.mailbox.mark(&entry.base, &mut entry.found, flags)?;
                changed = true;
            }
        }
        if changed {
            sync_directory(&self.mailbox.path().join("cur"))
        } else {
            Ok(())
        }
    }

    /// Removes the mails that `which` names, and says which.
    pub(crate) fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> io::Result<Vec<u32>> {
        let mut removed = Vec::new();
        for entry in self.listing.entries.iter().filter(|entry| which(entry)) {
            self.lock.confirm()?;
            fs::remove_file(self.mailbox.file(&entry.found))?;
            removed.push(entry.uid);
        }
        self.listing
            .entries
            .retain(|entry| !removed.contains(&entry.uid));
        if !removed.is_empty() {
            sync_directory(&self.mailbox.path().join("cur"))?;
            sync_directory(&self.mailbox.path().join("new"))?;
        }
        Ok(removed)
    }
}

/// The file's content.
#[derive(Debug, PartialEq, Eq)]
struct Numbers {
    validity: u32,
    next: u32,
    bases: BTreeMap<u32, String>,
}

impl Numbers {
    /// The list, and whether it is the one in the file.
    fn load(mailbox: &Mailbox) -> io::Result<(Self, bool)> {
        let bytes = match fs::read(mailbox.path().join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self::new(), false));
            }
            bytes => bytes?,
        };
        let stored = String::from_utf8(bytes)
            .ok()
            .and_then(|text| Self::parse(&text));
        let is_stored = stored.is_some();
        Ok((stored.unwrap_or_else(Self::new), is_stored))
    }

    /// An empty list. Its UIDVALIDITY is the time, so a later list has a larger one.
    fn new() -> Self {
        let seconds = since_epoch(SystemTime::now()).as_secs();
        Self {
            validity: u32::try_from(seconds).unwrap_or(u32::MAX),
            next: 1,
            bases: BTreeMap::new(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // The last line must be whole: the number of a cut one would be a wrong one.
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (validity, next) = lines.next()?.strip_prefix("uidlist 1 ")?.split_once(' ')?;
        let (validity, next): (u32, u32) = (validity.parse().ok()?, next.parse().ok()?);
        let mut bases = BTreeMap::new();
        for line in lines {
            let (uid, base) = line.split_once(' ')?;
            let uid = uid.parse().ok()?;
            if uid == 0 || uid >= next || bases.insert(uid, base.to_owned()).is_some() {
                return None;
            }
        }
        (validity > 0 && next > 0).then_some(Self {
            validity,
            next,
            bases,
        })
    }

    /// Gives new mails numbers, in the order in which they came, and forgets those that are gone.
    fn adopt(&mut self, found: &BTreeMap<String, Found>) -> bool {
        let before = self.bases.len();
        self.bases.retain(|_, base| found.contains_key(base));
        let forgotten = before != self.bases.len();
        let known: std::collections::BTreeSet<&str> =
            self.bases.values().map(String::as_str).collect();
        let mut fresh: Vec<&String> = found
            .keys()
            .filter(|base| !known.contains(base.as_str()))
            .collect();
        // Names start with seconds and microseconds, both of fixed width: byte order is the order of arrival.
        fresh.sort_by_key(|base| (name_seconds(base), *base));
        if u32::try_from(fresh.len())
            .ok()
            .and_then(|count| self.next.checked_add(count))
            .is_none()
        {
            *self = Self {
                validity: self.validity.wrapping_add(1).max(1),
                next: 1,
                bases: BTreeMap::new(),
            };
            return self.adopt(found);
        }
        let fresh: Vec<String> = fresh.into_iter().cloned().collect();
        let added = !fresh.is_empty();
        for base in fresh {
            self.bases.insert(self.next, base);
            self.next += 1;
        }
        added || forgotten
    }

    fn store(&self, mailbox: &Mailbox, lock: &Lock) -> io::Result<()> {
        let mut text = format!("uidlist 1 {} {}\n", self.validity, self.next);
        for (uid, base) in &self.bases {
            text.push_str(&format!("{uid} {base}\n"));
        }
        let draft = mailbox.path().join("tmp").join(unique(mailbox.server()));
        let mut file = File::create_new(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        lock.confirm()
            .and_then(|()| fs::rename(&draft, mailbox.path().join(FILE)))
            .inspect_err(|_| {
                let _ = fs::remove_file(&draft);
            })?;
        sync_directory(mailbox.path())
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::MailboxName;
    use super::super::maildir::Store;
    use super::*;

    fn mailbox(root: &tempfile::TempDir, server: &str) -> Mailbox {
        let store = Store::open(root.path(), server).unwrap();
        store
            .mailbox_or_new(&MailboxName::parse("somebody").unwrap())
            .unwrap()
    }

    fn deliver(mailbox: &Mailbox, text: &str) {
        let mut draft = mailbox.draft().unwrap();
        draft.append(text.as_bytes()).unwrap();
        draft.commit().unwrap();
    }

    #[test]
    fn numbers_are_stable_across_servers_flags_and_removals() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (mailbox(&root, "serv1"), mailbox(&root, "serv2"));
        let empty = one.list().unwrap();
        for text in ["a\r\n", "b\r\n", "c\r\n"] {
            deliver(&one, text);
        }
        let listing = two.list().unwrap();
        assert_eq!(listing.uid_validity, empty.uid_validity);
        assert_eq!(
            listing
                .entries
                .iter()
                .map(|entry| entry.uid)
                .collect::<Vec<_>>(),
            [1, 2, 3]
        );

        let mut locked = one.locked().unwrap();
        assert_eq!(locked.take_fresh().unwrap(), [1, 2, 3]);
        locked
            .change_flags(&[2], |flags| flags.with(Flags::SEEN))
            .unwrap();
        drop(locked);
        assert_eq!(
            two.read_entry(&listing.entries[1]).unwrap().unwrap(),
            b"b\r\n"
        );
        assert_eq!(two.remove(&[3]).unwrap(), [3]);
        assert_eq!(one.read_entry(&listing.entries[2]).unwrap(), None);

        deliver(&two, "d\r\n");
        let listing = one.list().unwrap();
        assert_eq!(
            listing
                .entries
                .iter()
                .map(|entry| entry.uid)
                .collect::<Vec<_>>(),
            [1, 2, 4]
        );
        assert_eq!(listing.uid_next, 5);
        assert!(listing.entries[1].found.flags.has(Flags::SEEN));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_refused_whole() {
        for bad in [
            "",
            "uidlist 1 5 3",
            "uidlist 2 5 3\n",
            "uidlist 1 5 3\n1 a\n3 b\n",
            "uidlist 1 5 3\n1 a\n1 b\n",
            "uidlist 1 0 1\n",
            "uidlist 1 5 3\nx\n",
        ] {
            assert_eq!(Numbers::parse(bad), None, "{bad:?}");
        }
        assert!(Numbers::parse("uidlist 1 5 3\n2 a\n").is_some());
    }

    #[test]
    fn running_out_of_numbers_starts_over_under_a_new_validity() {
        let root = tempfile::tempdir().unwrap();
        let one = mailbox(&root, "serv1");
        fs::write(one.path().join(FILE), format!("uidlist 1 7 {}\n", u32::MAX)).unwrap();
        deliver(&one, "a\r\n");
        let listing = one.list().unwrap();
        assert_eq!((listing.uid_validity, listing.entries[0].uid), (8, 1));
    }
}
