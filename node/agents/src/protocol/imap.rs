//! IMAP: greeting, CAPABILITY, LOGOUT (RFC 9051), perhaps STARTTLS between.

use crate::agent::Target;
use crate::connection::{Connection, Goodbye};
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

pub(super) const GOODBYE: Goodbye = Goodbye {
    words: b"a9 LOGOUT\r\n",
    last_line: Some(b"a9 "),
};

const GREETING: Step = Step::new("greeting", "* OK or * PREAUTH");
const STARTTLS: Step = Step::new("STARTTLS", "OK");
const CAPABILITY: Step = Step::new("CAPABILITY", "a list of capabilities and OK");

/// A line by its first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// `* OK`, `* PREAUTH`: one of the two greetings that let a client in.
    Welcome,
    /// `* BYE`: the server ends the connection.
    Bye,
    /// `* CAPABILITY`.
    Capabilities,
    /// Anything else without a tag of ours.
    Other,
    /// Our tag, and whether the command was carried out.
    Done(bool),
}

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    let greeting = connection.line(&GREETING).await?;
    if parse(&greeting, b"") != Line::Welcome {
        return Err(GREETING.answered(&greeting));
    }
    if options.tls == Tls::StartTls {
        command(connection, &STARTTLS, "a1").await?;
        connection.encrypt(target, options).await?;
    }
    let answer = command(connection, &CAPABILITY, "a2").await?;
    if answer.listed {
        Ok(())
    } else {
        Err(CAPABILITY.answered(&answer.last))
    }
}

struct Answer {
    /// There was a list of capabilities.
    listed: bool,
    last: Vec<u8>,
}

/// Says the command that its step is named after, and reads up to the line with its tag.
async fn command(
    connection: &mut Connection<'_>,
    step: &Step,
    tag: &str,
) -> Result<Answer, Failure> {
    let words = format!("{tag} {}\r\n", step.name);
    connection.say(step, words.as_bytes()).await?;
    let mut listed = false;
    loop {
        let line = connection.line(step).await?;
        match parse(&line, tag.as_bytes()) {
            Line::Capabilities => listed = true,
            Line::Done(true) => return Ok(Answer { listed, last: line }),
            Line::Done(false) | Line::Bye => return Err(step.answered(&line)),
            Line::Welcome | Line::Other => {}
        }
    }
}

fn parse(line: &[u8], tag: &[u8]) -> Line {
    let mut words = line.split(|byte| *byte == b' ');
    let (first, second) = (words.next().unwrap_or(b""), words.next().unwrap_or(b""));
    let is = |word: &str| second.eq_ignore_ascii_case(word.as_bytes());
    if first == b"*" {
        if is("OK") || is("PREAUTH") {
            Line::Welcome
        } else if is("BYE") {
            Line::Bye
        } else if is("CAPABILITY") {
            Line::Capabilities
        } else {
            Line::Other
        }
    } else if !tag.is_empty() && first.eq_ignore_ascii_case(tag) {
        Line::Done(is("OK"))
    } else {
        Line::Other
    }
}
