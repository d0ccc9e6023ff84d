//! Promises at random: P1 (one voice), P5 (every frame has a verdict), P6 (bounded), P9 (no input panics).

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::testing::{FIN, RST, sum};
use crate::{Checksum, Event, Gso, OtherAtms};

const THIRD_ATM: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xd]);
const OTHERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 11), Ipv4Addr::new(10, 1, 0, 12)];

#[derive(Clone, Debug)]
enum Step {
    /// One of the known frames, some bytes of it changed, cut to a part of its length.
    Receive {
        frame: Index,
        changes: Vec<(Index, u8)>,
        keep: Option<Index>,
        offload: Offload,
        waited_ms: u64,
    },
    Lease(Option<(u64, i64)>),
    Sleep {
        ms: u64,
    },
    Wake,
    Open {
        port: u16,
        server: u16,
    },
    Close {
        port: u16,
    },
    Refuse {
        port: u16,
    },
    Snapshot {
        ports: Vec<u16>,
    },
    Others {
        active: Option<u8>,
        all: bool,
    },
    Install {
        more: bool,
        /// The tunnel's server is this host.
        here: bool,
        connections_max: usize,
    },
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        3 => Just(Checksum::Complete),
        1 => Just(Checksum::Partial { start: 34, offset: 16 }),
        1 => (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let gso = prop_oneof![
        4 => Just(Gso::None),
        1 => any::<u16>().prop_map(|segment| Gso::Tcp { segment }),
        1 => any::<u8>().prop_map(Gso::Other),
    ];
    (checksum, gso).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

fn step() -> impl Strategy<Value = Step> {
    let changes = prop_oneof![
        2 => Just(vec![]),
        1 => proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ];
    let receive = (
        any::<Index>(),
        changes,
        proptest::option::weighted(0.1, any::<Index>()),
        offload(),
        0u64..120,
    );
    let port = 1u16..6;
    prop_oneof![
        12 => receive.prop_map(|(frame, changes, keep, offload, waited_ms)| {
            Step::Receive { frame, changes, keep, offload, waited_ms }
        }),
        4 => proptest::option::weighted(0.9, (1u64..6, -50i64..2000)).prop_map(Step::Lease),
        3 => (0u64..3000).prop_map(|ms| Step::Sleep { ms }),
        1 => Just(Step::Wake),
        3 => (port.clone(), 0u16..4).prop_map(|(port, server)| Step::Open { port, server }),
        1 => port.clone().prop_map(|port| Step::Close { port }),
        1 => port.clone().prop_map(|port| Step::Refuse { port }),
        1 => proptest::collection::vec(port, 0..5).prop_map(|ports| Step::Snapshot { ports }),
        1 => (proptest::option::of(0u8..2), any::<bool>()).prop_map(|(active, all)| Step::Others { active, all }),
        1 => (any::<bool>(), any::<bool>(), 0usize..100)
            .prop_map(|(more, here, connections_max)| Step::Install { more, here, connections_max }),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    let asker = Ipv4Addr::new(10, 1, 0, 254);
    let mut frames = vec![
        arp(
            (ROUTER, MacAddr::BROADCAST),
            1,
            (ROUTER, asker),
            (MacAddr::ZERO, VIP),
        ),
        arp(
            (OTHER_ATM, MacAddr::BROADCAST),
            2,
            (OTHER_ATM, VIP),
            (MacAddr::ZERO, VIP),
        ),
        arp(
            (SERVER_MACS[0], ATM),
            2,
            (SERVER_MACS[0], SERVERS[0]),
            (ATM, ATM_ADDRESS),
        ),
        Packet::icmp(CLIENT, VIP, 8, 0, [0; 4], b"ping").frame(ROUTER, ATM),
        arp(
            (OTHER_ATM, ATM),
            2,
            (OTHER_ATM, OTHERS[0]),
            (ATM, ATM_ADDRESS),
        ),
        arp(
            (THIRD_ATM, ATM),
            2,
            (THIRD_ATM, OTHERS[1]),
            (ATM, ATM_ADDRESS),
        ),
        tcp(1, QUORUM, ACK, b"").frame(OTHER_ATM, ATM),
        Packet::icmp(
            CLIENT,
            VIP,
            3,
            4,
            [0; 4],
            &Packet::tcp((VIP, QUORUM), (CLIENT, 1), ACK, b"").bytes(),
        )
        .frame(ROUTER, ATM),
        tcp(1, QUORUM, ACK, &[1; 3000]).frame(ROUTER, ATM),
        tcp(2, QUORUM, ACK, &[1; 3000])
            .with(|p| p.fragment = 0)
            .frame(ROUTER, ATM),
    ];
    for port in 1..6 {
        for service in [QUORUM, ASYNC, UNREPLICATED, DIRECT] {
            for flags in [SYN, ACK, FIN | ACK, RST] {
                frames.push(tcp(port, service, flags, b"").frame(ROUTER, ATM));
            }
        }
    }
    frames
}

/// The lease rule again, in the fewest words.
#[derive(Default)]
struct Model {
    newest: u64,
    until: Option<Instant>,
}

impl Model {
    fn set(&mut self, lease: Option<(u64, Instant)>) {
        self.until = lease
            .filter(|lease| lease.0 >= self.newest)
            .map(|lease| lease.1);
        self.newest = self.newest.max(lease.map_or(0, |lease| lease.0));
    }

    fn held(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// An ARP request in the name of our own address: the one thing that needs no lease.
fn is_own_question(frame: &[u8]) -> bool {
    frame.len() == 42
        && frame[12..14] == [8, 6]
        && frame[20..22] == [0, 1]
        && frame[28..32] == ATM_ADDRESS.octets()
}

/// A client's packet for a VIP, from us to one host.
fn is_relay(frame: &[u8]) -> bool {
    let ip = frame.len() >= 34 && frame[12..14] == [8, 0];
    ip && frame[30..33] == VIP.octets()[..3]
        && [100, 101].contains(&frame[33])
        && frame[0] & 1 == 0
        && frame[..6] != ATM.0
        && frame[6..12] == ATM.0
}

/// Checks all that was emitted since the last call, at an instant at which the lease was held or not.
fn check_output(rig: &mut Rig, held: bool) -> Result<(), TestCaseError> {
    let out = std::mem::take(&mut *rig.out);
    for frame in &out.relayed {
        prop_assert!(!held, "passed on while active: {frame:02x?}");
        prop_assert!(is_relay(frame), "no relay: {frame:02x?}");
    }
    for frame in &out.frames {
        prop_assert!(
            held || is_own_question(frame),
            "spoke without the lease: {frame:02x?}"
        );
        prop_assert_eq!(&frame[6..12], &ATM.0);
        if frame[12..14] == [8, 0] {
            prop_assert_eq!(
                sum(&frame[14..14 + usize::from(frame[14] & 15) * 4]),
                0xffff
            );
            prop_assert_eq!(
                usize::from(u16::from_be_bytes([frame[16], frame[17]])),
                frame.len() - 14
            );
            prop_assert!(frame.len() <= 14 + usize::from(MTU));
        }
    }
    prop_assert!(
        held || out.delivered.is_empty(),
        "delivered without the lease"
    );
    prop_assert!(
        held || (out.opened.is_empty() && out.closed.is_empty()),
        "asked for records without the lease"
    );
    Ok(())
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let frames = frames();
    let mut rig = Rig::backup();
    rig.out.damaged = true;
    let mut model = Model::default();
    let mut received = SERVERS.len() as u64;
    for step in steps {
        match step {
            Step::Receive {
                frame,
                changes,
                keep,
                offload,
                waited_ms,
            } => {
                let mut bytes = frame.get(&frames).clone();
                for (at, change) in changes {
                    *at.get_mut(&mut bytes) ^= change;
                }
                if let Some(keep) = keep {
                    bytes.truncate(keep.index(bytes.len()));
                }
                let verdict = rig.frame(&bytes, offload, Duration::from_millis(waited_ms));
                received += 1;
                let spoke = matches!(
                    verdict,
                    Verdict::Transmit
                        | Verdict::Answered
                        | Verdict::FragmentationNeeded
                        | Verdict::TimeExceeded
                        | Verdict::Reset
                );
                prop_assert_eq!(spoke, !rig.out.frames.is_empty(), "{:?}", verdict);
                let delivered = verdict == Verdict::Deliver;
                prop_assert_eq!(delivered, !rig.out.delivered.is_empty(), "{:?}", verdict);
                let relayed = verdict == Verdict::Relayed;
                prop_assert_eq!(relayed, !rig.out.relayed.is_empty(), "{:?}", verdict);
                for frame in &rig.out.relayed {
                    prop_assert!(frame[..6] != bytes[6..12], "back to its sender");
                }
            }
            Step::Lease(lease) => {
                let lease = lease.map(|(epoch, left_ms)| {
                    let left = Duration::from_millis(left_ms.unsigned_abs());
                    (
                        epoch,
                        if left_ms < 0 {
                            rig.now.saturating_sub(left)
                        } else {
                            rig.now + left
                        },
                    )
                });
                model.set(lease);
                let lease = lease.map(|(epoch, until)| Lease {
                    epoch: Epoch(epoch),
                    until,
                });
                rig.forwarder.set_lease(lease, rig.now, &mut rig.out);
            }
            Step::Sleep { ms } => {
                let end = rig.now + Duration::from_millis(ms);
                let mut calls = 0;
                while let Some(due) = rig.forwarder.poll_timeout().filter(|&due| due <= end) {
                    rig.now = rig.now.max(due);
                    rig.tick();
                    let held = model.held(rig.now);
                    check_output(&mut rig, held)?;
                    calls += 1;
                    prop_assert!(calls < 5000, "no progress");
                }
                rig.now = end;
            }
            Step::Wake => rig.tick(),
            Step::Open { port, server } => rig.commit(&[ConnectionChange::Open(
                key(port, 1),
                ServerId(server).into(),
            )]),
            Step::Close { port } => rig.commit(&[ConnectionChange::Close(key(port, 1))]),
            Step::Refuse { port } => rig.forwarder.refuse(key(port, 1), rig.now),
            Step::Snapshot { ports } => {
                let all = ports
                    .into_iter()
                    .map(|port| (key(port, 1), ServerId(0).into()));
                rig.forwarder.replace_connections(all, rig.now);
            }
            Step::Others { active, all } => {
                let others = OtherAtms {
                    here: OTHERS[..if all { 2 } else { 1 }]
                        .iter()
                        .map(|&v4| v4.into())
                        .collect(),
                    elsewhere: false,
                    active: active.map(|at| OTHERS[usize::from(at)].into()),
                };
                rig.forwarder.set_other_atms(others, rig.now);
            }
            Step::Install {
                more,
                here,
                connections_max,
            } => {
                let mut table = ForwardingTable {
                    connections_max,
                    ..table()
                };
                if here {
                    let server = &mut table.servers[0];
                    (server.here, server.next_hop) = (true, None);
                }
                if more {
                    table.services.truncate(2);
                    table.vips.push(Ipv4Addr::new(10, 1, 0, 101).into());
                }
                rig.forwarder.install(table, rig.now);
            }
        }
        let held = model.held(rig.now);
        check_output(&mut rig, held)?;
        let counters = rig.counters();
        prop_assert_eq!(counters.verdicts().iter().sum::<u64>(), received, "P5");
        let ended: u64 = Verdict::ALL
            .iter()
            .filter_map(|verdict| match *verdict {
                Verdict::Drop(reason) => Some(counters.held_dropped(reason)),
                Verdict::Transmit
                | Verdict::Deliver
                | Verdict::Held
                | Verdict::Answered
                | Verdict::FragmentationNeeded
                | Verdict::TimeExceeded
                | Verdict::Reset
                | Verdict::Relayed
                | Verdict::Host => None,
            })
            .sum();
        prop_assert_eq!(
            counters.verdict(Verdict::Held),
            ended + counters.event(Event::HeldReleased) + rig.forwarder.pending() as u64,
            "every held frame has an end"
        );
        prop_assert!(
            rig.forwarder.pending() <= 10 && rig.forwarder.connections() <= 200,
            "P6"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_speaks_for_a_vip_without_the_lease(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps)?;
    }
}

/// The test above can fail: with the planted fault it does.
#[cfg(feature = "planted")]
#[test]
fn the_planted_fault_is_found() {
    use proptest::test_runner::{Config, TestRunner};
    let _planted = model::planted::on_this_thread(model::planted::Bug::LeaseOff);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(400)
    };
    let found = TestRunner::new(config).run(&proptest::collection::vec(step(), 1..60), run);
    assert!(found.is_err_and(|error| error.to_string().contains("without the lease")));
}

#[test]
fn no_bytes_panic() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut rig = Rig::active();
        rig.out.damaged = true;
        rig.established(1);
        let _ = rig.raw(bytes);
        let (head, rest) = bytes.split_at(bytes.len().min(8));
        let word = |at: usize| {
            u16::from_be_bytes([
                head.get(at).copied().unwrap_or(0),
                head.get(at + 1).copied().unwrap_or(0),
            ])
        };
        let offload = Offload {
            checksum: if word(0) & 1 == 0 {
                Checksum::Complete
            } else {
                Checksum::Partial {
                    start: word(2),
                    offset: word(4),
                }
            },
            gso: if word(0) & 2 == 0 {
                Gso::None
            } else {
                Gso::Tcp { segment: word(6) }
            },
        };
        // The same bytes where they get further: as ARP, as a TCP segment, as an ICMP message, as a quote.
        let arp = crate::testing::ethernet(ROUTER, ATM, 0x0806, rest);
        let segment = Packet::new(CLIENT, VIP, 6, [&[0, 1, 0, 25], rest].concat());
        let message = Packet::new(CLIENT, VIP, 1, rest.to_vec());
        let quote = Packet::icmp(CLIENT, VIP, 3, 4, [0; 4], rest);
        for frame in [
            arp,
            segment.frame(ROUTER, ATM),
            message.frame(ROUTER, ATM),
            quote.frame(ROUTER, ATM),
        ] {
            let _ = rig.frame(&frame, offload, Duration::ZERO);
        }
    });
}
