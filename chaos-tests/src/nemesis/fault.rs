//! Every fault there is, by family.

use serde::{Deserialize, Serialize};

use super::chance::Chance;
use super::clock::ClockFault;
use super::disk::DiskFault;
use super::host::HostFault;
use super::network::NetworkFault;
use super::operation::OperationFault;
use super::power::PowerFault;
use super::process::ProcessFault;
use super::resource::ResourceFault;
use super::strike::{Bounds, Draw, Lasting, Strike};

/// A fault with all of its parameters.
///
/// As JSON: `{"family":"process","kind":"kill","target":"active"}`. Numbers are whole, so that a schedule reads back as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum Fault {
    /// Of a daemon: killed, stopped, started again.
    Process(ProcessFault),
    /// Of the network between hosts.
    Network(NetworkFault),
    /// Of whole hosts, and what they know of their neighbours.
    Host(HostFault),
    /// What operators do.
    Operation(OperationFault),
    /// Of a disk: slow, hanging, failing, lying, full, read-only.
    Disk(DiskFault),
    /// Of the power: what was not synced is lost.
    Power(PowerFault),
    /// Of processor and memory: too little of them, or none for a while.
    Resource(ResourceFault),
    /// Of the clocks that a daemon sees.
    Clock(ClockFault),
}

/// A family of faults.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// [`ProcessFault`].
    Process,
    /// [`NetworkFault`].
    Network,
    /// [`HostFault`].
    Host,
    /// [`OperationFault`].
    Operation,
    /// [`DiskFault`].
    Disk,
    /// [`PowerFault`].
    Power,
    /// [`ResourceFault`].
    Resource,
    /// [`ClockFault`].
    Clock,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Process,
        Self::Network,
        Self::Host,
        Self::Operation,
        Self::Disk,
        Self::Power,
        Self::Resource,
        Self::Clock,
    ];
}

impl Fault {
    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Process(_) => Family::Process,
            Self::Network(_) => Family::Network,
            Self::Host(_) => Family::Host,
            Self::Operation(_) => Family::Operation,
            Self::Disk(_) => Family::Disk,
            Self::Power(_) => Family::Power,
            Self::Resource(_) => Family::Resource,
            Self::Clock(_) => Family::Clock,
        }
    }

    /// What makes it happen.
    #[must_use]
    pub fn strike(&self) -> &dyn Strike {
        match self {
            Self::Process(fault) => fault,
            Self::Network(fault) => fault,
            Self::Host(fault) => fault,
            Self::Operation(fault) => fault,
            Self::Disk(fault) => fault,
            Self::Power(fault) => fault,
            Self::Resource(fault) => fault,
            Self::Clock(fault) => fault,
        }
    }

    /// A fault of `family` that makes sense within `bounds`, and how long it should last.
    #[must_use]
    pub fn draw(family: Family, chance: &mut Chance, bounds: &Bounds) -> Lasting<Self> {
        match family {
            Family::Process => ProcessFault::draw(chance, bounds).map(Self::Process),
            Family::Network => NetworkFault::draw(chance, bounds).map(Self::Network),
            Family::Host => HostFault::draw(chance, bounds).map(Self::Host),
            Family::Operation => OperationFault::draw(chance, bounds).map(Self::Operation),
            Family::Disk => DiskFault::draw(chance, bounds).map(Self::Disk),
            Family::Power => PowerFault::draw(chance, bounds).map(Self::Power),
            Family::Resource => ResourceFault::draw(chance, bounds).map(Self::Resource),
            Family::Clock => ClockFault::draw(chance, bounds).map(Self::Clock),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.strike().name())?;
        for target in self.strike().targets() {
            write!(f, " {target}")?;
        }
        Ok(())
    }
}
