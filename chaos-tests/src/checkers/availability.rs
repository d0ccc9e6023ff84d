//! How long the service was away: the gaps between answered probes, fault by fault as a distribution; and whether it came back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rules::{Rules, ns};
use super::verdict::{Checker, Findings, Verdict, millis, seconds};
use crate::history::{History, Kind, Op};

/// A fault from its begin to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// Its number.
    pub id: u64,
    /// Its kind.
    pub fault: String,
    /// On whom.
    pub target: String,
    /// Its begin.
    pub from_ns: u64,
    /// Its end; that of the history if it has none.
    pub to_ns: u64,
    /// Whether its end was recorded.
    pub ended: bool,
}

/// The longest time without an answer around one fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Number of the fault.
    pub id: u64,
    /// Its kind.
    pub fault: String,
    /// The series of probes.
    pub probe: String,
    /// When the last answered probe before it was sent.
    pub from_ns: u64,
    /// When the first answered probe after it was sent; the end of the history if there is none.
    pub to_ns: u64,
    /// Whether there is one.
    pub recovered: bool,
}

impl Outage {
    /// How long, in nanoseconds. Without any loss it is the interval between two probes.
    #[must_use]
    pub const fn length_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// Lengths summed up; in nanoseconds, percentiles by the nearest rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: usize,
    /// The shortest.
    pub min_ns: u64,
    /// Half of them are no longer.
    pub median_ns: u64,
    /// 95 of 100 are no longer.
    pub p95_ns: u64,
    /// 99 of 100 are no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Distribution {
    /// Of `lengths`, in any order; `None` of nothing.
    #[must_use]
    pub fn of(lengths: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut lengths: Vec<_> = lengths.into_iter().collect();
        lengths.sort_unstable();
        let rank = |percent: usize| {
            let at = (lengths.len() * percent).div_ceil(100).saturating_sub(1);
            lengths.get(at).copied()
        };
        Some(Self {
            count: lengths.len(),
            min_ns: rank(0)?,
            median_ns: rank(50)?,
            p95_ns: rank(95)?,
            p99_ns: rank(99)?,
            max_ns: rank(100)?,
        })
    }
}

/// Everything about availability in a history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outages {
    /// The longest gap of each fault and each series of probes.
    pub each: Vec<Outage>,
    /// The same by kind of fault, all series together.
    pub by_fault: BTreeMap<String, Distribution>,
    /// For each series the share of its time in which it was answered: 1 less the sum of all gaps of more than three usual
    /// intervals, by the time from its first probe to its last.
    pub share: BTreeMap<String, f64>,
}

/// The faults of `history`, in the order of their begins.
#[must_use]
pub fn fault_spans(history: &History) -> Vec<FaultSpan> {
    let Some((_, end)) = history.span() else {
        return Vec::new();
    };
    let mut spans: Vec<FaultSpan> = Vec::new();
    for event in &history.events {
        if let Op::FaultStart(fault) = &event.op {
            spans.push(FaultSpan {
                id: fault.id,
                fault: fault.fault.clone(),
                target: fault.target.clone(),
                from_ns: event.t_ns,
                to_ns: end,
                ended: false,
            });
        } else if let Op::FaultStop { id } = event.op
            && let Some(span) = spans.iter_mut().rfind(|span| span.id == id && !span.ended)
        {
            span.to_ns = event.t_ns;
            span.ended = true;
        }
    }
    spans.sort_by_key(|span| span.from_ns);
    spans
}

/// Gaps of no more than this many usual intervals are no outages.
const USUAL_MAX: u64 = 3;

/// The answered probes of one series, by the time they were sent.
struct Series<'a> {
    name: &'a str,
    answered: Vec<u64>,
    first: u64,
    last: u64,
    sent: usize,
}

/// The outages of `history`. A gap belongs to every fault whose time it touches. The time of a fault is from its begin to
/// [`Rules::settle`] after its end, or to the begin of the next; the probe before that begin was answered last, so the gap that
/// it causes begins a little earlier.
#[must_use]
pub fn outages(history: &History, rules: &Rules) -> Outages {
    let spans = fault_spans(history);
    let mut found = Outages::default();
    for series in series(history) {
        let gaps = series.gaps();
        let slack = series.usual().saturating_mul(USUAL_MAX);
        for span in &spans {
            let settled = span.to_ns.saturating_add(ns(rules.settle));
            let next = spans
                .iter()
                .map(|other| other.from_ns)
                .filter(|from| *from > span.to_ns)
                .min();
            let until = next.map_or(settled, |next| next.saturating_sub(slack).min(settled));
            let concerned = gaps
                .iter()
                .filter(|(from, to)| *to > span.from_ns && *from < until);
            let Some(&(from_ns, to_ns)) = concerned.max_by_key(|(from, to)| to - from) else {
                continue;
            };
            found.each.push(Outage {
                id: span.id,
                fault: span.fault.clone(),
                probe: series.name.to_owned(),
                from_ns,
                to_ns,
                recovered: series.answered.last().is_some_and(|last| *last >= to_ns),
            });
        }
        if let Some(share) = series.share(&gaps) {
            found.share.insert(series.name.to_owned(), share);
        }
    }
    let mut lengths: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for outage in &found.each {
        lengths
            .entry(&outage.fault)
            .or_default()
            .push(outage.length_ns());
    }
    let of =
        |(fault, lengths): (&str, Vec<u64>)| Some((fault.to_owned(), Distribution::of(lengths)?));
    found.by_fault = lengths.into_iter().filter_map(of).collect();
    found
}

fn series(history: &History) -> Vec<Series<'_>> {
    let mut all: BTreeMap<&str, Series<'_>> = BTreeMap::new();
    for event in &history.events {
        let Op::Probe(probe) = &event.op else {
            continue;
        };
        let sent = event.t_ns.saturating_sub(probe.latency_ns);
        let series = all.entry(&probe.probe).or_insert(Series {
            name: &probe.probe,
            answered: Vec::new(),
            first: sent,
            last: event.t_ns,
            sent: 0,
        });
        series.sent += 1;
        series.first = series.first.min(sent);
        series.last = series.last.max(event.t_ns);
        if event.kind == Kind::Ok {
            series.answered.push(sent);
        }
    }
    let sorted = all.into_values().map(|mut series| {
        series.answered.sort_unstable();
        series
    });
    sorted.collect()
}

impl Series<'_> {
    /// The times between answered probes, with those before the first and after the last.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let from = [self.first]
            .into_iter()
            .chain(self.answered.iter().copied());
        let to = self.answered.iter().copied().chain([self.last]);
        from.zip(to).filter(|(from, to)| from < to).collect()
    }

    /// The mean interval between two probes.
    fn usual(&self) -> u64 {
        let intervals = u64::try_from(self.sent).unwrap_or(u64::MAX).max(2) - 1;
        self.last.saturating_sub(self.first) / intervals
    }

    fn share(&self, gaps: &[(u64, u64)]) -> Option<f64> {
        let length = self
            .last
            .checked_sub(self.first)
            .filter(|length| *length > 0)?;
        let usual = self.usual();
        let away: u64 = gaps
            .iter()
            .map(|(from, to)| to - from)
            .filter(|gap| *gap > usual.saturating_mul(USUAL_MAX))
            .sum();
        Some(1.0 - float(away) / float(length))
    }
}

/// Judges the availability in `history`: that it came back after the last fault, and within [`Rules::outage_max`] if there is one.
pub(super) fn check(history: &History, rules: &Rules) -> Verdict {
    let all = series(history);
    if all.is_empty() {
        return Verdict::nothing(Checker::Availability);
    }
    let found = outages(history, rules);
    let mut findings = Findings::default();
    if let Some(most) = rules.outage_max.map(ns) {
        for outage in found.each.iter().filter(|outage| outage.length_ns() > most) {
            findings.add(
                format!(
                    "fault {} ({}): no answer to {} for {}",
                    outage.id,
                    outage.fault,
                    outage.probe,
                    millis(outage.length_ns())
                ),
                [
                    (outage.from_ns, "the last answer before it".to_owned()),
                    (outage.to_ns, "the first one after it".to_owned()),
                ],
            );
        }
    }
    let spans = fault_spans(history);
    let healed = spans.iter().all(|span| span.ended);
    let over = spans.iter().map(|span| span.to_ns).max().unwrap_or(0);
    for series in &all {
        let demanded = over
            .max(series.first)
            .saturating_add(ns(rules.recovery_max));
        let silent = series.answered.last().is_none_or(|last| *last < over);
        // Without an answer since the faults, and with enough time for one.
        if healed && silent && series.last >= demanded {
            findings.add(
                format!("{} is not answered again: the faults ended at {}, the last probe was sent after {}", series.name, seconds(over), seconds(series.last)),
                series.answered.last().map(|last| (*last, "the last answer".to_owned())),
            );
        }
    }
    let worst = found.each.iter().map(Outage::length_ns).max();
    let shares: Vec<_> = found
        .share
        .iter()
        .map(|(probe, share)| format!("{probe} answered {:.4} % of the time", share * 100.0))
        .collect();
    let worst = worst.map_or(String::new(), |worst| {
        format!(
            "; longest outage of {} faults {}",
            spans.len(),
            millis(worst)
        )
    });
    findings.verdict(
        Checker::Availability,
        format!("{}{worst}", shares.join(", ")),
    )
}

/// Nanoseconds as a float, exact up to 104 days.
#[expect(
    clippy::cast_precision_loss,
    reason = "lengths of a run are far below 2^53 ns"
)]
fn float(ns: u64) -> f64 {
    ns as f64
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::checkers::check_with;
    use crate::checkers::testing::{History, judged};
    use crate::history::{FaultStart, Probe};

    const MS: u64 = 1_000_000;

    /// Probes every millisecond of `from..to`, answered after 0.1 ms.
    fn probes(history: History, from: u64, to: u64, kind: Kind) -> History {
        (from..to).fold(history, |history, at| {
            let probe = Probe {
                probe: "ping".to_owned(),
                latency_ns: MS / 10,
            };
            history.event(at * MS + MS / 10, 0, kind, Op::Probe(probe))
        })
    }

    fn fault(history: History, id: u64, fault: &str, from: u64, to: u64) -> History {
        let start = FaultStart {
            id,
            fault: fault.to_owned(),
            ..FaultStart::default()
        };
        history
            .fact(from * MS, Op::FaultStart(Box::new(start)))
            .fact(to * MS, Op::FaultStop { id })
    }

    /// Two kills with outages of 30 and 50 ms, a cut without one.
    fn three_faults() -> History {
        let history = [
            (0, 100, Kind::Ok),
            (100, 129, Kind::Fail),
            (129, 300, Kind::Ok),
            (300, 349, Kind::Fail),
            (349, 1000, Kind::Ok),
        ]
        .into_iter()
        .fold(History::default(), |history, (from, to, kind)| {
            probes(history, from, to, kind)
        });
        let history = fault(history, 1, "kill", 100, 200);
        fault(fault(history, 2, "kill", 299, 500), 3, "cut", 600, 700)
    }

    #[test]
    fn each_fault_has_its_outage() {
        let found = outages(&three_faults().build(), &Rules::default());
        let lengths: Vec<_> = found
            .each
            .iter()
            .map(|outage| (outage.id, outage.length_ns() / MS))
            .collect();
        assert_eq!(lengths, [(1, 30), (2, 50), (3, 1)]);
        let kill = &found.by_fault["kill"];
        assert_eq!(
            (kill.count, kill.min_ns, kill.median_ns, kill.max_ns),
            (2, 30 * MS, 30 * MS, 50 * MS)
        );
        assert!(
            (found.share["ping"] - 0.92).abs() < 0.001,
            "{:?}",
            found.share
        );
        assert_eq!(
            judged(Checker::Availability, &three_faults()).0,
            Outcome::Holds
        );
        assert_eq!(
            judged(Checker::Availability, &History::default()).0,
            Outcome::NothingToCheck
        );
    }

    #[test]
    fn the_outage_of_the_next_fault_is_not_that_of_the_one_before() {
        let history = [
            (0, 100, Kind::Ok),
            (100, 119, Kind::Fail),
            (119, 300, Kind::Ok),
            (300, 379, Kind::Fail),
            (379, 600, Kind::Ok),
        ]
        .into_iter()
        .fold(History::default(), |history, (from, to, kind)| {
            probes(history, from, to, kind)
        });
        let history = fault(fault(history, 1, "kill", 100, 200), 2, "stop", 300, 400);
        let found = outages(&history.build(), &Rules::default());
        let lengths: Vec<_> = found
            .each
            .iter()
            .map(|outage| (outage.id, outage.length_ns() / MS))
            .collect();
        assert_eq!(lengths, [(1, 20), (2, 80)]);
    }

    #[test]
    fn outages_beyond_the_rule_are_found() {
        let rules = Rules {
            outage_max: Some(std::time::Duration::from_millis(40)),
            ..Rules::default()
        };
        let verdicts = check_with(&three_faults().build(), &rules);
        let verdict = verdicts.of(Checker::Availability).unwrap();
        assert_eq!(
            (verdict.outcome.clone(), verdict.findings.len()),
            (Outcome::Violated, 1)
        );
        assert!(verdict.findings[0].what.contains("50.000 ms"));
    }

    #[test]
    fn a_service_that_does_not_come_back_is_found() {
        let lasting = |to, stop: bool| {
            let history = probes(History::default(), 0, 100, Kind::Ok);
            let history = probes(history, 100, to, Kind::Fail);
            let start = FaultStart {
                id: 1,
                fault: "kill".to_owned(),
                ..FaultStart::default()
            };
            let history = history.fact(100 * MS, Op::FaultStart(Box::new(start)));
            if stop {
                history.fact(200 * MS, Op::FaultStop { id: 1 })
            } else {
                history
            }
        };
        assert_eq!(
            judged(Checker::Availability, &lasting(40_000, true)).0,
            Outcome::Violated
        );
        // Too short to tell, or not healed.
        assert_eq!(
            judged(Checker::Availability, &lasting(20_000, true)).0,
            Outcome::Holds
        );
        assert_eq!(
            judged(Checker::Availability, &lasting(40_000, false)).0,
            Outcome::Holds
        );
        let found = outages(&lasting(300, true).build(), &Rules::default());
        assert!(!found.each[0].recovered);
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = Distribution::of(1..=200).unwrap();
        assert_eq!(
            (of.min_ns, of.median_ns, of.p95_ns, of.p99_ns, of.max_ns),
            (1, 100, 190, 198, 200)
        );
        let one = Distribution::of([7]).unwrap();
        assert_eq!(
            (one.min_ns, one.median_ns, one.p99_ns, one.max_ns),
            (7, 7, 7, 7)
        );
        assert_eq!(Distribution::of([]), None);
    }
}
