//! From the checks of one ATM to its report, and from the reports of all ATMs to verdicts. Pure; time is an argument.
//!
//! A subject is down when more than half of the ATMs with a fresh report say so, and up when more than half say that; between the two
//! it stays what it was. An ATM that reports, and has not come to this subject yet, is one of them and says neither. An ATM that alone sees everything down has lost its own way to the servers more likely than they all have
//! failed: its word does not count, and it is named. A new active ATM judges when a majority of the ATMs has reported to it, or after
//! [`GRACE`]: what it alone sees is no ground to change what all of them had found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Subject, bounded};
use crate::Instant;
use crate::ids::NodeId;

/// How long a new active ATM waits for the reports of a majority: others report to it every two seconds.
pub const GRACE: Duration = Duration::from_secs(5);

/// An ATM with fewer subjects cannot see "everything" down.
const EVERYTHING_MIN: usize = 2;

/// Checks of one subject by one ATM, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    up: Option<bool>,
    /// Results in a row that differ from it.
    against: u32,
}

impl Streak {
    /// Notes a result. A subject that was never seen is up with its first success, and down after `fall` failures.
    pub fn note(&mut self, passed: bool, rise: u32, fall: u32) {
        let needed = match (self.up, passed) {
            (Some(up), _) if up == passed => {
                self.against = 0;
                return;
            }
            (None, true) => 1,
            (_, true) => rise,
            (_, false) => fall,
        };
        self.against += 1;
        if self.against >= needed {
            self.up = Some(passed);
            self.against = 0;
        }
    }

    /// What this ATM says of the subject; `None`: nothing yet.
    #[must_use]
    pub const fn up(self) -> Option<bool> {
        self.up
    }
}

/// What one ATM says of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is meant.
    pub subject: Subject,
    /// Whether it passes the checks.
    pub up: bool,
    /// How long ago the last check of it ended.
    pub age: Duration,
    /// What a failed check said.
    pub reason: String,
}

#[derive(Clone, Debug)]
struct Seen {
    up: bool,
    at: Instant,
    reason: String,
}

/// The reports of all ATMs, in one tenure.
#[derive(Clone, Debug)]
pub struct Judge {
    began: Instant,
    atms: BTreeMap<NodeId, BTreeMap<Subject, Seen>>,
}

/// What the reports come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Subjects of which a majority says the same, whether that is `up`, and why.
    pub verdicts: BTreeMap<Subject, (bool, String)>,
    /// ATMs that alone see everything down.
    pub suspected: BTreeSet<NodeId>,
}

impl Judge {
    /// Nothing is known yet; a tenure begins.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        let atms = BTreeMap::new();
        Self { began: now, atms }
    }

    /// Takes all that an ATM says, instead of what it said before.
    pub fn hear(&mut self, atm: NodeId, reports: impl IntoIterator<Item = Report>, now: Instant) {
        let seen = reports.into_iter().map(|report| {
            let Report {
                subject,
                up,
                age,
                reason,
            } = report;
            let at = now.saturating_sub(age);
            (subject, Seen { up, at, reason })
        });
        self.atms.insert(atm, seen.collect());
    }

    /// Judges `subjects`, of each of which a report is fresh for as long as stands beside it. `atms`: how many there are.
    #[must_use]
    pub fn judge(
        &self,
        subjects: &BTreeMap<Subject, Duration>,
        atms: usize,
        now: Instant,
    ) -> Judgement {
        if self.atms.len() * 2 <= atms && now < self.began + GRACE {
            return Judgement::default();
        }
        let fresh: BTreeMap<NodeId, BTreeMap<&Subject, &Seen>> = self
            .atms
            .iter()
            .map(|(atm, reports)| {
                let fresh = reports.iter().filter(|(subject, seen)| {
                    subjects
                        .get(*subject)
                        .is_some_and(|fresh_for| now <= seen.at + *fresh_for)
                });
                (*atm, fresh.collect())
            })
            .collect();
        let suspected = alone_in_the_dark(&fresh);
        let heard = fresh.iter().filter(|(_, reports)| !reports.is_empty());
        let voters = heard.filter(|(atm, _)| !suspected.contains(atm)).count();
        let mut verdicts = BTreeMap::new();
        for subject in subjects.keys() {
            let votes: Vec<&Seen> = fresh
                .iter()
                .filter(|(atm, _)| !suspected.contains(atm))
                .filter_map(|(_, reports)| reports.get(subject).copied())
                .collect();
            let ups = votes.iter().filter(|seen| seen.up).count();
            let downs = votes.len() - ups;
            if ups * 2 > voters {
                let reason = format!("passes the checks of {ups} of {voters} ATMs");
                verdicts.insert(subject.clone(), (true, reason));
            } else if downs * 2 > voters {
                let said = votes.iter().find(|seen| !seen.up);
                let said = said.map_or("", |seen| &seen.reason);
                let reason = bounded(format!("{said} ({downs} of {voters} ATMs)"));
                verdicts.insert(subject.clone(), (false, reason));
            }
        }
        Judgement {
            verdicts,
            suspected,
        }
    }
}

/// The one ATM that sees everything down, while each other one sees something up.
fn alone_in_the_dark(fresh: &BTreeMap<NodeId, BTreeMap<&Subject, &Seen>>) -> BTreeSet<NodeId> {
    let told = fresh.iter().filter(|(_, reports)| !reports.is_empty());
    let (dark, light): (Vec<_>, Vec<_>) =
        told.partition(|(_, reports)| reports.values().all(|seen| !seen.up));
    match dark.as_slice() {
        [(atm, reports)] if !light.is_empty() && reports.len() >= EVERYTHING_MIN => {
            BTreeSet::from([**atm])
        }
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServerId;

    const FRESH: Duration = Duration::from_secs(10);

    fn subject(number: u16) -> Subject {
        (ServerId(number), "web".to_owned())
    }

    /// Reports of one ATM: `+` up, `-` down, `.` nothing, by subject.
    fn reports(text: &str, age: Duration) -> Vec<Report> {
        let numbered = (1..).zip(text.chars()).filter(|(_, sign)| *sign != '.');
        let report = |(number, sign)| Report {
            subject: subject(number),
            up: sign == '+',
            age,
            reason: "refused".to_owned(),
        };
        numbered.map(report).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant::BOOT + Duration::from_secs(1_000 + seconds)
    }

    /// Verdicts of three subjects, as [`reports`] writes them, and who is suspected.
    fn judged(all: &[&str]) -> (String, Vec<u64>) {
        let mut judge = Judge::new(at(0));
        for (atm, text) in (1..).zip(all) {
            if !text.is_empty() {
                judge.hear(NodeId(atm), reports(text, Duration::ZERO), at(1));
            }
        }
        shown(&judge, all.len(), at(2))
    }

    fn shown(judge: &Judge, atms: usize, now: Instant) -> (String, Vec<u64>) {
        let subjects = (1..=3).map(|number| (subject(number), FRESH)).collect();
        let judgement = judge.judge(&subjects, atms, now);
        let sign = |number| match judgement.verdicts.get(&subject(number)) {
            None => '.',
            Some((true, _)) => '+',
            Some((false, _)) => '-',
        };
        let suspected = judgement.suspected.iter().map(|atm| atm.0);
        ((1..=3).map(sign).collect(), suspected.collect())
    }

    #[test]
    fn the_majority_of_those_who_report_decides() {
        for (what, all, verdicts, suspected) in [
            ("all agree", &["++-", "++-", "++-"][..], "++-", vec![]),
            ("two of three", &["+--", "+--", "+++"], "+--", vec![]),
            ("one of three", &["-++", "+++", "+++"], "+++", vec![]),
            ("a tie changes nothing", &["+-+", "+++"], "+.+", vec![]),
            ("one alone", &["+-."], "+-.", vec![]),
            (
                "one who has not come to it yet",
                &["+-.", "+-.", "..+"],
                "+-.",
                vec![],
            ),
            (
                "one word of three is no majority",
                &["-..", "+++", "+++"],
                "+++",
                vec![],
            ),
            (
                "nor is it where others have none",
                &["-+.", ".+.", ".+."],
                ".+.",
                vec![],
            ),
            ("alone in the dark", &["---", "+++", "++-"], "++.", vec![1]),
            ("alone of two", &["---", "+++"], "+++", vec![1]),
            (
                "two in the dark are a majority",
                &["---", "---", "+++"],
                "---",
                vec![],
            ),
            ("all in the dark", &["---", "---"], "---", vec![]),
            (
                "one subject is not everything",
                &["-..", "+..", ""],
                "...",
                vec![],
            ),
        ] {
            let (found, who) = judged(all);
            assert_eq!((found.as_str(), who), (verdicts, suspected), "{what}");
        }
    }

    #[test]
    fn a_new_active_atm_waits_for_a_majority_or_for_the_grace() {
        let mut judge = Judge::new(at(0));
        judge.hear(NodeId(1), reports("--+", Duration::ZERO), at(1));
        assert_eq!(shown(&judge, 3, at(2)).0, "...");
        assert_eq!(shown(&judge, 3, at(5)).0, "--+", "the grace is over");
        judge.hear(NodeId(2), reports("--+", Duration::ZERO), at(2));
        assert_eq!(shown(&judge, 3, at(2)).0, "--+");
    }

    #[test]
    fn what_is_old_does_not_count() {
        let mut judge = Judge::new(at(0));
        judge.hear(NodeId(1), reports("--+", Duration::ZERO), at(1));
        judge.hear(NodeId(2), reports("+++", Duration::from_secs(8)), at(1));
        assert_eq!(shown(&judge, 2, at(2)).0, "..+");
        assert_eq!(shown(&judge, 2, at(4)).0, "--+", "the second is too old");
        assert_eq!(shown(&judge, 2, at(12)).0, "...");
    }

    #[test]
    fn the_reason_of_those_who_say_down_is_told() {
        let mut judge = Judge::new(at(0));
        for atm in [1, 2] {
            judge.hear(NodeId(atm), reports("-+.", Duration::ZERO), at(1));
        }
        let subjects = BTreeMap::from([(subject(1), FRESH)]);
        let judgement = judge.judge(&subjects, 2, at(2));
        let (up, reason) = &judgement.verdicts[&subject(1)];
        assert_eq!((*up, reason.as_str()), (false, "refused (2 of 2 ATMs)"));
    }

    #[test]
    fn rise_and_fall_count_in_a_row() {
        for (results, rise, fall, expected) in [
            ("+", 3, 3, Some(true)),
            ("-", 1, 1, Some(false)),
            ("--", 1, 3, None),
            ("---", 1, 3, Some(false)),
            ("+--+--", 1, 3, Some(true)),
            ("+---", 1, 3, Some(false)),
            ("-+-+", 2, 1, Some(false)),
            ("-++", 2, 1, Some(true)),
            ("", 1, 1, None),
        ] {
            let mut streak = Streak::default();
            for result in results.chars() {
                streak.note(result == '+', rise, fall);
            }
            assert_eq!(streak.up(), expected, "{results} rise {rise} fall {fall}");
        }
    }
}
