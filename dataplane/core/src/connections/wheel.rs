//! A timing wheel: O(1) to schedule and to cancel, and a due entry is found without looking at the others.
//!
//! An entry never comes out before its instant. It may come out early only when its instant is further away than the
//! wheel is long; the caller then schedules it again, so it must know each entry's true deadline itself.

use model::Instant;

/// Resolution, nanoseconds: idle times are seconds, and the shortest timeout (a hold) is 1 s.
const TICK_NANOS: u64 = 100_000_000;
/// Length in ticks (a multiple of 64): 102 s, so that an entry with a longer timeout is looked at once in 102 s.
const SLOTS: usize = 1024;
/// No entry.
const NIL: u32 = u32::MAX;

/// The wheel. Entries are numbered by the caller, densely from 0.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// One bit per slot that has entries.
    occupied: [u64; SLOTS / 64],
    links: Vec<Link>,
    /// The first tick that is not over. Every scheduled entry is in `current..current + SLOTS`.
    current: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    previous: u32,
    /// `None`: not scheduled.
    slot: Option<u16>,
}

const UNLINKED: Link = Link {
    next: NIL,
    previous: NIL,
    slot: None,
};

impl Wheel {
    /// An empty wheel with room for `capacity` entries before it has to grow.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            heads: vec![NIL; SLOTS].into(),
            occupied: [0; SLOTS / 64],
            links: Vec::with_capacity(capacity),
            current: 0,
        }
    }

    /// Has `id` come out at `at`, wherever it was scheduled before.
    pub(crate) fn schedule(&mut self, id: u32, at: Instant) {
        self.cancel(id);
        let tick = at
            .as_nanos()
            .div_ceil(TICK_NANOS)
            .clamp(self.current, self.current + SLOTS as u64 - 1);
        let slot = slot_of(tick);
        let at = id as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, UNLINKED);
        }
        let head = std::mem::replace(&mut self.heads[usize::from(slot)], id);
        self.links[at] = Link {
            next: head,
            previous: NIL,
            slot: Some(slot),
        };
        if let Some(link) = self.links.get_mut(head as usize) {
            link.previous = id;
        }
        self.occupied[usize::from(slot / 64)] |= 1 << (slot % 64);
    }

    /// Takes `id` out, if it is in.
    pub(crate) fn cancel(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id as usize) else {
            return;
        };
        let Link {
            next,
            previous,
            slot: Some(slot),
        } = std::mem::replace(link, UNLINKED)
        else {
            return;
        };
        if let Some(link) = self.links.get_mut(next as usize) {
            link.previous = previous;
        }
        match self.links.get_mut(previous as usize) {
            Some(link) => link.next = next,
            None => self.heads[usize::from(slot)] = next,
        }
        if self.heads[usize::from(slot)] == NIL {
            self.occupied[usize::from(slot / 64)] &= !(1 << (slot % 64));
        }
    }

    /// Takes out one entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_nanos() / TICK_NANOS;
        // After a pause longer than the wheel every entry is due; slots keep their entries under later ticks.
        self.current = self.current.max(now.saturating_sub(SLOTS as u64 - 1));
        if self.current > now {
            return None;
        }
        match self.next_tick().filter(|&tick| tick <= now) {
            Some(tick) => {
                self.current = tick;
                let id = self.heads[usize::from(slot_of(tick))];
                self.cancel(id);
                Some(id)
            }
            None => {
                self.current = now + 1;
                None
            }
        }
    }

    /// When the next entry is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next_tick()
            .map(|tick| Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The first tick from `current` on whose slot has entries.
    fn next_tick(&self) -> Option<u64> {
        let start = usize::from(slot_of(self.current));
        let words = self.occupied.len();
        // The word of `start` comes twice: first its later bits, at the end its earlier ones.
        (0..=words).find_map(|step| {
            let at = (start / 64 + step) % words;
            let earlier = (1_u64 << (start % 64)) - 1;
            let mask = match step {
                0 => !earlier,
                step if step == words => earlier,
                _ => u64::MAX,
            };
            let bits = self.occupied[at] & mask;
            (bits != 0).then(|| {
                let slot = at * 64 + bits.trailing_zeros() as usize;
                self.current + ((slot + SLOTS - start) % SLOTS) as u64
            })
        })
    }
}

fn slot_of(tick: u64) -> u16 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is below SLOTS = 1024"
    )]
    let slot = (tick % SLOTS as u64) as u16;
    slot
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_empty_wheel_waits_for_nothing() {
        let mut wheel = Wheel::with_capacity(0);
        assert_eq!(
            (wheel.next(), wheel.pop(Instant::from_nanos(u64::MAX))),
            (None, None)
        );
    }

    #[test]
    fn after_a_long_pause_everything_comes_out_at_once() {
        let mut wheel = Wheel::with_capacity(8);
        for id in 0..8 {
            wheel.schedule(id, Instant::from_nanos(u64::from(id) * SECOND));
        }
        let late = Instant::from_nanos(100_000 * SECOND);
        let mut out: Vec<u32> = std::iter::from_fn(|| wheel.pop(late)).collect();
        out.sort_unstable();
        assert_eq!(out, (0..8).collect::<Vec<_>>());
        wheel.schedule(3, late + std::time::Duration::from_secs(5));
        assert_eq!(wheel.pop(late), None);
        assert_eq!(wheel.next(), Some(late + std::time::Duration::from_secs(5)));
    }

    proptest! {
        /// Against the obvious model: nothing comes out early, everything that is due comes out.
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec((0u8..4, 0u32..20, 0u64..90 * SECOND), 1..200)) {
            let mut wheel = Wheel::with_capacity(0);
            let mut model = std::collections::BTreeMap::new();
            let mut now = 0;
            for (kind, id, nanos) in steps {
                match kind {
                    0 | 1 => {
                        wheel.schedule(id, Instant::from_nanos(now + nanos));
                        model.insert(id, now + nanos);
                    }
                    2 => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    _ => {
                        now += nanos / 4;
                        while let Some(id) = wheel.pop(Instant::from_nanos(now)) {
                            let at = model.remove(&id);
                            prop_assert!(at.is_some_and(|at| at <= now), "{id} was scheduled for {at:?}, now {now}");
                        }
                        prop_assert!(model.values().all(|&at| at + TICK_NANOS > now));
                    }
                }
                prop_assert_eq!(wheel.next().is_some(), !model.is_empty());
                let first = model.values().min().copied();
                prop_assert!(wheel.next().map(Instant::as_nanos) >= first);
            }
        }
    }
}
