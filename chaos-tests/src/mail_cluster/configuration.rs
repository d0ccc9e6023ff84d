//! The configuration of the mail cluster: the tutorial's, with times that a demo can wait for.

use std::time::Duration;

use model::conf::print;

use super::setting::Setting;

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

/// Text of the configuration.
///
/// # Errors
/// The example is not valid.
pub fn configuration(setting: &Setting) -> Result<String, LabError> {
    let mut config = read_configuration("mail-cluster.conf", EXAMPLE)?;
    for check in &mut config.user_checks {
        // An agent that was built stands beside the other programs; the hosts of a lab have nothing installed.
        if let Ok(path) = program(&check.name) {
            check.check = path.to_string_lossy().into_owned();
        }
    }
    for pool in &mut config.server_pools {
        pool.check_server_frequency = setting.here(CHECK_FREQUENCY);
        pool.check_server_timeout = setting.here(CHECK_TIMEOUT);
        pool.check_port_frequency = setting.here(CHECK_FREQUENCY);
        pool.check_port_timeout = setting.here(CHECK_TIMEOUT);
    }
    for server in &mut config.servers {
        server.method = setting.method;
    }
    config.atm_pool.heartbeat_delay = setting.heartbeat;
    config.atm_pool.max_lost_heartbeats = MAX_LOST_HEARTBEATS;
    if setting.combined {
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
    use model::conf::ForwardingMethod;

    #[test]
    fn six_computers_or_three() {
        for (combined, expected) in [
            (
                false,
                vec!["atm1", "atm2", "atm3", "serv1", "serv2", "serv3", "client"],
            ),
            (true, vec!["atm1", "atm2", "atm3", "client"]),
        ] {
            let setting = Setting {
                combined,
                ..Setting::default()
            };
            let config = read_configuration("t", &configuration(&setting).unwrap()).unwrap();
            let plan = Plan::new(&config, true).unwrap();
            let names: Vec<_> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
            assert_eq!(names, expected);
            assert_eq!(plan.hosts[0].server, combined);
            assert_eq!(config.atm_pool.connection_timeout.as_secs(), 30 * 60);
        }
    }
    #[test]
    fn a_slow_machine_is_checked_less_often_and_servers_are_reached_as_told() {
        let setting = Setting {
            slow: 6,
            method: ForwardingMethod::Direct,
            ..Setting::default()
        };
        let config = read_configuration("t", &configuration(&setting).unwrap()).unwrap();
        let pool = &config.server_pools[0];
        assert_eq!(pool.check_port_frequency, CHECK_FREQUENCY * 6);
        assert_eq!(pool.check_port_timeout, CHECK_TIMEOUT * 6);
        let mut servers = config.servers.iter();
        assert!(servers.all(|server| server.method == ForwardingMethod::Direct));
    }
}
