//! What operators do while everything else goes on: hand-overs, changed configurations, members that lose their memory.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::equipment::Disk;
use crate::lab::{ATMD, Signal};

use super::chance::Chance;
use super::error::NemesisError;
use super::process::{take_down, wait_until_back};
use super::scene::Scene;
use super::strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo};
use super::target::Target;

/// Most changes of one fault: it cannot be stopped while it makes them.
pub const CHANGES_MAX: u32 = 50;

/// What an operator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OperationFault {
    /// `atmctl failover`: the lease ends, leadership goes to another ATM.
    Failover {
        /// To whom; left out, the cluster chooses.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Target>,
    },
    /// Versions of the configuration that differ in a comment only, one after the other, each on top of the one in force.
    ConfigChurn {
        /// How many, at most [`CHANGES_MAX`].
        changes: u32,
        /// Between two of them, in ms.
        every_ms: u32,
    },
    /// The ATM is killed and its data directory removed. At the end the others forget it and it joins anew.
    LostDirectory {
        /// Whose.
        target: Target,
    },
}

impl Strike for OperationFault {
    fn name(&self) -> &'static str {
        match self {
            Self::Failover { .. } => "failover",
            Self::ConfigChurn { .. } => "config-churn",
            Self::LostDirectory { .. } => "lost-directory",
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Failover { to } => [Target::Active].into_iter().chain(to.clone()).collect(),
            Self::ConfigChurn { .. } => vec![Target::Active],
            Self::LostDirectory { target } => vec![target.clone()],
        }
    }

    fn harm(&self) -> Harm {
        match self {
            Self::Failover { .. } | Self::ConfigChurn { .. } => Harm::Bearable,
            Self::LostDirectory { .. } => Harm::Amnesia,
        }
    }

    fn begin(
        &self,
        scene: &Scene<'_>,
        place: &Place<'_>,
        undo: &mut Undo,
    ) -> Result<(), NemesisError> {
        match self {
            Self::Failover { .. } => failover(scene.cluster("failover")?, place),
            Self::ConfigChurn { changes, every_ms } => {
                let cluster = scene.cluster("config-churn")?;
                let pause = Duration::from_millis(u64::from(*every_ms));
                churn(cluster, place, (*changes).min(CHANGES_MAX), pause)
            }
            Self::LostDirectory { .. } => place
                .hosts(0)
                .iter()
                .try_for_each(|host| lose_directory(scene, host, place, undo)),
        }
    }
}

impl Draw for OperationFault {
    fn draw(chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        let lasting = |fault, lasts_ms| Lasting { fault, lasts_ms };
        match chance.below(8) {
            0..3 => lasting(Self::Failover { to: None }, 0),
            3 if bounds.atms > 1 => {
                let to = Some(Target::Backup(1));
                lasting(Self::Failover { to }, 0)
            }
            6 if bounds.down_max() > 0 => {
                let target = bounds.some_atm(chance);
                lasting(Self::LostDirectory { target }, chance.between(500, 4_000))
            }
            3.. => {
                let small = |n: u64| u32::try_from(n).unwrap_or(1);
                let fault = Self::ConfigChurn {
                    changes: small(chance.between(1, 10)),
                    every_ms: small(chance.between(10, 300)),
                };
                lasting(fault, 0)
            }
        }
    }
}

fn failover(cluster: &Cluster, place: &Place<'_>) -> Result<(), NemesisError> {
    let Some(active) = place.hosts(0).first() else {
        return Ok(());
    };
    let to = place.hosts(1).first().map(|host| cluster.name_of(host));
    let to = to.transpose()?;
    let mut args = vec!["failover"];
    if let Some(name) = &to {
        args.extend(["--to", name]);
    }
    let answer = cluster.atmctl(active, &args)?;
    if answer.code == Some(0) {
        return Ok(());
    }
    Err(NemesisError::Ineffective(format!(
        "failover: {}",
        answer.stderr.trim()
    )))
}

/// Asks the host that was active: wherever the lease goes meanwhile, it relays.
fn churn(
    cluster: &Cluster,
    place: &Place<'_>,
    changes: u32,
    pause: Duration,
) -> Result<(), NemesisError> {
    let Some(host) = place.hosts(0).first() else {
        return Ok(());
    };
    let mut applied = 0;
    let mut last = None;
    for change in 0..changes {
        match change_comment(cluster, host, &format!("{}-{change}", place.id)) {
            Ok(()) => applied += 1,
            // Between two leaders there is nobody to apply it; the next one may pass.
            Err(error) => last = Some(error),
        }
        thread::sleep(pause);
    }
    match last {
        Some(error) if applied == 0 => Err(error),
        Some(_) | None => Ok(()),
    }
}

/// Begins the line that config churn changes.
const CHURN: &str = "# churn ";

/// Applies the version in force with another comment, if it still is in force then.
fn change_comment(cluster: &Cluster, host: &str, mark: &str) -> Result<(), NemesisError> {
    #[derive(Deserialize)]
    struct Shown {
        version: u64,
        source: String,
    }
    let shown: Shown = cluster.atmctl(host, &["config", "show"])?.json()?;
    let file = cluster.lab().dir().join(format!("churn-{mark}.conf"));
    let text = with_mark(&shown.source, mark);
    fs::write(&file, text).map_err(NemesisError::io("write a configuration"))?;
    let version = shown.version.to_string();
    let path = file.to_string_lossy();
    let answer = cluster.atmctl(
        host,
        &["config", "apply", &path, "--expect-version", &version],
    );
    let _ = fs::remove_file(&file);
    let answer = answer?;
    if answer.code == Some(0) {
        return Ok(());
    }
    Err(NemesisError::Ineffective(format!(
        "config apply: {}",
        answer.stderr.trim()
    )))
}

/// The same text with one line that says `mark`.
fn with_mark(source: &str, mark: &str) -> String {
    let kept = source.lines().filter(|line| !line.starts_with(CHURN));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    text += &format!("{CHURN}{mark}\n");
    text
}

fn lose_directory(
    scene: &Scene<'_>,
    host: &str,
    place: &Place<'_>,
    undo: &mut Undo,
) -> Result<(), NemesisError> {
    let cluster = scene.cluster("lost-directory")?;
    let (written, name) = (cluster.name_of(host)?, host.to_owned());
    let mut start = Undo::default();
    let down = take_down(scene, host, ATMD, place.id, Signal::KILL, &mut start);
    let to_forget = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&to_forget);
    undo.push(move |scene| {
        // In this order: a daemon that the others still know by its old directory does not start with a new one.
        if lost.load(Ordering::Relaxed) {
            forget(scene.cluster("lost-directory")?, &name, &written)?;
            lost.store(false, Ordering::Relaxed);
        }
        start.run(scene)?;
        wait_until_back(scene, &name)
    });
    down?;
    to_forget.store(true, Ordering::Relaxed);
    let data = Disk::at(scene.lab(), host)?.data()?;
    empty(&data).map_err(NemesisError::io(format!("empty {}", data.display())))
}

/// Removes what is in a directory, for good: a power cut does not bring it back. The directory may be where a disk is mounted, and stays.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // The disk's own.
        if entry.file_name() == "lost+found" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::File::open(directory)?.sync_all()
}

/// Lets the group forget the lost directory, asked of each other ATM until one of them has done it.
fn forget(cluster: &Cluster, host: &str, written: &str) -> Result<(), NemesisError> {
    let mut said = String::from("there is no other ATM");
    for other in cluster.others(host) {
        let answer = cluster.atmctl(&other, &["atm", "forget", written])?;
        if answer.code == Some(0) {
            return Ok(());
        }
        said = answer.stderr.trim().to_owned();
    }
    Err(NemesisError::Ineffective(format!(
        "atm forget {written}: {said}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_replaces_the_one_before_it_and_nothing_else() {
        let source = "Services\n# mine\nEndServices\n";
        let one = with_mark(source, "f1-0");
        assert_eq!(one, format!("{source}# churn f1-0\n"));
        assert_eq!(with_mark(&one, "f1-1"), format!("{source}# churn f1-1\n"));
    }
}
