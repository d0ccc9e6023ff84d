//! The receiving side of SMTP (RFC 5321) with SIZE (RFC 1870), PIPELINING (RFC 2920) and 8BITMIME (RFC 6152).
//!
//! Invariant: `250` answers the end of DATA only after the mail is durable in every recipient's mailbox.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::address::{MailboxName, Refusal, recipient};
use super::date::{rfc5322, since_epoch};
use super::maildir::{Draft, MESSAGE_BYTES_MAX};
use super::server::Shared;
use super::wire::{Line, Wire, WireError};

/// A client that sends no command for this long is gone (RFC 5321 §4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The whole of a mail must come within this time (RFC 5321 §4.5.3.2.6 allows 10 minutes for its end alone).
const DATA_MAX: Duration = Duration::from_secs(600);
/// Recipients of one mail: the least that RFC 5321 §4.5.3.1.8 lets a server take.
const RECIPIENTS_MAX: usize = 100;
/// Commands that were not understood before the session ends: whoever sends these speaks another protocol.
const MISTAKES_MAX: u32 = 20;
/// What is read of a mail that is too large, in search of its end.
const DISCARDED_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX;
/// Longest name in HELO that is repeated in the Received header: that of a domain (RFC 5321 §4.5.3.1.2).
const HELO_BYTES_MAX: usize = 255;

/// Serves one client until it quits, breaks off or idles.
pub(crate) fn session(mut wire: Wire, peer: SocketAddr, shared: &Shared) -> Result<(), WireError> {
    wire.send(format!("220 {} ESMTP small mail server\r\n", shared.name).as_bytes())?;
    let mut session = Session {
        shared,
        peer,
        helo: None,
        extended: false,
        mail: None,
        mistakes: 0,
    };
    loop {
        let reply = match wire.line(Instant::now() + IDLE_MAX) {
            Ok(line) => match session.command(&line.text()) {
                Step::Reply(reply) => reply,
                Step::Mistake(reply) => session.mistake(reply),
                Step::Data => {
                    wire.send(b"354 end with <CRLF>.<CRLF>\r\n")?;
                    session.data(&mut wire)?
                }
                Step::Quit => {
                    return wire.send(format!("221 {} closing\r\n", shared.name).as_bytes());
                }
            },
            Err(WireError::LineTooLong) => session.mistake("500 line too long".to_owned()),
            Err(WireError::Deadline) => {
                return wire.send(format!("421 {} idle for too long\r\n", shared.name).as_bytes());
            }
            Err(error) => return Err(error),
        };
        wire.send(reply.as_bytes())?;
        wire.send(b"\r\n")?;
        if session.mistakes > MISTAKES_MAX {
            return wire.send(format!("421 {} too many errors\r\n", shared.name).as_bytes());
        }
    }
}

enum Step {
    /// Without the last CRLF.
    Reply(String),
    Mistake(String),
    Data,
    Quit,
}

struct Session<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    helo: Option<String>,
    extended: bool,
    mail: Option<Mail>,
    mistakes: u32,
}

/// A mail transaction (RFC 5321 §3.3).
struct Mail {
    from: String,
    to: Vec<MailboxName>,
}

impl Session<'_> {
    fn command(&mut self, line: &str) -> Step {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => self.hello(argument, true),
            "HELO" => self.hello(argument, false),
            "MAIL" => self.mail(argument),
            "RCPT" => self.recipient(argument),
            "DATA" => match &self.mail {
                None => Step::Mistake("503 MAIL first".to_owned()),
                Some(mail) if mail.to.is_empty() => {
                    Step::Mistake("554 no valid recipients".to_owned())
                }
                Some(_) => Step::Data,
            },
            "RSET" => {
                self.mail = None;
                Step::Reply("250 reset".to_owned())
            }
            "NOOP" => Step::Reply("250 ok".to_owned()),
            // Whether a mailbox exists is not told (RFC 5321 §7.3).
            "VRFY" => Step::Reply("252 send some mail and see".to_owned()),
            "QUIT" => Step::Quit,
            "EXPN" | "HELP" | "TURN" | "ETRN" | "AUTH" | "STARTTLS" | "BDAT" => {
                Step::Mistake("502 command not implemented".to_owned())
            }
            _ => Step::Mistake("500 command not recognised".to_owned()),
        }
    }

    fn mistake(&mut self, reply: String) -> String {
        self.mistakes += 1;
        reply
    }

    fn hello(&mut self, name: &str, extended: bool) -> Step {
        let clean = |c: char| c.is_ascii_graphic() && !"()<>\\".contains(c);
        if name.is_empty() || name.len() > HELO_BYTES_MAX || !name.chars().all(clean) {
            return Step::Mistake("501 a host name, please".to_owned());
        }
        self.helo = Some(name.to_owned());
        self.extended = extended;
        self.mail = None;
        let own = &self.shared.name;
        Step::Reply(if extended {
            format!(
                "250-{own} greets {name}\r\n250-SIZE {MESSAGE_BYTES_MAX}\r\n250-PIPELINING\r\n250 8BITMIME"
            )
        } else {
            format!("250 {own}")
        })
    }

    fn mail(&mut self, argument: &str) -> Step {
        if self.helo.is_none() {
            return Step::Mistake("503 EHLO first".to_owned());
        }
        if self.mail.is_some() {
            return Step::Mistake("503 one mail at a time".to_owned());
        }
        let Some((from, parameters)) = path(argument, "FROM:") else {
            return Step::Mistake("501 syntax: MAIL FROM:<address>".to_owned());
        };
        for parameter in parameters.split_whitespace() {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key.to_ascii_uppercase().as_str() {
                "SIZE" => match value.parse::<u64>() {
                    Ok(size) if size <= MESSAGE_BYTES_MAX => {}
                    Ok(_) => return Step::Reply(too_large()),
                    Err(_) => return Step::Mistake("501 SIZE wants a number".to_owned()),
                },
                "BODY"
                    if value.eq_ignore_ascii_case("8BITMIME")
                        || value.eq_ignore_ascii_case("7BIT") => {}
                _ => return Step::Mistake("555 parameter not known".to_owned()),
            }
        }
        self.mail = Some(Mail {
            from: from.to_owned(),
            to: Vec::new(),
        });
        Step::Reply("250 sender ok".to_owned())
    }

    fn recipient(&mut self, argument: &str) -> Step {
        let Some(mail) = &mut self.mail else {
            return Step::Mistake("503 MAIL first".to_owned());
        };
        let Some((to, parameters)) = path(argument, "TO:") else {
            return Step::Mistake("501 syntax: RCPT TO:<address>".to_owned());
        };
        if !parameters.is_empty() {
            return Step::Mistake("555 parameter not known".to_owned());
        }
        if mail.to.len() >= RECIPIENTS_MAX {
            return Step::Reply("452 too many recipients".to_owned());
        }
        match recipient(to, &self.shared.domains) {
            Ok(name) => {
                if !mail.to.contains(&name) {
                    mail.to.push(name);
                }
                Step::Reply("250 recipient ok".to_owned())
            }
            Err(Refusal::Syntax) => Step::Mistake("501 syntax: RCPT TO:<user@domain>".to_owned()),
            Err(Refusal::Domain) => {
                Step::Mistake("550 not a domain of ours, and nothing is relayed".to_owned())
            }
            Err(Refusal::Mailbox) => Step::Mistake("550 not a name of a mailbox".to_owned()),
        }
    }

    /// Takes the mail up to its final dot and answers it. The transaction ends in any case.
    fn data(&mut self, wire: &mut Wire) -> Result<String, WireError> {
        let Some(mail) = self.mail.take() else {
            return Ok("503 MAIL first".to_owned());
        };
        // What goes wrong is told after the final dot: until then the client only sends.
        let mut taken = self.begin(&mail).map_err(storage_refusal);
        let by = Instant::now() + DATA_MAX;
        let (mut size, mut seen) = (0_u64, 0_u64);
        loop {
            let line = match wire.line(by.min(Instant::now() + IDLE_MAX)) {
                Ok(line) => line,
                Err(WireError::LineTooLong) => {
                    taken = Err("554 a line of the mail is too long".to_owned());
                    continue;
                }
                Err(WireError::Deadline) => {
                    wire.send(
                        format!("421 {} the mail took too long\r\n", self.shared.name).as_bytes(),
                    )?;
                    return Err(WireError::Deadline);
                }
                Err(error) => return Err(error),
            };
            if line.bytes == b"." && !line.bare {
                break;
            }
            let text = unstuffed(&line);
            seen += line.bytes.len() as u64 + 2;
            size += text.len() as u64 + 2;
            if size > MESSAGE_BYTES_MAX {
                taken = Err(too_large());
            }
            if seen > DISCARDED_BYTES_MAX {
                wire.send(
                    format!("421 {} the mail does not end\r\n", self.shared.name).as_bytes(),
                )?;
                return Err(WireError::LineEndless);
            }
            if let Ok(draft) = &mut taken
                && let Err(error) = draft.append(text).and_then(|()| draft.append(b"\r\n"))
            {
                taken = Err(storage_refusal(error));
            }
        }
        Ok(
            match taken.and_then(|draft| self.commit(draft, &mail).map_err(storage_refusal)) {
                Ok(id) => format!("250 stored by {} as {id}", self.shared.name),
                Err(refusal) => refusal,
            },
        )
    }

    fn begin(&self, mail: &Mail) -> io::Result<Draft> {
        let first = mail
            .to
            .first()
            .ok_or_else(|| io::Error::other("no recipient"))?;
        let mut draft = self.shared.store.mailbox_or_new(first)?.draft()?;
        let header = format!(
            "Return-Path: <{from}>\r\nReceived: from {helo} ([{peer}])\r\n\tby {own} with {with} id {id};\r\n\t{date}\r\n",
            from = mail.from,
            helo = self.helo.as_deref().unwrap_or("unknown"),
            peer = self.peer.ip(),
            own = self.shared.name,
            with = if self.extended { "ESMTP" } else { "SMTP" },
            id = draft.unique(),
            date = rfc5322(since_epoch(SystemTime::now()).as_secs()),
        );
        draft.append(header.as_bytes())?;
        Ok(draft)
    }

    /// Stores one copy per recipient. If a later one fails, the client is told to try again, and an earlier
    /// recipient gets the mail twice: that is how SMTP trades (RFC 5321 §6.1).
    fn commit(&self, mut draft: Draft, mail: &Mail) -> io::Result<String> {
        let id = draft.unique().to_owned();
        let mut copies = Vec::new();
        for name in mail.to.iter().skip(1) {
            copies.push(draft.copy_to(&self.shared.store.mailbox_or_new(name)?)?);
        }
        draft.commit()?;
        copies.into_iter().try_for_each(Draft::commit)?;
        Ok(id)
    }
}

/// `FROM:<address> parameters` taken apart. Spaces after the colon are tolerated, as everybody does.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (word, rest) = argument.split_at_checked(keyword.len())?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (address, parameters) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    // Source routes are to be ignored (RFC 5321 §4.1.1.3).
    let address = match address.strip_prefix('@') {
        Some(routed) => routed.split_once(':')?.1,
        None => address,
    };
    // It is repeated in a header line: nothing but visible characters.
    let visible = address.chars().all(|c| c.is_ascii_graphic() && c != '<');
    (visible && (parameters.is_empty() || parameters.starts_with(' ')))
        .then(|| (address, parameters.trim()))
}

/// The line as it is stored: the dot that the client put before a dot is taken off (RFC 5321 §4.5.2). A line that
/// ends in LF alone was not seen as a line by the client's stuffing, and never ends the mail.
fn unstuffed(line: &Line) -> &[u8] {
    if line.bare {
        &line.bytes
    } else {
        line.bytes.strip_prefix(b".").unwrap_or(&line.bytes)
    }
}

fn too_large() -> String {
    format!("552 the mail is larger than {MESSAGE_BYTES_MAX} bytes")
}

fn storage_refusal(error: io::Error) -> String {
    let text: String = error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    format!("451 cannot store the mail: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(path("FROM:<a@b> SIZE=1", "FROM:"), Some(("a@b", "SIZE=1")));
        assert_eq!(path("to: <@x,@y:a@b>", "TO:"), Some(("a@b", "")));
        assert_eq!(path("FROM:<>", "FROM:"), Some(("", "")));
        for bad in [
            "",
            "FROM:",
            "FROM:a@b",
            "FROM:<a@b",
            "FROM:<a b>",
            "FROM:<a>x",
            "FROM:<@x>",
            "FRÖM:<a>",
            "TO:<a\r>",
        ] {
            assert_eq!(path(bad, "FROM:"), None, "{bad:?}");
        }
    }
}
