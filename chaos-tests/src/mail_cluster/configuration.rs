//! The configuration of the mail cluster: the tutorial's, with times that a demo can wait for.

use std::time::Duration;

use model::conf::print;

use crate::lab::{LabError, program, read_configuration};

/// The file that the tutorial explains.
pub(super) const EXAMPLE: &str = include_str!("../../../docs/examples/mail-cluster.conf");

/// How often each service of each server is checked here.
pub const CHECK_FREQUENCY: Duration = Duration::from_secs(1);

/// How long a check may take here.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// HeartBeatDelay of the demo, for takeovers after 600 ms: postfix and dovecot start dozens of processes, and the ATMs share two processors with them.
pub const HEARTBEAT_DELAY: Duration = Duration::from_millis(200);
const MAX_LOST_HEARTBEATS: u32 = 3;

/// Text of the configuration; `combined`: the servers are on the ATMs' computers; `heartbeat`: HeartBeatDelay.
///
/// # Errors
/// The example is not valid.
pub fn configuration(combined: bool, heartbeat: Duration) -> Result<String, LabError> {
    let mut config = read_configuration("mail-cluster.conf", EXAMPLE)?;
    for check in &mut config.user_checks {
        // An agent that was built stands beside the other programs; the hosts of a lab have nothing installed.
        if let Ok(path) = program(&check.name) {
            check.check = path.to_string_lossy().into_owned();
        }
    }
    for pool in &mut config.server_pools {
        pool.check_server_frequency = CHECK_FREQUENCY;
        pool.check_server_timeout = CHECK_TIMEOUT;
        pool.check_port_frequency = CHECK_FREQUENCY;
        pool.check_port_timeout = CHECK_TIMEOUT;
    }
    config.atm_pool.heartbeat_delay = heartbeat;
    config.atm_pool.max_lost_heartbeats = MAX_LOST_HEARTBEATS;
    if combined {
        for (server, atm) in config.servers.iter_mut().zip(&config.atm_pool.atms) {
            server.host = atm.host.clone();
        }
    }
    Ok(print(&config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Plan;

    #[test]
    fn six_computers_or_three() {
        for (combined, expected) in [
            (
                false,
                vec!["atm1", "atm2", "atm3", "serv1", "serv2", "serv3", "client"],
            ),
            (true, vec!["atm1", "atm2", "atm3", "client"]),
        ] {
            let config =
                read_configuration("t", &configuration(combined, HEARTBEAT_DELAY).unwrap())
                    .unwrap();
            let plan = Plan::new(&config, true).unwrap();
            let names: Vec<_> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
            assert_eq!(names, expected);
            assert_eq!(plan.hosts[0].server, combined);
            assert_eq!(config.atm_pool.connection_timeout.as_secs(), 30 * 60);
        }
    }
}
