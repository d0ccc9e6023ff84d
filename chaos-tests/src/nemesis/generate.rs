//! Draws schedules from seeds.
//!
//! Time is made of storms and calms. In a storm faults of the chosen families overlap; at its end all of them are over, and in
//! the calm after it the cluster has to recover. Never are more ATMs without power or memory than it promises to survive,
//! the time that an ATM needs to come back counted in.

use super::chance::Chance;
use super::fault::{Family, Fault};
use super::schedule::{STEPS_MAX, Schedule};
use super::strike::{Bounds, Harm, Lasting};

/// Nothing happens at first: workloads get going.
const START_MS: u64 = 1_000;

/// Length of a storm.
const STORM_MS: (u64, u64) = (6_000, 20_000);

/// Length of the calm after it: a takeover of the fast configuration, and the return of an ATM.
const CALM_MS: (u64, u64) = (3_000, 6_000);

/// Between the begins of two faults of a storm.
const GAP_MS: (u64, u64) = (100, 3_000);

/// Faults under way at one time: with more of them nothing moves that could be broken.
const OVERLAP_MAX: usize = 3;

/// How long an ATM that was down may need to be back among the others.
const RETURN_MS: u64 = 3_000;

/// How long one that lost everything may need to vote again, and a cluster that was restarted whole to be up.
const REJOIN_MS: u64 = 10_000;

/// Draws a schedule of `length_ms` with faults of `families` from `seed`. The same arguments give the same schedule.
///
/// It is empty if `length_ms` is too short for a fault or `families` is empty.
#[must_use]
pub fn generate(seed: u64, families: &[Family], bounds: &Bounds, length_ms: u64) -> Schedule {
    let mut chance = Chance::new(seed);
    let mut schedule = Schedule::new(seed, length_ms);
    let mut planned: Vec<Planned> = Vec::new();
    let mut now = START_MS;
    while now < length_ms {
        let storm_end = now + chance.between(STORM_MS.0, STORM_MS.1);
        let calm = chance.between(CALM_MS.0, CALM_MS.1);
        let storm_end = storm_end.min(length_ms.saturating_sub(calm));
        while now < storm_end && schedule.steps.len() + 2 <= STEPS_MAX {
            let Some(&family) = chance.pick(families) else {
                return schedule;
            };
            let Lasting { fault, lasts_ms } = Fault::draw(family, &mut chance, bounds);
            let until = (now + lasts_ms).min(storm_end);
            let candidate = Planned::new(&fault, now, until, bounds);
            if candidate.fits(&planned, bounds) {
                schedule.add(now, until, fault);
                planned.push(candidate);
            }
            planned.retain(|other| other.gone_ms > now);
            now += chance.between(GAP_MS.0, GAP_MS.1);
        }
        now = now.max(storm_end) + calm;
    }
    schedule
}

/// What a fault that is already in the schedule takes.
struct Planned {
    from_ms: u64,
    until_ms: u64,
    /// When the ATMs that it took are back.
    gone_ms: u64,
    harm: Harm,
    /// ATMs that it takes down.
    down: usize,
}

impl Planned {
    fn new(fault: &Fault, from_ms: u64, until_ms: u64, bounds: &Bounds) -> Self {
        let strike = fault.strike();
        let harm = strike.harm();
        let struck: usize = strike
            .targets()
            .iter()
            .map(|target| target.atms_max(bounds.atms))
            .sum();
        let down = if harm == Harm::Bearable {
            0
        } else {
            struck.min(bounds.atms)
        };
        let back = if harm == Harm::Amnesia || down > bounds.down_max() {
            REJOIN_MS
        } else {
            RETURN_MS
        };
        Self {
            from_ms,
            until_ms,
            gone_ms: if down > 0 { until_ms + back } else { until_ms },
            harm,
            down,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        self.from_ms < other.gone_ms && other.from_ms < self.gone_ms
    }

    /// Whether it may be added to what is `planned`.
    fn fits(&self, planned: &[Self], bounds: &Bounds) -> bool {
        let under_way = planned.iter().filter(|other| other.until_ms > self.from_ms);
        if under_way.count() >= OVERLAP_MAX {
            return false;
        }
        if self.harm == Harm::Amnesia && self.down > bounds.down_max() {
            return false;
        }
        let others: Vec<&Self> = planned
            .iter()
            .filter(|other| other.down > 0 && self.meets(other))
            .collect();
        if self.down == 0 || others.is_empty() {
            return true;
        }
        let alone = |fault: &Self| fault.harm == Harm::Amnesia || fault.down > bounds.down_max();
        let sum: usize = others.iter().map(|other| other.down).sum();
        !alone(self)
            && !others.iter().any(|other| alone(other))
            && self.down + sum <= bounds.down_max()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Ten minutes: `make chaos`.
    const LENGTH_MS: u64 = 600_000;

    fn bounds(seed: u64) -> Bounds {
        let sizes = [1, 2, 3, 5, 7];
        Bounds {
            atms: *Chance::new(seed).pick(&sizes).unwrap(),
            servers: 3,
            lease_ms: 135,
            switch: seed.is_multiple_of(2),
            rogue: seed.is_multiple_of(3),
        }
    }

    #[test]
    fn every_drawn_schedule_is_sound_and_reads_back_as_it_was_written() {
        for seed in 0..200 {
            let bounds = bounds(seed);
            let schedule = generate(seed, &Family::ALL, &bounds, LENGTH_MS);
            schedule.check().unwrap();
            assert_eq!(
                Schedule::from_json(&schedule.to_json()),
                Ok(schedule.clone()),
                "seed {seed}"
            );
            assert_eq!(schedule, generate(seed, &Family::ALL, &bounds, LENGTH_MS));
            assert!(schedule.faults().len() > 50, "seed {seed}");
        }
    }

    #[test]
    fn another_seed_is_another_schedule_and_families_keep_to_themselves() {
        let bounds = bounds(3);
        for family in Family::ALL {
            let one = generate(1, &[family], &bounds, LENGTH_MS);
            assert_ne!(one.steps, generate(2, &[family], &bounds, LENGTH_MS).steps);
            let mut faults = one.faults().into_iter();
            assert!(faults.all(|(_, fault, ..)| fault.family() == family));
        }
        assert_eq!(generate(1, &[], &bounds, LENGTH_MS).steps, []);
        assert_eq!(generate(1, &Family::ALL, &bounds, 10).steps, []);
    }

    #[test]
    fn never_are_more_atms_down_than_the_cluster_survives() {
        for seed in 0..200 {
            let bounds = bounds(seed);
            let schedule = generate(seed, &Family::ALL, &bounds, LENGTH_MS);
            let planned: Vec<Planned> = schedule
                .faults()
                .into_iter()
                .map(|(_, fault, from, until)| Planned::new(fault, from, until, &bounds))
                .collect();
            for fault in &planned {
                // Looked at where each one begins: only there does the number grow.
                let at = |other: &&Planned| {
                    other.from_ms <= fault.from_ms && fault.from_ms < other.gone_ms
                };
                let present: Vec<&Planned> = planned
                    .iter()
                    .filter(|other| other.down > 0)
                    .filter(at)
                    .collect();
                let down: usize = present.iter().map(|other| other.down).sum();
                assert!(
                    down <= bounds.down_max() || present.len() == 1,
                    "{down} of {} ATMs down at {} ms, seed {seed}",
                    bounds.atms,
                    fault.from_ms
                );
                let amnesia = present.iter().any(|other| other.harm == Harm::Amnesia);
                assert!(!amnesia || present.len() == 1, "seed {seed}");
            }
        }
    }

    #[test]
    fn there_is_a_calm_after_every_storm_and_at_the_end() {
        for seed in 0..50 {
            let schedule = generate(seed, &Family::ALL, &bounds(seed), LENGTH_MS);
            let mut faults = schedule.faults();
            faults.sort_by_key(|(_, _, from, _)| *from);
            let mut busy_since = START_MS;
            let mut busy_until = START_MS;
            for (_, _, from, until) in faults {
                if from >= busy_until + CALM_MS.0 {
                    busy_since = from;
                }
                busy_until = busy_until.max(until);
                assert!(
                    busy_until - busy_since <= STORM_MS.1 * 3,
                    "seed {seed} at {from}"
                );
            }
            assert!(busy_until <= LENGTH_MS - CALM_MS.0, "seed {seed}");
        }
    }

    #[test]
    fn ten_minutes_have_faults_of_every_name() {
        let bounds = Bounds {
            switch: true,
            rogue: true,
            ..bounds(2)
        };
        let mut names = BTreeSet::new();
        for seed in 0..20 {
            for (_, fault, ..) in generate(seed, &Family::ALL, &bounds, LENGTH_MS).faults() {
                names.insert(fault.strike().name());
            }
        }
        for name in [
            "kill",
            "stop",
            "rolling-restart",
            "cut",
            "one-way-cut",
            "bridge",
            "reorder",
            "crash",
            "rogue",
            "lost-directory",
            "failover",
        ] {
            assert!(names.contains(name), "{name} is missing in {names:?}");
        }
    }
}
