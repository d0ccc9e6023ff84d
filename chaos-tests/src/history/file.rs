//! Histories as files of JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::Path;

use super::event::Event;

/// The longest line read or written: a listing of 100,000 connections is 9 MB.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Events read or written at most: 100 bytes each in memory and somewhat more on disk, so about 1 GB. An hour of 1000 probes a second is
/// 3.6 million.
pub const EVENTS_MAX: usize = 8_000_000;

/// A whole history, in the order in which it was recorded: in order for each process, nearly so between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Its events.
    pub events: Vec<Event>,
}

/// Why a history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read or written.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A line is no event.
    #[error("line {line} of the history is no event")]
    Malformed {
        /// Its number, counted from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A line is longer than [`LINE_BYTES_MAX`].
    #[error("line {line} of the history has more than {LINE_BYTES_MAX} bytes")]
    TooLong {
        /// Its number, counted from 1.
        line: u64,
    },
    /// The last line does not end: the writer did not finish it.
    #[error("line {line} of the history is cut off")]
    CutOff {
        /// Its number, counted from 1.
        line: u64,
    },
    /// More than [`EVENTS_MAX`] events.
    #[error("the history has more than {EVENTS_MAX} events")]
    TooMany,
}

impl History {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As [`read_from`](Self::read_from), or it cannot be opened.
    pub fn read(path: &Path) -> Result<Self, HistoryError> {
        let file = File::open(path).map_err(|source| HistoryError::Io {
            what: format!("cannot open {}", path.display()),
            source,
        })?;
        Self::read_from(BufReader::with_capacity(1 << 20, file))
    }

    /// Reads a history to its end. Empty lines are passed over.
    ///
    /// # Errors
    /// The first line that is no event, is too long or is cut off, by its number.
    pub fn read_from(mut from: impl BufRead) -> Result<Self, HistoryError> {
        let mut events = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
            from.by_ref()
                .take(limit)
                .read_until(b'\n', &mut text)
                .map_err(|source| HistoryError::Io {
                    what: format!("cannot read line {line} of the history"),
                    source,
                })?;
            match text.split_last() {
                None => break,
                Some((b'\n', content)) => {
                    if content.trim_ascii().is_empty() {
                        continue;
                    }
                    if events.len() == EVENTS_MAX {
                        return Err(HistoryError::TooMany);
                    }
                    let event = serde_json::from_slice(content)
                        .map_err(|source| HistoryError::Malformed { line, source })?;
                    events.push(event);
                }
                Some(_) if text.len() > LINE_BYTES_MAX => {
                    return Err(HistoryError::TooLong { line });
                }
                Some(_) => return Err(HistoryError::CutOff { line }),
            }
        }
        Ok(Self { events })
    }

    /// Writes it, one event a line.
    ///
    /// # Errors
    /// `to` refuses, or an event is longer than [`LINE_BYTES_MAX`].
    pub fn write_to(&self, mut to: impl Write) -> Result<(), HistoryError> {
        for (line, event) in (1..).zip(&self.events) {
            let text = encode(event, line)?;
            to.write_all(&text).map_err(|source| HistoryError::Io {
                what: format!("cannot write line {line} of the history"),
                source,
            })?;
        }
        Ok(())
    }

    /// The time of the first event and of the last.
    #[must_use]
    pub fn span(&self) -> Option<(u64, u64)> {
        let times = || self.events.iter().map(|event| event.t_ns);
        Some((times().min()?, times().max()?))
    }
}

/// `event` as a line with its end.
pub(super) fn encode(event: &Event, line: u64) -> Result<Vec<u8>, HistoryError> {
    let mut text =
        serde_json::to_vec(event).map_err(|source| HistoryError::Malformed { line, source })?;
    if text.len() >= LINE_BYTES_MAX {
        return Err(HistoryError::TooLong { line });
    }
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kind, Op};

    fn event(t_ns: u64) -> Event {
        Event {
            t_ns,
            process: 1,
            kind: Kind::Invoke,
            op: Op::SetAdd { element: t_ns },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let history = History {
            events: (0..100).map(event).collect(),
        };
        let mut file = Vec::new();
        history.write_to(&mut file).unwrap();
        assert_eq!(History::read_from(file.as_slice()).unwrap(), history);
        assert_eq!(history.span(), Some((0, 99)));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let good = r#"{"t_ns":1,"process":1,"kind":"invoke","op":{"f":"set-read"}}"#;
        let read = |text: String| History::read_from(text.as_bytes());
        assert_eq!(read(format!("{good}\n\n{good}\n")).unwrap().events.len(), 2);
        for (text, expected) in [
            (
                format!("{good}\nnonsense\n"),
                "line 2 of the history is no event",
            ),
            (
                format!("{good}\n{}\n", good.replace("set-read", "set-burn")),
                "line 2 of the history is no event",
            ),
            (
                format!("{good}\n{}\n", good.replace("1,", "-1,")),
                "line 2 of the history is no event",
            ),
            (
                format!("{good}\n\n{{\"t_ns\":1"),
                "line 3 of the history is cut off",
            ),
            (
                format!("{good}\n{}", " ".repeat(LINE_BYTES_MAX + 1)),
                "line 2 of the history has more than 16777216 bytes",
            ),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn no_bytes_break_the_reader() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(history) = History::read_from(bytes) {
                let mut again = Vec::new();
                history.write_to(&mut again).unwrap();
                assert_eq!(History::read_from(again.as_slice()).unwrap(), history);
            }
        });
    }
}
