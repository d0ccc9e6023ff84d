//! What a run shall be.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum as _;

use crate::nemesis::{Bounds, Family, Schedule, generate};

/// The lease of [`fast_configuration`](crate::cluster::fast_configuration): 0.9 of three heartbeats of 50 ms.
const LEASE_MS: u64 = 135;

/// What a run shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many ATMs.
    pub atms: usize,
    /// Where the report goes.
    pub report: PathBuf,
    /// Another program than the usual as atmd, and variables in its environment.
    pub daemon: Option<(PathBuf, Vec<(String, String)>)>,
}

/// Which faults there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Chosen>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Chosen {
    Family(Family),
    Named(String),
}

/// No fault is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault of this schedule is called {0:?}; there are mixed and the families {families}, and names of faults, of which a \
     longer --time draws more",
    families = Family::ALL
        .map(|family| format!("{family:?}").to_lowercase())
        .join(", ")
)]
pub struct UnknownFault(pub String);

impl FromStr for Faults {
    type Err = UnknownFault;

    /// `mixed`, or families and names of faults with commas between them: `network,kill`.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        if text == "mixed" {
            return Ok(Self::default());
        }
        let chosen = text
            .split(',')
            .map(|word| match Family::from_str(word, false) {
                Ok(family) => Chosen::Family(family),
                Err(_) => Chosen::Named(word.to_owned()),
            });
        Ok(Self(chosen.collect()))
    }
}

impl Faults {
    /// A schedule of these faults.
    ///
    /// # Errors
    /// None of the faults drawn has one of the names.
    pub fn schedule(
        &self,
        seed: u64,
        atms: usize,
        servers: usize,
        time: Duration,
    ) -> Result<Schedule, UnknownFault> {
        let bounds = Bounds {
            atms,
            servers,
            lease_ms: LEASE_MS,
            // The bridge is the faster network, the switch the worse one: both are wanted.
            switch: seed.is_multiple_of(3),
            rogue: true,
        };
        let length_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let families: Vec<Family> = self
            .0
            .iter()
            .filter_map(|chosen| match chosen {
                Chosen::Family(family) => Some(*family),
                Chosen::Named(_) => None,
            })
            .collect();
        let names: Vec<&str> = self
            .0
            .iter()
            .filter_map(|chosen| match chosen {
                Chosen::Named(name) => Some(name.as_str()),
                Chosen::Family(_) => None,
            })
            .collect();
        if names.is_empty() {
            let families = if families.is_empty() {
                mixed(seed)
            } else {
                families
            };
            return Ok(generate(seed, &families, &bounds, length_ms));
        }
        let schedule = generate(seed, &Family::ALL, &bounds, length_ms);
        let others: Vec<_> = schedule
            .faults()
            .into_iter()
            .filter(|(_, fault, ..)| {
                !names.contains(&fault.strike().name()) && !families.contains(&fault.family())
            })
            .map(|(id, ..)| id)
            .collect();
        let left = schedule.without(&others);
        if left.steps.is_empty() {
            return Err(UnknownFault(names.join(",")));
        }
        Ok(left)
    }
}

/// Every family. Clocks are left alone by odd seeds: ATMs with clocks of their own tell of their leases in instants that cannot be
/// compared, so only then the leases can be judged.
fn mixed(seed: u64) -> Vec<Family> {
    let all = Family::ALL.into_iter();
    all.filter(|family| *family != Family::Clock || seed.is_multiple_of(2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(faults: &str) -> Vec<&'static str> {
        let faults: Faults = faults.parse().unwrap();
        let schedule = faults.schedule(7, 3, 3, Duration::from_secs(600)).unwrap();
        let mut names: Vec<_> = schedule
            .faults()
            .iter()
            .map(|(_, fault, ..)| fault.strike().name())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn faults_are_chosen_by_family_and_by_name() {
        assert_eq!(names("kill"), ["kill"]);
        assert_eq!(names("stop,kill"), ["kill", "stop"]);
        assert!(names("mixed").len() > 5);
        assert!(
            names("process")
                .iter()
                .all(|name| names("mixed").contains(name))
        );
        assert!(!names("network").contains(&"kill"));
        assert!(names("network,kill").contains(&"kill"));
    }

    #[test]
    fn what_no_fault_is_called_is_refused() {
        let faults: Faults = "earthquake".parse().unwrap();
        assert_eq!(
            faults.schedule(1, 3, 3, Duration::from_secs(600)),
            Err(UnknownFault("earthquake".to_owned()))
        );
    }
}
