//! Dates as mail writes them, always in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Day 0 of the epoch was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const SECONDS_PER_DAY: u64 = 86_400;
/// The last second of the year 9999, the last year the grammars have room for.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Since the epoch; zero for a clock before it.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `Thu, 01 Jan 1970 00:00:00 +0000` (RFC 5322 §3.3).
pub(crate) fn rfc5322(seconds: u64) -> String {
    let seconds = seconds.min(SECONDS_MAX);
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let weekday = nth(&WEEKDAYS, seconds / SECONDS_PER_DAY % 7);
    format!(
        "{weekday}, {day:02} {} {year:04} {} +0000",
        nth(&MONTHS, month - 1),
        clock(seconds)
    )
}

/// `" 1-Jan-1970 00:00:00 +0000"` with its quotes (RFC 3501 §9, date-time).
pub(crate) fn imap(seconds: u64) -> String {
    let seconds = seconds.min(SECONDS_MAX);
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    format!(
        "\"{day:2}-{}-{year:04} {} +0000\"",
        nth(&MONTHS, month - 1),
        clock(seconds)
    )
}

/// The day number since the epoch of `1-Jan-1970` (RFC 3501 §9, date); `None` if it is no date from 1970 to 9999.
pub(crate) fn imap_day(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let day: u64 = parts.next()?.trim().parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS
        .iter()
        .zip(1..)
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?
        .1;
    let year: u64 = parts.next()?.parse().ok()?;
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let days = day_number(year, month, day);
    (civil(days) == (year, month, day)).then_some(days)
}

fn clock(seconds: u64) -> String {
    let second = seconds % SECONDS_PER_DAY;
    format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day number: counts in 400-year cycles that start on 1 March of year 0.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + cycle * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`], for years from 1970.
fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (cycle, of_cycle) = (year / 400, year % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

fn nth<'a>(names: &[&'a str], at: u64) -> &'a str {
    usize::try_from(at)
        .ok()
        .and_then(|at| names.get(at))
        .copied()
        .unwrap_or("???")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_are_written_right() {
        assert_eq!(rfc5322(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc5322(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(rfc5322(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert_eq!(imap(1_700_000_000), "\"14-Nov-2023 22:13:20 +0000\"");
        assert_eq!(rfc5322(u64::MAX), "Fri, 31 Dec 9999 23:59:59 +0000");
    }

    #[test]
    fn days_are_read_back() {
        assert_eq!(
            imap_day("14-nov-2023"),
            Some(1_700_000_000 / SECONDS_PER_DAY)
        );
        assert_eq!(imap_day("29-Feb-2000"), Some(11_016));
        for bad in [
            "29-Feb-2001",
            "0-Jan-2000",
            "1-Foo-2000",
            "1-Jan",
            "",
            "1-Jan-1969",
            "1-Jan-99999999999",
        ] {
            assert_eq!(imap_day(bad), None, "{bad}");
        }
        for day in (0..=SECONDS_MAX / SECONDS_PER_DAY).step_by(97) {
            let (year, month, of_month) = civil(day);
            assert_eq!(day_number(year, month, of_month), day);
        }
    }
}
