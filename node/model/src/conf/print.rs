//! The canonical text of a configuration. Values that are the default are written too: the file then says it all.

use std::fmt::{self, Write};

use super::bounds::RISE_FALL_DEFAULT;
use super::lex::LINE_BYTES_MAX;
use super::types::{
    Config, OnDown, Replication, Scheduler, Server, ServerPool, Service, UserCheck, VirtualHost,
};
use super::values::print_duration;

/// The canonical text: reading it gives `config` again, provided that `config` came out of [`check`](super::check).
#[must_use]
pub fn print(config: &Config) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    write_config(&mut text, config).map_or_else(|fmt::Error| String::new(), |()| text)
}

fn write_config(text: &mut String, config: &Config) -> fmt::Result {
    if let Some(mask) = config.network_mask {
        writeln!(text, "NetworkMask {mask}\n")?;
    }
    if let Some(nat) = &config.nat {
        writeln!(text, "NAT")?;
        if let Some((network, mask)) = nat.subnet {
            writeln!(text, "  Subnet {network} {mask}")?;
        }
        if let Some(network) = nat.subnet6 {
            writeln!(text, "  Subnet {network}")?;
        }
        nat.gateways()
            .try_for_each(|gateway| writeln!(text, "  Gateway {gateway}"))?;
        writeln!(text, "EndNAT\n")?;
    }
    config
        .user_checks
        .iter()
        .try_for_each(|user_check| write_user_check(text, user_check))?;
    if !config.services.is_empty() {
        writeln!(text, "Services")?;
        config
            .services
            .iter()
            .try_for_each(|service| write_service(text, service))?;
        writeln!(text, "EndServices\n")?;
    }
    if !config.servers.is_empty() {
        writeln!(text, "Servers")?;
        config
            .servers
            .iter()
            .try_for_each(|server| write_server(text, server))?;
        writeln!(text, "EndServers\n")?;
    }
    config
        .server_pools
        .iter()
        .try_for_each(|pool| write_server_pool(text, pool))?;
    write_atm_pool(text, config)?;
    config
        .virtual_hosts
        .iter()
        .try_for_each(|host| write_virtual_host(text, host))
}

fn write_user_check(text: &mut String, user_check: &UserCheck) -> fmt::Result {
    let UserCheck {
        name,
        check,
        up,
        down,
    } = user_check;
    writeln!(text, "UserCheck {name}\n  Check {check}")?;
    if let Some(up) = up {
        writeln!(text, "  Up {up}")?;
    }
    if let Some(down) = down {
        writeln!(text, "  Down {down}")?;
    }
    writeln!(text, "EndUserCheck\n")
}

fn write_service(text: &mut String, service: &Service) -> fmt::Result {
    let Service {
        name,
        protocol,
        port,
        agent,
        sticky,
        scheduler,
        replication,
        persist,
        mask,
        fallback,
        on_down,
        tls,
    } = service;
    write!(
        text,
        "  Service {name} {}:{port} {}",
        protocol.as_str(),
        agent.name()
    )?;
    if *sticky {
        write!(text, " sticky")?;
    }
    // A default option is the exception to the rule: it would make a file unreadable for the original.
    if *scheduler != Scheduler::default() {
        write!(text, " scheduler={}", scheduler.as_str())?;
    }
    if *replication != Replication::default() {
        write!(text, " replication={}", replication.as_str())?;
    }
    if let Some(persist) = persist {
        write!(text, " persist={}", print_duration(*persist))?;
    }
    if let Some(mask) = mask {
        write!(text, " mask={mask}")?;
    }
    if let Some(fallback) = fallback {
        write!(text, " fallback={fallback}")?;
    }
    if *on_down != OnDown::default() {
        write!(text, " on-down={}", on_down.as_str())?;
    }
    if let Some(tls) = tls {
        write!(text, " tls={}", tls.as_str())?;
    }
    writeln!(text)
}

fn write_server(text: &mut String, server: &Server) -> fmt::Result {
    let Server {
        name,
        host,
        method,
        source,
        noping,
    } = server;
    write!(text, "  Server {name} {host} {}", method.as_str())?;
    if let Some(source) = source {
        write!(text, " source={source}")?;
    }
    if *noping {
        write!(text, " noping")?;
    }
    writeln!(text)
}

fn write_server_pool(text: &mut String, pool: &ServerPool) -> fmt::Result {
    write!(text, "ServerPool {}", pool.name)?;
    for (option, count) in [("rise", pool.rise), ("fall", pool.fall)] {
        if count != RISE_FALL_DEFAULT {
            write!(text, " {option}={count}")?;
        }
    }
    writeln!(text)?;
    for added in &pool.servers {
        let mut line = String::new();
        for offer in &added.offers {
            let word = format!(" {}/{}", offer.service, offer.weight);
            // Lines have a limit; several lines of one server are one to the reader.
            if line.len() + word.len() > LINE_BYTES_MAX {
                writeln!(text, "{line}")?;
                line.clear();
            }
            if line.is_empty() {
                write!(line, "  AddServer {}", added.server)?;
            }
            line.push_str(&word);
        }
        writeln!(text, "{line}")?;
    }
    writeln!(
        text,
        "  CheckServerFrequency {}",
        print_duration(pool.check_server_frequency)
    )?;
    writeln!(
        text,
        "  CheckServerTimeout {}",
        print_duration(pool.check_server_timeout)
    )?;
    writeln!(
        text,
        "  CheckPortFrequency {}",
        print_duration(pool.check_port_frequency)
    )?;
    writeln!(
        text,
        "  CheckPortTimeout {}",
        print_duration(pool.check_port_timeout)
    )?;
    writeln!(text, "EndServerPool\n")
}

fn write_atm_pool(text: &mut String, config: &Config) -> fmt::Result {
    let pool = &config.atm_pool;
    writeln!(text, "AtmPool {}", pool.name)?;
    for atm in &pool.atms {
        writeln!(
            text,
            "  AddAtm {}{}",
            atm.host,
            if atm.witness { " witness" } else { "" }
        )?;
    }
    writeln!(
        text,
        "  SendArpDelay {}",
        print_duration(pool.send_arp_delay)
    )?;
    writeln!(
        text,
        "  HeartBeatDelay {}",
        print_duration(pool.heartbeat_delay)
    )?;
    writeln!(text, "  MaxLostHeartbeats {}", pool.max_lost_heartbeats)?;
    writeln!(text, "  NumConnections {}", pool.num_connections)?;
    writeln!(text, "  NumServers {}", pool.num_servers)?;
    writeln!(text, "  NumServices {}", pool.num_services)?;
    writeln!(
        text,
        "  ConnectionTimeout {}",
        print_duration(pool.connection_timeout)
    )?;
    writeln!(text, "EndAtmPool")
}

fn write_virtual_host(text: &mut String, host: &VirtualHost) -> fmt::Result {
    writeln!(text, "\nVirtualHost {}", host.host)?;
    host.addresses
        .iter()
        .try_for_each(|address| writeln!(text, "  Address {address}"))?;
    writeln!(text, "  AddAtmPool {}", host.atm_pool)?;
    host.server_pools
        .iter()
        .try_for_each(|pool| writeln!(text, "  AddServerPool {pool}"))?;
    writeln!(text, "EndVirtualHost")
}
