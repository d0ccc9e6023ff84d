//! The line that says how things stand while a run goes on.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::workload::Progress;

/// Between two lines where there is no terminal whose line could be written over.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Standard error of a run.
#[derive(Debug)]
pub(super) struct Screen {
    begun: Instant,
    time: Duration,
    is_terminal: bool,
    last: Option<Instant>,
}

impl Screen {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            begun: Instant::now(),
            time,
            is_terminal: io::stderr().is_terminal(),
            last: None,
        }
    }

    /// Tells how things stand.
    pub(super) fn show(&mut self, faults: &str, progress: &Progress) {
        if !self.is_terminal && self.last.is_some_and(|last| last.elapsed() < LINE_INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        let line = line(self.begun.elapsed(), self.time, faults, progress);
        // Nobody who reads it is no reason to stop.
        let _ = if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Leaves the line.
    pub(super) fn end(&self) {
        if self.is_terminal {
            let _ = writeln!(io::stderr());
        }
    }
}

fn line(elapsed: Duration, time: Duration, faults: &str, progress: &Progress) -> String {
    let Progress {
        operations,
        connections,
        broken,
        outages,
        outage,
    } = progress;
    let clock = |time: Duration| {
        let seconds = time.as_secs();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    };
    let faults = if faults.is_empty() { "-" } else { faults };
    let now = if *outage { ", out now" } else { "" };
    let broken = if *broken == 0 {
        String::new()
    } else {
        format!(" ({broken} broken)")
    };
    format!(
        "{} of {}  faults: {faults}  operations {operations}  connections {connections}{broken}  outages {outages}{now}",
        clock(elapsed),
        clock(time)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_wrong() {
        let mut progress = Progress {
            operations: 7,
            connections: 9,
            ..Progress::default()
        };
        let told = |faults, progress: &Progress| {
            line(
                Duration::from_secs(61),
                Duration::from_secs(600),
                faults,
                progress,
            )
        };
        assert_eq!(
            told("", &progress),
            "1:01 of 10:00  faults: -  operations 7  connections 9  outages 0"
        );
        (progress.broken, progress.outages, progress.outage) = (1, 2, true);
        assert_eq!(
            told("kill atm1", &progress),
            "1:01 of 10:00  faults: kill atm1  operations 7  connections 9 (1 broken)  outages 2, out now"
        );
    }
}
