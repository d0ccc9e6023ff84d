//! The network: who is cut off from whom, and what the weather does to the rest.

use super::chance::Chance;
use super::clock::{MS, True, US};
use super::schedule::Weather;

/// A bit for each host.
pub(crate) type Hosts = u32;

pub(crate) const ATM: usize = 0;
pub(crate) const SERVER: usize = 8;
pub(crate) const CLIENT: usize = 16;
/// Hosts of one kind at most.
pub(crate) const KIND_MAX: usize = 8;
pub(crate) const ALL: Hosts = Hosts::MAX;

pub(crate) const fn bit(host: usize) -> Hosts {
    1 << host
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Peers,
    Frames,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) until: True,
    pub(crate) from: Hosts,
    pub(crate) to: Hosts,
    pub(crate) peers: bool,
    pub(crate) frames: bool,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) cuts: Vec<Cut>,
    calm: Weather,
    storm: Option<(True, Weather)>,
    chance: Chance,
}

impl Network {
    pub(crate) fn new(seed: u64, calm: Weather) -> Self {
        Self {
            cuts: Vec::new(),
            calm,
            storm: None,
            chance: Chance::new(seed, 2),
        }
    }

    pub(crate) fn storm(&mut self, weather: Weather, until: True) {
        self.storm = Some((until, weather));
    }

    /// Everything is whole, and nothing is lost any more.
    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.storm = None;
        self.calm = Weather::default();
    }

    /// When what is sent `now` arrives: not at all, once, or twice.
    pub(crate) fn arrivals(
        &mut self,
        wire: Wire,
        from: usize,
        to: usize,
        now: True,
    ) -> [Option<True>; 2] {
        self.cuts.retain(|cut| cut.until > now);
        let is_cut = self.cuts.iter().any(|cut| {
            let on = match wire {
                Wire::Peers => cut.peers,
                Wire::Frames => cut.frames,
            };
            on && cut.from & bit(from) != 0 && cut.to & bit(to) != 0
        });
        let weather = match self.storm {
            Some((until, weather)) if until > now => weather,
            Some(_) | None => self.calm,
        };
        if is_cut || self.chance.permille(weather.loss) {
            return [None, None];
        }
        let first = self.arrival(weather, now);
        let second = self
            .chance
            .permille(weather.twice)
            .then(|| self.arrival(weather, now));
        [Some(first), second]
    }

    fn arrival(&mut self, weather: Weather, now: True) -> True {
        let mut delay = self.chance.between(40 * US, 250 * US);
        if self.chance.permille(weather.late) {
            delay += self.chance.below(weather.delay_ms * MS);
        }
        now + delay
    }
}
