//! Which mails a SEARCH means (RFC 3501 §6.4.4).

use std::io;

use super::super::message::{fields, split};
use super::super::uidlist::Entry;
use super::command::Key;
use super::selected::Row;

const SECONDS_PER_DAY: u64 = 86_400;

/// One mail while keys are tried on it; its text is read at most once, and only if a key needs it.
pub(super) struct Candidate<'a, R> {
    pub(super) number: u32,
    pub(super) row: &'a Row,
    /// The largest message number and UID of the mailbox.
    pub(super) largest: (u32, u32),
    /// Reads a mail; `None` if it is gone.
    pub(super) read: R,
    pub(super) text: Option<Vec<u8>>,
}

impl<R: FnMut(&Entry) -> io::Result<Option<Vec<u8>>>> Candidate<'_, R> {
    pub(super) fn matches(&mut self, key: &Key) -> io::Result<bool> {
        let flags = self.row.entry.found.flags;
        let day = self.row.entry.seconds() / SECONDS_PER_DAY;
        Ok(match key {
            Key::All(keys) => {
                for key in keys {
                    if !self.matches(key)? {
                        return Ok(false);
                    }
                }
                true
            }
            Key::Either(one, other) => self.matches(one)? || self.matches(other)?,
            Key::Not(key) => !self.matches(key)?,
            Key::Has(wanted) => flags.has(*wanted),
            Key::Recent => self.row.recent,
            Key::Numbers(set) => set.has(self.number, self.largest.0),
            Key::Uids(set) => set.has(self.row.entry.uid, self.largest.1),
            Key::Header { name, text } => fields(split(self.text()?).0)
                .any(|field| field.is(name) && contains(field.value().as_bytes(), text)),
            Key::Body(text) => contains(split(self.text()?).1, text),
            Key::Text(text) => contains(self.text()?, text),
            Key::Larger(size) => self.text()?.len() as u64 > u64::from(*size),
            Key::Smaller(size) => (self.text()?.len() as u64) < u64::from(*size),
            Key::Before(bound) => day < *bound,
            Key::On(bound) => day == *bound,
            Key::Since(bound) => day >= *bound,
        })
    }

    fn text(&mut self) -> io::Result<&[u8]> {
        if self.text.is_none() {
            // A mail that was just removed elsewhere matches like an empty one, until the client is told.
            self.text = Some((self.read)(&self.row.entry)?.unwrap_or_default());
        }
        Ok(self.text.as_deref().unwrap_or_default())
    }
}

/// Whether `part` is in `whole`, in any ASCII case; the empty part is in everything.
fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty()
        || whole
            .windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_any_case() {
        assert!(contains(b"Hello World", b"lo wo"));
        assert!(contains(b"", b"") && !contains(b"", b"x"));
        assert!(!contains(b"abc", b"abcd"));
    }
}
