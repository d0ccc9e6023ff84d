//! Small mail clients over a connection the caller opened: send by SMTP, read by POP3 or IMAP.
//!
//! Each call speaks one whole session, ends within its deadline and says which server it reached, as far as the
//! greeting tells (`220 serv1 ...`, `+OK serv1 ...`, `* OK serv1 ...`).

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::maildir::MESSAGE_BYTES_MAX;
use super::message::{field, split, with_crlf};
use super::wire::{Wire, WireError};

/// Answer lines before the one that ends an answer: listings of large mailboxes.
const ANSWER_LINES_MAX: usize = 200_000;

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke, or the deadline passed.
    #[error("{during}: {cause}")]
    Broken {
        /// The command that was being answered.
        during: String,
        /// What broke.
        cause: String,
        /// The deadline passed.
        deadline: bool,
    },
    /// The server said no.
    #[error("{during}: the server refused: {answer}")]
    Refused {
        /// The command that was refused.
        during: String,
        /// The server's words.
        answer: String,
    },
    /// The server speaks something else.
    #[error("{during}: not an answer of the protocol: {answer:?}")]
    Protocol {
        /// The command that was answered so.
        during: String,
        /// The server's words.
        answer: String,
    },
    /// The caller's text would be taken for commands.
    #[error("an address, name or header value holds a line end or another control character")]
    Unsafe,
}

/// A mail to be sent.
#[derive(Clone, Debug)]
pub struct Mail<'a> {
    /// Sender's address.
    pub from: &'a str,
    /// Recipient's address.
    pub to: &'a str,
    /// Subject; clients find the mail by it.
    pub subject: &'a str,
    /// Body; any line ends.
    pub body: &'a str,
}

/// What became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Name in the server's greeting.
    pub server: String,
    /// The server's promise to keep the mail.
    pub answer: String,
}

/// A mail that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Name in the greeting of the server that handed the mail out.
    pub server: String,
    /// Name in the mail's first `Received` header: the server that took it. `None` without such a header.
    pub received_by: Option<String>,
    /// Value of the subject.
    pub subject: String,
    /// The body, with CRLF line ends.
    pub body: Vec<u8>,
}

/// Sends one mail by SMTP.
///
/// # Errors
/// The mail counts as sent only after `Ok`. After [`ClientError::Broken`] at the end of DATA it may have been stored.
pub fn send(stream: TcpStream, deadline: Duration, mail: &Mail<'_>) -> Result<Sent, ClientError> {
    if [mail.from, mail.to, mail.subject]
        .iter()
        .any(|text| text.contains(char::is_control))
    {
        return Err(ClientError::Unsafe);
    }
    let mut talk = Talk::open(stream, deadline)?;
    let greeting = talk.smtp("greeting", None)?;
    let server = word(&greeting, 1);
    talk.smtp("EHLO", Some("EHLO client.my.org"))?;
    talk.smtp("MAIL", Some(&format!("MAIL FROM:<{}>", mail.from)))?;
    talk.smtp("RCPT", Some(&format!("RCPT TO:<{}>", mail.to)))?;
    talk.smtp("DATA", Some("DATA"))?;
    let text = format!(
        "From: <{}>\r\nTo: <{}>\r\nSubject: {}\r\n\r\n{}",
        mail.from, mail.to, mail.subject, mail.body
    );
    let mut stuffed = Vec::new();
    for line in with_crlf(text.into_bytes()).split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.push(b'.');
    talk.say("end of DATA", &stuffed)?;
    let answer = talk.smtp("end of DATA", None)?;
    // The mail is stored: what becomes of QUIT changes nothing.
    let _ = talk.smtp("QUIT", Some("QUIT"));
    Ok(Sent { server, answer })
}

/// Looks by POP3 for the newest mail whose subject is `subject`; `None` if there is none (yet).
///
/// # Errors
/// See [`ClientError`].
pub fn fetch_by_pop3(
    stream: TcpStream,
    deadline: Duration,
    user: &str,
    subject: &str,
) -> Result<Option<Fetched>, ClientError> {
    if user.contains(char::is_control) {
        return Err(ClientError::Unsafe);
    }
    let mut talk = Talk::open(stream, deadline)?;
    let server = word(&talk.pop3("greeting", None)?, 1);
    talk.pop3("USER", Some(&format!("USER {user}")))?;
    talk.pop3("PASS", Some("PASS any"))?;
    talk.pop3("LIST", Some("LIST"))?;
    let numbers: Vec<String> = talk
        .block("LIST")?
        .split(|byte| *byte == b'\n')
        .map(|line| word(&String::from_utf8_lossy(line), 0))
        .filter(|number| !number.is_empty())
        .collect();
    let mut found = None;
    for number in numbers.iter().rev() {
        talk.pop3("TOP", Some(&format!("TOP {number} 0")))?;
        let header = talk.block("TOP")?;
        if field(&header, "Subject").as_deref() == Some(subject) {
            talk.pop3("RETR", Some(&format!("RETR {number}")))?;
            found = Some(talk.block("RETR")?);
            break;
        }
    }
    talk.pop3("QUIT", Some("QUIT"))?;
    Ok(found.map(|mail| fetched(server, &mail)))
}

/// Looks by IMAP for the newest mail whose subject is `subject`; `None` if there is none (yet). Does not mark it as read.
///
/// # Errors
/// See [`ClientError`].
pub fn fetch_by_imap(
    stream: TcpStream,
    deadline: Duration,
    user: &str,
    subject: &str,
) -> Result<Option<Fetched>, ClientError> {
    if [user, subject]
        .iter()
        .any(|text| text.contains(|c: char| c.is_control() || c == '"' || c == '\\'))
    {
        return Err(ClientError::Unsafe);
    }
    let mut talk = Talk::open(stream, deadline)?;
    let greeting = talk.line("greeting")?;
    if !greeting.starts_with("* OK ") {
        return Err(ClientError::Protocol {
            during: "greeting".to_owned(),
            answer: greeting,
        });
    }
    // The name comes after the capabilities in brackets.
    let server = word(
        greeting
            .rsplit("] ")
            .next()
            .unwrap_or_default()
            .trim_start_matches("* OK "),
        0,
    );
    talk.imap("LOGIN", &format!("LOGIN \"{user}\" \"any\""))?;
    talk.imap("EXAMINE", "EXAMINE INBOX")?;
    let found = talk
        .imap("SEARCH", &format!("UID SEARCH SUBJECT \"{subject}\""))?
        .lines;
    let uids = found
        .iter()
        .find_map(|line| line.strip_prefix("* SEARCH"))
        .unwrap_or_default()
        .to_owned();
    let mut mail = None;
    for uid in uids.split_whitespace().rev() {
        let literals = talk
            .imap("FETCH", &format!("UID FETCH {uid} BODY.PEEK[]"))?
            .literals;
        // SEARCH also finds subjects that only contain the wanted one.
        mail = literals
            .into_iter()
            .find(|mail| field(split(mail).0, "Subject").as_deref() == Some(subject));
        if mail.is_some() {
            break;
        }
    }
    talk.imap("LOGOUT", "LOGOUT")?;
    Ok(mail.map(|mail| fetched(server, &mail)))
}

fn fetched(server: String, mail: &[u8]) -> Fetched {
    let (header, body) = split(mail);
    let received = field(header, "Received").unwrap_or_default();
    let received_by = received
        .split_whitespace()
        .skip_while(|word| *word != "by")
        .nth(1)
        .map(str::to_owned);
    Fetched {
        server,
        received_by,
        subject: field(header, "Subject").unwrap_or_default(),
        body: body.to_vec(),
    }
}

fn word(line: &str, at: usize) -> String {
    line.split_whitespace()
        .nth(at)
        .unwrap_or_default()
        .to_owned()
}

/// A session of any of the three protocols, with one deadline for all of it.
struct Talk {
    wire: Wire,
    by: Instant,
}

struct ImapAnswer {
    lines: Vec<String>,
    literals: Vec<Vec<u8>>,
}

impl Talk {
    fn open(stream: TcpStream, deadline: Duration) -> Result<Self, ClientError> {
        let wire = Wire::new(Arc::new(stream)).map_err(|error| broken("greeting", &error))?;
        Ok(Self {
            wire,
            by: Instant::now() + deadline,
        })
    }

    fn say(&mut self, during: &str, line: &[u8]) -> Result<(), ClientError> {
        let line = [line, b"\r\n"].concat();
        self.wire
            .send_by(&line, Some(self.by))
            .map_err(|error| broken(during, &error))
    }

    fn line(&mut self, during: &str) -> Result<String, ClientError> {
        Ok(self
            .wire
            .line(self.by)
            .map_err(|error| broken(during, &error))?
            .text())
    }

    /// The last line of a good answer (RFC 5321 §4.2).
    fn smtp(&mut self, during: &str, command: Option<&str>) -> Result<String, ClientError> {
        if let Some(command) = command {
            self.say(during, command.as_bytes())?;
        }
        for _ in 0..ANSWER_LINES_MAX {
            let answer = self.line(during)?;
            match (answer.as_bytes().first(), answer.as_bytes().get(3)) {
                (Some(b'2' | b'3'), Some(b'-')) => {}
                (Some(b'2' | b'3'), Some(b' ') | None) => return Ok(answer),
                (Some(b'4' | b'5'), _) => {
                    return Err(ClientError::Refused {
                        during: during.to_owned(),
                        answer,
                    });
                }
                _ => {
                    return Err(ClientError::Protocol {
                        during: during.to_owned(),
                        answer,
                    });
                }
            }
        }
        Err(endless(during))
    }

    fn pop3(&mut self, during: &str, command: Option<&str>) -> Result<String, ClientError> {
        if let Some(command) = command {
            self.say(during, command.as_bytes())?;
        }
        let answer = self.line(during)?;
        match answer.split(' ').next() {
            Some("+OK") => Ok(answer),
            Some("-ERR") => Err(ClientError::Refused {
                during: during.to_owned(),
                answer,
            }),
            _ => Err(ClientError::Protocol {
                during: during.to_owned(),
                answer,
            }),
        }
    }

    /// A multi-line block of POP3, unstuffed.
    fn block(&mut self, during: &str) -> Result<Vec<u8>, ClientError> {
        let mut block = Vec::new();
        loop {
            let line = self
                .wire
                .line(self.by)
                .map_err(|error| broken(during, &error))?
                .bytes;
            if line == b"." {
                return Ok(block);
            }
            block.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            block.extend_from_slice(b"\r\n");
            if block.len() as u64 > 2 * MESSAGE_BYTES_MAX {
                return Err(endless(during));
            }
        }
    }

    fn imap(&mut self, during: &str, command: &str) -> Result<ImapAnswer, ClientError> {
        self.say(during, format!("a {command}").as_bytes())?;
        let mut answer = ImapAnswer {
            lines: Vec::new(),
            literals: Vec::new(),
        };
        while answer.lines.len() < ANSWER_LINES_MAX {
            let line = self.line(during)?;
            if let Some(done) = line.strip_prefix("a ") {
                return match done.split(' ').next() {
                    Some("OK") => Ok(answer),
                    Some("NO" | "BAD") => Err(ClientError::Refused {
                        during: during.to_owned(),
                        answer: line,
                    }),
                    _ => Err(ClientError::Protocol {
                        during: during.to_owned(),
                        answer: line,
                    }),
                };
            }
            let literal = line
                .strip_suffix('}')
                .and_then(|line| line.rsplit_once('{'))
                .and_then(|(_, length)| length.parse::<usize>().ok());
            if let Some(length) = literal {
                if length as u64 > 2 * MESSAGE_BYTES_MAX {
                    return Err(endless(during));
                }
                answer.literals.push(
                    self.wire
                        .block(length, self.by)
                        .map_err(|error| broken(during, &error))?,
                );
            }
            answer.lines.push(line);
        }
        Err(endless(during))
    }
}

fn broken(during: &str, error: &WireError) -> ClientError {
    let deadline = matches!(error, WireError::Deadline);
    ClientError::Broken {
        during: during.to_owned(),
        cause: error.to_string(),
        deadline,
    }
}

fn endless(during: &str) -> ClientError {
    ClientError::Protocol {
        during: during.to_owned(),
        answer: "an answer without end".to_owned(),
    }
}
