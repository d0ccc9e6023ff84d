//! The table from outside.

use proptest::prelude::*;

use super::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const UDP: u8 = 17;

const SMALL: Bounds = Bounds {
    decided_max: 4,
    undecided_max: 3,
    held_max: 5,
    held_bytes_max: 1000,
};

fn key(identification: u16) -> Key {
    Key::ipv4(CLIENT, VIP, identification, UDP)
}

fn at(ms: u64) -> Instant {
    Instant::BOOT + Duration::from_millis(ms)
}

fn table() -> Fragments<u32> {
    Fragments::new(SMALL)
}

fn bytes(packets: &[Box<[u8]>]) -> Vec<&[u8]> {
    packets.iter().map(|packet| &packet[..]).collect()
}

fn dropped(expired: u64, displaced: u64) -> Dropped {
    Dropped { expired, displaced }
}

#[test]
fn later_ones_follow_their_first() {
    let mut table = table();
    assert!(table.first(key(1), 11, false, at(0)).is_empty());
    assert!(table.first(key(2), 22, false, at(0)).is_empty());
    assert_eq!(table.later(key(1), b"b", at(1)), Later::Follow(11));
    assert_eq!(table.later(key(2), b"b", at(1)), Later::Follow(22));
    assert_eq!(table.later(key(1), b"c", at(14_999)), Later::Follow(11));
}

#[test]
fn what_came_before_its_first_goes_after_it_in_order() {
    let mut table = table();
    for packet in [b"c", b"b", b"d"] {
        assert_eq!(table.later(key(1), packet, at(0)), Later::Held);
    }
    assert_eq!(table.later(key(2), b"x", at(0)), Later::Held);
    let held = table.first(key(1), 11, false, at(999));
    assert_eq!(bytes(&held), [b"c", b"b", b"d"]);
    assert_eq!(table.later(key(1), b"e", at(999)), Later::Follow(11));
    assert_eq!((table.held(), table.take_dropped()), (1, dropped(0, 0)));
}

#[test]
fn who_waits_for_a_record_is_held_and_released() {
    let mut table = table();
    assert_eq!(table.later(key(1), b"c", at(0)), Later::Held);
    assert!(table.first(key(1), 11, true, at(1)).is_empty());
    assert_eq!(table.later(key(1), b"b", at(2)), Later::Held);
    assert!(table.first(key(2), 22, true, at(2)).is_empty());
    assert_eq!(table.later(key(2), b"x", at(2)), Later::Held);
    // Another datagram of the same connection waits for the same.
    assert!(table.first(key(3), 11, true, at(3)).is_empty());
    assert_eq!(table.later(key(3), b"y", at(3)), Later::Held);

    let released = table.release(|&decision| decision == 11);
    assert_eq!(bytes(&released), [b"c", b"b", b"y"]);
    assert_eq!(table.later(key(1), b"d", at(4)), Later::Follow(11));
    assert_eq!(table.later(key(2), b"z", at(4)), Later::Held);
    assert!(table.release(|&decision| decision == 11).is_empty());
    assert_eq!(bytes(&table.release(|_| true)), [b"x", b"z"]);
    assert_eq!((table.held(), table.waiting_bytes), (0, 0));
}

#[test]
fn the_newest_first_counts() {
    let mut table = table();
    table.first(key(1), 11, false, at(0));
    table.first(key(1), 12, false, at(10_000));
    assert_eq!(table.later(key(1), b"b", at(20_000)), Later::Follow(12));
    assert_eq!(table.len(), 1);
}

#[test]
fn what_never_got_its_first_is_forgotten_after_a_second_and_counted() {
    let mut table = table();
    assert_eq!(table.poll_timeout(), None);
    table.later(key(1), b"b", at(0));
    table.later(key(1), b"c", at(900));
    table.first(key(2), 22, false, at(100));
    assert_eq!(table.poll_timeout(), Some(at(1000)));
    table.expire(at(999));
    assert_eq!((table.len(), table.take_dropped()), (2, dropped(0, 0)));
    table.expire(at(1000));
    assert_eq!((table.len(), table.take_dropped()), (1, dropped(2, 0)));
    assert_eq!(table.take_dropped(), dropped(0, 0), "told once");
    assert_eq!(table.poll_timeout(), Some(at(15_100)));
    table.expire(at(15_100));
    assert_eq!((table.len(), table.poll_timeout()), (0, None));
}

#[test]
fn time_is_over_when_it_is_over_whoever_looks() {
    let mut table = table();
    table.first(key(1), 11, false, at(0));
    table.later(key(2), b"b", at(0));
    assert_eq!(table.later(key(1), b"b", at(15_000)), Later::Held);
    assert!(table.first(key(2), 22, false, at(1000)).is_empty());
    assert_eq!(table.take_dropped(), dropped(1, 0));
}

#[test]
fn a_flood_without_firsts_displaces_its_own_kind_only() {
    let mut table = table();
    table.first(key(1), 11, false, at(0));
    table.first(key(2), 22, true, at(0));
    table.later(key(2), b"w", at(0));
    for id in 100..200 {
        assert_eq!(table.later(key(id), b"x", at(1)), Later::Held);
    }
    assert_eq!(table.take_dropped(), dropped(0, 97));
    assert_eq!((table.len(), table.held()), (5, 4));
    assert_eq!(table.later(key(1), b"b", at(1)), Later::Follow(11));
    assert_eq!(bytes(&table.release(|_| true)), [b"w"]);
    // The newest three are the ones that are left.
    assert_eq!(bytes(&table.first(key(197), 0, false, at(1))), [b"x"]);
    assert!(table.first(key(196), 0, false, at(1)).is_empty());
}

#[test]
fn a_flood_of_firsts_displaces_the_oldest_first() {
    let mut table = table();
    table.later(key(50), b"early", at(0));
    table.first(key(1), 11, true, at(0));
    table.later(key(1), b"b", at(0));
    for id in 2..=5 {
        table.first(key(id), u32::from(id), false, at(1));
    }
    assert_eq!(table.take_dropped(), dropped(0, 1));
    assert!(table.release(|_| true).is_empty());
    assert_eq!(table.later(key(1), b"c", at(1)), Later::Held);
    assert_eq!(table.later(key(2), b"c", at(1)), Later::Follow(2));
    assert_eq!(bytes(&table.first(key(50), 5, false, at(1))), [b"early"]);
}

#[test]
fn one_datagram_holds_so_many_packets() {
    let mut table = table();
    for _ in 0..SMALL.held_max {
        assert_eq!(table.later(key(1), b"x", at(0)), Later::Held);
    }
    assert_eq!(
        table.later(key(1), b"x", at(0)),
        Later::Full(Full::Datagram)
    );
    assert_eq!(table.later(key(2), b"x", at(0)), Later::Held);
    table.first(key(1), 11, true, at(0));
    assert_eq!(
        table.later(key(1), b"x", at(0)),
        Later::Full(Full::Datagram)
    );
}

#[test]
fn bytes_are_bounded_each_kind_apart() {
    let mut table = table();
    let (half, whole) = ([0; 500], [0; 1000]);
    assert_eq!(
        table.later(key(1), &[0; 1001], at(0)),
        Later::Full(Full::Bytes)
    );
    assert_eq!(table.len(), 0);
    assert_eq!(table.later(key(1), &half, at(0)), Later::Held);
    assert_eq!(table.later(key(2), &half, at(0)), Later::Held);
    // The oldest gives way to others, but not to itself.
    assert_eq!(table.later(key(1), b"x", at(0)), Later::Full(Full::Bytes));
    assert_eq!(table.later(key(2), b"x", at(0)), Later::Held);
    assert_eq!(table.take_dropped(), dropped(0, 1));
    // Those that wait have a sum of their own, and do not give way.
    table.first(key(2), 22, true, at(0));
    assert_eq!(table.later(key(3), &whole, at(0)), Later::Held);
    assert_eq!(table.later(key(2), &half, at(0)), Later::Full(Full::Bytes));
    assert_eq!(table.later(key(2), &[0; 499], at(0)), Later::Held);
    // What comes to them from the other sum must fit, too.
    table.first(key(3), 33, true, at(0));
    assert_eq!(table.take_dropped(), dropped(0, 1));
    assert_eq!((table.waiting_bytes, table.undecided_bytes), (1000, 0));
}

#[test]
fn the_end_of_a_lease_leaves_nothing() {
    let mut table = table();
    table.later(key(1), b"b", at(0));
    table.first(key(2), 22, true, at(0));
    table.later(key(2), b"b", at(0));
    table.first(key(3), 33, false, at(0));
    assert_eq!(table.clear(), 2);
    assert_eq!(
        (table.len(), table.held(), table.poll_timeout()),
        (0, 0, None)
    );
    assert_eq!(table.later(key(3), b"b", at(0)), Later::Held);
}

#[test]
fn what_tells_datagrams_apart() {
    let mut table = table();
    table.first(key(1), 11, false, at(0));
    let other = Ipv4Addr::new(192, 0, 2, 8);
    for key in [
        Key::ipv4(other, VIP, 1, UDP),
        Key::ipv4(CLIENT, other, 1, UDP),
        Key::ipv4(CLIENT, VIP, 2, UDP),
        Key::ipv4(CLIENT, VIP, 1, 6),
    ] {
        assert_eq!(table.later(key, b"b", at(0)), Later::Held, "{key:?}");
    }
}

#[test]
fn an_identification_of_ipv6_has_32_bits() {
    let (client, vip) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
    let mut table = table();
    table.first(Key::ipv6(client, vip, 0x0001_0001), 11, false, at(0));
    let mut later =
        |identification| table.later(Key::ipv6(client, vip, identification), b"b", at(0));
    assert_eq!(later(0x0001_0001), Later::Follow(11));
    assert_eq!(later(0x0000_0001), Later::Held);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    First(u16, u32, bool),
    Later(u16, usize),
    Release(u32),
    Expire,
    Sleep(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u16..12;
    prop_oneof![
        6 => (id.clone(), 0u32..4, any::<bool>()).prop_map(|(id, decision, waits)| Step::First(id, decision, waits)),
        12 => (id, 1usize..400).prop_map(|(id, len)| Step::Later(id, len)),
        2 => (0u32..4).prop_map(Step::Release),
        1 => Just(Step::Expire),
        3 => (0u64..700).prop_map(Step::Sleep),
        1 => (0u64..20_000).prop_map(Step::Sleep),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    /// Every bound holds after every step, and every packet that was held is in the end released, counted or still there,
    /// once; released ones of a datagram come in their order.
    #[test]
    fn a_flood_of_anything(steps in proptest::collection::vec(step(), 1..300)) {
        let mut table = table();
        let mut now = at(0);
        let (mut held, mut gone) = (0_u64, 0_u64);
        let mut serial = 0_u64;
        for step in steps {
            let mut out = Vec::new();
            match step {
                Step::First(id, decision, waits) => {
                    out = table.first(key(id), decision, waits, now);
                    prop_assert!(!waits || out.is_empty());
                    if !waits {
                        prop_assert_eq!(table.later(key(id), b"", now), Later::Follow(decision));
                    }
                }
                Step::Later(id, len) => {
                    serial += 1;
                    let mut packet = vec![0; len + 8];
                    packet[..8].copy_from_slice(&serial.to_be_bytes());
                    match table.later(key(id), &packet, now) {
                        Later::Held => held += 1,
                        Later::Follow(_) | Later::Full(_) => {}
                    }
                }
                Step::Release(decision) => {
                    out = table.release(|&known| known == decision);
                    let left = table.datagrams.values().filter(
                        |datagram| matches!(datagram.state, State::Waiting(known) if known == decision),
                    );
                    prop_assert_eq!(left.count(), 0);
                }
                Step::Expire => {
                    table.expire(now);
                    prop_assert!(table.poll_timeout().is_none_or(|due| due > now));
                }
                Step::Sleep(ms) => now = now + Duration::from_millis(ms),
                Step::Clear => gone += table.clear(),
            }
            if matches!(step, Step::First(..)) {
                prop_assert!(out.is_sorted(), "out of order");
            }
            gone += out.len() as u64;
            let dropped = table.take_dropped();
            gone += dropped.expired + dropped.displaced;
            prop_assert_eq!(held, gone + table.held() as u64);
            check(&table)?;
        }
    }
}

fn check(table: &Fragments<u32>) -> Result<(), TestCaseError> {
    prop_assert!(table.decided.len() <= SMALL.decided_max);
    prop_assert!(table.undecided.len() <= SMALL.undecided_max);
    prop_assert_eq!(table.len(), table.decided.len() + table.undecided.len());
    prop_assert!(table.undecided_bytes <= SMALL.held_bytes_max);
    prop_assert!(table.waiting_bytes <= SMALL.held_bytes_max);
    let (mut undecided, mut waiting) = (0, 0);
    for (key, datagram) in &table.datagrams {
        prop_assert!(datagram.held.len() <= SMALL.held_max);
        let order = match datagram.state {
            State::Undecided => {
                undecided += datagram.bytes();
                prop_assert!(!datagram.held.is_empty());
                &table.undecided
            }
            State::Decided(_) => {
                prop_assert!(datagram.held.is_empty());
                &table.decided
            }
            State::Waiting(_) => {
                waiting += datagram.bytes();
                &table.decided
            }
        };
        prop_assert_eq!(order.get(&datagram.age), Some(key));
        prop_assert_eq!(
            table.waiting.contains(key),
            matches!(datagram.state, State::Waiting(_))
        );
    }
    prop_assert_eq!(
        (table.undecided_bytes, table.waiting_bytes),
        (undecided, waiting)
    );
    for order in [&table.undecided, &table.decided] {
        let ends = order.values().map(|key| table.datagrams[key].end());
        prop_assert!(ends.is_sorted(), "the oldest is not the first to end");
    }
    Ok(())
}
