//! What becomes of one operation: a function of the page's words, without system calls.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::control::{Class, Mode, PAGE, SEED, word};

/// The page as an array of words.
pub(crate) type Page = [AtomicU64; PAGE / 8];

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done.
    Pass,
    /// It is done after so many nanoseconds.
    After(u64),
    /// It waits until [`hangs`] says no.
    Wait,
    /// It fails with this errno.
    Fail(i32),
    /// It is reported as done.
    Lie,
    /// So many thousandths are done, then it fails with this errno.
    Torn(u64, i32),
    /// So many thousandths are done, then the process is killed.
    Kill(u64),
}

/// Counts the operation and decides.
pub(crate) fn fate(page: &Page, class: Class) -> Fate {
    let read = |word| page[class.word(word)].load(Ordering::Acquire);
    let number = page[class.word(word::SEEN)].fetch_add(1, Ordering::Relaxed);
    let mode = Mode::of(read(word::MODE));
    if mode == Mode::Pass {
        return Fate::Pass;
    }
    let turn = page[class.word(word::TURN)].fetch_add(1, Ordering::Relaxed);
    let (skip, times) = (read(word::SKIP), read(word::TIMES));
    if turn < skip || (times > 0 && turn - skip >= times) {
        return Fate::Pass;
    }
    page[class.word(word::STRUCK)].fetch_add(1, Ordering::Relaxed);
    let errno = i32::try_from(read(word::ERRNO)).unwrap_or(5);
    let keep = read(word::KEEP).min(1000);
    match mode {
        Mode::Pass => Fate::Pass,
        Mode::Slow => {
            let jitter = read(word::JITTER);
            let seed = page[SEED].load(Ordering::Relaxed);
            let more = mix(seed ^ mix(number)).checked_rem(jitter).unwrap_or(0);
            Fate::After(read(word::DELAY).saturating_add(more))
        }
        Mode::Hang => Fate::Wait,
        Mode::Fail => Fate::Fail(errno),
        Mode::Lie => Fate::Lie,
        Mode::Torn => Fate::Torn(keep, errno),
        Mode::Kill => Fate::Kill(keep),
    }
}

/// Whether operations of this class hang still.
pub(crate) fn hangs(page: &Page, class: Class) -> bool {
    Mode::of(page[class.word(word::MODE)].load(Ordering::Acquire)) == Mode::Hang
}

/// Bytes of a write of `len` that are done.
pub(crate) fn kept(len: usize, thousandths: u64) -> usize {
    let kept = (len as u128) * u128::from(thousandths) / 1000;
    usize::try_from(kept).unwrap_or(len).min(len)
}

/// SplitMix64, one step.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(words: &[(usize, u64)]) -> Page {
        let page = [const { AtomicU64::new(0) }; PAGE / 8];
        for (word, value) in words {
            page[Class::Write.word(*word)].store(*value, Ordering::Relaxed);
        }
        page
    }

    #[test]
    fn an_empty_page_lets_everything_pass_and_counts() {
        let page = page(&[]);
        for _ in 0..3 {
            assert_eq!(fate(&page, Class::Write), Fate::Pass);
        }
        let seen = page[Class::Write.word(word::SEEN)].load(Ordering::Relaxed);
        let struck = page[Class::Write.word(word::STRUCK)].load(Ordering::Relaxed);
        assert_eq!((seen, struck), (3, 0));
    }

    #[test]
    fn a_fault_begins_after_some_and_ends_after_some() {
        let page = page(&[
            (word::ERRNO, 28),
            (word::SKIP, 2),
            (word::TIMES, 3),
            (word::MODE, Mode::Fail as u64),
        ]);
        let fates: Vec<_> = (0..7).map(|_| fate(&page, Class::Write)).collect();
        let (no, pass) = (Fate::Fail(28), Fate::Pass);
        assert_eq!(fates, [pass, pass, no, no, no, pass, pass]);
        assert_eq!(fate(&page, Class::Sync), Fate::Pass, "another class");
    }

    #[test]
    fn jitter_is_bounded_and_the_seed_s_own() {
        let delays = |seed| {
            let page = page(&[
                (word::DELAY, 1000),
                (word::JITTER, 100),
                (word::MODE, Mode::Slow as u64),
            ]);
            page[SEED].store(seed, Ordering::Relaxed);
            (0..50)
                .map(|_| {
                    let Fate::After(nanos) = fate(&page, Class::Write) else {
                        panic!("not slow");
                    };
                    nanos
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
        assert!(delays(7).iter().all(|nanos| (1000..1100).contains(nanos)));
    }

    #[test]
    fn a_torn_write_never_exceeds_its_length() {
        assert_eq!(kept(10, 500), 5);
        assert_eq!(kept(usize::MAX, 1000), usize::MAX);
        assert_eq!((kept(3, 1), kept(0, 999)), (0, 0));
    }
}
