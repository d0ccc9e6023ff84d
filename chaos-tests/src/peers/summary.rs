//! From trials to the table, and to what was promised. Pure.

use serde::Serialize;

use super::contender::{Contender, Kind};
use super::rig::Takeover;
use super::strike::Strike;
use super::talk::{Share, Shares};
use super::trial::Trial;

/// keepalived's median outage after a crash at an advertisement every 100 ms where it was first measured, in ms: what counts
/// if a campaign leaves keepalived out.
const KEEPALIVED_CRASH_MS: f64 = 285.0;

/// What the fast profile promises for the median outage after a crash, in ms.
const FAST_CRASH_MS_MAX: f64 = 100.0;

/// Minimum, median, 99th percentile and maximum of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// Half of the values are at most this.
    pub median: f64,
    /// 99 of 100 are at most this; with less than a hundred trials the maximum.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; `None` if there are none. Nearest rank.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Some(Self {
            min: rank(0)?,
            median: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
        })
    }
}

/// All trials of one contender under one fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Who.
    pub contender: Contender,
    /// What.
    pub strike: Strike,
    /// How many trials.
    pub trials: usize,
    /// The outage after the fault, in ms.
    pub outage_ms: Spread,
    /// The outage after the fault's end, in ms, where it ends within the trial.
    pub relief_outage_ms: Option<Spread>,
    /// Trials in which the VIP did not come back.
    pub never_restored: usize,
    /// Trials in which two routers spoke.
    pub two_voices_trials: usize,
    /// For how long, in ms.
    pub two_voices_ms: Spread,
    /// Trials in which there were still two when the fault was ended, or the trial.
    pub two_voices_to_the_end: usize,
    /// Open connections where the client talks.
    pub client_talks: Option<Survival>,
    /// Open connections where the server talks.
    pub server_talks: Option<Survival>,
    /// Medians of the steps of this product's takeover.
    pub takeover: Option<Takeover>,
}

/// What became of connections, over all trials of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Survival {
    /// Connections.
    pub open: usize,
    /// Those that lived on.
    pub alive: usize,
    /// Median over the trials of the median stall of the survivors, in ms; `None` if nothing survived.
    pub stall_ms: Option<f64>,
}

impl Survival {
    /// How many of a hundred live on. Rounded down: 100 means all of them.
    #[must_use]
    pub fn percent(&self) -> usize {
        (self.alive * 100).checked_div(self.open).unwrap_or(0)
    }

    fn of<'a>(shares: impl Iterator<Item = &'a Share> + Clone) -> Option<Self> {
        shares.clone().next()?;
        let stalls = shares.clone().filter_map(|s| s.stall_ms_median);
        // Milliseconds of a trial fit into a float exactly.
        let stall = Spread::of(stalls.map(|ms| ms as f64));
        Some(Self {
            open: shares.clone().map(|s| s.open).sum(),
            alive: shares.map(|s| s.alive).sum(),
            stall_ms: stall.map(|s| s.median),
        })
    }
}

/// The cells of `trials`, fault by fault, in the order of the tables.
#[must_use]
pub fn cells(trials: &[Trial]) -> Vec<Cell> {
    let keys = Strike::ALL.iter().flat_map(|strike| {
        Contender::ALL
            .iter()
            .map(move |contender| (strike, contender))
    });
    keys.filter_map(|(&strike, &contender)| cell(trials, contender, strike))
        .collect()
}

fn cell(trials: &[Trial], contender: Contender, strike: Strike) -> Option<Cell> {
    let own = trials
        .iter()
        .filter(|t| t.contender == contender && t.strike == strike);
    let shares = own.clone().filter_map(|t| t.connections.as_ref());
    let steps: Vec<Takeover> = own.clone().filter_map(|t| t.takeover).collect();
    let client = |s: &'_ Shares| -> Share { s.client_talks.clone() };
    let client: Vec<Share> = shares.clone().map(client).collect();
    let server: Vec<Share> = shares.map(|s| s.server_talks.clone()).collect();
    Some(Cell {
        contender,
        strike,
        trials: own.clone().count(),
        outage_ms: Spread::of(own.clone().map(|t| t.outage_ms))?,
        relief_outage_ms: Spread::of(own.clone().filter_map(|t| t.relief_outage_ms)),
        never_restored: own.clone().filter(|t| !t.restored).count(),
        two_voices_trials: own.clone().filter(|t| t.has_two_voices()).count(),
        two_voices_ms: Spread::of(own.clone().map(|t| t.two_voices_ms))?,
        two_voices_to_the_end: own.filter(|t| t.two_voices_to_the_end).count(),
        client_talks: Survival::of(client.iter()),
        server_talks: Survival::of(server.iter()),
        takeover: medians(&steps),
    })
}

fn medians(steps: &[Takeover]) -> Option<Takeover> {
    let median = |of: fn(&Takeover) -> f64| Some(Spread::of(steps.iter().map(of))?.median);
    Some(Takeover {
        elected_ms: median(|t| t.elected_ms)?,
        begun_ms: median(|t| t.begun_ms)?,
        table_ms: median(|t| t.table_ms)?,
        claimed_ms: median(|t| t.claimed_ms)?,
        announced_ms: median(|t| t.announced_ms)?,
    })
}

/// One of the goals of this product, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The goal.
    pub goal: String,
    /// What was measured.
    pub measured: String,
    /// Whether it was reached; `None`: not measured.
    pub reached: Option<bool>,
}

/// What the cells say about this product's goals.
#[must_use]
pub fn targets(cells: &[Cell]) -> Vec<Target> {
    let ours = || cells.iter().filter(|c| c.contender.kind() == Kind::Ours);
    let trials: usize = ours().map(|c| c.trials).sum();
    let loud: usize = ours().map(|c| c.two_voices_trials).sum();
    let survival = || {
        ours()
            .flat_map(|c| [c.client_talks, c.server_talks])
            .flatten()
    };
    let (open, alive) = survival().fold((0, 0), |(o, a), s| (o + s.open, a + s.alive));
    let crash = |contender| {
        let of = |c: &&Cell| c.contender == contender && c.strike == Strike::Crash;
        cells.iter().find(of).map(|c| c.outage_ms.median)
    };
    let bar = crash(Contender::Keepalived100Ms).unwrap_or(KEEPALIVED_CRASH_MS);
    let measured = |median: Option<f64>| median.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    let (same, fast) = (crash(Contender::Ours100Ms), crash(Contender::OursFast));
    vec![
        Target {
            goal: "two voices in no trial of any fault".to_owned(),
            measured: format!("in {loud} of {trials} trials"),
            reached: (trials > 0).then_some(loud == 0),
        },
        Target {
            goal: "all open connections live on".to_owned(),
            measured: format!("{alive} of {open}"),
            reached: (open > 0).then_some(alive == open),
        },
        Target {
            goal: format!(
                "heartbeat 100 ms: median outage after a crash at most keepalived's at the same interval ({bar:.0} ms)"
            ),
            measured: measured(same),
            reached: same.map(|ms| ms <= bar),
        },
        Target {
            goal: format!(
                "fast profile: median outage after a crash at most {FAST_CRASH_MS_MAX} ms"
            ),
            measured: measured(fast),
            reached: fast.map(|ms| ms <= FAST_CRASH_MS_MAX),
        },
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::peers) fn trial(contender: Contender, strike: Strike, outage_ms: f64) -> Trial {
        Trial {
            contender,
            strike,
            number: 0,
            victim: "atm1".to_owned(),
            outage_ms,
            restored: true,
            relief_outage_ms: None,
            two_voices_ms: 0.0,
            two_voices_to_the_end: false,
            relief_two_voices_ms: None,
            contradictions: None,
            connections: None,
            takeover: None,
        }
    }

    #[test]
    fn spreads_take_the_nearest_rank() {
        let spread = Spread::of((1..=20).map(f64::from)).unwrap();
        assert_eq!(
            (spread.min, spread.median, spread.p99, spread.max),
            (1.0, 10.0, 20.0, 20.0)
        );
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of((1..=200).map(f64::from)).unwrap().p99, 198.0);
    }

    #[test]
    fn one_dead_connection_is_not_a_hundred_percent() {
        let share = |alive, stall| Share {
            open: 500,
            alive,
            stall_ms_median: Some(stall),
            ..Share::default()
        };
        let (a, b) = (share(500, 300), share(499, 700));
        let survival = Survival::of([&a, &b].into_iter()).unwrap();
        assert_eq!((survival.percent(), survival.stall_ms), (99, Some(300.0)));
    }

    #[test]
    fn targets_are_held_against_the_peer_of_the_same_run() {
        let crash = |contender, ms| trial(contender, Strike::Crash, ms);
        let mut trials = vec![
            crash(Contender::Ours100Ms, 290.0),
            crash(Contender::Keepalived100Ms, 300.0),
        ];
        let reached = |trials: &[Trial]| -> Vec<Option<bool>> {
            targets(&cells(trials)).iter().map(|t| t.reached).collect()
        };
        assert_eq!(reached(&trials), [Some(true), None, Some(true), None]);
        trials.pop();
        assert_eq!(reached(&trials)[2], Some(false), "285 ms without a peer");
        trials.push(Trial {
            contradictions: Some(1),
            ..crash(Contender::OursFast, 99.0)
        });
        assert_eq!(
            reached(&trials),
            [Some(false), None, Some(false), Some(true)]
        );
    }
}
