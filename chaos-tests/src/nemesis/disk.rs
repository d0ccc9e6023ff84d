//! Faults of a disk: syncs that are slow, hang, fail or lie; writes that fail or are torn; a disk that is full or read-only.
//!
//! The daemons need [`crate::equipment::Equipment::for_disk_faults`]; without it each fault says so by name.

use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::equipment::{Class, Disk, Effect, Mode, disk_page};

use crate::lab::ATMD;

use super::chance::Chance;
use super::error::NemesisError;
use super::process::{bring_up, keep_down};
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// What happens to the disk under a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskFault {
    /// Each sync takes longer.
    SlowSync {
        /// Whose.
        target: Target,
        /// By so many ms.
        ms: u32,
        /// And at most so many more, by the seed.
        jitter_ms: u32,
    },
    /// No sync returns; all that wait go on at the end.
    HangSync {
        /// Whose.
        target: Target,
    },
    /// Each sync fails with EIO. The daemon may end, and is started again at the end.
    FailSync {
        /// Whose.
        target: Target,
    },
    /// Each sync succeeds and does nothing: with a power cut, what was promised is lost. No cluster promises to survive it.
    LyingSync {
        /// Whose.
        target: Target,
    },
    /// Each write fails with EIO; as [`Self::FailSync`].
    FailWrite {
        /// Whose.
        target: Target,
    },
    /// One write is done in part and fails with EIO; as [`Self::FailSync`].
    TornWrite {
        /// Whose.
        target: Target,
        /// So many thousandths of it are done.
        keep: u16,
    },
    /// Nothing more can be written but so much; as [`Self::FailSync`].
    Full {
        /// Whose.
        target: Target,
        /// KiB.
        left_kib: u32,
    },
    /// Writing, creating, renaming and removing fail with EROFS; as [`Self::FailSync`].
    ReadOnly {
        /// Whose.
        target: Target,
    },
}

impl DiskFault {
    fn target(&self) -> &Target {
        match self {
            Self::SlowSync { target, .. }
            | Self::HangSync { target }
            | Self::FailSync { target }
            | Self::LyingSync { target }
            | Self::FailWrite { target }
            | Self::TornWrite { target, .. }
            | Self::Full { target, .. }
            | Self::ReadOnly { target } => target,
        }
    }

    /// What the library between the daemon and its disk is told.
    fn effects(&self, seed: u64) -> Vec<Effect> {
        let ms = |ms: &u32| Duration::from_millis(u64::from(*ms));
        match self {
            Self::SlowSync {
                ms: by, jitter_ms, ..
            } => vec![Effect {
                delay: ms(by),
                jitter: ms(jitter_ms),
                seed,
                ..Effect::new(Class::Sync, Mode::Slow)
            }],
            Self::HangSync { .. } => vec![Effect::new(Class::Sync, Mode::Hang)],
            Self::FailSync { .. } => vec![Effect::new(Class::Sync, Mode::Fail)],
            Self::LyingSync { .. } => vec![Effect::new(Class::Sync, Mode::Lie)],
            Self::FailWrite { .. } => vec![Effect::new(Class::Write, Mode::Fail)],
            Self::TornWrite { keep, .. } => vec![Effect {
                keep: u64::from(*keep),
                times: 1,
                ..Effect::new(Class::Write, Mode::Torn)
            }],
            Self::Full { .. } => Vec::new(),
            Self::ReadOnly { .. } => [Class::Write, Class::Change]
                .map(|class| Effect {
                    errno: Errno::ROFS.raw_os_error(),
                    ..Effect::new(class, Mode::Fail)
                })
                .to_vec(),
        }
    }

    /// Whether a daemon that meets it may end by itself.
    fn may_end_the_daemon(&self) -> bool {
        match self {
            Self::SlowSync { .. } | Self::HangSync { .. } | Self::LyingSync { .. } => false,
            Self::FailSync { .. }
            | Self::FailWrite { .. }
            | Self::TornWrite { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. } => true,
        }
    }
}

impl Strike for DiskFault {
    fn name(&self) -> &'static str {
        match self {
            Self::SlowSync { .. } => "slow-fsync",
            Self::HangSync { .. } => "hanging-fsync",
            Self::FailSync { .. } => "failing-fsync",
            Self::LyingSync { .. } => "lying-fsync",
            Self::FailWrite { .. } => "failing-write",
            Self::TornWrite { .. } => "torn-write",
            Self::Full { .. } => "full-disk",
            Self::ReadOnly { .. } => "read-only-disk",
        }
    }

    fn targets(&self) -> Vec<Target> {
        vec![self.target().clone()]
    }

    fn harm(&self) -> Harm {
        match self {
            Self::SlowSync { .. } => Harm::Bearable,
            Self::LyingSync { .. } => Harm::Amnesia,
            // One that cannot sync acknowledges nothing.
            Self::HangSync { .. }
            | Self::FailSync { .. }
            | Self::FailWrite { .. }
            | Self::TornWrite { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. } => Harm::Down,
        }
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        for host in place.hosts(0) {
            let (name, id) = (host.clone(), place.id);
            if self.may_end_the_daemon() {
                // While the disk is bad nobody else starts it: it would only end once more.
                undo.push(move |scene| bring_up(scene, &name, ATMD, id));
                keep_down(scene, host, id);
            }
            if let Self::Full { left_kib, .. } = self {
                fill(scene, host, u64::from(*left_kib) << 10, undo)?;
                continue;
            }
            let what = format!("disk {host}");
            let (name, held) = (host.clone(), what.clone());
            undo.push(move |scene| {
                let mut holds = scene.holds();
                if holds.release(&held, id) {
                    disk_page(scene.lab(), &name)?.clear_all()?;
                }
                Ok(())
            });
            let mut holds = scene.holds();
            holds.hold(&what, id);
            let page = disk_page(scene.lab(), host)?;
            for effect in self.effects(place.seed) {
                page.set(&effect)?;
            }
        }
        Ok(())
    }
}

fn fill(scene: &Scene<'_>, host: &str, left: u64, undo: &mut Undo) -> Result<(), NemesisError> {
    let name = host.to_owned();
    undo.push(move |scene| Ok(Disk::at(scene.lab(), &name)?.make_room()?));
    Ok(Disk::at(scene.lab(), host)?.fill(left)?)
}

impl Draw for DiskFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let target = bounds.some_atm(chance);
        let lasts_ms = chance.between(500, 5_000);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let fault = match chance.below(10) {
            // From what a loaded disk does every day to what gives up the lease.
            0..4 => Self::SlowSync {
                target,
                ms: small(chance.between(5, 800)),
                jitter_ms: small(chance.between(0, 100)),
            },
            4..6 => Self::HangSync { target },
            6 => Self::FailSync { target },
            7 => Self::Full {
                target,
                left_kib: small(chance.between(0, 64)),
            },
            8 => Self::TornWrite {
                target,
                keep: u16::try_from(chance.between(0, 1000)).unwrap_or(500),
            },
            9 if chance.percent(50) => Self::ReadOnly { target },
            9.. => Self::FailWrite { target },
        };
        Lasting { fault, lasts_ms }
    }
}
