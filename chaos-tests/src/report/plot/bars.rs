//! Bars: one value a row, written at the end of its bar.

use super::WIDTH;
use super::scale::{Scale, Unit, count};
use super::strip::widest;
use super::svg::{Anchor, Colour, Rect, Svg, fit, text_width};

/// A bar chart.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What it shows, in a line.
    pub title: String,
    /// What the axis measures, without the unit.
    pub axis: String,
    /// Of the values.
    pub unit: Unit,
    /// Rows, from top to bottom.
    pub bars: Vec<Bar>,
    /// The value at the end of the axis, if it is given by nature, such as 1 of a share.
    pub full: Option<f64>,
}

/// One row of a bar chart.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name.
    pub label: String,
    /// Its length, not negative; `None`: there is none, and the note says why.
    pub value: Option<f64>,
    /// What is written behind the value.
    pub note: String,
    /// Its colour.
    pub colour: Colour,
}

const ROW: f64 = 26.0;
const TOP: f64 = 40.0;
const LABEL_MAX: f64 = 300.0;

/// Draws `plot`; the axis is linear and begins with 0.
#[must_use]
pub fn bars(plot: &Bars) -> String {
    let mut svg = Svg::new();
    let texts: Vec<_> = plot.bars.iter().map(|bar| text(bar, plot.unit)).collect();
    let left = widest(plot.bars.iter().map(|bar| bar.label.as_str())).min(LABEL_MAX) + 24.0;
    let right = (WIDTH - widest(texts.iter().map(String::as_str)) - 24.0).max(left + 200.0);
    let values = plot.bars.iter().filter_map(|bar| bar.value);
    let longest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let full = plot
        .full
        .unwrap_or(if longest > 0.0 { longest * 1.02 } else { 1.0 });
    let scale = Scale::linear((0.0, full), (left, right));
    let bottom = TOP + ROW * count(plot.bars.len());

    svg.bold((12.0, 22.0), Anchor::Start, &fit(&plot.title, WIDTH - 24.0));
    for tick in scale.ticks(80.0) {
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
    for ((at, bar), text) in plot.bars.iter().enumerate().zip(&texts) {
        let y = TOP + ROW * count(at);
        svg.text(
            (left - 10.0, y + ROW / 2.0 + 4.0),
            Anchor::End,
            Colour::Ink,
            &fit(&bar.label, LABEL_MAX),
        );
        let end = bar.value.map_or(left, |value| scale.at(value));
        // A value of zero is a mark, too: it is not the absence of a value.
        let width = if bar.value.is_some() {
            (end - left).max(1.5)
        } else {
            0.0
        };
        let rect = Rect {
            x: left,
            y: y + 4.0,
            width,
            height: ROW - 8.0,
        };
        svg.rect(rect, bar.colour, 0.85, &format!("{}: {text}", bar.label));
        let fits = end + 8.0 + text_width(text) <= WIDTH;
        let x = if fits { end + 8.0 } else { right + 8.0 };
        svg.text((x, y + ROW / 2.0 + 4.0), Anchor::Start, Colour::Ink, text);
    }
    svg.finish(bottom + 46.0, &plot.title)
}

fn text(bar: &Bar, unit: Unit) -> String {
    let value = bar.value.map(|value| unit.format(value));
    let parts = value
        .into_iter()
        .chain((!bar.note.is_empty()).then(|| bar.note.clone()));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_of_zero_is_seen_and_a_missing_one_says_why() {
        let bar = |label: &str, value, note: &str| Bar {
            label: label.to_owned(),
            value,
            note: note.to_owned(),
            colour: Colour::Green,
        };
        let svg = bars(&Bars {
            title: "Two voices".to_owned(),
            axis: "time".to_owned(),
            unit: Unit::Nanoseconds,
            bars: vec![
                bar("ours", Some(0.0), "20 trials"),
                bar("theirs", Some(5e9), ""),
                bar("other", None, "not measured"),
            ],
            full: None,
        });
        for part in ["0, 20 trials", ">5 s<", ">not measured<", "width=\"1.5\""] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
    }
}
