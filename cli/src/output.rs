//! Where words go: results to stdout, everything else to stderr. A reader that went away is no error.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Color;
use crate::failure::Failure;

/// Writes a result to stdout as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a result to stdout as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = json(value)?;
    text.push('\n');
    print(&text)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Output(io::Error::other(error)))
}

/// Writes one line of a result that goes on to stdout, at once. `false`: nobody listens any more.
pub(crate) fn print_line(line: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// The same, as JSON.
pub(crate) fn print_line_json(value: &impl Serialize) -> Result<bool, Failure> {
    print_line(&json(value)?)
}

/// Writes one line to stderr; where nobody listens there is nobody to tell.
pub(crate) fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Writes to stderr text that has its own line ends.
pub(crate) fn say_verbatim(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// `text` without the control characters by which a foreign text could steer the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

impl Color {
    /// Whether stdout gets colours.
    pub(crate) fn on_stdout(self) -> bool {
        self.on(&io::stdout())
    }

    /// Whether stderr gets colours.
    pub(crate) fn on_stderr(self) -> bool {
        self.on(&io::stderr())
    }

    fn on(self, stream: &impl IsTerminal) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            // https://no-color.org
            Self::Auto => {
                stream.is_terminal()
                    && !is_set("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("atm1 häuser"), "atm1 häuser");
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
