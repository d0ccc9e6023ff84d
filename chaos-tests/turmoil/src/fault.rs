//! Faults as data: what happens to whom and for how long, drawn from the seed before the run.

use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// A fault. ATMs are counted from 0, times are milliseconds of simulated time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// The process dies; what it had not synced is lost. It starts again after this long.
    Crash {
        /// Whose.
        atm: usize,
        /// Until it starts again.
        down_ms: u64,
    },
    /// Nothing passes between two ATMs.
    Cut {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// How long.
        for_ms: u64,
    },
    /// Nothing passes from one to the other.
    OneWay {
        /// Who is not heard.
        from: usize,
        /// By whom.
        to: usize,
        /// How long.
        for_ms: u64,
    },
    /// Nothing passes between an ATM and all others.
    Isolate {
        /// Which.
        atm: usize,
        /// How long.
        for_ms: u64,
    },
    /// All others reach one another only through this one.
    Bridge {
        /// Which.
        atm: usize,
        /// How long.
        for_ms: u64,
    },
    /// What two ATMs send each other is held back, then delivered all at once.
    Hold {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// How long.
        for_ms: u64,
    },
    /// Messages take up to this long.
    Latency {
        /// The longest.
        max_ms: u64,
        /// How long it stays so.
        for_ms: u64,
    },
    /// Each message breaks its link with this probability, in thousandths; the next one may repair it.
    Loss {
        /// How many of a thousand.
        permille: u64,
        /// How long.
        for_ms: u64,
    },
    /// Syncs take up to this long.
    SlowDisk {
        /// Whose.
        atm: usize,
        /// The longest sync.
        sync_ms: u64,
        /// How long it stays so.
        for_ms: u64,
    },
    /// No space is left.
    FullDisk {
        /// Whose.
        atm: usize,
        /// How long.
        for_ms: u64,
    },
    /// Writes fail.
    BrokenDisk {
        /// Whose.
        atm: usize,
        /// How long.
        for_ms: u64,
    },
    /// The thread of the packet engine gets no processor.
    StalledEngine {
        /// Whose.
        atm: usize,
        /// How long.
        for_ms: u64,
    },
    /// Raft's leadership is given to this ATM, without any hand-over of the tenure.
    Transfer {
        /// To whom.
        to: usize,
    },
    /// An operator asks for a planned hand-over.
    HandOver {
        /// To whom.
        to: usize,
    },
}

/// A fault and when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds of simulated time.
    pub at_ms: u64,
    /// What happens.
    pub fault: Fault,
}

/// The faults of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedule(pub Vec<Step>);

impl Schedule {
    /// Faults among `atms` ATMs from `from_ms` to `until_ms`; everything is over by then.
    pub fn draw(seed: u64, atms: usize, from_ms: u64, until_ms: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0xfa17);
        let mut steps = Vec::new();
        let mut at_ms = from_ms;
        // Some runs are about one kind of fault; its rare meetings with itself would drown among all kinds.
        let theme = match chance.below(3) {
            0 => Some(THEMES[chance.index(THEMES.len())]),
            _ => None,
        };
        let pause_ms = if theme.is_some() { 900 } else { 1500 };
        loop {
            at_ms += chance.between(50, pause_ms);
            if at_ms >= until_ms {
                return Self(steps);
            }
            let longest = (until_ms - at_ms).min(4000);
            let fault = draw(&mut chance, atms, longest, theme);
            steps.push(Step { at_ms, fault });
            // Often the next one falls on the same moment: faults that meet find more than faults alone.
            if chance.below(4) == 0 {
                let fault = draw(&mut chance, atms, longest, None);
                let at_ms = at_ms + chance.below(20);
                steps.push(Step { at_ms, fault });
            }
        }
    }
}

/// Kinds of faults, some counted more than once: those are drawn more often.
const KINDS: u64 = 20;

/// Crashes, isolation, held messages, slow disks, transfers (twice: what they meet is rare), hand-overs.
const THEMES: [u64; 7] = [0, 7, 10, 13, 16, 16, 18];

fn draw(chance: &mut Chance, atms: usize, longest: u64, theme: Option<u64>) -> Fault {
    let atm = chance.index(atms);
    let other = (atm + 1 + chance.index(atms - 1)) % atms;
    let for_ms = chance.between(20, longest.max(20));
    let kind = theme.filter(|_| chance.below(3) > 0);
    match kind.unwrap_or_else(|| chance.below(KINDS)) {
        0..=3 => Fault::Crash {
            atm,
            down_ms: chance.between(1, longest.clamp(1, 2500)),
        },
        4 | 5 => Fault::Cut {
            a: atm,
            b: other,
            for_ms,
        },
        6 => Fault::OneWay {
            from: atm,
            to: other,
            for_ms,
        },
        7 | 8 => Fault::Isolate { atm, for_ms },
        9 => Fault::Bridge { atm, for_ms },
        10 => Fault::Hold {
            a: atm,
            b: other,
            for_ms: for_ms.min(1500),
        },
        11 => Fault::Latency {
            max_ms: chance.between(10, 250),
            for_ms,
        },
        12 => Fault::Loss {
            permille: chance.between(1, 30),
            for_ms,
        },
        13 => Fault::SlowDisk {
            atm,
            sync_ms: chance.between(20, 900),
            for_ms,
        },
        14 => {
            if chance.below(2) == 0 {
                Fault::FullDisk { atm, for_ms }
            } else {
                Fault::BrokenDisk { atm, for_ms }
            }
        }
        15 => Fault::StalledEngine { atm, for_ms },
        16 | 17 => Fault::Transfer { to: atm },
        _ => Fault::HandOver { to: atm },
    }
}
