//! One hash for clients and servers: the same on every ATM and in every version of the program, for two ATMs that run
//! different versions for a while must pick alike. It has no key: who knows it can choose addresses and ports that meet
//! one server, which a client of a known server set can do by trying, too.

use std::net::IpAddr;

/// 2^64 divided by the golden ratio, made odd: the increment of SplitMix64, so that a word of zeros is no fixed point.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes a client, with its port or without. `stream` makes independent functions of one.
pub(super) fn client(stream: u64, address: IpAddr, port: Option<u16>) -> u64 {
    let hash = match address {
        IpAddr::V4(address) => word(stream, u64::from(address.to_bits())),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments();
            word(word(stream, pack([a, b, c, d])), pack([e, f, g, h]))
        }
    };
    port.map_or(hash, |port| word(hash, u64::from(port)))
}

/// Takes one more word into a hash.
pub(super) const fn word(hash: u64, word: u64) -> u64 {
    mix((hash ^ word).wrapping_add(GAMMA))
}

/// A number below `bound`, as likely as any other but for 2^-32 of `bound` (Lemire, "Fast Random Integer Generation in an
/// Interval", 2019, without its rejection).
pub(super) const fn below(hash: u64, bound: u32) -> u32 {
    // The upper half of a product of two numbers of 32 bits.
    (((hash >> 32) * bound as u64) >> 32) as u32
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014;
/// Stafford's variant 13): every bit of the word turns about half of the bits of the result.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn pack(segments: [u16; 4]) -> u64 {
    segments
        .into_iter()
        .fold(0, |word, segment| word << 16 | u64::from(segment))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// The published sequence of SplitMix64 from seed 1234567.
    #[test]
    fn mixes_as_splitmix64() {
        let outputs: Vec<u64> = (1..=3_u64)
            .map(|step| mix(GAMMA.wrapping_mul(step).wrapping_add(1_234_567)))
            .collect();
        assert_eq!(
            outputs,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    /// ATMs of different versions must agree: these values never change.
    #[test]
    fn stays_what_it_is() {
        let four: IpAddr = Ipv4Addr::new(192, 0, 2, 7).into();
        let six: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into();
        assert_eq!(
            [
                client(0, four, None),
                client(0, four, Some(4711)),
                client(0, six, None),
                client(0, six, Some(4711)),
            ],
            GOLDEN
        );
    }

    const GOLDEN: [u64; 4] = [
        15_347_982_739_067_671_328,
        7_256_578_130_240_998_778,
        3_875_570_235_162_592_596,
        7_330_400_956_594_645_750,
    ];

    #[test]
    fn one_bit_of_a_client_turns_half_of_the_hash() {
        let mut turned = 0;
        let pairs = 128 + 16;
        let base = Ipv6Addr::from_bits(0x2001_0db8_0000_0000_0000_0000_0000_0001);
        let hash = |address: Ipv6Addr, port| client(1, address.into(), Some(port));
        for bit in 0..128 {
            let other = Ipv6Addr::from_bits(base.to_bits() ^ 1 << bit);
            turned += (hash(base, 80) ^ hash(other, 80)).count_ones();
        }
        for bit in 0..16 {
            turned += (hash(base, 80) ^ hash(base, 80 ^ 1 << bit)).count_ones();
        }
        // 144 x 64 fair coins: 4608, with a standard deviation of 48.
        assert!((4400..4816).contains(&turned), "{turned} of {}", pairs * 64);
    }

    #[test]
    fn below_stays_below() {
        for bound in [1, 2, 65_537, u32::MAX] {
            assert_eq!(below(0, bound), 0);
            assert_eq!(below(u64::MAX, bound), bound - 1);
        }
    }
}
