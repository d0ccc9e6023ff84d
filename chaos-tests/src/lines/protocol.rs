//! The lines of the protocol, read and written.

use std::fmt;
use std::time::Duration;

/// Longest line in bytes, its end included: the longest kind has a token and a number of 20 digits.
pub(super) const LINE_BYTES_MAX: usize = 128;
/// Longest token and longest name of a server.
const NAME_BYTES_MAX: usize = 64;
/// Between two lines: shorter than a millisecond measures the scheduler, longer than a minute measures nothing.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 1..=60_000;

/// A line from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromClient {
    Hello { token: String, interval: Duration },
    Numbered { token: String, number: u64 },
    Bye { token: String, count: u64 },
}

/// A line from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromServer {
    Welcome { server: String },
    Numbered { token: String, number: u64 },
    Seen { number: u64 },
    End { sent: u64, seen: u64 },
}

impl FromClient {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match *words.as_slice() {
            ["HELLO", token, interval] => {
                let interval = number(interval).filter(|ms| INTERVAL_MS.contains(ms))?;
                Some(Self::Hello {
                    token: name(token)?,
                    interval: Duration::from_millis(interval),
                })
            }
            ["C", token, n] => Some(Self::Numbered {
                token: name(token)?,
                number: number(n)?,
            }),
            ["BYE", token, n] => Some(Self::Bye {
                token: name(token)?,
                count: number(n)?,
            }),
            _ => None,
        }
    }
}

impl FromServer {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match *words.as_slice() {
            ["WELCOME", server] => Some(Self::Welcome {
                server: name(server)?,
            }),
            ["S", token, n] => Some(Self::Numbered {
                token: name(token)?,
                number: number(n)?,
            }),
            ["A", n] => Some(Self::Seen { number: number(n)? }),
            ["END", sent, seen] => Some(Self::End {
                sent: number(sent)?,
                seen: number(seen)?,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for FromClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { token, interval } => {
                writeln!(f, "HELLO {token} {}", interval.as_millis())
            }
            Self::Numbered { token, number } => writeln!(f, "C {token} {number}"),
            Self::Bye { token, count } => writeln!(f, "BYE {token} {count}"),
        }
    }
}

impl fmt::Display for FromServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Welcome { server } => writeln!(f, "WELCOME {server}"),
            Self::Numbered { token, number } => writeln!(f, "S {token} {number}"),
            Self::Seen { number } => writeln!(f, "A {number}"),
            Self::End { sent, seen } => writeln!(f, "END {sent} {seen}"),
        }
    }
}

/// Whether `text` can be a token or the name of a server: 1 to 64 of `[A-Za-z0-9._-]`.
pub(super) fn is_name(text: &str) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    fits && text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The interval as the protocol can carry it: whole milliseconds within its bounds.
pub(super) fn interval_in_bounds(interval: Duration) -> Duration {
    let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(ms.clamp(*INTERVAL_MS.start(), *INTERVAL_MS.end()))
}

fn name(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let token = || "c-1".to_owned();
        for line in [
            FromClient::Hello {
                token: token(),
                interval: Duration::from_millis(50),
            },
            FromClient::Numbered {
                token: token(),
                number: u64::MAX,
            },
            FromClient::Bye {
                token: token(),
                count: 0,
            },
        ] {
            assert_eq!(FromClient::parse(line.to_string().trim_end()), Some(line));
        }
        for line in [
            FromServer::Welcome {
                server: "serv1".to_owned(),
            },
            FromServer::Numbered {
                token: "c".repeat(64),
                number: u64::MAX,
            },
            FromServer::Seen { number: 7 },
            FromServer::End {
                sent: u64::MAX,
                seen: u64::MAX,
            },
        ] {
            assert!(line.to_string().len() <= LINE_BYTES_MAX);
            assert_eq!(FromServer::parse(line.to_string().trim_end()), Some(line));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for bad in [
            "",
            "C",
            "C a",
            "C a b",
            "C a 1 2",
            "C a +1",
            "C a 18446744073709551616",
            "C  1",
            "c a 1",
            "HELLO a 0",
            "HELLO a 60001",
            "HELLO ä 5",
            "BYE a",
            "\u{fffd}",
        ] {
            assert_eq!(FromClient::parse(bad), None, "{bad:?}");
        }
        for bad in ["", "A", "A x", "S a", "WELCOME", "WELCOME a b", "END 1"] {
            assert_eq!(FromServer::parse(bad), None, "{bad:?}");
        }
    }
}
