//! Sequences of frames made from valid ones of both families, some of them changed: nothing panics, every frame in is at most as many
//! frames out as the design says, and no checksum that came right leaves wrong.

use super::ipv6::{CLIENT6, DIRECT6, DNS, FOUR_IN_SIX, SIX_IN_FOUR, SIX_IN_SIX, VIP6};
use super::own_stack::{as_frame, table_here};
use super::*;
use crate::testing::{FIN, Packet6, RST, neighbour};
use crate::{Checksum, Gso};

/// Offloads of a local stack's frames cut segments of this much payload, as of an MTU of 1,500 and TCP with timestamps.
const SEGMENT: u16 = 1448;
/// Steps of one sequence: enough for a datagram, its fragments and an answer of the replicator.
const STEPS_MAX: usize = 24;

/// A valid frame, and what its sender left to its device.
#[derive(Clone)]
struct Input {
    bytes: Vec<u8>,
    offload: Offload,
}

fn input(bytes: Vec<u8>) -> Input {
    Input {
        bytes,
        offload: Offload::default(),
    }
}

fn gso(bytes: Vec<u8>, offload: Offload, gso: Gso) -> Input {
    let offload = Offload { gso, ..offload };
    Input { bytes, offload }
}

/// All that can be in a sequence.
fn inputs() -> Vec<Input> {
    let mut all = Vec::new();
    for port in 1..3 {
        for service in [QUORUM, ASYNC, UNREPLICATED, DIRECT, FOUR_IN_SIX] {
            for flags in [SYN, ACK, FIN | ACK, RST] {
                all.push(input(tcp(port, service, flags, b"odd").frame(ROUTER, ATM)));
            }
            let loose = |p: &mut Packet| p.fragment = 0;
            for big in [2000, 20_001] {
                let data = vec![7; big];
                all.push(input(tcp(port, service, ACK, &data).frame(ROUTER, ATM)));
                let mut cut = tcp(port, service, ACK, &data).with(loose);
                all.push(input(cut.frame(ROUTER, ATM)));
                let offload = cut.set_partial_checksum();
                let segment = Gso::Tcp { segment: SEGMENT };
                all.push(gso(cut.frame(ROUTER, ATM), offload, segment));
            }
        }
        for service in [SIX_IN_SIX, SIX_IN_FOUR, DIRECT6] {
            let six = |flags, data| Packet6::tcp((CLIENT6, port), (VIP6, service), flags, data);
            for flags in [SYN, ACK, FIN | ACK, RST] {
                all.push(input(six(flags, b"odd").frame(ROUTER, ATM)));
            }
            all.push(input(six(ACK, &[7; 1500]).frame(ROUTER, ATM)));
            let mut big = six(ACK, &[7; 9001]);
            let offload = big.set_partial_checksum(16);
            let segment = Gso::Tcp { segment: 1000 };
            all.push(gso(big.frame(ROUTER, ATM), offload, segment));
            // Destination options (RFC 8200 §4.6), padded.
            let mut options = six(ACK, b"odd");
            (options.next, options.extensions) = (60, vec![6, 0, 1, 4, 0, 0, 0, 0]);
            all.push(input(options.frame(ROUTER, ATM)));
        }
        all.extend(udp(port));
        all.extend(icmp(port));
    }
    let asker = Ipv4Addr::new(10, 1, 0, 254);
    let to_all = (ROUTER, MacAddr::BROADCAST);
    all.push(input(arp(to_all, 1, (ROUTER, asker), (MacAddr::ZERO, VIP))));
    let asker = "fe80::c".parse().unwrap();
    let (link, group) = (
        (ROUTER, MacAddr([0x33, 0x33, 0xff, 0, 1, 0])),
        "ff02::1:ff00:100".parse().unwrap(),
    );
    let asked = neighbour(link, 135, 0, (asker, group), VIP6, Some(ROUTER));
    all.push(input(asked));
    all
}

/// Datagrams: whole, in fragments, as many in one frame; with checksum and (IPv4) without.
fn udp(port: u16) -> Vec<Input> {
    let four = |data: &[u8]| Packet::udp((CLIENT, port), (VIP, DNS), data);
    let six = |data: &[u8]| Packet6::udp((CLIENT6, port), (VIP6, DNS), data);
    let mut all = vec![
        input(four(b"odd").frame(ROUTER, ATM)),
        input(
            four(b"odd")
                .with(|p| p.payload[6..8].fill(0))
                .frame(ROUTER, ATM),
        ),
        input(
            four(b"odd")
                .with(|p| p.options = vec![1; 8])
                .frame(ROUTER, ATM),
        ),
        input(four(&[7; 1600]).frame(ROUTER, ATM)),
        input(six(b"odd").frame(ROUTER, ATM)),
    ];
    let whole = four(&[7; 2000]).payload;
    for (at, chunk) in whole.chunks(800).enumerate() {
        let at = u16::try_from(at).unwrap();
        let part = Packet::new(CLIENT, VIP, 17, chunk.to_vec());
        let more = if at == 2 { 0 } else { 0x2000 };
        let part = part.with(|p| (p.fragment, p.id) = (more | (at * 100), port));
        all.push(input(part.frame(ROUTER, ATM)));
    }
    let whole = six(&[7; 2000]).payload;
    for (at, chunk) in whole.chunks(800).enumerate() {
        let at = u16::try_from(at).unwrap();
        let place = ((at * 100) << 3) | u16::from(at != 2);
        let mut part = Packet6::new(CLIENT6, VIP6, 44, chunk.to_vec());
        part.extensions = [&[17, 0][..], &place.to_be_bytes(), &[0, 0, 0, 9]].concat();
        all.push(input(part.frame(ROUTER, ATM)));
    }
    let mut many = six(&[7; 5001]);
    let offload = many.set_partial_checksum(6);
    let segment = Gso::Udp { segment: 1200 };
    all.push(gso(many.frame(ROUTER, ATM), offload, segment));
    all
}

/// Echoes, and errors about what the VIP sent to a client.
fn icmp(port: u16) -> Vec<Input> {
    let quote = Packet::tcp((VIP, ASYNC), (CLIENT, port), ACK, b"said").bytes();
    let quote6 = Packet6::tcp((VIP6, DIRECT6), (CLIENT6, port), ACK, b"said").bytes();
    let (to, to6) = ((CLIENT, VIP), (CLIENT6, VIP6));
    let error = Packet::icmp(to.0, to.1, 3, 4, [0, 0, 5, 0], &quote[..28]);
    let error6 = Packet6::icmp(to6.0, to6.1, 2, 0, [0, 0, 5, 0], &quote6);
    vec![
        input(Packet::icmp(to.0, to.1, 8, 0, [0, 1, 0, 2], b"odd").frame(ROUTER, ATM)),
        input(Packet6::icmp(to6.0, to6.1, 128, 0, [0, 1, 0, 2], b"odd").frame(ROUTER, ATM)),
        input(error.frame(ROUTER, ATM)),
        input(error6.frame(ROUTER, ATM)),
    ]
}

/// What random bytes mean; at their end it is all zeros.
struct Chance<'a>(&'a [u8]);

impl Chance<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.word()) % end.max(1)
    }

    /// One of the inputs: half of the time as it is, else with bytes changed, cut off or appended, and mostly with its checksums put right.
    fn input(&mut self, all: &[Input]) -> Input {
        let mut input = all[self.below(all.len())].clone();
        let kind = self.byte();
        if kind & 1 == 0 {
            return input;
        }
        for _change in 0..kind >> 1 & 3 {
            // Headers are in front, and there most is to be broken.
            let end = if self.byte() & 3 == 0 { usize::MAX } else { 90 };
            let at = self.below(end.min(input.bytes.len()));
            input.bytes[at] = self.byte();
        }
        match kind >> 3 & 7 {
            0 => input.bytes.truncate(self.below(input.bytes.len())),
            1 => input.bytes.extend([self.byte(); 5]),
            2 => input.offload.checksum = Checksum::Complete,
            3 => {
                input.offload.checksum = Checksum::Partial {
                    start: self.word() % 100,
                    offset: self.word() % 30,
                }
            }
            4 => {
                let segment = self.word() % 3000;
                input.offload.gso = [
                    Gso::Tcp { segment },
                    Gso::Udp { segment },
                    Gso::Other(self.byte()),
                ][self.below(3)];
            }
            _ => {}
        }
        if kind >> 6 != 0 && input.offload.checksum == Checksum::Complete {
            checker::reseal(&mut input.bytes);
        }
        input
    }
}

/// The most frames that one may become: one, but for segments and for fragments of what is too long for the way.
fn frames_max(input: &Input) -> usize {
    /// No segment is smaller, and no fragment carries less (`SEGMENT_MIN`; RFC 791 §3.2).
    const PIECE_MIN: usize = 48;
    let bytes = input.bytes.get(14..).unwrap_or_default();
    let Ok(packet) = checker::Packet::read(bytes) else {
        return 1;
    };
    let len = packet.header_len + packet.payload.len();
    let piece = match input.offload.gso {
        Gso::Tcp { segment } | Gso::Udp { segment } => usize::from(segment).max(PIECE_MIN),
        Gso::None | Gso::Other(_) => usize::MAX,
    };
    // A tunnel takes up to 40 bytes; IP headers up to 60, and TCP's, too; fragments are whole units of 8.
    let least = usize::from(MTU) - 40 - 60 - 60 - 8;
    if !packet.dont_fragment && len > usize::from(MTU) - 40 {
        return len.div_ceil(piece.min(least));
    }
    match piece {
        usize::MAX => 1,
        piece => len.div_ceil(piece),
    }
}

/// What happened in a sequence, as far as it counts for the judgement.
#[derive(Default)]
struct Story {
    /// Frames that are held, and may leave with another one.
    held: usize,
    /// One of them was damaged before it came.
    held_damaged: bool,
}

fn run(all: &[Input], bytes: &[u8]) -> usize {
    let mut chance = Chance(bytes);
    let mut rig = Rig::active6();
    rig.out.damaged = true;
    // Half of the ATMs are servers as well.
    if bytes.first().is_some_and(|first| first & 1 == 1) {
        rig.forwarder.install(table_here(), rig.now);
    }
    let mut story = Story::default();
    let mut transmitted = 0;
    for _step in 0..STEPS_MAX.min(bytes.len() / 8) {
        let (max, right) = match chance.byte() {
            0..32 => {
                let open = ConnectionChange::Open(
                    key(u16::from(chance.byte() & 1) + 1, 1),
                    ServerId(u16::from(chance.byte() & 1)).into(),
                );
                rig.commit(&[open]);
                (story.held, !story.held_damaged)
            }
            32..40 => {
                rig.sleep(Duration::from_millis(chance.word().into()));
                everything_sent(&mut rig);
                continue;
            }
            _ => receive(&mut rig, &chance.input(all), &mut story),
        };
        let sent = everything_sent(&mut rig);
        assert!(sent.len() <= max, "{} frames, not {max}", sent.len());
        transmitted += sent.len();
        for frame in &sent {
            // The way to the own stack has room for the outer header around a whole packet.
            let to_own_stack = frame[..12] == [0; 12];
            let room = if to_own_stack { 40 } else { 0 };
            assert!(
                frame.len() <= 14 + usize::from(MTU) + room,
                "{} bytes",
                frame.len()
            );
            let judged = if right {
                checker::check(frame)
            } else {
                checker::check_outside(frame)
            };
            assert_eq!(judged, Ok(()), "{frame:02x?}");
        }
    }
    transmitted
}

/// Frames, and packets to the own stack as if they were frames.
fn everything_sent(rig: &mut Rig) -> Vec<Vec<u8>> {
    let mut sent = rig.sent();
    let delivered = std::mem::take(&mut rig.out.delivered);
    sent.extend(delivered.iter().map(|packet| as_frame(packet)));
    sent
}

/// How many frames may have left, and whether they have to be right.
fn receive(rig: &mut Rig, input: &Input, story: &mut Story) -> (usize, bool) {
    let right = checker::is_right(&input.bytes, input.offload);
    let held = story.held;
    let verdict = rig.frame(&input.bytes, input.offload, Duration::ZERO);
    let (max, right) = match verdict {
        Verdict::Transmit | Verdict::Deliver => {
            (frames_max(input) + held, right && !story.held_damaged)
        }
        // An echo is the asker's own bytes; what else is answered is ours.
        Verdict::Answered => (1, right),
        Verdict::FragmentationNeeded | Verdict::TimeExceeded | Verdict::Reset => (1, true),
        Verdict::Held => {
            story.held += 1;
            story.held_damaged |= !right;
            (0, true)
        }
        // Without other ATMs there is nobody to pass anything on to.
        Verdict::Relayed | Verdict::Host | Verdict::Drop(_) => (0, true),
    };
    assert!(
        max == 0 || !rig.out.frames.is_empty() || !rig.out.delivered.is_empty(),
        "{verdict:?} and silence"
    );
    (max, right)
}

#[test]
fn no_sequence_of_frames_panics_multiplies_or_breaks_a_checksum() {
    let all = inputs();
    bolero::check!().with_max_len(512).for_each(|bytes: &[u8]| {
        run(&all, bytes);
    });
}

/// The fuzz test would find nothing if these did not come to their servers.
#[test]
fn what_the_sequences_are_made_of_is_sound() {
    let all = inputs();
    let mut rig = Rig::active6();
    let mut story = Story::default();
    let mut spoke = 0;
    for input in &all {
        assert!(checker::is_right(&input.bytes, input.offload));
        let (max, right) = receive(&mut rig, input, &mut story);
        let sent = rig.sent();
        assert!(right && sent.len() <= max);
        for frame in &sent {
            assert_eq!(checker::check(frame), Ok(()), "{frame:02x?}");
        }
        spoke += usize::from(!sent.is_empty());
    }
    assert!(spoke * 4 > all.len() * 3, "{spoke} of {}", all.len());
}
