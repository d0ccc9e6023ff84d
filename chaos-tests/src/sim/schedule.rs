//! A run as data: who takes part, and what goes wrong when. It is made from a seed, printed, shrunk and replayed.

use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// Everything a run follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Delays, losses, timeouts and what clients do follow from it.
    pub seed: u64,
    /// Events with faults; after them everything heals.
    pub steps: u64,
    /// ATMs, 3 or 5.
    pub atms: usize,
    /// Servers, 1..=8.
    pub servers: usize,
    /// Clients, 0..=8.
    pub clients: usize,
    /// HeartBeatDelay.
    pub heartbeat_ms: u64,
    /// The network as it is without a storm.
    pub weather: Weather,
    /// What goes wrong, in order of time.
    pub faults: Vec<Planned>,
}

/// What the network does to messages and frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Lost, of a thousand.
    pub loss: u64,
    /// Delivered twice, of a thousand.
    pub twice: u64,
    /// Late, of a thousand: by up to `delay_ms`, so that others overtake them.
    pub late: u64,
    /// How late.
    pub delay_ms: u64,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Microseconds of true time since the start.
    pub at_us: u64,
    /// What.
    pub fault: Fault,
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// This one.
    Atm(usize),
    /// Who leads the highest term then.
    Leader,
    /// Who holds the lease then, or else who leads.
    Active,
}

/// What goes wrong. Everything that lasts names its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The process dies with what it had not synced, and starts again.
    Crash {
        /// Whose.
        who: Who,
        /// How long it is down.
        ms: u64,
    },
    /// All ATMs but one at most lose their power.
    PowerCut {
        /// Who keeps it; `None`: nobody.
        spared: Option<Who>,
        /// How long.
        ms: u64,
    },
    /// SIGSTOP, and later SIGCONT.
    Pause {
        /// Whose process.
        who: Who,
        /// How long.
        ms: u64,
        /// Between a batch's decisions and its sending.
        in_batch: bool,
    },
    /// Cut off in both directions.
    Isolate {
        /// Who.
        who: Who,
        /// From whom.
        from: Wires,
        /// How long.
        ms: u64,
    },
    /// Cut off in one direction.
    OneWay {
        /// Who.
        who: Who,
        /// What it sends is lost; else what is sent to it.
        outgoing: bool,
        /// On which wires.
        wires: Wires,
        /// How long.
        ms: u64,
    },
    /// The ATMs fall into two halves.
    Split {
        /// One half, a bit for each ATM.
        half: u32,
        /// This one is heard by both.
        bridge: Option<Who>,
        /// How long.
        ms: u64,
    },
    /// Messages and frames are lost, doubled and late.
    Storm {
        /// How.
        weather: Weather,
        /// How long.
        ms: u64,
    },
    /// Its clocks run at another rate.
    Drift {
        /// Whose.
        who: Who,
    },
    /// Its wall clock is set.
    Step {
        /// Whose.
        who: Who,
        /// Forwards, or back.
        ms: i64,
    },
    /// Each write takes long.
    SlowDisk {
        /// Whose.
        who: Who,
        /// How long a write takes.
        each_ms: u64,
        /// For how long.
        ms: u64,
    },
    /// No write succeeds: the process ends, and does not start before there is room.
    FullDisk {
        /// Whose.
        who: Who,
        /// How long.
        ms: u64,
    },
    /// The leader has another ATM elected, without ending its tenure.
    Transfer {
        /// Whom.
        to: usize,
    },
    /// An ATM stands for election whatever was promised: an old transfer arrives late.
    Coup {
        /// Who.
        who: Who,
    },
    /// An operator asks for a hand-over.
    HandOver {
        /// To whom.
        to: Option<usize>,
    },
    /// A server dies with its connections, and starts again.
    ServerDown {
        /// Which.
        server: usize,
        /// How long.
        ms: u64,
    },
    /// A check's verdict.
    Health {
        /// Of which server.
        server: usize,
        /// Whether it takes new connections.
        healthy: bool,
    },
    /// Another version of the configuration.
    Config {
        /// Which servers, weights and limits, as bits.
        variant: u32,
    },
}

/// Which wires a cut is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wires {
    /// Between the ATMs' daemons.
    Peers,
    /// To clients and servers.
    Frames,
    /// Both.
    All,
}

/// Faults are planned for so long; a run of 5,000 steps takes some 10 to 25 s.
const PLANNED_US: u64 = 60_000_000;

impl Schedule {
    /// The run of a seed.
    pub fn of(seed: u64, steps: u64) -> Self {
        let mut chance = Chance::new(seed, 1);
        let atms = chance.pick(&[3, 3, 3, 5]);
        let heartbeat_ms = chance.pick(&[40, 80, 100, 120]);
        let weather = Weather {
            loss: chance.pick(&[0, 0, 5, 20]),
            twice: chance.pick(&[0, 5]),
            late: chance.pick(&[0, 10, 50]),
            delay_ms: chance.between(1, 20),
        };
        let mut schedule = Self {
            seed,
            steps,
            atms,
            servers: chance.pick(&[2, 3]),
            clients: chance.pick(&[2, 3]),
            heartbeat_ms,
            weather,
            faults: Vec::new(),
        };
        // Quiet runs and wild ones; in some only one kind of fault happens.
        let gap_us = chance.pick(&[150_000, 400_000, 1_000_000]);
        let only = chance.percent(20).then(|| chance.below(KINDS));
        let mut at_us = 500_000;
        while at_us < PLANNED_US {
            at_us += chance.below(2 * gap_us);
            let kind = only.unwrap_or_else(|| chance.below(KINDS));
            let fault = schedule.fault(kind, &mut chance);
            schedule.faults.push(Planned { at_us, fault });
            // Troubles come together: what a fault leaves behind is when the next one hurts.
            if chance.percent(30) {
                let soon = chance.below(2 * heartbeat_ms * 1000);
                let kind = chance.below(KINDS);
                let fault = schedule.fault(kind, &mut chance);
                schedule.faults.push(Planned {
                    at_us: at_us + soon,
                    fault,
                });
            }
        }
        schedule.faults.sort_by_key(|planned| planned.at_us);
        schedule
    }

    fn fault(&self, kind: u64, chance: &mut Chance) -> Fault {
        let election = self.heartbeat_ms * 5;
        let who = self.who(chance);
        match kind {
            0..4 => Fault::Crash {
                who,
                ms: chance.between(1, 2 * election),
            },
            4 => Fault::PowerCut {
                spared: chance.percent(60).then(|| self.who(chance)),
                ms: chance.between(1, election),
            },
            5..8 => Fault::Pause {
                who,
                ms: chance.between(1, 3 * election),
                in_batch: chance.percent(40),
            },
            8..11 => Fault::Isolate {
                who,
                from: wires(chance),
                ms: chance.between(10, 3 * election),
            },
            11..13 => Fault::OneWay {
                who,
                outgoing: chance.percent(50),
                wires: wires(chance),
                ms: chance.between(10, 3 * election),
            },
            13..15 => Fault::Split {
                half: u32::try_from(chance.between(1, (1 << self.atms) - 1)).unwrap_or(1),
                bridge: chance.percent(30).then(|| self.who(chance)),
                ms: chance.between(10, 3 * election),
            },
            15 => Fault::Storm {
                weather: Weather {
                    loss: chance.below(400),
                    twice: chance.below(300),
                    late: chance.below(500),
                    delay_ms: chance.between(1, election),
                },
                ms: chance.between(10, 2 * election),
            },
            16 => Fault::Drift { who },
            17 => Fault::Step {
                who,
                ms: i64::try_from(chance.below(7_200_000)).unwrap_or(0) - 3_600_000,
            },
            18 => Fault::SlowDisk {
                who,
                each_ms: chance.between(5, 3 * election),
                ms: chance.between(100, 4 * election),
            },
            19 => Fault::FullDisk {
                who,
                ms: chance.between(10, 2 * election),
            },
            20..22 => Fault::Transfer {
                to: chance.index(self.atms),
            },
            22..24 => Fault::Coup { who },
            24..27 => Fault::HandOver {
                to: chance.percent(50).then(|| chance.index(self.atms)),
            },
            27 => Fault::ServerDown {
                server: chance.index(self.servers),
                ms: chance.between(10, 1000),
            },
            28 => Fault::Health {
                server: chance.index(self.servers),
                healthy: chance.percent(60),
            },
            _ => Fault::Config {
                variant: u32::try_from(chance.below(1 << 12)).unwrap_or(0),
            },
        }
    }

    fn who(&self, chance: &mut Chance) -> Who {
        match chance.below(5) {
            0 => Who::Leader,
            1 | 2 => Who::Active,
            _ => Who::Atm(chance.index(self.atms)),
        }
    }
}

const KINDS: u64 = 30;

fn wires(chance: &mut Chance) -> Wires {
    chance.pick(&[Wires::Peers, Wires::Frames, Wires::All, Wires::All])
}
