//! What kind of machine the mail cluster is played on, and how it shall be.

use std::time::Duration;

use model::conf::ForwardingMethod;

use super::configuration::HEARTBEAT_DELAY;
use super::files::SENDERS;

/// How the mail cluster shall be.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Each ATM is a server, too.
    pub combined: bool,
    /// HeartBeatDelay.
    pub heartbeat: Duration,
    /// How the ATMs forward to the servers.
    pub method: ForwardingMethod,
    /// So many times slower than a real machine this one is, at least 1.
    pub slow: u32,
    /// Clients of the storm, each with a mailbox of its own; 1 to 20.
    pub senders: usize,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            combined: false,
            heartbeat: HEARTBEAT_DELAY,
            method: ForwardingMethod::Tunnel,
            slow: 1,
            senders: SENDERS,
        }
    }
}

impl Setting {
    /// A time of a real machine, on this one.
    #[must_use]
    pub fn here(&self, time: Duration) -> Duration {
        time * self.slow
    }
}
