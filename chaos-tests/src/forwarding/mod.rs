//! Forwarding as clients see it: which ways there are through a cluster, and what must hold on each of them.
//!
//! [`SCENARIOS`] is the table: forwarding methods, IP versions, what lies in between. A scenario becomes a running cluster with
//! programs on its servers ([`Rig`]); a check is one function that is given a rig. What the daemon itself says it cannot do is
//! skipped with its own words: a scenario runs as soon as the daemon knows how to.

mod checks;
mod configuration;
mod probe;
mod programs;
mod rig;
mod scenario;

pub use checks::{
    Check, DNS, HTTP, MAIL, UDP, all_servers_serve, bulk_down, bulk_up, content_passes_path_mtu,
    dns, mail, none_lost, udp, udp_fragments,
};
pub use configuration::{Ports, configuration};
pub use probe::{Needs, probe};
pub use programs::{DNS_NAME, dnsmasq, start_dns};
pub use rig::{Rig, RigError, Started};
pub use scenario::{Family, Method, Path, SCENARIOS, Scenario, Vips, run};
