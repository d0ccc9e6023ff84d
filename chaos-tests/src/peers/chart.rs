//! The chart: fault by fault, router by router, each trial a dot; outage on the left, two voices on the right. Pure.

use std::fmt::Write as _;

use super::contender::{Contender, Kind};
use super::strike::Strike;
use super::summary::Spread;
use super::trial::Trial;

/// Pixels.
const WIDTH: f64 = 1180.0;
const LABELS: f64 = 210.0;
const PANEL: f64 = 460.0;
const GAP: f64 = 30.0;
const ROW: f64 = 19.0;
const HEAD: f64 = 118.0;
const TITLE: f64 = 30.0;
const FOOT: f64 = 26.0;

/// Both axes are logarithmic, from here to there; what is less stands in a column of its own left of it.
const LEAST_MS: f64 = 1.0;
const MOST_MS: f64 = 20_000.0;
const NONE: f64 = 34.0;

const TICKS: [(f64, &str); 5] = [
    (1.0, "1 ms"),
    (10.0, "10 ms"),
    (100.0, "100 ms"),
    (1000.0, "1 s"),
    (10_000.0, "10 s"),
];

/// Okabe and Ito's colours, which people tell apart whatever they see; the labels say the same.
fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#0072B2",
        Kind::Keepalived => "#D55E00",
        Kind::Conntrackd => "#009E73",
        Kind::Ucarp => "#8A4F7D",
    }
}

/// One mark of a row.
#[derive(Clone, Copy)]
enum Mark {
    /// A trial.
    Dot,
    /// What came after the end of the fault.
    Ring,
    /// A trial in which it still lasted when nobody looked any longer.
    Arrow,
}

/// An SVG of all `trials`.
pub(super) fn draw(trials: &[Trial]) -> String {
    let groups: Vec<(Strike, Vec<Contender>)> = Strike::ALL
        .into_iter()
        .map(|strike| {
            let has = |c: &Contender| {
                trials
                    .iter()
                    .any(|t| (t.contender, t.strike) == (*c, strike))
            };
            (strike, Contender::ALL.into_iter().filter(has).collect())
        })
        .filter(|(_, contenders): &(_, Vec<_>)| !contenders.is_empty())
        .collect();
    let group_height = |count: usize| TITLE + ROW * count as f64 + FOOT;
    let height = HEAD
        + groups
            .iter()
            .map(|(_, c)| group_height(c.len()))
            .sum::<f64>()
        + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"18\" font-weight=\"bold\">Takeover beside other routers: each trial a dot, the bar is the median</text>\n"
    );
    let panels = [left_edge(0), left_edge(1)];
    let heads = [
        (
            "Outage",
            "ms without an answer of the VIP, every millisecond asked",
        ),
        (
            "Two voices",
            "ms in which two routers spoke for the VIP at once",
        ),
    ];
    for (x, (title, what)) in panels.iter().zip(heads) {
        let _ = write!(
            svg,
            "<text x=\"{x}\" y=\"58\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n\
             <text x=\"{x}\" y=\"75\" fill=\"#555\">{what}</text>\n"
        );
    }
    legend(&mut svg);
    let mut y = HEAD;
    for (strike, contenders) in &groups {
        group(&mut svg, y, *strike, contenders, trials);
        y += group_height(contenders.len());
    }
    svg + "</svg>\n"
}

fn legend(svg: &mut String) {
    let entries = [
        (left_edge(0), Mark::Dot, "after the fault"),
        (
            left_edge(0) + 120.0,
            Mark::Ring,
            "after its end (SIGCONT, heal)",
        ),
        (left_edge(1), Mark::Dot, "whole trial"),
        (
            left_edge(1) + 120.0,
            Mark::Arrow,
            "still two when the watching ended",
        ),
    ];
    for (x, kind, text) in entries {
        mark(svg, kind, x + 6.0, 93.0, "#555");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"97\" fill=\"#555\">{text}</text>",
            x + 16.0
        );
    }
    for panel in 0..2 {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"97\" text-anchor=\"end\" fill=\"#555\">median</text>",
            left_edge(panel) + PANEL
        );
    }
}

fn group(svg: &mut String, y: f64, strike: Strike, contenders: &[Contender], trials: &[Trial]) {
    let (top, bottom) = (y + TITLE - 6.0, y + TITLE + ROW * contenders.len() as f64);
    let _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{}\" font-size=\"13\" font-weight=\"bold\">{}</text>",
        y + 16.0,
        strike.label()
    );
    for panel in 0..2 {
        let x = left_edge(panel);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{top}\" width=\"{NONE}\" height=\"{}\" fill=\"#f2f2f2\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#555\">none</text>",
            bottom - top,
            x + NONE / 2.0,
            bottom + 13.0
        );
        for (ms, name) in TICKS {
            let at = position(panel, ms);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\" fill=\"#555\">{name}</text>",
                bottom + 13.0
            );
        }
    }
    for (n, contender) in contenders.iter().enumerate() {
        let middle = y + TITLE + ROW * (n as f64 + 0.4);
        if n % 2 == 1 {
            let (top, width) = (middle - ROW * 0.5, left_edge(1) + PANEL);
            let _ = writeln!(
                svg,
                "<rect y=\"{top:.1}\" width=\"{width}\" height=\"{ROW}\" fill=\"#000\" fill-opacity=\"0.03\"/>"
            );
        }
        let fill = colour(contender.kind());
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{fill}\">{}</text>",
            LABELS - 8.0,
            middle + 4.0,
            contender.label()
        );
        let own = trials
            .iter()
            .filter(|t| (t.contender, t.strike) == (*contender, strike));
        let relief = own.clone().filter_map(|t| t.relief_outage_ms);
        // Nearly always there is none, and rings on dots would only hide them.
        let relief = relief
            .filter(|ms| *ms >= LEAST_MS)
            .map(|ms| (ms, Mark::Ring));
        strip(svg, 0, middle, fill, &relief.collect::<Vec<_>>());
        let outage: Vec<_> = own.clone().map(|t| (t.outage_ms, Mark::Dot)).collect();
        let voices: Vec<_> = own
            .map(|t| {
                (
                    t.two_voices_ms,
                    if t.two_voices_to_the_end {
                        Mark::Arrow
                    } else {
                        Mark::Dot
                    },
                )
            })
            .collect();
        for (panel, values) in [outage, voices].into_iter().enumerate() {
            strip(svg, panel, middle, fill, &values);
            median(svg, panel, middle, fill, &values);
        }
    }
}

/// The marks of one row.
fn strip(svg: &mut String, panel: usize, middle: f64, fill: &str, values: &[(f64, Mark)]) {
    /// Dots of one value stand beside one another, not on one another.
    const SPREAD: [f64; 5] = [0.0, -3.6, 3.6, -1.8, 1.8];
    for (n, (ms, kind)) in values.iter().enumerate() {
        let y = middle + SPREAD[n % SPREAD.len()];
        mark(svg, *kind, position(panel, *ms), y, fill);
    }
}

fn mark(svg: &mut String, kind: Mark, x: f64, y: f64, fill: &str) {
    let _ = match kind {
        Mark::Dot => writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\" fill=\"{fill}\" fill-opacity=\"0.45\"/>"
        ),
        Mark::Ring => writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"none\" stroke=\"{fill}\"/>"
        ),
        Mark::Arrow => writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}l6.5 3.2l-6.5 3.2z\" fill=\"{fill}\" fill-opacity=\"0.45\"/>",
            y - 3.2
        ),
    };
}

fn median(svg: &mut String, panel: usize, middle: f64, fill: &str, values: &[(f64, Mark)]) {
    let Some(spread) = Spread::of(values.iter().map(|(ms, _)| *ms)) else {
        return;
    };
    let at = position(panel, spread.median);
    let _ = writeln!(
        svg,
        "<line x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"{fill}\" stroke-width=\"2.4\"/>\n\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\" fill=\"{fill}\">{:.0}</text>",
        middle - 7.0,
        middle + 7.0,
        left_edge(panel) + PANEL,
        middle + 3.8,
        spread.median
    );
}

fn left_edge(panel: usize) -> f64 {
    LABELS + (PANEL + GAP) * panel as f64
}

fn position(panel: usize, ms: f64) -> f64 {
    let left = left_edge(panel);
    if ms < LEAST_MS {
        return left + NONE / 2.0;
    }
    // Room for the figure of the median at the right end.
    let axis = PANEL - NONE - 60.0;
    let share = (ms.min(MOST_MS) / LEAST_MS).ln() / (MOST_MS / LEAST_MS).ln();
    left + NONE + 16.0 + axis * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::summary::tests::trial;

    #[test]
    fn each_trial_is_a_dot_in_each_panel() {
        let trials = [
            trial(Contender::Ours100Ms, Strike::Crash, 250.0),
            trial(Contender::Ours100Ms, Strike::Crash, 0.0),
            trial(Contender::Ucarp1S, Strike::Kill, 99_999.0),
        ];
        let svg = draw(&trials);
        // Two of the legend.
        assert_eq!(svg.matches("r=\"2.6\"").count(), 6 + 2);
        assert!(svg.contains("ucarp, advert 1 s") && !svg.contains("link down"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(draw(&[]).matches("r=\"2.6\"").count(), 2);
    }

    #[test]
    fn what_lasts_and_what_comes_after_look_different() {
        let mut trial = trial(Contender::Keepalived1S, Strike::Stop, 0.0);
        trial.relief_outage_ms = Some(900.0);
        trial.two_voices_ms = 500.0;
        trial.two_voices_to_the_end = true;
        let svg = draw(&[trial]);
        // One of each in the legend.
        assert_eq!(svg.matches("<path").count(), 2);
        assert_eq!(svg.matches("fill=\"none\"").count(), 2);
    }

    #[test]
    fn the_axis_is_logarithmic_and_bounded() {
        let at = |ms| position(0, ms);
        assert!((at(100.0) - at(10.0) - (at(1000.0) - at(100.0))).abs() < 1e-6);
        assert!(at(0.0) < at(1.0) && at(99_999.0) <= LABELS + PANEL);
        assert!(position(1, 0.0) > at(MOST_MS));
    }
}
