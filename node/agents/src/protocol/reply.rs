//! Replies that begin with three digits: SMTP (RFC 5321 §4.2), FTP (RFC 959 §4.2), NNTP (RFC 3977 §3.2).

use crate::connection::Connection;
use crate::failure::{Failure, Step};

/// How a reply goes on over several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// SMTP: each line has the code, and all but the last a hyphen behind it.
    EachLineMarked,
    /// FTP: what stands between the first line, with a hyphen, and the last, with the same code and without, is free.
    FreeBetween,
    /// NNTP: a reply is one line.
    OneLine,
}

/// The code of a reply, and the line that stands for it in a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    line: Vec<u8>,
}

/// Says `words`, none for a greeting, and reads the reply, which has one of `codes`.
pub(super) async fn ask(
    connection: &mut Connection<'_>,
    step: &Step,
    words: &[u8],
    form: Form,
    codes: &[u16],
) -> Result<Reply, Failure> {
    connection.say(step, words).await?;
    let reply = reply(connection, step, form).await?;
    if codes.contains(&reply.code) {
        Ok(reply)
    } else {
        Err(step.answered(&reply.line))
    }
}

/// Reads one reply whole.
async fn reply(connection: &mut Connection<'_>, step: &Step, form: Form) -> Result<Reply, Failure> {
    let first = connection.line(step).await?;
    let (code, mut last) = parse(&first).ok_or_else(|| step.answered(&first))?;
    while !last && form != Form::OneLine {
        let line = connection.line(step).await?;
        last = match (parse(&line), form) {
            (Some((same, last)), _) if same == code => last,
            (_, Form::FreeBetween) => false,
            (_, Form::EachLineMarked | Form::OneLine) => return Err(step.answered(&line)),
        };
    }
    Ok(Reply { code, line: first })
}

/// Code, and whether the line ends its reply.
fn parse(line: &[u8]) -> Option<(u16, bool)> {
    let [
        hundreds @ b'1'..=b'5',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
        rest @ ..,
    ] = line
    else {
        return None;
    };
    let code = [hundreds, tens, ones]
        .into_iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] | [b' ', ..] => Some((code, true)),
        [b'-', ..] => Some((code, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_three_digits_and_an_end() {
        for (line, parsed) in [
            ("220 hello", Some((220, true))),
            ("220", Some((220, true))),
            ("220-hello", Some((220, false))),
            ("599 ", Some((599, true))),
            ("", None),
            ("22", None),
            ("2200 hello", None),
            ("220hello", None),
            ("620 hello", None),
            ("020 hello", None),
            (" 220 hello", None),
            ("-ERR", None),
        ] {
            assert_eq!(parse(line.as_bytes()), parsed, "{line:?}");
        }
    }
}
