//! What a clock says: a function of the page and of the machine's clock.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::control::{Clock, FAKED, IN_FORCE, PAGE, index, word};

/// The page as an array of words.
pub(crate) type Page = [AtomicU64; PAGE / 8];

/// What `clock` says when the machine's says `real` ns. Never before its zero.
pub(crate) fn says(page: &Page, clock: Clock, real: u64) -> u64 {
    loop {
        let setting = page[IN_FORCE].load(Ordering::Acquire);
        let read = |word| page[index(setting, clock, word)].load(Ordering::Acquire);
        let (since, ahead, rate) = (read(word::SINCE), read(word::AHEAD), read(word::RATE));
        if page[IN_FORCE].load(Ordering::Acquire) != setting {
            continue;
        }
        let (ahead, rate) = (ahead.cast_signed(), rate.cast_signed());
        if ahead == 0 && rate == 0 {
            return real;
        }
        page[FAKED].fetch_add(1, Ordering::Relaxed);
        let run = i128::from(real) - i128::from(since);
        let said = i128::from(real) + i128::from(ahead) + run * i128::from(rate) / 1_000_000;
        return u64::try_from(said.max(0)).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_and_a_lead_begin_where_they_are_said_to() {
        let page: Page = [const { AtomicU64::new(0) }; PAGE / 8];
        assert_eq!(says(&page, Clock::Boottime, 77), 77);
        let set = |word, value: i64| {
            let index = index(1, Clock::Boottime, word);
            page[index].store(value.cast_unsigned(), Ordering::Relaxed);
        };
        set(word::SINCE, 1_000_000_000);
        set(word::AHEAD, 5_000);
        set(word::RATE, -50_000);
        assert_eq!(says(&page, Clock::Boottime, 77), 77, "not in force yet");
        page[IN_FORCE].store(1, Ordering::Relaxed);
        assert_eq!(says(&page, Clock::Boottime, 1_000_000_000), 1_000_005_000);
        assert_eq!(says(&page, Clock::Boottime, 3_000_000_000), 2_900_005_000);
        assert_eq!(says(&page, Clock::Monotonic, 9), 9, "another clock");
        set(word::AHEAD, -2_000_000_000);
        assert_eq!(says(&page, Clock::Boottime, 1_000_000_000), 0);
    }
}
