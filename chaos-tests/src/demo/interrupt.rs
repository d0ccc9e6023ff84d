//! Ctrl-C and SIGTERM: the demo notices within a blink and tears everything down itself. A second one ends it at once, and
//! the lab's janitor cleans up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::error::DemoError;

/// How soon a signal is noticed.
const NOTICE: Duration = Duration::from_millis(20);

/// Whether the user wants an end.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over both signals.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn listen() -> io::Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it, the second finds it set.
            flag::register_conditional_default(signal, Arc::clone(&wanted))?;
            flag::register(signal, Arc::clone(&wanted))?;
        }
        Ok(Self(wanted))
    }

    /// # Errors
    /// [`DemoError::Interrupted`].
    pub(super) fn check(&self) -> Result<(), DemoError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(DemoError::Interrupted);
        }
        Ok(())
    }

    /// Sleeps for `time`.
    ///
    /// # Errors
    /// [`DemoError::Interrupted`].
    pub(super) fn pause(&self, time: Duration) -> Result<(), DemoError> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(NOTICE));
        }
    }

    /// Calls `look` every `every` until it gives something, at most for `limit`.
    ///
    /// # Errors
    /// [`DemoError::Late`] naming `what`; [`DemoError::Interrupted`]; what `look` fails with.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        every: Duration,
        mut look: impl FnMut() -> Result<Option<T>, DemoError>,
    ) -> Result<T, DemoError> {
        let by = Instant::now() + limit;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > by {
                return Err(DemoError::Late {
                    what: what.to_owned(),
                    seconds: limit.as_secs_f64(),
                    last: None,
                });
            }
            self.pause(every)?;
        }
    }
}
