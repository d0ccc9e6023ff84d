//! From values to pixels, and where the ticks are.

/// What values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, shown in the largest unit that fits.
    Nanoseconds,
    /// A share of 1, shown in percent.
    Share,
    /// A number of anything.
    Count,
}

impl Unit {
    /// `value` for people, with three significant digits.
    #[must_use]
    pub fn format(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => {
                let (scaled, unit) = match value.abs() {
                    v if v < 1e-9 => return "0".to_owned(),
                    v if v < 999.5e3 => (value / 1e3, "µs"),
                    v if v < 999.5e6 => (value / 1e6, "ms"),
                    v if v < 600e9 => (value / 1e9, "s"),
                    _ => (value / 60e9, "min"),
                };
                format!("{} {unit}", digits(scaled))
            }
            Self::Share => format!("{} %", digits(value * 100.0)),
            Self::Count => digits(value),
        }
    }
}

/// `value` with three significant digits, without zeros that say nothing.
fn digits(value: f64) -> String {
    let text = match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A scale from values to pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

/// The least value a logarithmic scale shows: below a nanosecond nothing is measured.
const LOG_MIN: f64 = 1.0;

impl Scale {
    /// `low..=high` becomes `from..=to`, linearly.
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            from,
            to,
            log: false,
        }
    }

    /// The same, logarithmically, from the power of ten below `low` or a half of it to that above `high`.
    pub(super) fn log((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let low = round_log(low.max(LOG_MIN), false);
        let high = round_log(high.max(LOG_MIN), true).max(low * 10.0);
        Self {
            low,
            high,
            from,
            to,
            log: true,
        }
    }

    /// Linear from 0, or logarithmic where the values span more than a factor of 20.
    pub(super) fn choose(values: impl Iterator<Item = f64> + Clone, pixels: (f64, f64)) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let high = finite.clone().fold(0.0, f64::max);
        let low = finite
            .filter(|value| *value > 0.0)
            .fold(f64::INFINITY, f64::min);
        if low.is_finite() && high > low * 20.0 && low >= LOG_MIN {
            Self::log((low, high), pixels)
        } else {
            let high = if high > 0.0 { high * 1.05 } else { 1.0 };
            Self::linear((0.0, high), pixels)
        }
    }

    /// Where `value` is; outside of the scale: at its end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        let share = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values with about `spacing` pixels between them.
    pub(super) fn ticks(&self, spacing: f64) -> Vec<f64> {
        let room = ((self.to - self.from).abs() / spacing).max(1.0);
        if self.log {
            let decades = (self.high / self.low).log10();
            let factors: &[f64] = match room / decades {
                most if most >= 3.0 => &[1.0, 2.0, 5.0],
                most if most >= 2.0 => &[1.0, 3.0],
                _ => &[1.0],
            };
            let every = (decades / room).ceil().max(1.0);
            let mut ticks = Vec::new();
            let mut decade = 10_f64.powf(self.low.log10().floor());
            while decade <= self.high * 1.001 && ticks.len() < TICKS_MAX {
                ticks.extend(factors.iter().map(|factor| factor * decade));
                decade *= 10_f64.powf(every);
            }
            ticks.retain(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick));
            return ticks;
        }
        let raw = (self.high - self.low) / room;
        let power = 10_f64.powf(raw.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps
            .into_iter()
            .find(|step| *step >= raw * 0.999)
            .unwrap_or(power * 10.0);
        let first = (self.low / step).ceil();
        let mut ticks = Vec::new();
        let mut at = first;
        while at * step <= self.high + step * 1e-6 && ticks.len() < TICKS_MAX {
            // Sums of steps would drift off zero.
            ticks.push(at * step);
            at += 1.0;
        }
        ticks
    }
}

/// No axis has room for more.
const TICKS_MAX: usize = 100;

/// The next 1, 2 or 5 times a power of ten at or below `value`, or at or above it.
fn round_log(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let candidates = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    if up {
        candidates
            .into_iter()
            .find(|candidate| *candidate >= value * 0.999)
    } else {
        candidates
            .into_iter()
            .rfind(|candidate| *candidate <= value * 1.001)
    }
    .unwrap_or(value)
}

/// Nanoseconds as a float; exact up to 104 days.
#[expect(
    clippy::cast_precision_loss,
    reason = "a picture has fewer pixels than 2^53"
)]
pub(super) fn float(ns: u64) -> f64 {
    ns as f64
}

/// A small number as a float.
pub(super) fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

/// The whole part of a number that is not negative, as an index.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates; NaN becomes 0"
)]
pub(super) fn index(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_with_their_unit() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "0.001 µs"),
            (57e3, "57 µs"),
            (1.5e6, "1.5 ms"),
            (285e6, "285 ms"),
            (999.9e6, "1 s"),
            (-20e6, "-20 ms"),
            (3.35e9, "3.35 s"),
            (599e9, "599 s"),
            (3600e9, "60 min"),
        ] {
            assert_eq!(Unit::Nanoseconds.format(value), expected);
        }
        assert_eq!(Unit::Share.format(0.999), "99.9 %");
        assert_eq!(Unit::Count.format(12_345.0), "12345");
    }

    #[test]
    fn ticks_are_round_and_few() {
        let linear = Scale::linear((0.0, 95.0), (0.0, 500.0));
        assert_eq!(linear.ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let log = Scale::log((3e5, 4e9), (0.0, 500.0));
        let ticks = log.ticks(100.0);
        assert_eq!(
            ticks
                .iter()
                .map(|tick| tick.log10().round())
                .collect::<Vec<_>>(),
            [6.0, 7.0, 8.0, 9.0]
        );
        let narrow = Scale::log((1e6, 9e6), (0.0, 500.0)).ticks(100.0);
        assert_eq!(
            narrow
                .iter()
                .map(|tick| (tick / 1e6).round())
                .collect::<Vec<_>>(),
            [1.0, 2.0, 5.0, 10.0]
        );
    }

    #[test]
    fn no_value_leaves_the_picture() {
        for scale in [
            Scale::linear((0.0, 0.0), (10.0, 20.0)),
            Scale::log((0.0, 0.0), (10.0, 20.0)),
            Scale::choose([1e3, 1e9].into_iter(), (10.0, 20.0)),
        ] {
            for value in [
                f64::NEG_INFINITY,
                -1.0,
                0.0,
                5.0,
                1e300,
                f64::INFINITY,
                f64::NAN,
            ] {
                assert!(
                    (10.0..=20.0).contains(&scale.at(value)),
                    "{scale:?} {value}"
                );
            }
            assert!(scale.ticks(5.0).len() <= TICKS_MAX);
        }
    }
}
