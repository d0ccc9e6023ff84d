//! `atmctl server`: what concerns single servers.

use std::collections::BTreeMap;
use std::fs;

use model::server::{Method, Names, Resolved, ServerPart, Setup, senders};

use super::order;
use crate::args::{Format, Global, Server, ServerSetup};
use crate::failure::Failure;
use crate::json::ServerCommands;
use crate::{hosts, offline, output};

pub(super) async fn run(global: &Global, command: &Server) -> Result<(), Failure> {
    match command {
        Server::Setup(arguments) => setup(global, arguments),
        Server::Order(order) => order::run(global, order).await,
    }
}

/// Prints what `atmd` would do on a server, as commands.
fn setup(global: &Global, arguments: &ServerSetup) -> Result<(), Failure> {
    let known = match &arguments.hosts {
        Some(path) => hosts::read(path)?,
        None => BTreeMap::new(),
    };
    let (checked, hosts) = offline::check_with_hosts(&arguments.conf, &known)?;
    output::say_verbatim(&checked.render(global.color.on_stderr()));
    let Some(config) = checked.config.as_ref().filter(|_| !checked.has_errors()) else {
        return Err(Failure::Invalid { file: checked.name });
    };
    let file = Resolved {
        config,
        hosts: &hosts,
    };
    let part = part(&file, arguments.name.as_deref())?;
    if let Some((atm, _)) = file
        .atms()
        .into_iter()
        .find(|(_, address)| *address == part.address)
    {
        return Err(Failure::Usage(format!(
            "{} is ATM {atm}, too: atmd runs there, and makes it a server as well",
            part.name
        )));
    }
    // One address of each; where atmd runs it may find more of them by name.
    let atms = file.atms().into_iter();
    let known: Vec<_> = atms.map(|(atm, at)| (atm, vec![at])).collect();
    let accepted = match part.method {
        Method::Tunnel => senders(&known, part.address).unwrap_or_default(),
        Method::Direct | Method::Nat => Vec::new(),
    };
    let setup = Setup {
        part: &part,
        senders: &accepted,
        interface: &arguments.interface,
        mtu: arguments.mtu,
    };
    let commands = if arguments.undo {
        setup.undo()
    } else {
        setup.commands()
    };
    let commands = commands.map_err(|error| Failure::Usage(error.to_string()))?;
    match global.output {
        Format::Table => output::print(&commands),
        Format::Json => output::print_json(&ServerCommands {
            server: part.name,
            commands,
        }),
    }
}

fn part(file: &Resolved<'_>, given: Option<&str>) -> Result<ServerPart, Failure> {
    let names = names(given);
    let found = names
        .server(file)
        .and_then(|line| ServerPart::of(file, &line.name));
    found.ok_or_else(|| {
        let servers = file.config.servers.iter();
        let servers: Vec<&str> = servers.map(|server| server.name.as_str()).collect();
        let who = given.map_or_else(
            || format!("this host ({})", names.host_names.join(", ")),
            |given| format!("{given:?}"),
        );
        Failure::Usage(format!(
            "{who} is no server of the configuration; --name says which one is meant: {}",
            servers.join(", ")
        ))
    })
}

/// What a host is called where atmd would not be told. Its addresses are left out: the commands are often for another host.
fn names(given: Option<&str>) -> Names {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Names::of_host(given, host.trim(), Vec::new())
}
