//! The lab: hosts as network namespaces on one bridge, real binaries in them, and faults.
//!
//! ```no_run
//! use chaos_tests::lab::{Fault, Lab};
//! # fn main() -> Result<(), chaos_tests::lab::LabError> {
//! let lab = Lab::builder().atms(3).servers(3).client().start()?;
//! lab.fault(Fault::Cut, "atm1")?;
//! let output = lab.host("client")?.exec(["ip", "addr"])?;
//! # Ok(()) }
//! ```
//!
//! Invariant: what a lab makes carries its prefix or stands in its record, and ends with its owner: at drop, by its
//! janitor when the owner is killed, at the latest when the next lab starts. Only labs of `lab up` persist. Nothing else
//! on the machine is touched.

mod builder;
mod configuration;
mod decapsulation;
mod default_conf;
mod error;
mod fault;
mod handle;
mod host;
mod impair;
mod machine;
mod netns;
mod network;
mod place;
mod plan;
mod privileges;
mod process;
mod record;
mod spawn;
mod status;
mod teardown;
mod testing;

pub use builder::Builder;
pub use configuration::read_configuration;
pub use decapsulation::{NoDecapsulation, require_decapsulation};
pub use default_conf::{ATMS_MAX, LINES_PORT, SERVERS_MAX, default_configuration};
pub use error::{LabError, PlanError, with_causes};
pub use fault::Fault;
pub use handle::{Lab, PROCESSES_MAX};
pub use host::{EXEC_SECONDS_MAX, Host};
pub use impair::{DUPLICATE_PPM_MAX, Effect, Frames, Impairment, PPM};
pub use machine::{MACHINE, MachineSpec};
pub(crate) use netns::enter;
pub use netns::in_namespace;
pub use network::{Link, OBSERVER_INTERFACE, bridge_port, format_mac};
pub use place::{
    Network, PATH_MTU_MAX, PATH_MTU_MIN, PREFIX_LENGTH_V6, Place, Route, Segment, has_ipv6, twin,
    twin_of,
};
pub use plan::{
    ADMIN_PORT, CLIENT_ROUTER_NAME, HostPlan, PEER_PORT, PREFIX_LENGTH, Plan, ROGUE_NAME, Router,
    SERVER_ROUTER_NAME, Surroundings, atmd_toml,
};
pub(crate) use privileges::tool;
pub use privileges::{
    Privileges, Unavailable, available, enter_user_namespace, join_user_namespace, left_out,
    tool_path,
};
pub use process::{Condition, Identity, Signal};
pub use record::{HostRecord, PortKind, ProcessRecord, RECORD_FILE, REGISTRY, Record, registered};
pub use spawn::{ATMD, program};
pub use status::{HostStatus, ProcessStatus, Status};
pub use teardown::end_stale_labs;
pub use testing::{ready, skipped, write_program};
