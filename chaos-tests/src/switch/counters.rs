//! What became of frames, by name.

use std::fmt;

/// Why a frame, or a copy of it, was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// By an impairment.
    Impaired,
    /// Too many wait for the port that it was to leave by.
    QueueFull,
    /// Its receiver is behind the port that it came from.
    SamePort,
    /// Shorter than its headers.
    TooShort,
    /// Longer than a frame can be.
    TooLong,
    /// The port was down.
    PortDown,
    /// The kernel had no room to send it, or refused it.
    Refused,
}

/// How many frames met which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read from a port.
    pub received: u64,
    /// Handed to a port; one received frame may leave by several.
    pub sent: u64,
    /// Senders that were not learned, because [`super::MACS_MAX`] others were.
    pub unlearned: u64,
    lost: [u64; Lost::ALL.len()],
}

impl Lost {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Impaired,
        Self::QueueFull,
        Self::SamePort,
        Self::TooShort,
        Self::TooLong,
        Self::PortDown,
        Self::Refused,
    ];

    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Impaired => "impaired",
            Self::QueueFull => "queue-full",
            Self::SamePort => "same-port",
            Self::TooShort => "too-short",
            Self::TooLong => "too-long",
            Self::PortDown => "port-down",
            Self::Refused => "refused",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|l| *l == self).unwrap_or(0)
    }
}

impl Counters {
    /// How many were lost for this reason.
    #[must_use]
    pub fn lost(&self, why: Lost) -> u64 {
        self.lost[why.index()]
    }

    pub(super) fn lose(&mut self, why: Lost) {
        self.lost[why.index()] += 1;
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {}, sent {}", self.received, self.sent)?;
        for why in Lost::ALL.into_iter().filter(|why| self.lost(*why) > 0) {
            write!(f, ", {} {}", why.name(), self.lost(why))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let mut counters = Counters::default();
        for (count, why) in (1..).zip(Lost::ALL) {
            for _ in 0..count {
                counters.lose(why);
            }
        }
        for (count, why) in (1..).zip(Lost::ALL) {
            assert_eq!(counters.lost(why), count, "{why:?}");
            assert!(
                counters
                    .to_string()
                    .contains(&format!("{} {count}", why.name()))
            );
        }
    }
}
