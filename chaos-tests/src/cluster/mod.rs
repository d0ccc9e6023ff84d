//! A running cluster under test: a lab whose servers serve numbered lines, asked through the real `atmctl`.
//!
//! Nothing here waits for a fixed time: every wait has a condition and a deadline, and says what did not come true.

mod counters;
mod error;
mod fault;
mod profile;
mod running;
mod status;
mod steady;
mod traffic;
mod wait;

pub use error::ClusterError;
pub use fault::{Blow, SETTLE_MAX, Trouble};
pub use profile::{FAST_HEARTBEAT, FAST_LOST, FAST_SETTINGS, Profile, fast_profile};
pub use running::{Answer, Cluster, fast_configuration, on_every_address, unix_of_boottime};
pub use status::{
    Applied, Atm, Finding, Problem, Role, Server, ServerReport, ServerService, Status, Tenure,
    VirtualHost,
};
pub use steady::{Steady, SteadyReport, steady};
pub use traffic::{LINES_INTERVAL, OPEN_MAX};
pub use wait::{eventually, wait_until};
