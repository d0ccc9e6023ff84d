//! Progress while the demo works: one live line per act on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal as _, Write};
use std::time::Instant;

use super::Output;

/// A live line must not wrap on the smallest usual terminal.
const LIVE_COLUMNS_MAX: usize = 79;

/// Carriage return and "erase in line" (ECMA-48 §8.3.41).
const ERASE: &str = "\r\x1b[K";

/// Where progress goes.
pub struct Screen {
    out: Box<dyn Write>,
    live: bool,
    begun: Instant,
    title: String,
    number: usize,
}

impl Screen {
    /// Standard output, or standard error where standard output is for the JSON.
    pub(crate) fn new(output: Output) -> Self {
        let (out, live): (Box<dyn Write>, bool) = match output {
            Output::Table => (Box::new(io::stdout()), io::stdout().is_terminal()),
            Output::Json => (Box::new(io::stderr()), io::stderr().is_terminal()),
        };
        Self {
            out,
            live,
            begun: Instant::now(),
            title: String::new(),
            number: 0,
        }
    }

    /// The next step begins.
    pub(crate) fn step(&mut self, title: &str) {
        title.clone_into(&mut self.title);
        if self.live {
            self.say("");
        } else {
            let head = self.head();
            self.line(&head);
        }
        self.number += 1;
    }

    /// What it is doing.
    pub(crate) fn say(&mut self, text: &str) {
        if self.live {
            let line: String = format!("{}: {text}", self.head())
                .chars()
                .take(LIVE_COLUMNS_MAX)
                .collect();
            self.write(&format!("{ERASE}{line}"));
        } else if !text.is_empty() {
            self.line(&format!("            {text}"));
        }
    }

    /// It is over.
    pub(crate) fn done(&mut self, held: bool, text: &str) {
        let word = if held { "ok" } else { "FAILED" };
        if self.live {
            let line = format!("{}: {text}", self.head());
            self.line(&format!("{line}  {word}"));
        } else {
            self.line(&format!("            {text}  {word}"));
        }
    }

    /// A line that stays.
    pub(crate) fn line(&mut self, text: &str) {
        let erase = if self.live { ERASE } else { "" };
        self.write(&format!("{erase}{text}\n"));
    }

    fn head(&self) -> String {
        format!(
            "{:>5.1} s  {}",
            self.begun.elapsed().as_secs_f64(),
            self.title
        )
    }

    fn write(&mut self, text: &str) {
        // Whoever stopped reading wants no more progress; the demo goes on to its end.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}
