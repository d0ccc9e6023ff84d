//! How long the VIP did not answer, from the probes of a client. Pure.

use std::time::Duration;

/// An answer that takes longer than this is no answer: the client has asked a hundred times since.
pub(super) const ANSWER_MAX: Duration = Duration::from_millis(100);

/// One question to the VIP. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) sent: u64,
    /// When its answer came.
    pub(super) answered: Option<u64>,
}

impl Probe {
    fn is_answered(&self) -> bool {
        let late = u64::try_from(ANSWER_MAX.as_nanos()).unwrap_or(u64::MAX);
        self.answered
            .is_some_and(|at| at.saturating_sub(self.sent) <= late)
    }
}

/// The longest outage in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outage {
    /// From the sending of the first question without an answer to the answer of the next question that got one.
    pub(super) ns: u64,
    /// Whether there was such an answer.
    pub(super) over: bool,
}

/// The longest outage that began at or after `from` and before `to`; what was asked after `to` is not looked at.
///
/// Probes are in the order of their sending. Those of the last [`ANSWER_MAX`] may still be answered: they count only where
/// they go on with an outage that began before.
pub(super) fn longest(probes: &[Probe], from: u64, to: u64) -> Outage {
    let mut longest = Outage { ns: 0, over: true };
    let mut begun: Option<u64> = None;
    let decided = to.saturating_sub(u64::try_from(ANSWER_MAX.as_nanos()).unwrap_or(0));
    for probe in probes.iter().filter(|p| (from..to).contains(&p.sent)) {
        match (probe.is_answered(), begun) {
            (true, Some(since)) => {
                let ns = probe.answered.unwrap_or(probe.sent).saturating_sub(since);
                if ns > longest.ns {
                    longest = Outage { ns, over: true };
                }
                begun = None;
            }
            (false, None) if probe.sent < decided => begun = Some(probe.sent),
            (true, None) | (false, _) => {}
        }
    }
    match begun {
        Some(since) if to.saturating_sub(since) > longest.ns => Outage {
            ns: to.saturating_sub(since),
            over: false,
        },
        _ => longest,
    }
}

/// Whether every question of the last `time` before `to` that can have an answer by now has one, and there are some.
pub(super) fn answers_steadily(probes: &[Probe], to: u64, time: Duration) -> bool {
    /// A round trip through the lab takes a tenth of a millisecond; a busy machine wakes the prober late.
    const UNDER_WAY: u64 = 20_000_000;
    let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let until = to.saturating_sub(UNDER_WAY);
    let asked = probes
        .iter()
        .rev()
        .skip_while(|p| p.sent >= until)
        .take_while(|p| p.sent >= until.saturating_sub(time));
    let mut some = false;
    for probe in asked {
        if !probe.is_answered() {
            return false;
        }
        some = true;
    }
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One probe a millisecond from 0 on: `+` answered after 0.1 ms, `-` never, `l` after 150 ms.
    fn probes(text: &str) -> Vec<Probe> {
        let one = |(ms, what): (u64, char)| Probe {
            sent: ms * MS,
            answered: match what {
                '+' => Some(ms * MS + MS / 10),
                'l' => Some(ms * MS + 150 * MS),
                _ => None,
            },
        };
        (0..).zip(text.chars()).map(one).collect()
    }

    #[test]
    fn the_longest_gap_counts_from_the_first_lost_question_to_the_next_answer() {
        let text = format!("+++--+---+{}", "+".repeat(200));
        let found = longest(&probes(&text), 0, 300 * MS);
        assert_eq!((found.ns, found.over), (3 * MS + MS / 10, true));
        assert_eq!(longest(&probes("++++"), 0, 300 * MS).ns, 0);
    }

    #[test]
    fn a_late_answer_is_none() {
        let text = format!("+ll+{}", "+".repeat(200));
        assert_eq!(longest(&probes(&text), 0, 300 * MS).ns, 2 * MS + MS / 10);
    }

    #[test]
    fn what_has_not_ended_is_said_to_last() {
        let text = format!("+-+{}", "-".repeat(250));
        let found = longest(&probes(&text), 0, 253 * MS);
        assert_eq!((found.ns, found.over), (250 * MS, false));
    }

    #[test]
    fn only_the_window_counts_and_its_end_is_undecided() {
        let text = format!("---{}--", "+".repeat(200));
        assert_eq!(longest(&probes(&text), 3 * MS, 205 * MS).ns, 0);
    }

    #[test]
    fn steady_means_that_all_recent_questions_have_answers() {
        let time = Duration::from_millis(50);
        let good = probes(&format!("-{}", "+".repeat(100)));
        assert!(answers_steadily(&good, 101 * MS, time));
        let bad = probes(&format!("{}-{}", "+".repeat(50), "+".repeat(40)));
        assert!(!answers_steadily(&bad, 91 * MS, time));
        assert!(!answers_steadily(&[], 91 * MS, time));
    }
}
