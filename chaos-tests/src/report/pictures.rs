//! What a history looks like: the whole run, its faults one by one from close by, latencies, outages.

use std::collections::{BTreeMap, BTreeSet};

use super::plot::{
    Colour, Density, Group, Lane, LaneGroup, Lanes, Mark, Sample, Shade, Span, Strip, Unit,
    density, lanes, strip,
};
use crate::checkers::{FaultSpan, Outage, Outages, Rules, fault_spans, outages};
use crate::history::{Contradiction, History, Kind, Op, Tenure};

/// Faults drawn from close by: those with the longest outages.
const CLOSE_UPS_MAX: usize = 12;
/// What a close-up shows before the fault, and after the end of its outage.
const BEFORE_NS: u64 = 300_000_000;
const AFTER_NS: u64 = 700_000_000;
/// The longest time of a close-up; longer ones are no close-ups.
const CLOSE_UP_NS_MAX: u64 = 20_000_000_000;
/// Gaps shorter than this many usual intervals of the probes are none.
const GAP_INTERVALS: u64 = 3;
/// Contradictions marked: each is a line across.
const ALARMS_MAX: usize = 50;

/// A picture of the report.
pub(super) struct Picture {
    /// Its file, without the suffix.
    pub(super) name: String,
    /// Said above it.
    pub(super) heading: String,
    /// How to read it.
    pub(super) caption: &'static str,
    pub(super) svg: String,
}

/// Every picture of `history`, in the order of the report.
pub(super) fn draw(history: &History, rules: &Rules) -> Vec<Picture> {
    let Some((from, to)) = history.span() else {
        return Vec::new();
    };
    let scene = Scene::new(history, rules, from);
    let mut pictures = vec![Picture {
        name: "timeline".to_owned(),
        heading: "The run".to_owned(),
        caption: "Shaded: faults. Dashed: an ATM becomes active; red: something that must not be. For each ATM the tenure it held (pale: elected, not yet allowed to speak), the \
                  lease by its own word, and its voice as the wire heard it.",
        svg: lanes(&scene.lanes(
            "Faults, outages and who was active",
            "since the start of the run",
            from,
            (from, to),
        )),
    }];
    pictures.extend(scene.outage_strip());
    for (at, (probe, samples)) in scene.samples.iter().enumerate() {
        let plot = Density {
            title: format!("Latency of {probe}"),
            axis: "since the start of the run".to_owned(),
            origin_ns: from,
            from_ns: from,
            to_ns: to,
            shades: scene.shades(),
            samples: samples.clone(),
        };
        pictures.push(Picture {
            name: format!("latency-{at}"),
            heading: format!("Latency: {probe}"),
            caption: "The darker, the more answers. Above: what was not answered.",
            svg: density(&plot),
        });
    }
    pictures.extend(scene.close_ups());
    pictures
}

/// A history, sorted for drawing.
struct Scene<'a> {
    history: &'a History,
    spans: Vec<FaultSpan>,
    outages: Outages,
    samples: BTreeMap<&'a str, Vec<Sample>>,
    atms: BTreeMap<&'a str, Atm>,
    marks: Vec<Mark>,
    start: u64,
}

/// The lanes of one ATM.
#[derive(Default)]
struct Atm {
    tenure: Vec<Span>,
    lease: Vec<Span>,
    voice: Vec<Span>,
}

impl<'a> Scene<'a> {
    fn new(history: &'a History, rules: &Rules, start: u64) -> Self {
        let mut scene = Self {
            history,
            spans: fault_spans(history),
            outages: outages(history, rules),
            samples: BTreeMap::new(),
            atms: BTreeMap::new(),
            marks: Vec::new(),
            start,
        };
        scene.gather_samples();
        scene.gather_leases_and_voices();
        scene.gather_tenures();
        scene.gather_marks();
        scene
    }

    fn gather_samples(&mut self) {
        for event in &self.history.events {
            if let Op::Probe(probe) = &event.op {
                let sample = Sample {
                    at_ns: event.t_ns.saturating_sub(probe.latency_ns),
                    latency_ns: (event.kind == Kind::Ok).then_some(probe.latency_ns),
                };
                self.samples.entry(&probe.probe).or_default().push(sample);
            }
        }
        self.samples
            .values_mut()
            .for_each(|samples| samples.sort_by_key(|sample| sample.at_ns));
    }

    fn gather_leases_and_voices(&mut self) {
        let mut heard: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for event in &self.history.events {
            if let Op::Lease(lease) = &event.op {
                let span = self.span(
                    lease.from_ns,
                    lease.end_ns(),
                    Colour::Green,
                    "",
                    &format!("{} holds the lease of epoch {}", lease.atm, lease.epoch),
                );
                self.atms.entry(&lease.atm).or_default().lease.push(span);
            } else if let Op::Voice(voice) = &event.op {
                let what = format!(
                    "{} speaks for {}, {} frames",
                    voice.atm, voice.vip, voice.frames
                );
                let span = self.span(voice.first_ns, voice.last_ns, Colour::Purple, "", &what);
                self.atms.entry(&voice.atm).or_default().voice.push(span);
            } else if let Op::Heard(frame) = &event.op {
                heard.entry(&frame.atm).or_default().push(event.t_ns);
            } else if let Op::Digest { atm, .. } = &event.op {
                // An ATM that was never active has its lanes, too: they are empty.
                self.atms.entry(atm).or_default();
            }
        }
        for (atm, frames) in heard {
            let spans: Vec<_> = frames
                .iter()
                .map(|at| self.span(*at, *at, Colour::Purple, "", &format!("{atm} speaks")))
                .collect();
            self.atms.entry(atm).or_default().voice.extend(spans);
        }
        for atm in self.atms.values_mut() {
            atm.lease = joined(std::mem::take(&mut atm.lease));
        }
    }

    /// A tenure lasts from its claim to the end of its last lease, or else to the next claim.
    fn gather_tenures(&mut self) {
        let mut begins: BTreeMap<u64, (&str, u64)> = BTreeMap::new();
        let mut claims: BTreeMap<u64, (&Tenure, u64)> = BTreeMap::new();
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for event in &self.history.events {
            if let Op::Tenure(tenure) = &event.op {
                if let Some(at) = tenure.claimed_ns.or(tenure.spoke_ns) {
                    begins.insert(tenure.epoch, (&tenure.atm, at));
                    claims.insert(tenure.epoch, (tenure.as_ref(), at));
                }
            } else if let Op::Lease(lease) = &event.op {
                let (from, end) = (lease.from_ns, lease.end_ns());
                let begin = begins.entry(lease.epoch).or_insert((&lease.atm, from));
                begin.1 = begin.1.min(from);
                let last = ends.entry(lease.epoch).or_insert(end);
                *last = end.max(*last);
            }
        }
        // A timeline may be read more than once: its last reading counts.
        for (tenure, claimed) in claims
            .into_values()
            .filter(|(tenure, claimed)| tenure.applied_ns < *claimed)
        {
            let what = format!(
                "{} may not speak yet: BeginEpoch applied, table {} later",
                tenure.atm,
                Unit::Nanoseconds
                    .format(seconds(tenure.table_ns.saturating_sub(tenure.applied_ns)) * 1e9)
            );
            let span = self.span(tenure.applied_ns, claimed, Colour::Sky, "", &what);
            self.atms.entry(&tenure.atm).or_default().tenure.push(span);
        }
        let last = self.history.span().map_or(0, |(_, last)| last);
        let nexts: Vec<_> = begins
            .values()
            .skip(1)
            .map(|(_, at)| *at)
            .chain([last])
            .collect();
        for ((epoch, (atm, from)), next) in begins.into_iter().zip(nexts) {
            let to = ends.get(&epoch).copied().unwrap_or(next);
            let span = self.span(
                from,
                to.max(from),
                Colour::Blue,
                &format!("epoch {epoch}"),
                &format!("{atm} active in epoch {epoch}"),
            );
            self.atms.entry(atm).or_default().tenure.push(span);
            self.marks.push(Mark {
                at_ns: from,
                label: format!("{atm} active"),
                alarm: false,
            });
        }
    }

    fn gather_marks(&mut self) {
        let mut alarms = 0;
        for event in &self.history.events {
            if let Op::Mark { text } = &event.op {
                self.marks.push(Mark {
                    at_ns: event.t_ns,
                    label: text.clone(),
                    alarm: false,
                });
            } else if let Op::TwoVoices(found) = &event.op
                && alarms < ALARMS_MAX
            {
                alarms += 1;
                // One label, or they would fill the picture.
                let label = if alarms == 1 {
                    match found.how {
                        Contradiction::Spoke(_) => {
                            format!("{} speaks, {} holds", found.other, found.holder)
                        }
                        Contradiction::Alternated(_) => {
                            format!("{} and {} by turns", found.other, found.holder)
                        }
                    }
                } else {
                    String::new()
                };
                self.marks.push(Mark {
                    at_ns: event.t_ns,
                    label,
                    alarm: true,
                });
            }
        }
    }

    fn span(&self, from_ns: u64, to_ns: u64, colour: Colour, label: &str, what: &str) -> Span {
        let say = |at: u64| format!("{:.4} s", seconds(at.saturating_sub(self.start)));
        let length = Unit::Nanoseconds.format(seconds(to_ns.saturating_sub(from_ns)) * 1e9);
        Span {
            from_ns,
            to_ns,
            colour,
            label: label.to_owned(),
            hover: format!("{what}: {} to {}, {length}", say(from_ns), say(to_ns)),
        }
    }

    fn shades(&self) -> Vec<Shade> {
        let shades = self.spans.iter().map(|span| Shade {
            from_ns: span.from_ns,
            to_ns: span.to_ns,
            label: name(span),
        });
        shades.collect()
    }

    fn lanes(&self, title: &str, axis: &str, origin: u64, (from, to): (u64, u64)) -> Lanes {
        let answers = self.samples.iter().map(|(probe, samples)| Lane {
            label: (*probe).to_owned(),
            spans: self.silences(probe, samples),
        });
        let service = LaneGroup {
            label: "no answer".to_owned(),
            lanes: answers.collect(),
        };
        let atms = self.atms.iter().map(|(name, atm)| {
            let lane = |label: &str, spans: &Vec<Span>| Lane {
                label: label.to_owned(),
                spans: spans.clone(),
            };
            LaneGroup {
                label: (*name).to_owned(),
                lanes: vec![
                    lane("epoch", &atm.tenure),
                    lane("lease", &atm.lease),
                    lane("voice", &atm.voice),
                ],
            }
        });
        Lanes {
            title: title.to_owned(),
            axis: axis.to_owned(),
            origin_ns: origin,
            from_ns: from,
            to_ns: to,
            shades: self.shades(),
            marks: self.marks.clone(),
            groups: [service]
                .into_iter()
                .filter(|group| !group.lanes.is_empty())
                .chain(atms)
                .collect(),
        }
    }

    /// The times in which `samples` of `probe` went unanswered.
    fn silences(&self, probe: &str, samples: &[Sample]) -> Vec<Span> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Vec::new();
        };
        let intervals = u64::try_from(samples.len()).unwrap_or(u64::MAX).max(2) - 1;
        let usual = (last.at_ns - first.at_ns) / intervals;
        let answered = samples
            .iter()
            .filter(|sample| sample.latency_ns.is_some())
            .map(|sample| sample.at_ns);
        let from = [first.at_ns].into_iter().chain(answered.clone());
        let gaps = from.zip(answered.chain([last.at_ns]));
        gaps.filter(|(from, to)| to - from > usual.saturating_mul(GAP_INTERVALS))
            .map(|(from, to)| {
                let length = Unit::Nanoseconds.format(seconds(to - from) * 1e9);
                self.span(
                    from,
                    to,
                    Colour::Vermilion,
                    &length,
                    &format!("no answer to {probe}"),
                )
            })
            .collect()
    }

    fn outage_strip(&self) -> Option<Picture> {
        let mut kinds: BTreeSet<&str> = BTreeSet::new();
        kinds.extend(self.outages.each.iter().map(|outage| outage.fault.as_str()));
        if kinds.is_empty() {
            return None;
        }
        let groups = kinds.into_iter().enumerate().map(|(at, kind)| {
            let lengths = self
                .outages
                .each
                .iter()
                .filter(|outage| outage.fault == kind);
            Group {
                label: kind.to_owned(),
                values: lengths
                    .map(|outage| seconds(outage.length_ns()) * 1e9)
                    .collect(),
                colour: Colour::of_series(at),
            }
        });
        let plot = Strip {
            title: "Longest time without an answer, by fault".to_owned(),
            axis: "time between two answered probes".to_owned(),
            unit: Unit::Nanoseconds,
            groups: groups.collect(),
            target: None,
        };
        Some(Picture {
            name: "outages".to_owned(),
            heading: "Outages".to_owned(),
            caption: "Each dot is one fault (and one series of probes); the bar is the median. Without any loss a dot stands at the probes' interval.",
            svg: strip(&plot),
        })
    }

    /// The faults with the longest outages, from close by.
    fn close_ups(&self) -> Vec<Picture> {
        let mut worst: BTreeMap<u64, &Outage> = BTreeMap::new();
        for outage in &self.outages.each {
            let known = worst.entry(outage.id).or_insert(outage);
            if outage.length_ns() > known.length_ns() {
                *known = outage;
            }
        }
        let mut faults: Vec<_> = self
            .spans
            .iter()
            .map(|span| (span, worst.get(&span.id).copied()))
            .collect();
        faults.sort_by_key(|(_, outage)| std::cmp::Reverse(outage.map_or(0, Outage::length_ns)));
        faults.truncate(CLOSE_UPS_MAX);
        faults.sort_by_key(|(span, _)| span.from_ns);
        let pictures = faults.into_iter().map(|(span, outage)| {
            let from = span.from_ns.saturating_sub(BEFORE_NS);
            // An outage that lasts is shown to its end, if that is near.
            let end = outage
                .map_or(span.from_ns, |outage| outage.to_ns)
                .max(span.from_ns);
            let to = end
                .saturating_add(AFTER_NS)
                .min(from.saturating_add(CLOSE_UP_NS_MAX));
            let length = outage.map_or(String::new(), |outage| {
                format!(
                    ", no answer for {}",
                    Unit::Nanoseconds.format(seconds(outage.length_ns()) * 1e9)
                )
            });
            let heading = format!("Fault {}: {}{length}", span.id, name(span));
            let svg =
                lanes(&self.lanes(&heading, "since the fault began", span.from_ns, (from, to)));
            Picture {
                name: format!("fault-{}", span.id),
                heading,
                caption: "",
                svg,
            }
        });
        pictures.collect()
    }
}

fn name(span: &FaultSpan) -> String {
    if span.target.is_empty() {
        span.fault.clone()
    } else {
        format!("{} {}", span.fault, span.target)
    }
}

/// Spans of one colour that overlap or touch and say the same, as one: a lease is extended with every round.
fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.from_ns, span.to_ns));
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        let what = |span: &Span| span.hover.split(':').next().unwrap_or_default().to_owned();
        match joined.last_mut() {
            Some(last) if span.from_ns <= last.to_ns && what(last) == what(&span) => {
                if span.to_ns > last.to_ns {
                    last.to_ns = span.to_ns;
                    last.hover = format!(
                        "{}, extended: {}",
                        what(last).replace(", extended", ""),
                        span.hover.split(": ").nth(1).unwrap_or_default()
                    );
                }
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64()
}
