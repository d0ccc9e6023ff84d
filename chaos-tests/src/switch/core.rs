//! What becomes of a frame, and when. Pure: time is an argument, chance comes from the seed.
//!
//! Invariant: on the way from one port to another frames keep their order, but for those that an impairment holds back.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::lab::{Effect, Frames};
use crate::nemesis::Chance;

use super::counters::{Counters, Lost};
use super::frame::Frame;
use super::mac_table::MacTable;

/// Frames that wait for one port: those of 100 ms at 40,000 a second.
pub const QUEUE_FRAMES_MAX: usize = 4096;

/// Bytes that wait for one port: a thousand frames of 64 KiB.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A port of the switch, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub usize);

/// The switch without its sockets.
#[derive(Debug)]
pub struct Core {
    macs: MacTable,
    /// From each port to each port, row by row.
    ways: Vec<Way>,
    ports: Vec<Waiting>,
    queue: BinaryHeap<Queued>,
    /// Number of the next queued frame: those of one instant leave in the order they came.
    sequence: u64,
    counters: Counters,
}

/// The way from one port to another.
#[derive(Debug)]
struct Way {
    effects: Vec<(Frames, Effect)>,
    chance: Chance,
    /// When the last frame that kept the order leaves, in ns.
    last_due: u64,
}

/// What waits to leave by a port.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    frames: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Queued {
    due: u64,
    sequence: u64,
    to: PortId,
    frame: Frame,
}

impl Core {
    /// A switch with `ports` ports.
    #[must_use]
    pub fn new(ports: usize, seed: u64) -> Self {
        let root = Chance::new(seed);
        Self {
            macs: MacTable::default(),
            ways: (0..)
                .take(ports * ports)
                .map(|way| Way {
                    effects: Vec::new(),
                    chance: root.branch(way),
                    last_due: 0,
                })
                .collect(),
            ports: vec![Waiting::default(); ports],
            queue: BinaryHeap::new(),
            sequence: 0,
            counters: Counters::default(),
        }
    }

    /// Says what happens to frames on every way, instead of what was said before. What already waits is not touched.
    pub fn impair(&mut self, effects: impl Fn(PortId, PortId) -> Vec<(Frames, Effect)>) {
        let ports = self.ports.len();
        for (index, way) in self.ways.iter_mut().enumerate() {
            way.effects = effects(PortId(index / ports), PortId(index % ports));
        }
    }

    /// Takes what came in by `from` at `now` (ns): a virtio-net header and a frame.
    pub fn receive(&mut self, from: PortId, received: &[u8], now: u64) {
        self.counters.received += 1;
        let Some(frame) = Frame::new(received) else {
            self.counters.lose(Lost::TooShort);
            return;
        };
        if !self.macs.learn(frame.source(), from) {
            self.counters.unlearned += 1;
        }
        match self.macs.port_of(frame.destination()) {
            Some(to) if to == from => self.counters.lose(Lost::SamePort),
            Some(to) => self.pass(from, to, &frame, now),
            None => {
                for to in (0..self.ports.len()).map(PortId).filter(|to| *to != from) {
                    self.pass(from, to, &frame, now);
                }
            }
        }
    }

    fn pass(&mut self, from: PortId, to: PortId, frame: &Frame, now: u64) {
        let index = from.0 * self.ports.len() + to.0;
        let Some(way) = self.ways.get_mut(index) else {
            return;
        };
        let effect = way
            .effects
            .iter()
            .filter(|(frames, _)| frame.is_one_of(*frames))
            .fold(Effect::default(), |sum, (_, effect)| sum.and(*effect));
        if way.chance.per_million(effect.drop_ppm) {
            self.counters.lose(Lost::Impaired);
            return;
        }
        let copies = 1 + u32::from(way.chance.per_million(effect.duplicate_ppm));
        for _ in 0..copies {
            let due = way.due(effect, now);
            self.sequence += 1;
            let waiting = &mut self.ports[to.0];
            let bytes = frame.with_header().len();
            if waiting.frames >= QUEUE_FRAMES_MAX || waiting.bytes + bytes > QUEUE_BYTES_MAX {
                self.counters.lose(Lost::QueueFull);
                continue;
            }
            waiting.frames += 1;
            waiting.bytes += bytes;
            self.queue.push(Queued {
                due,
                sequence: self.sequence,
                to,
                frame: frame.clone(),
            });
        }
    }

    /// The next frame that is due at `now`, and the port it leaves by.
    pub fn take_due(&mut self, now: u64) -> Option<(PortId, Frame)> {
        if self.queue.peek()?.due > now {
            return None;
        }
        let Queued { to, frame, .. } = self.queue.pop()?;
        let waiting = &mut self.ports[to.0];
        waiting.frames -= 1;
        waiting.bytes -= frame.with_header().len();
        Some((to, frame))
    }

    /// When the next frame is due, in ns.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.queue.peek().map(|queued| queued.due)
    }

    /// Notes how the sending of a frame that was due went.
    pub fn sent(&mut self, outcome: Result<(), Lost>) {
        match outcome {
            Ok(()) => self.counters.sent += 1,
            Err(why) => self.counters.lose(why),
        }
    }

    /// Notes a frame that could not even be read.
    pub fn unread(&mut self, why: Lost) {
        self.counters.received += 1;
        self.counters.lose(why);
    }

    /// What became of frames so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl Way {
    fn due(&mut self, effect: Effect, now: u64) -> u64 {
        let ns = |us: u32| u64::from(us) * 1_000;
        let late = ns(effect.delay_us) + self.chance.below(ns(effect.jitter_us) + 1);
        let due = now + late;
        if self.chance.per_million(effect.reorder_ppm) {
            return due.max(self.last_due) + ns(effect.reorder_us);
        }
        self.last_due = self.last_due.max(due);
        self.last_due
    }
}

impl Ord for Queued {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::PPM;
    use crate::switch::frame::tests::{arp, frame};

    const HOSTS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

    /// Three ports whose hosts are known, and what the first sends to the second suffers.
    fn core(effect: Effect) -> Core {
        let mut core = Core::new(3, 7);
        for (port, host) in HOSTS.iter().enumerate() {
            core.receive(PortId(port), frame([0xff; 6], *host, 0).with_header(), 0);
        }
        while core.take_due(0).is_some() {}
        core.counters = Counters::default();
        core.impair(|from, to| {
            if (from, to) == (PortId(0), PortId(1)) {
                vec![(Frames::All, effect)]
            } else {
                Vec::new()
            }
        });
        core
    }

    /// From the first to the second, of a length that tells it apart.
    fn send(core: &mut Core, number: usize, now: u64) {
        let frame = frame(HOSTS[1], HOSTS[0], number);
        core.receive(PortId(0), frame.with_header(), now);
    }

    /// What is delivered until `until`, as (port, number).
    fn delivered(core: &mut Core, until: u64) -> Vec<(usize, usize)> {
        let mut seen = Vec::new();
        while let Some((port, frame)) = core.take_due(until) {
            seen.push((port.0, frame.with_header().len() - 24));
        }
        seen
    }

    #[test]
    fn known_hosts_are_reached_by_one_port_and_others_by_all() {
        let mut core = core(Effect::default());
        send(&mut core, 1, 0);
        assert_eq!(delivered(&mut core, 0), [(1, 1)]);
        let unknown = frame([2, 9, 9, 9, 9, 9], HOSTS[0], 2);
        core.receive(PortId(0), unknown.with_header(), 0);
        assert_eq!(delivered(&mut core, 0), [(1, 2), (2, 2)]);
        let own = frame(HOSTS[0], HOSTS[0], 3);
        core.receive(PortId(0), own.with_header(), 0);
        core.receive(PortId(0), &[0; 12], 0);
        assert_eq!(delivered(&mut core, 0), []);
        let counters = core.counters();
        assert_eq!(
            (counters.lost(Lost::SamePort), counters.lost(Lost::TooShort)),
            (1, 1)
        );
    }

    #[test]
    fn a_delayed_frame_leaves_when_it_is_due_and_other_ways_are_not_touched() {
        let mut core = core(Effect {
            delay_us: 5,
            ..Effect::default()
        });
        send(&mut core, 1, 100);
        assert_eq!(core.next_due(), Some(5_100));
        assert_eq!(delivered(&mut core, 5_099), []);
        assert_eq!(delivered(&mut core, 5_100), [(1, 1)]);
        let back = frame(HOSTS[0], HOSTS[1], 2);
        core.receive(PortId(1), back.with_header(), 5_100);
        assert_eq!(delivered(&mut core, 5_100), [(0, 2)]);
    }

    #[test]
    fn jitter_keeps_the_order() {
        let mut core = core(Effect {
            delay_us: 1,
            jitter_us: 1_000,
            ..Effect::default()
        });
        let mut last = 0;
        for number in 0..100 {
            send(&mut core, number, 0);
            last = last.max(core.next_due().unwrap());
        }
        assert!(last > 1_000);
        let order: Vec<usize> = delivered(&mut core, 2_000_000)
            .into_iter()
            .map(|(_, number)| number)
            .collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_overtaken_frame_comes_behind_later_ones() {
        let mut core = core(Effect {
            reorder_ppm: 500_000,
            reorder_us: 10,
            ..Effect::default()
        });
        for number in 0..10 {
            send(&mut core, number, 0);
        }
        let order: Vec<usize> = delivered(&mut core, 1_000_000)
            .into_iter()
            .map(|(_, number)| number)
            .collect();
        assert_eq!(order.len(), 10);
        assert!(!order.is_sorted(), "{order:?}");
    }

    #[test]
    fn losses_and_copies_follow_their_chances_and_the_seed() {
        let effect = Effect {
            drop_ppm: 300_000,
            duplicate_ppm: 200_000,
            ..Effect::default()
        };
        let run = || {
            let mut core = core(effect);
            let mut seen = Vec::new();
            for number in 0..1_000 {
                send(&mut core, number, 0);
                seen.extend(delivered(&mut core, 0));
            }
            (seen, core.counters())
        };
        let (seen, counters) = run();
        let lost = counters.lost(Lost::Impaired);
        // Six standard deviations each: 14.5 of 1000 at 30 %, 10.6 of 700 at 20 %.
        assert!((213..=387).contains(&lost), "{lost}");
        let copies = u64::try_from(seen.len()).unwrap() + lost - 1_000;
        assert!((60..=240).contains(&copies), "{copies}");
        assert_eq!(run(), (seen, counters));
    }

    #[test]
    fn only_the_frames_that_are_meant_suffer() {
        let mut core = core(Effect::default());
        core.impair(|_, to| {
            if to == PortId(1) {
                vec![
                    (Frames::Announcements, Effect::LOST),
                    (Frames::LongerThan(100), Effect::LOST),
                ]
            } else {
                Vec::new()
            }
        });
        let claim = arp(HOSTS[0], [10, 1, 0, 100], [10, 1, 0, 100]);
        core.receive(PortId(0), claim.with_header(), 0);
        send(&mut core, 100, 0);
        send(&mut core, 101, 0);
        let arrived: Vec<usize> = delivered(&mut core, 0)
            .into_iter()
            .map(|(p, _)| p)
            .collect();
        assert_eq!(
            arrived,
            [2, 1],
            "the claim at the third, 100 bytes at the second"
        );
        assert_eq!(core.counters().lost(Lost::Impaired), 2);
    }

    #[test]
    fn a_full_queue_is_a_named_loss() {
        let mut core = core(Effect {
            delay_us: 1_000,
            ..Effect::default()
        });
        for _ in 0..=QUEUE_FRAMES_MAX {
            send(&mut core, 0, 0);
        }
        assert_eq!(core.counters().lost(Lost::QueueFull), 1);
        assert_eq!(delivered(&mut core, 1_000_000).len(), QUEUE_FRAMES_MAX);
        send(&mut core, 0, 1_000_000);
        assert_eq!(
            core.counters().lost(Lost::QueueFull),
            1,
            "there is room again"
        );
    }

    #[test]
    fn everything_lost_is_lost() {
        let mut core = core(Effect {
            drop_ppm: PPM,
            ..Effect::default()
        });
        for number in 0..100 {
            send(&mut core, number, 0);
        }
        assert_eq!(delivered(&mut core, u64::MAX), []);
    }
}
