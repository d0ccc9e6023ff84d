//! Latency over time: how many samples fell where, with the median and the 99th percentile over them, and what was not answered above.

use super::WIDTH;
use super::lanes::{MARGIN, Shade, Time};
use super::scale::{Scale, Unit, count, float, index};
use super::svg::{Anchor, Colour, Rect, Svg, fit};

/// Latency over time.
#[derive(Clone, Debug, Default)]
pub struct Density {
    /// What it shows, in a line.
    pub title: String,
    /// What time is counted from, in words.
    pub axis: String,
    /// The instant that the axis calls 0.
    pub origin_ns: u64,
    /// The first instant shown.
    pub from_ns: u64,
    /// The last one.
    pub to_ns: u64,
    /// Times shaded, such as faults.
    pub shades: Vec<Shade>,
    /// What was measured, in any order.
    pub samples: Vec<Sample>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was sent.
    pub at_ns: u64,
    /// How long the answer took; `None`: there was none.
    pub latency_ns: Option<u64>,
}

const HEIGHT: f64 = 210.0;
const TOP: f64 = 64.0;
const LEFT: f64 = 92.0;
/// Room for the names of the lines at their ends.
const RIGHT: f64 = 74.0;
/// Size of a cell, in pixels.
const CELL: f64 = 3.0;

/// Draws `plot`; the vertical axis is logarithmic.
#[must_use]
pub fn density(plot: &Density) -> String {
    let mut svg = Svg::new();
    let bottom = TOP + HEIGHT;
    let time = Time::new(
        plot.origin_ns,
        (plot.from_ns, plot.to_ns),
        (LEFT, WIDTH - MARGIN - RIGHT),
    );
    let shown = || {
        plot.samples
            .iter()
            .filter(|sample| time.shows(sample.at_ns, sample.at_ns))
    };
    let latencies = shown().filter_map(|sample| sample.latency_ns).map(float);
    let (low, high) = latencies.fold((f64::INFINITY, 0.0), |(low, high), at| {
        (f64::min(low, at), f64::max(high, at))
    });
    let low = if low.is_finite() { low } else { 1e6 };
    let scale = Scale::log((low, high.max(low)), (bottom, TOP));

    let columns = index((time.right - time.left) / CELL) + 1;
    let mut answered: Vec<Vec<f64>> = vec![Vec::new(); columns];
    let mut unanswered = vec![0_usize; columns];
    for sample in shown() {
        let column = index((time.at(sample.at_ns) - time.left) / CELL);
        if let Some(latency) = sample.latency_ns {
            if let Some(column) = answered.get_mut(column) {
                column.push(float(latency));
            }
        } else if let Some(column) = unanswered.get_mut(column) {
            *column += 1;
        }
    }
    answered
        .iter_mut()
        .for_each(|column| column.sort_by(f64::total_cmp));

    svg.bold((12.0, 22.0), Anchor::Start, &fit(&plot.title, WIDTH - 24.0));
    time.grid(&mut svg, TOP, bottom);
    time.shade(
        &mut svg,
        &time.shown_shades(&plot.shades),
        TOP - 18.0,
        bottom,
    );
    for tick in scale.ticks(34.0) {
        let y = scale.at(tick);
        svg.grid((time.left, y), (time.right, y));
        svg.text(
            (time.left - 8.0, y + 4.0),
            Anchor::End,
            Colour::Muted,
            &Unit::Nanoseconds.format(tick),
        );
    }
    cells(&mut svg, &answered, &scale, &time);
    failures(&mut svg, &unanswered, &time);
    let lines = [(50, "median", Colour::Ink), (99, "p99", Colour::Vermilion)];
    let mut last_label: Option<f64> = None;
    for (percent, name, colour) in lines {
        let runs = line(&answered, percent, &scale, &time);
        svg.path(&runs, colour, if percent == 50 { 2.0 } else { 1.2 });
        if let Some((_, y)) = runs.last().and_then(|run| run.last()) {
            // Apart from the label written before.
            let y = last_label.map_or(*y, |last| {
                if (y - last).abs() < 14.0 {
                    last - 14.0
                } else {
                    *y
                }
            });
            svg.text((time.right + 8.0, y + 4.0), Anchor::Start, colour, name);
            last_label = Some(y);
        }
    }
    figures(&mut svg, &answered, &time);
    time.axis(&mut svg, bottom, &plot.axis);
    svg.finish(bottom + 46.0, &plot.title)
}

/// Cells, the fuller the darker; by the logarithm, so that a single sample is seen beside a thousand.
fn cells(svg: &mut Svg, answered: &[Vec<f64>], scale: &Scale, time: &Time) {
    let rows = index(HEIGHT / CELL) + 1;
    let fullest = answered.iter().map(Vec::len).max().unwrap_or(1);
    let full = (count(fullest) + 1.0).ln();
    for (at, column) in answered.iter().enumerate() {
        let mut cells = vec![0_usize; rows];
        for latency in column {
            if let Some(cell) = cells.get_mut(index((scale.at(*latency) - TOP) / CELL)) {
                *cell += 1;
            }
        }
        for (row, filled) in cells
            .into_iter()
            .enumerate()
            .filter(|(_, filled)| *filled > 0)
        {
            let rect = Rect {
                x: time.left + count(at) * CELL,
                y: TOP + count(row) * CELL,
                width: CELL,
                height: CELL,
            };
            let opacity = 0.25 + 0.65 * (count(filled) + 1.0).ln() / full;
            svg.rect(rect, Colour::Sky, opacity, "");
        }
    }
}

/// Over each column of cells a clear one that tells its figures to those who hover.
fn figures(svg: &mut Svg, answered: &[Vec<f64>], time: &Time) {
    for (at, column) in answered.iter().enumerate() {
        let value =
            |percent| nearest_rank(column, percent).map(|value| Unit::Nanoseconds.format(value));
        if let (Some(median), Some(p99), Some(most)) = (value(50), value(99), value(100)) {
            let rect = Rect {
                x: time.left + count(at) * CELL,
                y: TOP,
                width: CELL,
                height: HEIGHT,
            };
            let hover = format!("median {median}, p99 {p99}, max {most}, n {}", column.len());
            svg.rect(rect, Colour::Sky, 0.0, &hover);
        }
    }
}

/// A percentile of sorted values.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied()
}

/// A row of marks above, where something was not answered.
fn failures(svg: &mut Svg, unanswered: &[usize], time: &Time) {
    svg.text(
        (time.left - 8.0, TOP - 14.0),
        Anchor::End,
        Colour::Vermilion,
        "no answer",
    );
    for (at, failed) in unanswered
        .iter()
        .enumerate()
        .filter(|(_, failed)| **failed > 0)
    {
        let rect = Rect {
            x: time.left + count(at) * CELL,
            y: TOP - 24.0,
            width: CELL,
            height: 11.0,
        };
        svg.rect(
            rect,
            Colour::Vermilion,
            1.0,
            &format!("{failed} not answered"),
        );
    }
}

/// The percentile of each column, by the nearest rank, as runs of columns that have samples.
fn line(answered: &[Vec<f64>], percent: usize, scale: &Scale, time: &Time) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, column) in answered.iter().enumerate() {
        if let Some(value) = nearest_rank(column, percent) {
            let x = time.left + (count(at) + 0.5) * CELL;
            if let Some(run) = runs.last_mut() {
                run.push((x, scale.at(value)));
            }
        } else if runs.last().is_some_and(|run| !run.is_empty()) {
            runs.push(Vec::new());
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lines_and_failures_are_drawn() {
        let sample = |at: u64| Sample {
            at_ns: at * 1_000_000,
            latency_ns: (!(400..500).contains(&at)).then_some(100_000 + at % 7 * 10_000),
        };
        let plot = Density {
            title: "Latency".to_owned(),
            to_ns: 1_000_000_000,
            samples: (0..1000).map(sample).collect(),
            ..Density::default()
        };
        let svg = density(&plot);
        for part in ["median", "p99", "not answered", "100 µs"] {
            assert!(svg.contains(part), "{part}");
        }
        // The gap breaks each line in two.
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(
            svg.lines()
                .filter(|line| line.starts_with("<path"))
                .all(|line| line.matches('M').count() == 2)
        );
        assert!(
            !density(&Density {
                samples: Vec::new(),
                ..plot
            })
            .contains("NaN")
        );
    }
}
