//! Hearing who speaks for the VIP: the passive observer, and a prober that makes every claimant speak.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use super::error::PeersError;
use super::two_voices::{ASKED_EVERY, only_voice};
use crate::lab::Lab;
use crate::lines::realtime_ns;
use crate::observer::{Event, Mac, Observation, Observer, Prober};

/// For this long only one router may have spoken before a fault, and it must have.
pub(super) const CALM: Duration = Duration::from_millis(100);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// More than is heard in a few times [`CALM`] under the traffic of a trial.
const RECENT: usize = 4000;

pub(super) struct Ear {
    observer: Observer,
    _prober: Prober,
}

impl Ear {
    pub(super) fn open(lab: &Lab, vip: Ipv4Addr) -> Result<Self, PeersError> {
        Ok(Self {
            observer: Observer::start(lab)?,
            _prober: Prober::start(lab, vip, ASKED_EVERY)?,
        })
    }

    /// The only router heard in the last `time`; `None` also if it was not heard in the latest part of it.
    pub(super) fn speaker(&self, time: Duration) -> Option<Mac> {
        let events = self.recent();
        let now = realtime_ns();
        let since =
            |time: Duration| now.saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let latest = only_voice(&events, since(time / 2), now)?;
        (only_voice(&events, since(time), now) == Some(latest)).then_some(latest)
    }

    /// Waits for a router that speaks alone.
    pub(super) fn wait_for_speaker(&self, limit: Duration) -> Result<Mac, PeersError> {
        let by = Instant::now() + limit;
        loop {
            if let Some(mac) = self.speaker(CALM) {
                return Ok(mac);
            }
            if Instant::now() >= by {
                return Err(PeersError::Late {
                    what: "one router that speaks for the VIP".to_owned(),
                    limit,
                });
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether a router other than `mac` has spoken since `since`.
    pub(super) fn other_than(&self, mac: Mac, since: u64) -> bool {
        let recent = self.recent();
        recent.iter().any(|e| e.at >= since && e.source != mac)
    }

    pub(super) fn stop(self) -> Observation {
        self.observer.stop()
    }

    fn recent(&self) -> Vec<Event> {
        let first = self.observer.count().saturating_sub(RECENT);
        self.observer.events_from(first)
    }
}
