//! Faults of whole hosts and of their neighbourhood: links, crashes, an impostor, neighbours that are remembered wrongly.

use std::net::Ipv4Addr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::equipment::HOLDER;
use crate::lab::{Frames, Impairment, ROGUE_NAME, Signal, format_mac};
use crate::observer::{RawPort, gratuitous_arp};

use super::chance::Chance;
use super::error::NemesisError;
use super::network::impair;
use super::process::take_down;
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// What happens to hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum HostFault {
    /// The carrier of its link goes away, and comes back.
    LinkDown {
        /// Whose.
        target: Target,
    },
    /// No frame passes from or to it; its carrier stays.
    SilentCut {
        /// Whose.
        target: Target,
    },
    /// Silent cut and `kill -9` of everything the lab runs there; started again at the end.
    Crash {
        /// Whose.
        target: Target,
    },
    /// Only packets of up to so many bytes pass from and to it, and nobody is told.
    SmallMtu {
        /// Whose.
        target: Target,
        /// At least 576: every IPv4 host takes those (RFC 791 §3.1).
        bytes: u16,
    },
    /// The host `rogue` announces every VIP as its own. What it then gets it swallows.
    Rogue {
        /// Between two announcements, in ms.
        announce_every_ms: u32,
        /// Whether it also answers ARP requests for the VIPs.
        answers: bool,
    },
    /// Some hosts remember the VIPs at the Ethernet address of another host.
    StaleNeighbour {
        /// Who does.
        on: Target,
        /// Whose address it is; of several hosts the first one.
        at: Target,
        /// Whether no announcement makes them forget it.
        stuck: bool,
    },
}

impl Strike for HostFault {
    fn name(&self) -> &'static str {
        match self {
            Self::LinkDown { .. } => "link-down",
            Self::SilentCut { .. } => "silent-cut",
            Self::Crash { .. } => "crash",
            Self::SmallMtu { .. } => "small-mtu",
            Self::Rogue { .. } => "rogue",
            Self::StaleNeighbour { .. } => "stale-neighbour",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::LinkDown { target }
            | Self::SilentCut { target }
            | Self::Crash { target }
            | Self::SmallMtu { target, .. } => vec![target.clone()],
            Self::Rogue { .. } => vec![Target::Host(ROGUE_NAME.to_owned())],
            Self::StaleNeighbour { on, at, .. } => vec![on.clone(), at.clone()],
        }
    }

    fn harm(&self) -> Harm {
        match self {
            Self::Crash { .. } => Harm::Down,
            Self::LinkDown { .. }
            | Self::SilentCut { .. }
            | Self::SmallMtu { .. }
            | Self::Rogue { .. }
            | Self::StaleNeighbour { .. } => Harm::Bearable,
        }
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        let hosts = place.hosts(0);
        match self {
            Self::LinkDown { .. } => hosts
                .iter()
                .try_for_each(|host| link_down(scene, host, place, undo)),
            Self::SilentCut { .. } => isolate(scene, place, Frames::All, undo),
            Self::Crash { .. } => {
                isolate(scene, place, Frames::All, undo)?;
                hosts
                    .iter()
                    .try_for_each(|host| crash(scene, host, place, undo))
            }
            Self::SmallMtu { bytes, .. } => isolate(scene, place, Frames::LongerThan(*bytes), undo),
            Self::Rogue {
                announce_every_ms,
                answers,
            } => {
                let every = Duration::from_millis(u64::from((*announce_every_ms).max(1)));
                // Undone the other way round: who forgets the rogue asks again at once, and it must not answer any more.
                hosts.iter().try_for_each(|host| {
                    announce_vips(scene, host, every, undo)?;
                    if *answers {
                        answer_for_vips(scene, host, undo)?;
                    }
                    Ok(())
                })
            }
            Self::StaleNeighbour { stuck, .. } => {
                let Some(at) = place.hosts(1).first() else {
                    return Ok(());
                };
                let mac = format_mac(scene.lab().host(at)?.mac());
                hosts
                    .iter()
                    .filter(|host| *host != at)
                    .try_for_each(|host| misremember(scene, host, &mac, *stuck, undo))
            }
        }
    }
}

impl Draw for HostFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let (atm, server) = (bounds.some_atm(chance), bounds.some_server(chance));
        let either = if chance.percent(70) {
            atm.clone()
        } else {
            server.clone()
        };
        let lasts_ms = chance.between(bounds.lease_ms, 6_000);
        let fault = match chance.below(9) {
            0 | 1 => Self::LinkDown { target: either },
            2 => Self::SilentCut { target: either },
            3 | 4 => Self::Crash { target: either },
            5 => Self::SmallMtu {
                target: either,
                bytes: u16::try_from(chance.between(576, 1_480)).unwrap_or(576),
            },
            6 if bounds.rogue => Self::Rogue {
                announce_every_ms: u32::try_from(chance.between(50, 1_000)).unwrap_or(50),
                answers: chance.percent(50),
            },
            6.. => Self::StaleNeighbour {
                on: Target::NonAtms,
                at: atm,
                stuck: false,
            },
        };
        Lasting { fault, lasts_ms }
    }
}

fn link_down(
    scene: &Scene<'_>,
    host: &str,
    place: &Place<'_>,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let (what, id, name) = (format!("link {host}"), place.id, host.to_owned());
    let held = what.clone();
    undo.push(move |scene| {
        let mut holds = scene.holds();
        if holds.release(&held, id) {
            scene.lab().set_carrier(&name, true)?;
        }
        Ok(())
    });
    let mut holds = scene.holds();
    holds.hold(&what, id);
    Ok(scene.lab().set_carrier(host, false)?)
}

/// Loses `frames` between the struck hosts and all others, in both directions.
fn isolate(
    scene: &Scene<'_>,
    place: &Place<'_>,
    frames: Frames,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let struck = place.hosts(0);
    let all = scene.roster().hosts;
    let there = |host: &String| {
        let others: Vec<String> = all.iter().filter(|other| *other != host).cloned().collect();
        Impairment {
            frames,
            ..Impairment::cut(std::slice::from_ref(host), &others)
        }
    };
    let impairments = struck.iter().map(there);
    let both = impairments.flat_map(|there| [there.reversed(), there]);
    impair(scene, place, both.collect(), undo)
}

/// Kills whatever the lab runs on `host`.
fn crash(
    scene: &Scene<'_>,
    host: &str,
    place: &Place<'_>,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let record = scene.lab().record();
    // What holds its disk mounted is no program of the host: a disk outlives a crash.
    let processes = record
        .processes
        .iter()
        .filter(|p| p.host == host && p.name != HOLDER);
    processes
        .map(|process| &process.name)
        .try_for_each(|name| take_down(scene, host, name, place.id, Signal::KILL, undo))
}

/// Gives `host` the VIPs. It answers for them, and whatever else it gets for them ends there.
fn answer_for_vips(scene: &Scene<'_>, host: &str, undo: &mut Undo) -> Result<(), NemesisError> {
    let name = host.to_owned();
    undo.push(move |scene| {
        // As long as it has an address it must not be able to reset: first the addresses, then what silences it.
        let mut script = String::new();
        for vip in scene.lab().vips() {
            script += &format!("ip addr del {vip}/32 dev eth0 2>/dev/null\n");
        }
        script += "nft 'table ip swallow; delete table ip swallow'\n";
        shell(scene, &name, &script)
    });
    let mut script = String::from("set -e\n");
    for vip in scene.lab().vips() {
        // A reset from here would break connections that are none of its own; it is a hole, not an enemy.
        script += &format!(
            "nft 'table ip swallow {{ chain out {{ type filter hook output priority 0; ip saddr {vip} drop; }}; }}'\n\
             ip addr replace {vip}/32 dev eth0\n"
        );
    }
    shell(scene, host, &script)
}

/// A thread that announces, and ends.
struct Announcer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How often a thread that announces looks whether it shall end.
const LOOK: Duration = Duration::from_millis(10);

impl Announcer {
    fn start(port: RawPort, frames: Vec<Vec<u8>>, every: Duration) -> Result<Self, NemesisError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let announce = move || {
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= due {
                    for frame in &frames {
                        // A link that is down loses it, as it would lose any other frame.
                        let _ = port.send(frame);
                    }
                    due += every;
                }
                thread::sleep(LOOK.min(every));
            }
        };
        let thread = thread::Builder::new()
            .name("rogue".to_owned())
            .spawn(announce)
            .map_err(NemesisError::io("start a thread"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Announces the VIPs at `host`. Those who believed it forget it at the end.
fn announce_vips(
    scene: &Scene<'_>,
    host: &str,
    every: Duration,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let lab = scene.lab();
    let place = lab.host(host)?;
    let port = RawPort::open(place.namespace(), "eth0")?;
    let claim = |vip: Ipv4Addr| [false, true].map(|reply| gratuitous_arp(place.mac(), vip, reply));
    let frames = lab.vips().into_iter().flat_map(claim).collect();
    let mut announcer = Some(Announcer::start(port, frames, every)?);
    undo.push(move |scene| {
        drop(announcer.take());
        let everybody = scene.roster().hosts;
        everybody
            .iter()
            .try_for_each(|host| forget_vips(scene, host))
    });
    Ok(())
}

/// Writes the VIPs into the neighbours of `host`.
fn misremember(
    scene: &Scene<'_>,
    host: &str,
    mac: &str,
    stuck: bool,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let name = host.to_owned();
    undo.push(move |scene| forget_vips(scene, &name));
    let state = if stuck { "permanent" } else { "reachable" };
    let mut script = String::from("set -e\n");
    for vip in scene.lab().vips() {
        script += &format!("ip neigh replace {vip} lladdr {mac} dev eth0 nud {state}\n");
    }
    shell(scene, host, &script)
}

/// Makes `host` ask anew where the VIPs are.
fn forget_vips(scene: &Scene<'_>, host: &str) -> Result<(), NemesisError> {
    let mut script = String::new();
    for vip in scene.lab().vips() {
        // There may be none: that is what is wanted.
        script += &format!("ip neigh del {vip} dev eth0 2>/dev/null\n");
    }
    script += "true\n";
    shell(scene, host, &script)
}

/// Runs a script of commands that end at once.
fn shell(scene: &Scene<'_>, host: &str, script: &str) -> Result<(), NemesisError> {
    const LIMIT: Duration = Duration::from_secs(20);
    let place = scene.lab().host(host)?;
    let Output { status, stderr, .. } = place.exec_within(LIMIT, ["sh", "-c", script])?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr).trim().to_owned();
    Err(NemesisError::Ineffective(format!(
        "a command on {host} failed ({status}): {said}"
    )))
}
