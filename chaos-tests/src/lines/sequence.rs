//! Whether numbers arrive once each and in order.

use std::collections::BTreeSet;

/// Missing numbers that are remembered, to tell a late one from a repeated one: 8 bytes each. Beyond that a late
/// number counts as repeated, which is a fault as well.
const MISSING_MAX: usize = 4096;

/// Checks one stream of numbers that should be 0, 1, 2, ...
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    next: u64,
    missing: BTreeSet<u64>,
    received: u64,
    lost: u64,
    repeated: u64,
    out_of_order: u64,
}

impl Sequence {
    pub(super) fn take(&mut self, number: u64) {
        self.received = self.received.saturating_add(1);
        if number >= self.next {
            self.skip_to(number);
            self.next = number.saturating_add(1);
        } else if self.missing.remove(&number) {
            // It was counted as lost when a later one overtook it.
            self.lost = self.lost.saturating_sub(1);
            self.out_of_order += 1;
        } else {
            self.repeated += 1;
        }
    }

    /// The sender says it sent `count` numbers: those that did not come are lost.
    pub(super) fn end(&mut self, count: u64) {
        if count > self.next {
            self.skip_to(count);
            self.next = count;
        }
    }

    fn skip_to(&mut self, number: u64) {
        let room = MISSING_MAX.saturating_sub(self.missing.len());
        self.missing.extend((self.next..number).take(room));
        self.lost = self.lost.saturating_add(number - self.next);
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    pub(super) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> (u64, u64, u64) {
        let mut sequence = Sequence::default();
        numbers.iter().for_each(|number| sequence.take(*number));
        (
            sequence.lost(),
            sequence.repeated(),
            sequence.out_of_order(),
        )
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(after(&[0, 1, 2]), (0, 0, 0));
        assert_eq!(after(&[0, 2, 3]), (1, 0, 0));
        assert_eq!(after(&[0, 1, 1, 2]), (0, 1, 0));
        assert_eq!(after(&[0, 2, 1, 3]), (0, 0, 1));
        assert_eq!(after(&[0, 2, 1, 1]), (0, 1, 1));
        assert_eq!(after(&[3]), (3, 0, 0));
    }

    #[test]
    fn lines_missing_at_the_end_are_lost_and_absurd_numbers_cost_no_memory() {
        let mut sequence = Sequence::default();
        sequence.take(0);
        sequence.end(3);
        assert_eq!((sequence.lost(), sequence.next), (2, 3));
        sequence.take(u64::MAX);
        sequence.take(u64::MAX);
        assert_eq!(sequence.missing.len(), MISSING_MAX);
        assert_eq!(sequence.repeated(), 0);
        assert_eq!(sequence.received(), 3);
    }
}
