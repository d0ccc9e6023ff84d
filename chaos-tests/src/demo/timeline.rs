//! A takeover drawn as text: one bar per phase, all on one scale. Pure.

use std::fmt::Write as _;

use super::takeover::Takeover;

/// Columns of the bars; with labels and figures a line fits into 100 columns.
const BAR_COLUMNS: usize = 44;

/// `takeover` as lines; the scale runs from the fault to the last milestone.
pub(super) fn draw(takeover: &Takeover) -> String {
    let Takeover {
        cause,
        from,
        to,
        milestones,
    } = takeover;
    let end = milestones.iter().map(|m| m.at_ms).fold(0.0, f64::max);
    let label = milestones.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let mut text = format!("{cause}: {to} takes over from {from}; ms after it\n");
    let mut before = 0.0_f64;
    for milestone in milestones {
        let begin = column(before, end);
        let stop = column(milestone.at_ms, end);
        // A phase that was over before the one above it has no length of its own.
        let bar = if stop > begin {
            format!("{}{}", " ".repeat(begin), "#".repeat(stop - begin))
        } else {
            format!("{}|", " ".repeat(stop.min(BAR_COLUMNS - 1)))
        };
        let (name, seen_by) = (milestone.name, milestone.seen_by);
        let _ = writeln!(
            text,
            "  {name:<label$}  {bar:<BAR_COLUMNS$} {:>7.1}  {seen_by}",
            milestone.at_ms
        );
        before = before.max(milestone.at_ms);
    }
    text
}

/// `takeover` as one line of figures.
pub(super) fn figures(takeover: &Takeover) -> String {
    let Takeover {
        cause,
        from: _,
        to,
        milestones,
    } = takeover;
    let figures: Vec<_> = milestones
        .iter()
        .map(|milestone| format!("{} {:.0}", milestone.short, milestone.at_ms))
        .collect();
    format!("{cause}: {to} takes over; {}\n", figures.join(", "))
}

/// Where `at` of `0..=end` is among the columns of the bars.
fn column(at: f64, end: f64) -> usize {
    if end <= 0.0 {
        return 0;
    }
    // Counted, not cast: the number of columns is small.
    (0..BAR_COLUMNS)
        .take_while(|column| {
            let reached = f64::from(u32::try_from(*column).unwrap_or(u32::MAX)) + 0.5;
            reached * end <= at * f64::from(u32::try_from(BAR_COLUMNS).unwrap_or(u32::MAX))
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::takeover::Milestone;

    #[test]
    fn phases_follow_each_other_on_one_scale() {
        let at = |name, at_ms| Milestone {
            name,
            short: "x",
            seen_by: "wire",
            at_ms,
        };
        let takeover = Takeover {
            cause: "kill -9 atm1".to_owned(),
            from: "atm1".to_owned(),
            to: "atm2".to_owned(),
            milestones: vec![
                at("last", -1.0),
                at("elected", 220.0),
                at("waited", 100.0),
                at("first", 440.0),
            ],
        };
        let text = draw(&takeover);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "kill -9 atm1: atm2 takes over from atm1; ms after it"
        );
        let bars: Vec<_> = lines[1..].iter().map(|l| l[11..55].trim_end()).collect();
        assert_eq!(
            bars,
            [
                "|".to_owned(),
                "#".repeat(22),
                format!("{}|", " ".repeat(10)),
                format!("{}{}", " ".repeat(22), "#".repeat(22)),
            ]
        );
        assert!(lines[4].ends_with("440.0  wire"));
        assert_eq!(
            figures(&takeover),
            "kill -9 atm1: atm2 takes over; x -1, x 220, x 100, x 440\n"
        );
    }

    #[test]
    fn nothing_known_draws_nothing() {
        let text = draw(&Takeover {
            cause: "c".to_owned(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            milestones: vec![],
        });
        assert_eq!(text.lines().count(), 1);
    }
}
