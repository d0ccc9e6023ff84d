//! The mailbox as one session sees it: message numbers stay as they are until the client is told otherwise.

use std::collections::BTreeMap;
use std::io;

use super::super::flags::Flags;
use super::super::maildir::Mailbox;
use super::super::uidlist::{Entry, Listing};
use super::command::Change;
use super::cursor::Set;

/// One mail; its message number is its place, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) entry: Entry,
    /// This session was the first to see it (RFC 3501 §2.3.2).
    pub(super) recent: bool,
}

impl Row {
    pub(super) fn flag_names(&self) -> String {
        let names = self.entry.found.flags.names();
        match (self.recent, names.is_empty()) {
            (false, _) => names,
            (true, true) => "\\Recent".to_owned(),
            (true, false) => format!("{names} \\Recent"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Selected {
    pub(super) mailbox: Mailbox,
    pub(super) read_only: bool,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) rows: Vec<Row>,
    fingerprint: u64,
}

impl Selected {
    pub(super) fn open(mailbox: Mailbox, read_only: bool) -> io::Result<Self> {
        let fingerprint = mailbox.fingerprint()?;
        let (listing, recent) = look(&mailbox, read_only)?;
        let rows = listing
            .entries
            .into_iter()
            .map(|entry| Row {
                recent: recent.contains(&entry.uid),
                entry,
            })
            .collect();
        let (uid_validity, uid_next) = (listing.uid_validity, listing.uid_next);
        Ok(Self {
            mailbox,
            read_only,
            uid_validity,
            uid_next,
            rows,
            fingerprint,
        })
    }

    /// Looks at the mailbox again and says what changed (RFC 3501 §7.3): EXPUNGE, FETCH, EXISTS, RECENT.
    pub(super) fn refresh(&mut self) -> io::Result<String> {
        let fingerprint = self.mailbox.fingerprint()?;
        let (listing, recent) = look(&self.mailbox, self.read_only)?;
        if listing.uid_validity != self.uid_validity {
            return Err(io::Error::other("the mailbox was numbered anew"));
        }
        self.fingerprint = fingerprint;
        self.uid_next = listing.uid_next;
        let mut entries: BTreeMap<u32, Entry> = listing
            .entries
            .into_iter()
            .map(|entry| (entry.uid, entry))
            .collect();
        let mut news = self.forget(|uid| !entries.contains_key(&uid));
        for (row, number) in self.rows.iter_mut().zip(1..) {
            let Some(entry) = entries.remove(&row.entry.uid) else {
                continue;
            };
            let changed = entry.found.flags != row.entry.found.flags;
            row.entry = entry;
            if changed {
                news.push_str(&format!(
                    "* {number} FETCH (FLAGS ({}))\r\n",
                    row.flag_names()
                ));
            }
        }
        if !entries.is_empty() {
            self.rows.extend(entries.into_values().map(|entry| Row {
                recent: recent.contains(&entry.uid),
                entry,
            }));
            news.push_str(&self.counts());
        }
        Ok(news)
    }

    /// Whether the mailbox looks different from the last time: cheap, and without its lock.
    pub(super) fn looks_changed(&self) -> io::Result<bool> {
        Ok(self.mailbox.fingerprint()? != self.fingerprint)
    }

    pub(super) fn counts(&self) -> String {
        let recent = self.rows.iter().filter(|row| row.recent).count();
        format!("* {} EXISTS\r\n* {recent} RECENT\r\n", self.rows.len())
    }

    /// The places of the mails in `set`.
    pub(super) fn places(&self, set: &Set, uid: bool) -> Vec<usize> {
        let largest = self.largest();
        let numbered = self.rows.iter().zip(1_u32..).enumerate();
        let chosen = numbered.filter(|(_, (row, number))| {
            if uid {
                set.has(row.entry.uid, largest.1)
            } else {
                set.has(*number, largest.0)
            }
        });
        chosen.map(|(place, _)| place).collect()
    }

    /// The largest message number and the largest UID.
    pub(super) fn largest(&self) -> (u32, u32) {
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        (number, self.rows.last().map_or(0, |row| row.entry.uid))
    }

    /// Changes flags on storage and here. Says whether all the mails were still there.
    pub(super) fn change_flags(
        &mut self,
        places: &[usize],
        change: Change,
        flags: Flags,
    ) -> io::Result<bool> {
        let uids: Vec<u32> = places
            .iter()
            .filter_map(|at| self.rows.get(*at))
            .map(|row| row.entry.uid)
            .collect();
        let mut locked = self.mailbox.locked()?;
        locked.change_flags(&uids, |before| match change {
            Change::Replace => flags,
            Change::Add => before.with(flags),
            Change::Remove => before.without(flags),
        })?;
        let mut all_there = true;
        for place in places {
            let Some(row) = self.rows.get_mut(*place) else {
                continue;
            };
            match locked
                .listing
                .entries
                .binary_search_by_key(&row.entry.uid, |entry| entry.uid)
            {
                Ok(at) => row.entry.clone_from(&locked.listing.entries[at]),
                Err(_) => all_there = false,
            }
        }
        Ok(all_there)
    }

    /// Removes every mail marked `\Deleted` from the storage and says which numbers went (RFC 3501 §7.4.1).
    pub(super) fn expunge(&mut self) -> io::Result<String> {
        let removed = self
            .mailbox
            .locked()?
            .remove(|entry| entry.found.flags.has(Flags::DELETED))?;
        Ok(self.forget(|uid| removed.contains(&uid)))
    }

    /// Takes rows out, the last first, so that each number told is the right one at that moment.
    fn forget(&mut self, gone: impl Fn(u32) -> bool) -> String {
        let mut news = String::new();
        for at in (0..self.rows.len()).rev() {
            if self.rows.get(at).is_some_and(|row| gone(row.entry.uid)) {
                self.rows.remove(at);
                news.push_str(&format!("* {} EXPUNGE\r\n", at + 1));
            }
        }
        news
    }
}

/// The mailbox under its lock, and which mails nobody has seen. Looking without `read_only` is seeing.
fn look(mailbox: &Mailbox, read_only: bool) -> io::Result<(Listing, Vec<u32>)> {
    let mut locked = mailbox.locked()?;
    let recent = if read_only {
        locked
            .listing
            .entries
            .iter()
            .filter(|entry| entry.found.fresh)
            .map(|entry| entry.uid)
            .collect()
    } else {
        locked.take_fresh()?
    };
    Ok((locked.listing.clone(), recent))
}
