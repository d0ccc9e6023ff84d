//! POP3 (RFC 1939) with CAPA (RFC 2449).
//!
//! Any password opens an existing mailbox. The maildrop is not locked for the session (RFC 1939 §3 wants that):
//! several servers share it, and a lock would outlive a killed one. A session sees the mails of its beginning.

use std::time::{Duration, Instant};

use super::address::MailboxName;
use super::maildir::Mailbox;
use super::message::split;
use super::server::Shared;
use super::uidlist::Listing;
use super::wire::{Wire, WireError};

/// The least autologout time RFC 1939 §3 allows.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Commands that were not understood before the session ends.
const MISTAKES_MAX: u32 = 20;

/// Serves one client until it quits, breaks off or idles.
pub(crate) fn session(mut wire: Wire, shared: &Shared) -> Result<(), WireError> {
    wire.send(format!("+OK {} POP3 small mail server\r\n", shared.name).as_bytes())?;
    let mut session = Session {
        shared,
        user: None,
        drop: None,
    };
    let mut mistakes = 0;
    loop {
        let answer = match wire.line(Instant::now() + IDLE_MAX) {
            Ok(line) => session.command(&line.text()),
            Err(WireError::LineTooLong) => Err("line too long".to_owned()),
            Err(error) => return Err(error),
        };
        let answer = match answer {
            Ok(Answer::Quit(text)) => return wire.send(text.as_bytes()),
            Ok(Answer::Line(text)) => format!("+OK {text}\r\n").into_bytes(),
            Ok(Answer::Block(text, block)) => {
                [format!("+OK {text}\r\n").as_bytes(), &stuffed(&block)].concat()
            }
            Err(refusal) => {
                mistakes += 1;
                format!("-ERR {refusal}\r\n").into_bytes()
            }
        };
        wire.send(&answer)?;
        if mistakes > MISTAKES_MAX {
            return Ok(());
        }
    }
}

enum Answer {
    /// What follows `+OK`.
    Line(String),
    /// What follows `+OK`, and a multi-line block.
    Block(String, Vec<u8>),
    /// The last words.
    Quit(String),
}

struct Session<'a> {
    shared: &'a Shared,
    user: Option<MailboxName>,
    drop: Option<Maildrop>,
}

/// The mails of a logged-in session (RFC 1939 §5).
struct Maildrop {
    mailbox: Mailbox,
    listing: Listing,
    /// In the order of the listing.
    sizes: Vec<u64>,
    deleted: Vec<bool>,
}

impl Session<'_> {
    fn command(&mut self, line: &str) -> Result<Answer, String> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let verb = verb.to_ascii_uppercase();
        match (verb.as_str(), &mut self.drop) {
            ("CAPA", _) => Ok(Answer::Block(
                "capabilities".to_owned(),
                b"USER\r\nTOP\r\nUIDL\r\nPIPELINING\r\n".to_vec(),
            )),
            ("QUIT", None) => Ok(Answer::Quit(format!("+OK {} bye\r\n", self.shared.name))),
            ("QUIT", Some(drop)) => Ok(Answer::Quit(drop.update(&self.shared.name))),
            ("USER", None) => {
                // Whether the mailbox exists is told after PASS.
                self.user = MailboxName::parse_login(argument.trim(), &self.shared.domains);
                Ok(Answer::Line("password, please".to_owned()))
            }
            ("PASS", None) => {
                let drop = self.open()?;
                let text = format!("{} messages", drop.sizes.len());
                self.drop = Some(drop);
                Ok(Answer::Line(text))
            }
            (verb, Some(drop)) => drop.command(verb, argument),
            (_, None) => Err("not now: USER, PASS, CAPA or QUIT".to_owned()),
        }
    }

    fn open(&mut self) -> Result<Maildrop, String> {
        let user = self.user.take();
        let mailbox = user
            .and_then(|user| self.shared.store.mailbox(&user))
            .ok_or("[AUTH] no such mailbox")?;
        let mut listing = mailbox
            .list()
            .map_err(|error| format!("[SYS/TEMP] {error}"))?;
        let mut sizes = Vec::with_capacity(listing.entries.len());
        let mut kept = Vec::with_capacity(listing.entries.len());
        for entry in listing.entries {
            if let Some(size) = mailbox
                .size(&entry)
                .map_err(|error| format!("[SYS/TEMP] {error}"))?
            {
                sizes.push(size);
                kept.push(entry);
            }
        }
        listing.entries = kept;
        let deleted = vec![false; sizes.len()];
        Ok(Maildrop {
            mailbox,
            listing,
            sizes,
            deleted,
        })
    }
}

impl Maildrop {
    fn command(&mut self, verb: &str, argument: &str) -> Result<Answer, String> {
        let mut words = argument.split_whitespace();
        match verb {
            "NOOP" => Ok(Answer::Line(String::new())),
            "STAT" => {
                let left = self.numbers();
                let bytes: u64 = left
                    .iter()
                    .filter_map(|number| self.sizes.get(number - 1))
                    .sum();
                Ok(Answer::Line(format!("{} {bytes}", left.len())))
            }
            "LIST" => self.scan(words.next(), |drop, at| {
                drop.sizes.get(at).map(u64::to_string)
            }),
            // The UIDs of a mailbox are the same on every server and never used again.
            "UIDL" => self.scan(words.next(), |drop, at| {
                Some(format!(
                    "{:08x}{:08x}",
                    drop.listing.uid_validity,
                    drop.listing.entries.get(at)?.uid
                ))
            }),
            "RETR" => {
                let mail = self.mail(words.next())?;
                Ok(Answer::Block(format!("{} octets", mail.len()), mail))
            }
            "TOP" => {
                let mail = self.mail(words.next())?;
                let lines: usize = words
                    .next()
                    .and_then(|word| word.parse().ok())
                    .ok_or("syntax: TOP message lines")?;
                let (header, body) = split(&mail);
                let top: Vec<&[u8]> = body
                    .split_inclusive(|byte| *byte == b'\n')
                    .take(lines)
                    .collect();
                Ok(Answer::Block(
                    "top of message".to_owned(),
                    [header, &top.concat()].concat(),
                ))
            }
            "DELE" => {
                let at = self.index(words.next())?;
                if let Some(deleted) = self.deleted.get_mut(at) {
                    *deleted = true;
                }
                Ok(Answer::Line("deleted at QUIT".to_owned()))
            }
            "RSET" => {
                self.deleted.fill(false);
                Ok(Answer::Line("nothing is deleted".to_owned()))
            }
            _ => Err("command not known".to_owned()),
        }
    }

    /// The numbers of the mails that are not marked as deleted.
    fn numbers(&self) -> Vec<usize> {
        self.deleted
            .iter()
            .zip(1..)
            .filter(|(deleted, _)| !**deleted)
            .map(|(_, number)| number)
            .collect()
    }

    fn index(&self, word: Option<&str>) -> Result<usize, String> {
        let number: usize = word
            .and_then(|word| word.parse().ok())
            .ok_or("a message number, please")?;
        let at = number.checked_sub(1).ok_or("no such message")?;
        match self.deleted.get(at) {
            Some(false) => Ok(at),
            Some(true) => Err("the message is deleted".to_owned()),
            None => Err("no such message".to_owned()),
        }
    }

    fn scan(
        &self,
        word: Option<&str>,
        of: impl Fn(&Self, usize) -> Option<String>,
    ) -> Result<Answer, String> {
        if word.is_some() {
            let at = self.index(word)?;
            return Ok(Answer::Line(format!(
                "{} {}",
                at + 1,
                of(self, at).unwrap_or_default()
            )));
        }
        let mut block = String::new();
        for number in self.numbers() {
            block.push_str(&format!(
                "{number} {}\r\n",
                of(self, number - 1).unwrap_or_default()
            ));
        }
        Ok(Answer::Block("scan listing".to_owned(), block.into_bytes()))
    }

    fn mail(&self, word: Option<&str>) -> Result<Vec<u8>, String> {
        let entry = self
            .listing
            .entries
            .get(self.index(word)?)
            .ok_or("no such message")?;
        let mail = self
            .mailbox
            .read_entry(entry)
            .map_err(|error| format!("[SYS/TEMP] {error}"))?;
        mail.ok_or_else(|| "the message was removed by another session".to_owned())
    }

    /// The UPDATE state (RFC 1939 §6).
    fn update(&self, server: &str) -> String {
        let marked = self
            .listing
            .entries
            .iter()
            .zip(&self.deleted)
            .filter(|(_, deleted)| **deleted);
        let uids: Vec<u32> = marked.map(|(entry, _)| entry.uid).collect();
        if uids.is_empty() {
            return format!("+OK {server} bye\r\n");
        }
        match self.mailbox.remove(&uids) {
            // One that another session removed is gone as well.
            Ok(_) => format!("+OK {server} bye, {} deleted\r\n", uids.len()),
            Err(error) => {
                format!("-ERR [SYS/TEMP] some deleted messages are not removed: {error}\r\n")
            }
        }
    }
}

/// A multi-line block with its dots stuffed and its end (RFC 1939 §3).
fn stuffed(block: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(block.len() + 64);
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            whole.push(b'.');
        }
        whole.extend_from_slice(line);
    }
    if !whole.is_empty() && !whole.ends_with(b"\r\n") {
        whole.extend_from_slice(b"\r\n");
    }
    whole.extend_from_slice(b".\r\n");
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_stuffed_and_ended() {
        assert_eq!(stuffed(b""), b".\r\n");
        assert_eq!(stuffed(b".\r\n..a\r\nb"), b"..\r\n...a\r\nb\r\n.\r\n");
    }
}
