//! The order of trials: round after round, in each one every contender, in each contender every fault, all shuffled by the
//! seed. So whatever the machine does meanwhile meets everybody alike.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use super::contender::Contender;
use super::error::PeersError;
use super::results::{Campaign, Failure, Results};
use super::rig::{Rig, unavailable};
use super::seeded::Seeded;
use super::strike::Strike;
use super::trial::{self, Order, Trial};

/// How often one trial is tried before it counts as failed.
const ATTEMPTS_MAX: usize = 3;

/// A contender that could not be measured this often is given up for the rest of the run.
const FAILURES_MAX: usize = 15;

/// What shall be measured.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) contenders: Vec<Contender>,
    pub(super) strikes: Vec<Strike>,
    pub(super) trials: usize,
    /// No trial begins after this.
    pub(super) until: Option<Instant>,
}

/// How a run of the campaign ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// Contenders that this machine cannot run, with the reason.
    pub(super) skipped: BTreeMap<Contender, String>,
    /// Trials that were wanted and are not there, because time was up.
    pub(super) left: usize,
    /// Trials that could not be measured in [`ATTEMPTS_MAX`] attempts.
    pub(super) failed: usize,
}

/// Runs every wanted trial that `results` does not have yet.
///
/// # Errors
/// Results cannot be written. What goes wrong with a trial is noted and tried again.
pub(super) fn run(
    wanted: &Wanted,
    results: &mut Results,
    mut tell: impl FnMut(&str),
) -> Result<Ending, PeersError> {
    let seed = results.campaign.seed;
    let mut ending = Ending {
        skipped: skipped(wanted),
        ..Ending::default()
    };
    for (contender, reason) in &ending.skipped {
        tell(&format!("skipped: {contender}: {reason}"));
    }
    let mut given_up: BTreeMap<Contender, usize> = BTreeMap::new();
    for number in 0..wanted.trials {
        let mut contenders = wanted.contenders.clone();
        Seeded::part(seed, number as u64).shuffle(&mut contenders);
        for contender in contenders {
            if ending.skipped.contains_key(&contender) {
                continue;
            }
            // A generator of its own, so that what is measured already changes nothing for the rest.
            let part = (number as u64 + 1) * 1000 + contender as u64;
            let mut seeded = Seeded::part(seed, part);
            let mut strikes = wanted.strikes.clone();
            seeded.shuffle(&mut strikes);
            let orders = strikes.into_iter().map(|strike| Order {
                contender,
                strike,
                number,
                delay: seeded.shorter_than(contender.beat()),
            });
            let orders: Vec<_> = orders
                .filter(|o| !results.has(contender, o.strike, number))
                .collect();
            let failures = given_up.entry(contender).or_default();
            if *failures >= FAILURES_MAX {
                ending.failed += orders.len();
                continue;
            }
            *failures += block(&orders, wanted.until, results, &mut ending, &mut tell)?;
        }
    }
    Ok(ending)
}

/// The wanted contenders that cannot be measured here, and why.
pub(super) fn skipped(wanted: &Wanted) -> BTreeMap<Contender, String> {
    let reason = |&contender: &Contender| Some((contender, unavailable(contender)?));
    wanted.contenders.iter().filter_map(reason).collect()
}

/// The trials of one contender in one round, in one lab if all goes well. Returns how many attempts failed.
fn block(
    orders: &[Order],
    until: Option<Instant>,
    results: &mut Results,
    ending: &mut Ending,
    tell: &mut impl FnMut(&str),
) -> Result<usize, PeersError> {
    let mut rig: Option<Rig> = None;
    let mut failures = 0;
    for order in orders {
        let mut done = false;
        for _ in 0..ATTEMPTS_MAX {
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            let begun = Instant::now();
            match attempt(rig.take(), order) {
                Ok((next, trial)) => {
                    tell(&told(&trial, begun.elapsed()));
                    results.add(trial)?;
                    match next {
                        Ok(next) => rig = Some(next),
                        Err(error) => {
                            let reason = format!("cannot be mended after the trial: {error}");
                            note(order, reason, results, tell)?;
                        }
                    }
                    done = true;
                    break;
                }
                Err(error) => {
                    failures += 1;
                    note(order, error.to_string(), results, tell)?;
                }
            }
        }
        if done {
            continue;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            ending.left += 1;
        } else {
            ending.failed += 1;
        }
    }
    Ok(failures)
}

/// Writes down what went wrong.
fn note(
    order: &Order,
    reason: String,
    results: &mut Results,
    tell: &mut impl FnMut(&str),
) -> Result<(), PeersError> {
    let &Order {
        contender,
        strike,
        number,
        ..
    } = order;
    tell(&format!("{contender} {strike} #{number}: {reason}"));
    results.fail(Failure {
        contender,
        strike: Some(strike),
        number,
        reason,
    })
}

/// Runs one trial in the rig of the one before, if there is one, and mends it for the next one.
fn attempt(
    rig: Option<Rig>,
    order: &Order,
) -> Result<(Result<Rig, PeersError>, Trial), PeersError> {
    let rig = match rig {
        Some(rig) => rig,
        None => Rig::start(order.contender)?,
    };
    let trial = trial::run(&rig, order)?;
    let mended = rig.mend(&trial.victim);
    Ok((mended.map(|()| rig), trial))
}

fn told(trial: &Trial, took: Duration) -> String {
    let connections = trial.connections.as_ref().map_or(String::new(), |shares| {
        format!(
            ", alive {}/{} client talks, {}/{} server talks",
            shares.client_talks.alive,
            shares.client_talks.open,
            shares.server_talks.alive,
            shares.server_talks.open
        )
    });
    let lost = if trial.restored {
        ""
    } else {
        ", never came back"
    };
    let after = trial
        .relief_outage_ms
        .map_or(String::new(), |ms| format!(" (after its end {ms:.0})"));
    format!(
        "{} {} #{}: outage {:.0} ms{after}{lost}, two voices {:.0} ms{connections} [{:.1} s]",
        trial.contender,
        trial.strike,
        trial.number,
        trial.outage_ms,
        trial.two_voices_ms,
        took.as_secs_f64()
    )
}

/// Kernel, processors and versions, for whoever reads the results later.
pub(super) fn describe(seed: u64, contenders: &[Contender]) -> Campaign {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut packages: Vec<&str> = contenders
        .iter()
        .flat_map(|c| c.programs())
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    Campaign {
        seed,
        machine: format!("Linux {}, {processors} processors", kernel.trim()),
        versions: packages.into_iter().filter_map(version).collect(),
    }
}

/// As the package manager knows it; elsewhere than on Debian nobody is asked.
fn version(package: &str) -> Option<String> {
    let asked = ["-W", "-f", "${Package} ${Version}", package];
    let output = Command::new("dpkg-query").args(asked).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.is_empty()).then_some(text)
}
