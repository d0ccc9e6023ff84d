//! What holds of every scheduler: new connections go by weight, also after a server left and came back.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::conf::Scheduler;
use model::ids::ServerId;
use proptest::prelude::*;

use super::{Picker, Tables, hash};
use crate::DropReason;

const ALL: [Scheduler; 4] = [
    Scheduler::Wrr,
    Scheduler::Wlc,
    Scheduler::Maglev,
    Scheduler::Sh,
];
const CONNECTIONS: u32 = 100_000;
/// One per cent of them.
const TOLERANCE: u32 = CONNECTIONS / 100;
/// How many connections live at a time.
const LIVE: usize = 1000;

/// A service under load: connections come from ever new clients, and go in the order in which they came.
struct Load {
    picker: Picker,
    kind: Scheduler,
    clients: Clients,
    seed: u64,
    live: VecDeque<ServerId>,
    loads: BTreeMap<ServerId, u32>,
}

/// Where clients come from.
#[derive(Clone, Copy, Debug)]
enum Clients {
    /// Anywhere.
    Ipv4,
    Ipv6,
    /// One network of 2^17 addresses, one after the other, each with the same port.
    Neighbours,
}

impl Load {
    fn new(kind: Scheduler, clients: Clients, seed: u64, share: &[(ServerId, u16)]) -> Self {
        Self {
            picker: Picker::new(kind, share, None, &mut Tables::default()),
            kind,
            clients,
            seed,
            live: VecDeque::new(),
            loads: BTreeMap::new(),
        }
    }

    fn install(&mut self, share: &[(ServerId, u16)]) {
        self.picker = Picker::new(
            self.kind,
            share,
            Some(&self.picker),
            &mut Tables::of(std::iter::once(&self.picker)),
        );
    }

    fn client(&mut self) -> (IpAddr, u16) {
        self.seed += 1;
        let random = hash::word(17, self.seed);
        let [a, b, c, d, e, f, g, h] = random.to_be_bytes();
        let port = u16::from_be_bytes([a, b]);
        match self.clients {
            Clients::Ipv4 => (Ipv4Addr::new(c, d, e, f).into(), port),
            Clients::Ipv6 => {
                let host = [u16::from_be_bytes([c, d]), u16::from_be_bytes([e, f])];
                let net = u16::from_be_bytes([g, h]);
                (
                    Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, host[0], host[1]).into(),
                    port,
                )
            }
            Clients::Neighbours => {
                let host = u32::try_from(self.seed % (1 << 17)).unwrap();
                (Ipv4Addr::from_bits(0x0a00_0000 | host).into(), 40_000)
            }
        }
    }

    /// How many of `CONNECTIONS` new connections each server gets.
    fn run(&mut self) -> BTreeMap<ServerId, u32> {
        let mut picks = BTreeMap::new();
        for _ in 0..CONNECTIONS {
            let (client, port) = self.client();
            let loads = &self.loads;
            let server = self
                .picker
                .pick(client, port, |server| {
                    loads.get(&server).copied().unwrap_or(0)
                })
                .unwrap();
            *picks.entry(server).or_insert(0) += 1;
            *self.loads.entry(server).or_insert(0) += 1;
            self.live.push_back(server);
            if self.live.len() > LIVE
                && let Some(gone) = self.live.pop_front()
            {
                *self.loads.get_mut(&gone).unwrap() -= 1;
            }
        }
        picks
    }

    /// Runs, and says whose share is not what its weight says.
    fn wrong(&mut self, share: &[(ServerId, u16)]) -> Vec<String> {
        let total: u64 = share.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let mut picks = self.run();
        let mut wrong = Vec::new();
        for &(server, weight) in share {
            let due = u64::from(CONNECTIONS) * u64::from(weight) / total;
            let got = picks.remove(&server).unwrap_or(0);
            if u64::from(got).abs_diff(due) > u64::from(TOLERANCE) || (weight == 0 && got > 0) {
                wrong.push(format!("server {server}: {got}, due {due}"));
            }
        }
        wrong.extend(picks.keys().map(|server| format!("{server} is not there")));
        wrong
    }
}

fn share(weights: &[u16]) -> Vec<(ServerId, u16)> {
    (1..).map(ServerId).zip(weights.iter().copied()).collect()
}

/// All servers, all but one, all but another of weight 0 meanwhile, all again.
fn leaves_and_returns(
    kind: Scheduler,
    clients: Clients,
    seed: u64,
    all: &[(ServerId, u16)],
) -> Vec<String> {
    let mut load = Load::new(kind, clients, seed, all);
    let mut wrong = load.wrong(all);
    let mut rest = all.to_vec();
    rest.remove(0);
    let mut drained = all.to_vec();
    drained[all.len() - 1].1 = 0;
    for share in [&rest, &drained, all] {
        if share.iter().all(|&(_, weight)| weight == 0) {
            continue;
        }
        load.install(share);
        wrong.extend(load.wrong(share));
    }
    wrong
}

#[test]
fn new_connections_go_by_weight_also_after_a_server_left_and_returned() {
    for kind in ALL {
        for clients in [Clients::Ipv4, Clients::Ipv6, Clients::Neighbours] {
            for weights in [
                vec![1, 1],
                vec![3, 2, 1],
                vec![1, 0, 1],
                vec![100, 1],
                vec![65_535, 65_535, 1],
                vec![10; 10],
            ] {
                let wrong = leaves_and_returns(kind, clients, 0, &share(&weights));
                assert!(
                    wrong.is_empty(),
                    "{kind:?}, {clients:?}, {weights:?}: {wrong:?}"
                );
            }
        }
    }
}

#[test]
fn turns_are_closer_than_chance_could_be() {
    for (kind, tolerance) in [(Scheduler::Wrr, 1), (Scheduler::Wlc, CONNECTIONS / 1000)] {
        let share = share(&[6, 3, 1]);
        let picks = Load::new(kind, Clients::Ipv4, 0, &share).run();
        for (server, weight) in share {
            let due = CONNECTIONS / 10 * u32::from(weight);
            assert!(
                picks[&server].abs_diff(due) <= tolerance,
                "{kind:?}: {picks:?}"
            );
        }
    }
}

#[test]
fn nobody_with_a_weight_is_a_named_refusal() {
    for kind in ALL {
        for share in [vec![], share(&[0, 0])] {
            let mut picker = Picker::new(kind, &share, None, &mut Tables::default());
            assert_eq!(
                picker.pick(Ipv4Addr::LOCALHOST.into(), 1, |_| 0),
                Err(DropReason::NoServer)
            );
        }
    }
}

/// Two ATMs with the same table, and a client whose connections come from different ports.
#[test]
fn hashing_picks_alike_everywhere_and_only_sh_ignores_the_port() {
    let share = share(&[2, 1, 4, 3]);
    let mut turned = share.clone();
    turned.reverse();
    for kind in [Scheduler::Maglev, Scheduler::Sh] {
        let mut here = Picker::new(kind, &share, None, &mut Tables::default());
        let mut there = Picker::new(kind, &turned, None, &mut Tables::default());
        let client = Ipv4Addr::new(192, 0, 2, 7).into();
        let picks: Vec<_> = (1..=100)
            .map(|port| here.pick(client, port, |_| 0))
            .collect();
        let others: Vec<_> = (1..=100)
            .map(|port| there.pick(client, port, |_| 0))
            .collect();
        assert_eq!(picks, others);
        let one_server = picks.iter().all(|pick| *pick == picks[0]);
        assert_eq!(one_server, kind == Scheduler::Sh, "{kind:?}: {picks:?}");
    }
}

/// A client of `sh` keeps its server while that one is there, but for the few that Maglev's table moves.
#[test]
fn clients_keep_their_server_when_another_one_leaves() {
    let all = share(&[1; 10]);
    for kind in [Scheduler::Maglev, Scheduler::Sh] {
        let mut before = Picker::new(kind, &all, None, &mut Tables::default());
        let mut after = Picker::new(kind, &all[1..], None, &mut Tables::default());
        let mut clients = Load::new(kind, Clients::Ipv4, 0, &all);
        let moved = (0..CONNECTIONS)
            .filter(|_| {
                let (client, port) = clients.client();
                let server = before.pick(client, port, |_| 0).unwrap();
                server != all[0].0 && after.pick(client, port, |_| 0) != Ok(server)
            })
            .count();
        assert!(moved < 500, "{kind:?}: {moved} of {CONNECTIONS} moved");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_weights_are_kept(
        weights in proptest::collection::vec(prop_oneof![0u16..10, any::<u16>()], 1..12),
        seed in any::<u32>(),
    ) {
        prop_assume!(weights.iter().any(|&weight| weight > 0));
        for kind in ALL {
            let wrong = leaves_and_returns(kind, Clients::Ipv4, seed.into(), &share(&weights));
            prop_assert!(wrong.is_empty(), "{kind:?}, {weights:?}: {wrong:?}");
        }
    }
}

#[test]
fn any_share_picks_one_of_its_weighted_servers() {
    bolero::check!()
        .with_type::<(Vec<(u16, u16)>, Vec<(u16, u16)>, Vec<(u32, u16, u32)>)>()
        .with_iterations(200)
        .for_each(|(before, after, clients)| {
            // The replicated state never lists a server twice; what the picker makes of one that is must still be sound.
            let of = |share: &[(u16, u16)]| -> Vec<(ServerId, u16)> {
                share.iter().map(|&(id, w)| (ServerId(id), w)).collect()
            };
            let (before, after) = (of(before), of(after));
            for kind in ALL {
                let mut first = Picker::new(kind, &before, None, &mut Tables::default());
                let _ = first.pick(Ipv4Addr::LOCALHOST.into(), 0, |_| 0);
                let mut tables = Tables::of(std::iter::once(&first));
                let mut picker = Picker::new(kind, &after, Some(&first), &mut tables);
                for &(client, port, load) in clients {
                    let pick = picker.pick(Ipv4Addr::from_bits(client).into(), port, |server| {
                        load.wrapping_mul(u32::from(server.0))
                    });
                    match pick {
                        Ok(server) => assert!(after.iter().any(|&(id, w)| id == server && w > 0)),
                        Err(reason) => {
                            assert_eq!(reason, DropReason::NoServer);
                            assert!(after.iter().all(|&(_, weight)| weight == 0));
                        }
                    }
                }
            }
        });
}
