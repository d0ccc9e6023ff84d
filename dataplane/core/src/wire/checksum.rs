//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A one's complement sum under construction.
///
/// Kept unfolded: 2^16 = 1 (mod 2^16 - 1), so wider words may be added first and folded at the end (RFC 1071 §2 (C)).
/// 64 bits hold 2^32 words of 32 bits, far more than a packet has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset. An odd last byte is padded with zero (RFC 1071 §4.1), so only the
    /// last piece of a packet may have an odd length.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        sum += match *rest {
            [] => 0,
            [a] => u64::from(u16::from_be_bytes([a, 0])),
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c, ..] => {
                u64::from(u16::from_be_bytes([a, b])) + u64::from(u16::from_be_bytes([c, 0]))
            }
        };
        Self(sum)
    }

    /// Takes bytes away that are in it: adds the complement of each word, which is what its negative is in one's complement (RFC 1624 §2).
    /// They begin at an even offset and are even in number.
    pub(crate) fn without(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(!u32::from_be_bytes(*word));
        }
        if let [a, b] = *rest {
            sum += u64::from(!u16::from_be_bytes([a, b]));
        }
        Self(sum)
    }

    /// Adds one 16-bit word.
    pub(crate) fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// The sum folded to 16 bits, not complemented.
    pub(crate) fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the loop leaves 16 bits")]
        let folded = sum as u16;
        folded
    }

    /// The checksum: the complement of the folded sum (RFC 1071 §1).
    pub(crate) fn finish(self) -> u16 {
        !self.folded()
    }
}

/// Replaces one 16-bit word under an Internet checksum: `HC' = ~(~HC + ~m + m')` (RFC 1624 §3, eqn. 3).
pub(crate) fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::default().word(!checksum).word(!old).word(new).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum as RFC 1071 §4.1 writes it: 16 bits at a time, folded at the end.
    fn rfc1071(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
        assert_eq!(Sum::default().bytes(&bytes).finish(), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn agrees_with_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), rfc1071(&bytes));
        }

        #[test]
        fn pieces_of_even_length_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 0usize..250) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (a, b) = bytes.split_at(cut);
            prop_assert_eq!(Sum::default().bytes(a).bytes(b).finish(), rfc1071(&bytes));
        }

        #[test]
        fn what_is_taken_away_was_never_there(mut bytes in proptest::collection::vec(any::<u8>(), 2..100), at in 0usize..50, new in any::<[u8; 6]>()) {
            // A sum of no bytes but zeros has two names.
            bytes[0] |= 1;
            let at = 2 + at * 2;
            let sum = Sum::default().bytes(&bytes);
            if let Some(place) = bytes.get_mut(at..at + 6) {
                let change = Sum::default().without(place).bytes(&new);
                place.copy_from_slice(&new);
                prop_assert_eq!(change.word(sum.folded()).finish(), rfc1071(&bytes));
            }
        }

        // The two zeros of one's complement: a header that is not all zeros never sums to +0 (RFC 1624 §3).
        #[test]
        fn update_agrees_with_recomputing(mut words in proptest::collection::vec(any::<u16>(), 2..40), at in 0usize..40, new in any::<u16>()) {
            words[0] |= 1;
            let at = 1 + at % (words.len() - 1);
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
            let before = rfc1071(&bytes(&words));
            let old = std::mem::replace(&mut words[at], new);
            prop_assert_eq!(update(before, old, new), rfc1071(&bytes(&words)));
        }
    }
}
