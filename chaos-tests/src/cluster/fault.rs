//! The faults that every promise is tried under, and their end.

use std::time::Duration;

use super::error::ClusterError;
use super::running::{Cluster, unix_of_boottime};
use super::status::Status;
use super::wait::wait_until;
use crate::lab::{ATMD, Condition, Fault, Signal};
use crate::lines::realtime_ns;

/// How long a takeover, or the return of an ATM, may take on a loaded machine. How long it does take is another test.
pub const SETTLE_MAX: Duration = Duration::from_secs(20);

/// How often a fault is tried that another takeover came before.
const ATTEMPTS_MAX: usize = 5;

/// What happens to the active ATM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9`, later started again.
    Kill,
    /// SIGSTOP, later SIGCONT.
    Stop,
    /// Cut off from the other ATMs but not from clients and servers, later healed.
    CutPeers,
    /// Cut off from everybody, later healed.
    Cut,
    /// `atmctl failover`: nothing to mend.
    Failover,
}

/// A fault that was applied and has had its effect: another ATM is active.
#[derive(Clone, Debug)]
pub struct Blow {
    /// What it was.
    pub trouble: Trouble,
    /// Host of the ATM that was active.
    pub before: String,
    /// The tenure that ended.
    pub epoch: u64,
    /// Host of the ATM that is active.
    pub after: String,
    /// What it answered.
    pub status: Status,
}

impl Cluster {
    /// Strikes the active ATM and waits until another one is active.
    ///
    /// A takeover that came before the fault, for want of processor time, is none of it: then the fault is mended and tried
    /// again on the ATM that is active now.
    ///
    /// # Errors
    /// The fault is refused, or nobody takes over within [`SETTLE_MAX`].
    pub fn strike(&self, trouble: Trouble) -> Result<Blow, ClusterError> {
        let mut early = None;
        for _ in 0..ATTEMPTS_MAX {
            let struck_at = realtime_ns();
            let blow = self.strike_once(trouble)?;
            let elected_at = blow.status.tenure.map_or(0, |tenure| tenure.leader_at_ns);
            if unix_of_boottime(elected_at) > struck_at {
                return Ok(blow);
            }
            self.mend(&blow)?;
            early = Some(blow);
        }
        Err(ClusterError::Late {
            what: "a takeover that the fault caused".to_owned(),
            limit: SETTLE_MAX,
            last: format!("{early:?}"),
        })
    }

    fn strike_once(&self, trouble: Trouble) -> Result<Blow, ClusterError> {
        let (before, status) = self.active()?;
        let epoch = status.epoch;
        match trouble {
            Trouble::Kill => self.lab().fault(Fault::Kill, &before)?,
            Trouble::Stop => self.lab().fault(Fault::Stop, &before)?,
            Trouble::CutPeers => self.lab().fault(Fault::CutPeers, &before)?,
            Trouble::Cut => self.lab().fault(Fault::Cut, &before)?,
            Trouble::Failover => {
                let answer = self.atmctl(&before, &["failover"])?;
                if answer.code != Some(0) {
                    return Err(answer.wrong(answer.stderr.clone()));
                }
            }
        }
        let survivors = self.others(&before);
        let survivors: Vec<&str> = survivors.iter().map(String::as_str).collect();
        let name = self.name_of(&before)?;
        let status = self.wait_for("another active ATM", &survivors, SETTLE_MAX, |status| {
            status.epoch > epoch
                && status
                    .tenure
                    .is_some_and(|tenure| tenure.epoch == status.epoch)
                && status.active.as_ref().is_some_and(|active| *active != name)
        })?;
        let after = self.host_of(status.active.as_deref().unwrap_or_default())?;
        Ok(Blow {
            trouble,
            before,
            epoch,
            after,
            status,
        })
    }

    /// Ends atmd of `host` in order; it is gone when this returns.
    ///
    /// # Errors
    /// It does not run, or does not end within [`SETTLE_MAX`].
    pub fn end(&self, host: &str) -> Result<(), ClusterError> {
        self.lab().signal(host, ATMD, Signal::TERM)?;
        wait_until("the end of atmd", SETTLE_MAX, || {
            match self.lab().condition(host, ATMD) {
                Ok(Condition::Dead) => Ok(()),
                Ok(other) => Err(format!("{other:?} on {host}")),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// Ends the fault, without waiting for anything.
    ///
    /// # Errors
    /// What the lab says.
    pub fn resume(&self, blow: &Blow) -> Result<(), ClusterError> {
        match blow.trouble {
            Trouble::Kill => self.lab().fault(Fault::Restart, &blow.before)?,
            Trouble::Stop => self.lab().fault(Fault::Cont, &blow.before)?,
            Trouble::CutPeers | Trouble::Cut => self.lab().fault(Fault::Heal, &blow.before)?,
            Trouble::Failover => {}
        }
        Ok(())
    }

    /// Ends the fault and waits until the struck ATM is a backup that has caught up: the active one is not preempted.
    ///
    /// # Errors
    /// It does not within [`SETTLE_MAX`].
    pub fn mend(&self, blow: &Blow) -> Result<Status, ClusterError> {
        self.resume(blow)?;
        let name = self.name_of(&blow.before)?;
        let survivors = self.others(&blow.before);
        let survivors: Vec<&str> = survivors.iter().map(String::as_str).collect();
        let what = "the struck ATM back as a backup that has caught up";
        self.wait_for(what, &survivors, SETTLE_MAX, |status| {
            status.active.is_some()
                && status.all_caught_up()
                && status.backups().contains(&name.as_str())
        })
    }
}
