//! What happens to the router that speaks for the VIP.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A fault of the active router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strike {
    /// No frame passes its link any more, the carrier stays; and `kill -9` of everything that runs on it.
    Crash,
    /// Its link loses the carrier.
    LinkDown,
    /// `kill -9` of every process of the router's software at once; its kernel lives on.
    Kill,
    /// SIGSTOP of every process of the router's software; later SIGCONT.
    Stop,
    /// No frame passes between it and the other routers; clients and servers see all of them. Later healed.
    Partition,
}

impl Strike {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 5] = [
        Self::Crash,
        Self::LinkDown,
        Self::Kill,
        Self::Stop,
        Self::Partition,
    ];

    /// Its name for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Crash => "host crash (silent cut + kill -9)",
            Self::LinkDown => "link down",
            Self::Kill => "kill -9 of the router's processes",
            Self::Stop => "SIGSTOP, then SIGCONT",
            Self::Partition => "routers cut from each other, then healed",
        }
    }

    /// Whether it ends within the trial, and what then happens is measured, too.
    #[must_use]
    pub fn is_relieved(self) -> bool {
        matches!(self, Self::Stop | Self::Partition)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.to_possible_value()
                .as_ref()
                .map_or("", |value| value.get_name()),
        )
    }
}
