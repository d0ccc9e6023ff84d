//! A strip plot: every value a dot, one row a group, the median marked and written.

use super::WIDTH;
use super::scale::{Scale, Unit, count, index};
use super::svg::{Anchor, Colour, Rect, Svg, fit, text_width};

/// A strip plot.
#[derive(Clone, Debug)]
pub struct Strip {
    /// What it shows, in a line.
    pub title: String,
    /// What the axis measures, without the unit.
    pub axis: String,
    /// Of the values.
    pub unit: Unit,
    /// Rows, from top to bottom.
    pub groups: Vec<Group>,
    /// A value to compare with, and its name.
    pub target: Option<(f64, String)>,
}

/// One row of a strip plot.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name.
    pub label: String,
    /// The values. Negative ones and those that are no numbers stand at the begin of the axis.
    pub values: Vec<f64>,
    /// Colour of its dots.
    pub colour: Colour,
}

const ROW: f64 = 44.0;
const TOP: f64 = 58.0;
/// The dots of one place stack up to this distance from the row's middle.
const STACK: f64 = 15.0;
const RADIUS: f64 = 3.2;
const LABEL_MAX: f64 = 260.0;

/// Draws `plot`. The axis is logarithmic where the values span more than a factor of 20.
#[must_use]
pub fn strip(plot: &Strip) -> String {
    let mut svg = Svg::new();
    let summaries: Vec<_> = plot
        .groups
        .iter()
        .map(|group| summary(group, plot.unit))
        .collect();
    let left = widest(plot.groups.iter().map(|group| group.label.as_str())).min(LABEL_MAX) + 24.0;
    let right = WIDTH - widest(summaries.iter().map(String::as_str)) - 24.0;
    let right = right.max(left + 200.0);
    let values = plot
        .groups
        .iter()
        .flat_map(|group| group.values.iter().copied());
    let target = plot.target.iter().map(|(value, _)| *value);
    let scale = Scale::choose(values.chain(target), (left, right));
    let bottom = TOP + ROW * count(plot.groups.len());

    svg.bold((12.0, 22.0), Anchor::Start, &fit(&plot.title, WIDTH - 24.0));
    for (at, _) in plot.groups.iter().enumerate().filter(|(at, _)| at % 2 == 1) {
        svg.band(Rect {
            x: left,
            y: TOP + ROW * count(at),
            width: right - left,
            height: ROW,
        });
    }
    for tick in scale.ticks(70.0) {
        let x = scale.at(tick);
        svg.grid((x, TOP), (x, bottom));
        svg.text(
            (x, bottom + 16.0),
            Anchor::Middle,
            Colour::Muted,
            &plot.unit.format(tick),
        );
    }
    svg.text(
        (left, bottom + 34.0),
        Anchor::Start,
        Colour::Muted,
        &plot.axis,
    );
    if let Some((value, name)) = &plot.target {
        let x = scale.at(*value);
        let text = format!("{name}: {}", plot.unit.format(*value));
        let half = text_width(&text) / 2.0;
        svg.line(
            (x, TOP - 6.0),
            (x, bottom),
            Colour::Vermilion,
            1.5,
            "5 4",
            &text,
        );
        let x = x.clamp(half + 4.0, WIDTH - half - 4.0);
        svg.text((x, TOP - 12.0), Anchor::Middle, Colour::Vermilion, &text);
    }
    for ((at, group), summary) in plot.groups.iter().enumerate().zip(&summaries) {
        let middle = TOP + ROW * (count(at) + 0.5);
        svg.text(
            (left - 12.0, middle + 4.0),
            Anchor::End,
            Colour::Ink,
            &fit(&group.label, LABEL_MAX),
        );
        if let Some(median) = median(&group.values) {
            let x = scale.at(median);
            let hover = format!("{}: median {}", group.label, plot.unit.format(median));
            svg.line(
                (x, middle - 18.0),
                (x, middle + 18.0),
                Colour::Ink,
                2.5,
                "",
                &hover,
            );
        }
        dots(&mut svg, group, plot.unit, &scale, middle);
        svg.text(
            (right + 14.0, middle + 4.0),
            Anchor::Start,
            Colour::Ink,
            summary,
        );
    }
    svg.finish(bottom + 46.0, &plot.title)
}

/// Dots that would fall together stack up and down from the middle; beyond [`STACK`] they would hide each other anyway.
fn dots(svg: &mut Svg, group: &Group, unit: Unit, scale: &Scale, middle: f64) {
    let mut sorted = group.values.clone();
    sorted.sort_by(f64::total_cmp);
    let mut stacked = vec![0_usize; index(WIDTH / (2.0 * RADIUS)) + 1];
    for value in sorted {
        let x = scale.at(value);
        let Some(stack) = stacked.get_mut(index(x / (2.0 * RADIUS))) else {
            continue;
        };
        let side = if *stack % 2 == 0 { 1.0 } else { -1.0 };
        let away = count(stack.div_ceil(2)) * RADIUS * 1.8;
        *stack += 1;
        if away <= STACK {
            let hover = format!("{}: {}", group.label, unit.format(value));
            svg.circle((x, middle + side * away), RADIUS, group.colour, &hover);
        }
    }
}

fn summary(group: &Group, unit: Unit) -> String {
    let Some(median) = median(&group.values) else {
        return "no values".to_owned();
    };
    let most = group.values.iter().copied().fold(f64::MIN, f64::max);
    format!(
        "median {}, max {}, n {}",
        unit.format(median),
        unit.format(most),
        group.values.len()
    )
}

/// By the nearest rank, as everywhere in reports.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().div_ceil(2).checked_sub(1)?)
        .copied()
}

pub(super) fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> f64 {
    texts.map(text_width).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_drawn_with_its_median() {
        let group = |label: &str, values: &[f64]| Group {
            label: label.to_owned(),
            values: values.to_vec(),
            colour: Colour::Blue,
        };
        let svg = strip(&Strip {
            title: "Outages".to_owned(),
            axis: "time without an answer".to_owned(),
            unit: Unit::Nanoseconds,
            groups: vec![
                group("kill", &[90e6, 100e6, 110e6]),
                group("stop", &[300e6; 500]),
                group("none", &[]),
            ],
            target: Some((285e6, "keepalived".to_owned())),
        });
        assert!(svg.contains("median 100 ms, max 110 ms, n 3") && svg.contains("no values"));
        // 500 equal values are as many dots as fit, no more.
        assert!(svg.matches("<circle").count() < 20);
        assert!(!svg.contains("NaN"));
    }
}
