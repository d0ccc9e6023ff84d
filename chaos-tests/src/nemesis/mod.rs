//! The nemesis: faults and their order in time as data, and what makes them happen.
//!
//! A [`Schedule`] says when which [`Fault`] begins and ends; it is drawn from one seed, written as JSON, and replayed by anybody.
//! Targets are symbolic (`active`, `backup(1)`) and become hosts at the moment the fault strikes.
//!
//! Invariant: every fault has an end that restores what it broke, whatever else went wrong meanwhile.

mod chance;
mod clock;
mod disk;
mod error;
mod fault;
mod generate;
mod heal;
mod host;
mod network;
mod operation;
mod power;
mod process;
mod resource;
mod runner;
mod scene;
mod schedule;
mod strike;
mod target;

pub use chance::Chance;
pub use clock::ClockFault;
pub use disk::DiskFault;
pub use error::NemesisError;
pub use fault::{Family, Fault};
pub use generate::generate;
pub use heal::{Healed, heal_all};
pub use host::HostFault;
pub use network::{Disturbance, NetworkFault};
pub use operation::{CHANGES_MAX, OperationFault};
pub use power::PowerFault;
pub use process::ProcessFault;
pub use resource::ResourceFault;
pub use runner::{Edge, Outcome, Report, Stop, run};
pub use scene::{Holds, Scene};
pub use schedule::{Action, FaultId, STEPS_MAX, Schedule, ScheduleError, Step};
pub use strike::{Bounds, Draw, Harm, Lasting, Place, Strike, Undo, monotonic_ns};
pub use target::{Resolved, Roster, Target, TargetError};
