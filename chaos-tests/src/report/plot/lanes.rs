//! Lanes over time: who was what when, with faults shaded behind and moments marked across.

use super::WIDTH;
use super::scale::{Scale, Unit, count, float};
use super::strip::widest;
use super::svg::{Anchor, Colour, Rect, Svg, fit, text_width};

/// Lanes over time.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
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
    /// Times shaded in all lanes, such as faults.
    pub shades: Vec<Shade>,
    /// Instants marked across all lanes, such as takeovers.
    pub marks: Vec<Mark>,
    /// The lanes, from top to bottom.
    pub groups: Vec<LaneGroup>,
}

/// A time shaded in all lanes.
#[derive(Clone, Debug)]
pub struct Shade {
    /// Its begin.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// Its name.
    pub label: String,
}

/// An instant marked across all lanes.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at_ns: u64,
    /// What.
    pub label: String,
    /// Whether something is wrong there: drawn louder.
    pub alarm: bool,
}

/// Lanes that belong together, such as those of one ATM.
#[derive(Clone, Debug)]
pub struct LaneGroup {
    /// Their name.
    pub label: String,
    /// Them.
    pub lanes: Vec<Lane>,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its name.
    pub label: String,
    /// What is in it. Should not overlap.
    pub spans: Vec<Span>,
}

/// A time in a lane.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its begin.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// Its colour.
    pub colour: Colour,
    /// Written inside where there is room.
    pub label: String,
    /// Told to those who hover.
    pub hover: String,
}

/// Height of a lane, of its bar, of a row of labels; space between groups.
const LANE: f64 = 19.0;
const BAR: f64 = 13.0;
const LABELS: f64 = 15.0;
const SPACE: f64 = 9.0;
/// Rows of labels at most: further ones are left to those who hover.
const LABEL_ROWS_MAX: usize = 8;
const GUTTER_MAX: f64 = 220.0;
/// Space to the right of the time axis.
pub(super) const MARGIN: f64 = 28.0;
/// Narrower spans are drawn this wide.
const SPAN_MIN: f64 = 1.5;

/// Draws `plot`. Spans that begin and end outside of the time shown are left out; very short ones that touch are drawn as one.
#[must_use]
pub fn lanes(plot: &Lanes) -> String {
    let mut svg = Svg::new();
    let group_width = widest(plot.groups.iter().map(|group| group.label.as_str()));
    let lane_labels = plot.groups.iter().flat_map(|group| &group.lanes);
    let lane_width = widest(lane_labels.map(|lane| lane.label.as_str()));
    let left = (group_width * 1.08 + lane_width + 40.0).min(GUTTER_MAX);
    let time = Time::new(
        plot.origin_ns,
        (plot.from_ns, plot.to_ns),
        (left, WIDTH - MARGIN),
    );

    svg.bold((12.0, 22.0), Anchor::Start, &fit(&plot.title, WIDTH - 24.0));
    let shades = time.shown_shades(&plot.shades);
    let marks: Vec<_> = plot
        .marks
        .iter()
        .filter(|mark| time.shows(mark.at_ns, mark.at_ns))
        .collect();
    let shade_labels = place(
        shades.iter().map(|shade| {
            (
                time.at(shade.from_ns),
                time.at(shade.to_ns),
                shade.label.as_str(),
            )
        }),
        &time,
    );
    let mark_labels = place(
        marks.iter().map(|mark| {
            (
                time.at(mark.at_ns),
                time.at(mark.at_ns),
                mark.label.as_str(),
            )
        }),
        &time,
    );
    let shades_top = 36.0;
    let marks_top = shades_top + LABELS * rows(&shade_labels);
    let top = marks_top + LABELS * rows(&mark_labels) + 6.0;
    let lane_count = plot.groups.iter().map(|group| group.lanes.len()).sum();
    let bottom = top + LANE * count(lane_count) + SPACE * count(plot.groups.len());

    let mut y = top;
    for (at, group) in plot.groups.iter().enumerate() {
        let height = LANE * count(group.lanes.len()) + SPACE;
        if at % 2 == 0 {
            svg.band(Rect {
                x: 0.0,
                y,
                width: WIDTH,
                height,
            });
        }
        y += height;
    }
    time.grid(&mut svg, top, bottom);
    time.shade(&mut svg, &shades, top, bottom);
    for (shade, row) in shades.iter().zip(&shade_labels) {
        label(
            &mut svg,
            &shade.label,
            time.at(shade.from_ns),
            *row,
            shades_top,
            Colour::Ink,
            &time,
        );
    }

    let mut y = top + SPACE / 2.0;
    for group in &plot.groups {
        svg.bold(
            (12.0, y + 13.0),
            Anchor::Start,
            &fit(&group.label, left - lane_width - 30.0),
        );
        for lane in &group.lanes {
            svg.text(
                (left - 10.0, y + 13.0),
                Anchor::End,
                Colour::Muted,
                &lane.label,
            );
            spans(&mut svg, &lane.spans, &time, y + (LANE - BAR) / 2.0);
            y += LANE;
        }
        y += SPACE;
    }
    for (mark, row) in marks.iter().zip(&mark_labels) {
        let x = time.at(mark.at_ns);
        let hover = format!("{} at {}", mark.label, time.say(mark.at_ns));
        let (colour, width) = if mark.alarm {
            (Colour::Vermilion, 2.0)
        } else {
            (Colour::Ink, 1.0)
        };
        // From the label down, so that it is clear whose line it is.
        let from = row.map_or(top, |row| marks_top + LABELS * count(row) + LABELS);
        svg.line((x, from), (x, bottom), colour, width, "3 3", &hover);
        label(&mut svg, &mark.label, x, *row, marks_top, colour, &time);
    }
    time.axis(&mut svg, bottom, &plot.axis);
    svg.finish(bottom + 46.0, &plot.title)
}

/// The spans of one lane as bars with their upper edge at `y`.
fn spans(svg: &mut Svg, spans: &[Span], time: &Time, y: f64) {
    let mut shown: Vec<_> = spans
        .iter()
        .filter(|span| time.shows(span.from_ns, span.to_ns))
        .collect();
    shown.sort_by_key(|span| span.from_ns);
    // Runs of spans that are too short to be told apart: as many spans as there are, the picture stays small.
    let mut rest = shown.as_slice();
    while let Some((first, more)) = rest.split_first() {
        let from = time.at(first.from_ns);
        let mut to = time.at(first.to_ns).max(from + SPAN_MIN);
        let tiny = |span: &Span| time.at(span.to_ns) - time.at(span.from_ns) < 2.0 * SPAN_MIN;
        let mut merged = 0;
        if tiny(first) {
            while let Some(next) = more.get(merged) {
                let joins =
                    tiny(next) && next.colour == first.colour && time.at(next.from_ns) <= to + 0.5;
                if !joins {
                    break;
                }
                to = to.max(time.at(next.to_ns)).max(from + SPAN_MIN);
                merged += 1;
            }
        }
        let hover = if merged == 0 {
            first.hover.clone()
        } else {
            format!(
                "{}, and {merged} more up to {}",
                first.hover,
                more.get(merged - 1)
                    .map_or_else(String::new, |last| time.say(last.to_ns))
            )
        };
        // A sliver of background keeps neighbours apart.
        let gap = if to - from > 4.0 { 1.0 } else { 0.0 };
        svg.rect(
            Rect {
                x: from,
                y,
                width: to - from - gap,
                height: BAR,
            },
            first.colour,
            1.0,
            &hover,
        );
        if merged == 0 && text_width(&first.label) + 8.0 <= to - from {
            svg.text_on(
                ((from + to) / 2.0, y + BAR - 3.0),
                first.colour,
                &first.label,
            );
        }
        rest = more.get(merged..).unwrap_or_default();
    }
}

/// Rows for labels so that none is over another: for each, in the order of `labels`, its row. Labels begin at the first of their
/// two places and keep clear of others to the second.
fn place<'a>(labels: impl Iterator<Item = (f64, f64, &'a str)>, time: &Time) -> Vec<Option<usize>> {
    let mut labels: Vec<_> = labels.enumerate().collect();
    labels.sort_by(|(_, a), (_, b)| a.0.total_cmp(&b.0));
    let mut placed = vec![None; labels.len()];
    let mut ends: Vec<f64> = Vec::new();
    for (at, (from, _, text)) in labels {
        if text.is_empty() {
            continue;
        }
        let width = text_width(text);
        let from = from.min(time.right - width);
        let free = ends.iter().position(|end| *end <= from);
        let row = free.or_else(|| {
            (ends.len() < LABEL_ROWS_MAX).then(|| {
                ends.push(0.0);
                ends.len() - 1
            })
        });
        if let Some(end) = row.and_then(|row| ends.get_mut(row)) {
            *end = from + width + 10.0;
        }
        if let Some(slot) = placed.get_mut(at) {
            *slot = row;
        }
    }
    placed
}

fn rows(placed: &[Option<usize>]) -> f64 {
    placed
        .iter()
        .flatten()
        .max()
        .map_or(0.0, |most| count(most + 1))
}

fn label(
    svg: &mut Svg,
    text: &str,
    x: f64,
    row: Option<usize>,
    top: f64,
    colour: Colour,
    time: &Time,
) {
    if let Some(row) = row {
        let y = top + LABELS * count(row) + 11.0;
        let x = x.min(time.right - text_width(text));
        svg.text((x + 2.0, y), Anchor::Start, colour, text);
    }
}

/// The horizontal axis of time.
pub(super) struct Time {
    origin_ns: u64,
    window: (u64, u64),
    pub(super) left: f64,
    pub(super) right: f64,
    scale: Scale,
}

impl Time {
    pub(super) fn new(origin_ns: u64, window: (u64, u64), (left, right): (f64, f64)) -> Self {
        let from_origin = |at| signed(at, origin_ns);
        let scale = Scale::linear(
            (from_origin(window.0), from_origin(window.1)),
            (left, right),
        );
        Self {
            origin_ns,
            window,
            left,
            right,
            scale,
        }
    }

    pub(super) fn at(&self, at_ns: u64) -> f64 {
        self.scale.at(signed(at_ns, self.origin_ns))
    }

    pub(super) fn shows(&self, from_ns: u64, to_ns: u64) -> bool {
        to_ns >= self.window.0 && from_ns <= self.window.1
    }

    /// `at_ns` as the axis counts it.
    pub(super) fn say(&self, at_ns: u64) -> String {
        let from_origin = signed(at_ns, self.origin_ns) / 1e9;
        format!("{from_origin:.4} s")
    }

    pub(super) fn shown_shades<'a>(&self, shades: &'a [Shade]) -> Vec<&'a Shade> {
        let mut shown: Vec<_> = shades
            .iter()
            .filter(|shade| self.shows(shade.from_ns, shade.to_ns))
            .collect();
        shown.sort_by_key(|shade| shade.from_ns);
        shown
    }

    pub(super) fn shade(&self, svg: &mut Svg, shades: &[&Shade], top: f64, bottom: f64) {
        for shade in shades {
            let (from, to) = (self.at(shade.from_ns), self.at(shade.to_ns));
            let hover = format!(
                "{}: {} to {}",
                shade.label,
                self.say(shade.from_ns),
                self.say(shade.to_ns)
            );
            let rect = Rect {
                x: from,
                y: top,
                width: (to - from).max(SPAN_MIN),
                height: bottom - top,
            };
            svg.rect(rect, Colour::Orange, 0.16, &hover);
            svg.line((from, top), (from, bottom), Colour::Orange, 1.0, "", &hover);
        }
    }

    pub(super) fn grid(&self, svg: &mut Svg, top: f64, bottom: f64) {
        for tick in self.scale.ticks(80.0) {
            let x = self.scale.at(tick);
            svg.grid((x, top), (x, bottom));
        }
    }

    /// The ticks' values and the axis' name below `bottom`.
    pub(super) fn axis(&self, svg: &mut Svg, bottom: f64, name: &str) {
        svg.line(
            (self.left, bottom),
            (self.right, bottom),
            Colour::Muted,
            1.0,
            "",
            "",
        );
        for tick in self.scale.ticks(80.0) {
            let x = self.scale.at(tick);
            svg.line((x, bottom), (x, bottom + 4.0), Colour::Muted, 1.0, "", "");
            svg.text(
                (x, bottom + 17.0),
                Anchor::Middle,
                Colour::Muted,
                &Unit::Nanoseconds.format(tick),
            );
        }
        svg.text(
            (self.left, bottom + 35.0),
            Anchor::Start,
            Colour::Muted,
            name,
        );
    }
}

fn signed(at_ns: u64, origin_ns: u64) -> f64 {
    if at_ns >= origin_ns {
        float(at_ns - origin_ns)
    } else {
        -float(origin_ns - at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from_ns: u64, to_ns: u64) -> Span {
        Span {
            from_ns,
            to_ns,
            colour: Colour::Blue,
            label: "epoch 1".to_owned(),
            hover: "h".to_owned(),
        }
    }

    fn plot(spans: Vec<Span>) -> Lanes {
        Lanes {
            title: "t".to_owned(),
            to_ns: 1_000_000,
            groups: vec![LaneGroup {
                label: "atm1".to_owned(),
                lanes: vec![Lane {
                    label: "epoch".to_owned(),
                    spans,
                }],
            }],
            ..Lanes::default()
        }
    }

    #[test]
    fn labels_never_stand_over_each_other() {
        let time = Time::new(0, (0, 1000), (0.0, 1000.0));
        let labels = [
            (0.0, 0.0, "a long label"),
            (10.0, 10.0, "another one"),
            (300.0, 300.0, "far away"),
            (999.0, 999.0, "at the end"),
            (990.0, 990.0, "just before"),
        ];
        let rows = place(labels.into_iter(), &time);
        assert_eq!(rows, [Some(0), Some(1), Some(0), Some(1), Some(0)]);
        let crowd = place((0..100).map(|_| (5.0, 5.0, "x")), &time);
        assert_eq!(crowd.iter().flatten().count(), LABEL_ROWS_MAX);
    }

    #[test]
    fn a_million_spans_make_a_small_picture() {
        let spans = (0..1_000_000).map(|at| span(at, at + 1)).collect();
        let svg = lanes(&plot(spans));
        assert!(svg.len() < 300_000, "{}", svg.len());
        assert!(svg.contains("and ") && svg.contains(" more up to"));
    }

    #[test]
    fn what_is_outside_is_left_out_and_what_crosses_the_edge_is_cut() {
        let svg = lanes(&plot(vec![
            span(2_000_000, 3_000_000),
            span(500_000, 9_000_000),
        ]));
        assert_eq!(svg.matches("<title>h</title>").count(), 1);
        assert!(svg.contains(">epoch 1</text>"));
    }
}
