//! The configuration of a lab that was given none: the tutorial's mail cluster for any number of ATMs and servers.

use std::fmt::Write as _;

use super::error::PlanError;

/// A cluster has at most seven ATMs: more voters make every commit wait for more disks and tolerate no likelier fault.
pub const ATMS_MAX: usize = 7;

/// Servers of one lab: their addresses, .11 to .74, stay clear of the VIP (.100) and of the client (.200).
pub const SERVERS_MAX: usize = 64;

/// The tutorial's services, in file order, with their agents.
const MAIL_SERVICES: [(&str, u16); 3] = [("smtp", 25), ("pop", 110), ("imap", 143)];

/// A service for numbered lines of text, offered by every server.
pub const LINES_PORT: u16 = 7000;

/// Text of a `clusterserver.conf` with `atms` ATMs (10.1.0.1 …) and `servers` servers (10.1.0.11 …), VIP 10.1.0.100.
///
/// Each server offers two of the three mail services, in turn, and `lines`; a single server offers them all.
///
/// # Errors
/// [`PlanError::Atms`] unless `atms` is in 1..=[`ATMS_MAX`]; [`PlanError::Servers`] unless `servers` is in
/// 1..=[`SERVERS_MAX`].
pub fn default_configuration(atms: usize, servers: usize) -> Result<String, PlanError> {
    if atms == 0 || atms > ATMS_MAX {
        return Err(PlanError::Atms(atms));
    }
    if servers == 0 || servers > SERVERS_MAX {
        return Err(PlanError::Servers(servers));
    }
    let mut text = String::from("NetworkMask 255.255.255.0\n\nServices\n");
    for (name, port) in MAIL_SERVICES {
        // Checked by a plain connect, so that a lab needs no agent programs.
        text += &format!("  Service {name} tcp:{port} connect\n");
    }
    text += &format!("  Service lines tcp:{LINES_PORT} connect\nEndServices\n\nServers\n");
    for n in 1..=servers {
        text += &format!("  Server serv{n} 10.1.0.{} tunnel\n", 10 + n);
    }
    text += "EndServers\n\nServerPool mailservers\n";
    for n in 1..=servers {
        let offered = if servers == 1 { MAIL_SERVICES.len() } else { 2 };
        let _ = write!(text, "  AddServer serv{n}");
        for k in 0..offered {
            let (name, _) = MAIL_SERVICES[(n - 1 + k) % MAIL_SERVICES.len()];
            let _ = write!(text, " {name}/1");
        }
        text += " lines/1\n";
    }
    text += "  CheckServerFrequency 30\n  CheckServerTimeout 10\n  CheckPortFrequency 30\n  CheckPortTimeout 10\n";
    text += "EndServerPool\n\nAtmPool ATMs\n";
    for n in 1..=atms {
        text += &format!("  AddAtm 10.1.0.{n}\n");
    }
    text +=
        "  SendArpDelay 20\n  HeartBeatDelay 1\n  MaxLostHeartbeats 3\n  NumConnections 100000\n";
    text += "  ConnectionTimeout 30\nEndAtmPool\n\nVirtualHost 10.1.0.100\n  AddAtmPool ATMs\n";
    text += "  AddServerPool mailservers\nEndVirtualHost\n";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_offered_whatever_the_number_of_servers() {
        for servers in 1..=SERVERS_MAX {
            let text = default_configuration(3, servers).unwrap();
            for service in ["smtp/1", "pop/1", "imap/1", "lines/1"] {
                assert!(text.contains(service), "{service} with {servers} servers");
            }
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        assert_eq!(default_configuration(0, 1), Err(PlanError::Atms(0)));
        assert_eq!(default_configuration(8, 1), Err(PlanError::Atms(8)));
        assert_eq!(default_configuration(1, 0), Err(PlanError::Servers(0)));
        assert_eq!(default_configuration(1, 65), Err(PlanError::Servers(65)));
    }
}
