//! One IMAP connection: its states (RFC 3501 §3) and what each command does.

use std::io;
use std::time::{Duration, Instant};

use super::super::address::MailboxName;
use super::super::flags::Flags;
use super::super::maildir::Mailbox;
use super::super::server::Shared;
use super::super::wire::{Wire, WireError};
use super::command::{Account, Action, Change, Command, Item, StatusItem};
use super::cursor::{Set, announced_literal};
use super::fetch;
use super::parse::parse;
use super::search::Candidate;
use super::selected::Selected;

/// The least autologout time RFC 3501 §5.4 allows; also the longest IDLE (RFC 2177).
const IDLE_MAX: Duration = Duration::from_secs(1800);
/// How often IDLE looks for new mail: shared storage tells nobody of changes.
const IDLE_POLL: Duration = Duration::from_millis(200);
/// Bytes of all literals and lines of one command: names, passwords and search texts are short.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Commands that were not understood before the session ends.
const MISTAKES_MAX: u32 = 20;

const CAPABILITIES: &str = "IMAP4rev1 IDLE UNSELECT LITERAL+";

/// Serves one client until it logs out, breaks off or idles.
pub(crate) fn session(wire: Wire, shared: &Shared) -> Result<(), WireError> {
    let mut session = Session {
        wire,
        shared,
        mailbox: None,
        selected: None,
    };
    session.say(&format!(
        "* OK [CAPABILITY {CAPABILITIES}] {} IMAP small mail server",
        shared.name
    ))?;
    let mut mistakes = 0;
    while mistakes <= MISTAKES_MAX {
        let line = match session.command_line() {
            Ok(Ok(line)) => line,
            Ok(Err(refusal)) => {
                mistakes += 1;
                session.say(&refusal)?;
                continue;
            }
            Err(WireError::Deadline) => return session.say("* BYE idle for too long"),
            Err(error) => return Err(error),
        };
        match parse(&line) {
            Ok((tag, Command::Logout)) => {
                session.say(&format!("* BYE {} logging out", shared.name))?;
                return session.say(&format!("{tag} OK bye"));
            }
            Ok((tag, command)) => {
                let done = session.execute(command)?;
                session.say(&format!("{tag} {done}"))?;
            }
            Err((tag, fault)) => {
                mistakes += 1;
                session.say(&format!("{} BAD {fault}", tag.as_deref().unwrap_or("*")))?;
            }
        }
    }
    session.say("* BYE too many errors")
}

struct Session<'a> {
    wire: Wire,
    shared: &'a Shared,
    /// Set once logged in.
    mailbox: Option<Mailbox>,
    selected: Option<Selected>,
}

/// The tagged answer without its tag.
type Done = String;

impl Session<'_> {
    fn say(&mut self, line: &str) -> Result<(), WireError> {
        self.wire.send(format!("{line}\r\n").as_bytes())
    }

    /// A command with its literals, or the answer to one that cannot be taken.
    fn command_line(&mut self) -> Result<Result<Vec<u8>, String>, WireError> {
        let by = Instant::now() + IDLE_MAX;
        let mut command = Vec::new();
        loop {
            match self.wire.line(by) {
                Ok(line) => command.extend(line.bytes),
                Err(WireError::LineTooLong) => return Ok(Err("* BAD line too long".to_owned())),
                Err(error) => return Err(error),
            }
            let Some((length, waits)) = announced_literal(&command) else {
                return Ok(Ok(command));
            };
            if length.saturating_add(command.len()) > COMMAND_BYTES_MAX {
                if !waits {
                    // The literal is on its way and would be read as commands.
                    self.say("* BYE literal too long")?;
                    return Err(WireError::LineEndless);
                }
                let tag = parse(&command).map_or_else(|(tag, _)| tag, |(tag, _)| Some(tag));
                return Ok(Err(format!(
                    "{} BAD literal too long",
                    tag.as_deref().unwrap_or("*")
                )));
            }
            if waits {
                self.say("+ go on")?;
            }
            command.extend_from_slice(b"\r\n");
            command.extend(self.wire.block(length, by)?);
        }
    }

    fn execute(&mut self, command: Command) -> Result<Done, WireError> {
        match command {
            Command::Capability => {
                self.say(&format!("* CAPABILITY {CAPABILITIES}"))?;
                Ok("OK done".to_owned())
            }
            Command::Logout => Ok("OK bye".to_owned()),
            Command::Login { user } => Ok(self.login(&user)),
            Command::NotOffered => Ok("NO this server does not offer it".to_owned()),
            Command::Account(account) => match self.mailbox.clone() {
                None => Ok("BAD log in first".to_owned()),
                Some(mailbox) => self.with_account(account, mailbox),
            },
            Command::Noop if self.selected.is_none() => Ok("OK done".to_owned()),
            Command::Noop => self.with_selected(Action::Check),
            Command::Selected(action) => self.with_selected(action),
        }
    }

    fn login(&mut self, user: &str) -> Done {
        if self.mailbox.is_some() {
            return "BAD already logged in".to_owned();
        }
        let name = MailboxName::parse_login(user, &self.shared.domains);
        self.mailbox = name.and_then(|name| self.shared.store.mailbox(&name));
        match self.mailbox {
            Some(_) => format!(
                "OK [CAPABILITY {CAPABILITIES}] logged in at {}",
                self.shared.name
            ),
            None => "NO [AUTHENTICATIONFAILED] no such mailbox".to_owned(),
        }
    }

    fn with_account(&mut self, command: Account, mailbox: Mailbox) -> Result<Done, WireError> {
        match command {
            Account::Select { name, read_only } => self.select(&name, read_only, mailbox),
            Account::List { answer, pattern } => {
                if pattern.is_empty() {
                    self.say(&format!("* {answer} (\\Noselect) \"/\" \"\""))?;
                } else if glob(&pattern, b"INBOX") {
                    self.say(&format!("* {answer} () \"/\" INBOX"))?;
                }
                Ok("OK done".to_owned())
            }
            Account::Status { name, .. } | Account::Subscribe { name } if !is_inbox(&name) => {
                Ok(no_such_mailbox())
            }
            Account::Subscribe { .. } => Ok("OK there is only one mailbox".to_owned()),
            Account::Status { items, .. } => match Selected::open(mailbox, true) {
                Ok(seen) => {
                    self.say(&format!("* STATUS INBOX ({})", status(&seen, &items)))?;
                    Ok("OK done".to_owned())
                }
                Err(error) => Ok(storage_refusal(&error)),
            },
        }
    }

    fn select(
        &mut self,
        name: &[u8],
        read_only: bool,
        mailbox: Mailbox,
    ) -> Result<Done, WireError> {
        // Also a failed SELECT deselects what was selected before (RFC 3501 §6.3.1).
        self.selected = None;
        if !is_inbox(name) {
            return Ok(no_such_mailbox());
        }
        let selected = match Selected::open(mailbox, read_only) {
            Ok(selected) => selected,
            Err(error) => return Ok(storage_refusal(&error)),
        };
        const FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";
        let mut answer = format!("* FLAGS ({FLAGS})\r\n{}", selected.counts());
        if let Some(at) = selected
            .rows
            .iter()
            .position(|row| !row.entry.found.flags.has(Flags::SEEN))
        {
            answer.push_str(&format!("* OK [UNSEEN {}] first unseen\r\n", at + 1));
        }
        let permanent = if read_only { "" } else { FLAGS };
        answer.push_str(&format!(
            "* OK [PERMANENTFLAGS ({permanent})] these stay\r\n"
        ));
        answer.push_str(&format!(
            "* OK [UIDVALIDITY {}] same on all servers\r\n",
            selected.uid_validity
        ));
        answer.push_str(&format!("* OK [UIDNEXT {}] next", selected.uid_next));
        self.say(&answer)?;
        self.selected = Some(selected);
        Ok(format!(
            "OK [{}] selected",
            if read_only { "READ-ONLY" } else { "READ-WRITE" }
        ))
    }

    /// Runs a command of the selected state; the mailbox stays selected unless the command ends that.
    fn with_selected(&mut self, action: Action) -> Result<Done, WireError> {
        let Some(mut selected) = self.selected.take() else {
            return Ok("BAD select a mailbox first".to_owned());
        };
        let done = match action {
            Action::Close { expunge } => {
                let removed = if expunge && !selected.read_only {
                    selected.expunge().err()
                } else {
                    None
                };
                return Ok(
                    removed.map_or_else(|| "OK closed".to_owned(), |error| storage_refusal(&error))
                );
            }
            Action::Store { .. } | Action::Expunge if selected.read_only => {
                Ok("NO the mailbox is read-only".to_owned())
            }
            Action::Fetch { uid, set, items } => self.fetch(&mut selected, uid, &set, items)?,
            Action::Idle => self.idle(&mut selected)?,
            Action::Store {
                uid,
                set,
                change,
                silent,
                flags,
            } => {
                let places = selected.places(&set, uid);
                match selected.change_flags(&places, change, flags) {
                    Ok(all_there) => {
                        if !silent {
                            self.tell_flags(&selected, &places, uid)?;
                        }
                        Ok(if all_there {
                            "OK stored".to_owned()
                        } else {
                            gone()
                        })
                    }
                    Err(error) => Err(error),
                }
            }
            Action::Search { uid, key } => match search(&selected, uid, &key) {
                Ok(found) => {
                    self.say(&format!("* SEARCH{found}"))?;
                    Ok("OK searched".to_owned())
                }
                Err(error) => Err(error),
            },
            Action::Expunge => match selected
                .expunge()
                .and_then(|gone| Ok(gone + &selected.refresh()?))
            {
                Ok(news) => self.tell(&news)?,
                Err(error) => Err(error),
            },
            Action::Check => match selected.refresh() {
                Ok(news) => self.tell(&news)?,
                Err(error) => Err(error),
            },
        };
        self.selected = Some(selected);
        Ok(done.unwrap_or_else(|error| storage_refusal(&error)))
    }

    fn tell(&mut self, news: &str) -> Result<io::Result<Done>, WireError> {
        self.wire.send(news.as_bytes())?;
        Ok(Ok("OK done".to_owned()))
    }

    fn fetch(
        &mut self,
        selected: &mut Selected,
        uid: bool,
        set: &Set,
        mut items: Vec<Item>,
    ) -> Result<io::Result<Done>, WireError> {
        let places = selected.places(set, uid);
        let mut complete = true;
        if !selected.read_only && items.iter().any(fetch::sets_seen) {
            let unseen = |at: &usize| {
                selected
                    .rows
                    .get(*at)
                    .is_some_and(|row| !row.entry.found.flags.has(Flags::SEEN))
            };
            let unseen: Vec<usize> = places.iter().copied().filter(unseen).collect();
            if !unseen.is_empty() {
                match selected.change_flags(&unseen, Change::Add, Flags::SEEN) {
                    Ok(all_there) => complete &= all_there,
                    Err(error) => return Ok(Err(error)),
                }
                // The change is part of the answer (RFC 3501 §6.4.5).
                if !items.contains(&Item::Flags) {
                    items.push(Item::Flags);
                }
            }
        }
        for place in places {
            let Some(row) = selected.rows.get(place) else {
                continue;
            };
            let wants_text = items.iter().any(fetch::needs_text);
            let text = if wants_text {
                selected.mailbox.read_entry(&row.entry)
            } else {
                Ok(Some(Vec::new()))
            };
            let size = if items.contains(&Item::Size) {
                selected.mailbox.size(&row.entry)
            } else {
                Ok(Some(0))
            };
            match (text, size) {
                (Ok(Some(text)), Ok(Some(size))) => {
                    self.wire
                        .send(&fetch::render(place + 1, row, &items, &text, size))?;
                }
                (Ok(None), _) | (_, Ok(None)) => complete = false,
                (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
            }
        }
        Ok(Ok(if complete {
            "OK fetched".to_owned()
        } else {
            gone()
        }))
    }

    fn tell_flags(
        &mut self,
        selected: &Selected,
        places: &[usize],
        uid: bool,
    ) -> Result<(), WireError> {
        let items = if uid {
            vec![Item::Uid, Item::Flags]
        } else {
            vec![Item::Flags]
        };
        for place in places {
            if let Some(row) = selected.rows.get(*place) {
                self.wire
                    .send(&fetch::render(place + 1, row, &items, &[], 0))?;
            }
        }
        Ok(())
    }

    /// Tells of changes as they come until the client says DONE (RFC 2177).
    fn idle(&mut self, selected: &mut Selected) -> Result<io::Result<Done>, WireError> {
        self.say("+ idling")?;
        let by = Instant::now() + IDLE_MAX;
        loop {
            match selected.looks_changed().and_then(|changed| {
                if changed {
                    selected.refresh()
                } else {
                    Ok(String::new())
                }
            }) {
                Ok(news) => self.wire.send(news.as_bytes())?,
                Err(error) => return Ok(Err(error)),
            }
            if self.wire.readable_within(IDLE_POLL)? {
                let line = self.wire.line(by)?;
                let done = line.bytes.eq_ignore_ascii_case(b"DONE");
                return Ok(Ok(if done {
                    "OK idled"
                } else {
                    "BAD only DONE ends IDLE"
                }
                .to_owned()));
            }
            if Instant::now() > by {
                return Err(WireError::Deadline);
            }
        }
    }
}

fn search(selected: &Selected, uid: bool, key: &super::command::Key) -> io::Result<String> {
    let mut found = String::new();
    for (row, number) in selected.rows.iter().zip(1..) {
        let read = |entry: &_| selected.mailbox.read_entry(entry);
        let mut candidate = Candidate {
            number,
            row,
            largest: selected.largest(),
            read,
            text: None,
        };
        if candidate.matches(key)? {
            found.push_str(&format!(" {}", if uid { row.entry.uid } else { number }));
        }
    }
    Ok(found)
}

fn status(seen: &Selected, items: &[StatusItem]) -> String {
    let count = |unseen: bool| {
        let rows = seen.rows.iter();
        rows.filter(|row| {
            if unseen {
                !row.entry.found.flags.has(Flags::SEEN)
            } else {
                row.recent
            }
        })
        .count()
    };
    let one = |item: &StatusItem| match item {
        StatusItem::Messages => format!("MESSAGES {}", seen.rows.len()),
        StatusItem::Recent => format!("RECENT {}", count(false)),
        StatusItem::UidNext => format!("UIDNEXT {}", seen.uid_next),
        StatusItem::UidValidity => format!("UIDVALIDITY {}", seen.uid_validity),
        StatusItem::Unseen => format!("UNSEEN {}", count(true)),
    };
    items.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn is_inbox(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"INBOX")
}

fn no_such_mailbox() -> Done {
    "NO [NONEXISTENT] there is only INBOX".to_owned()
}

fn gone() -> Done {
    "NO [EXPUNGEISSUED] some of the messages are gone".to_owned()
}

fn storage_refusal(error: &io::Error) -> Done {
    let text: String = error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    format!("NO [UNAVAILABLE] {text}")
}

/// Whether `pattern` with the wildcards `*` and `%` means `name`, in any case. Without a hierarchy both mean the same.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    // Where to go back to: after the last wildcard, one more byte of the name swallowed.
    let mut back: Option<(usize, usize)> = None;
    while of < name.len() {
        match (pattern.get(at), name.get(of), back) {
            (Some(b'*' | b'%'), _, _) => {
                back = Some((at + 1, of));
                at += 1;
            }
            (Some(wanted), Some(have), _) if wanted.eq_ignore_ascii_case(have) => {
                at += 1;
                of += 1;
            }
            (_, _, Some((after, swallowed))) => {
                back = Some((after, swallowed + 1));
                at = after;
                of = swallowed + 1;
            }
            _ => return false,
        }
    }
    pattern
        .get(at..)
        .unwrap_or_default()
        .iter()
        .all(|byte| b"*%".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for good in ["*", "%", "INBOX", "inbox", "I*X", "**", "IN%BOX", "INBOX*"] {
            assert!(glob(good.as_bytes(), b"INBOX"), "{good}");
        }
        for bad in ["", "IN", "*Y", "INBOXX", "INBOX/*", "x*"] {
            assert!(!glob(bad.as_bytes(), b"INBOX"), "{bad}");
        }
    }
}
