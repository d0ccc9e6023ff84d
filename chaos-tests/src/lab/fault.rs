//! Faults of one host: its daemon, its link.

use super::error::LabError;
use super::handle::Lab;
use super::network;
use super::process::Signal;
use super::spawn::ATMD;

/// A fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// `kill -9` of the host's atmd.
    Kill,
    /// SIGSTOP: it keeps its sockets and its memory and does nothing.
    Stop,
    /// SIGCONT.
    Cont,
    /// Starts atmd again with the arguments of its first start; kills it first if it runs.
    Restart,
    /// Silent cut of the link: no frame passes, the carrier stays.
    Cut,
    /// No frame passes between this ATM and the other ATMs; everybody else sees it.
    CutPeers,
    /// Undoes `cut` and `cut-peers`.
    Heal,
}

impl Lab {
    /// Applies `fault` to `host`. Cuts are idempotent; a killed process is gone when this returns.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`], [`LabError::NotRunning`], [`LabError::NotAnAtm`], or a failed command.
    pub fn fault(&self, fault: Fault, host: &str) -> Result<(), LabError> {
        let record = self.record();
        let place = record.host(host)?;
        match fault {
            Fault::Kill => self.kill(host, ATMD),
            Fault::Stop => self.signal(host, ATMD, Signal::STOP),
            Fault::Cont => self.signal(host, ATMD, Signal::CONT),
            Fault::Restart => self.restart(host, ATMD).map(drop),
            Fault::Cut => network::set_port_cut(&record, place, true),
            Fault::CutPeers if !place.atm => Err(LabError::NotAnAtm(host.to_owned())),
            Fault::CutPeers => network::cut_from_peers(&record, place),
            Fault::Heal => {
                network::join_peers(&record, place)?;
                network::set_port_cut(&record, place, false)
            }
        }
    }
}
