//! Source addresses of full NAT: nobody's but the cluster's, of the server's IP version, and few.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bounds::SOURCE_ADDRESSES_MAX;
use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::places::Subject;
use super::Report;
use super::view::{Place, View};

pub(super) fn check(view: &View<'_>, report: &mut Report<'_>) {
    let sources = view.config.servers.iter().enumerate();
    let sources: Vec<_> = sources
        .filter_map(|(i, server)| Some((i, server.source?)))
        .collect();
    if sources.is_empty() {
        return;
    }
    let owners = owners(view);
    let mut distinct = BTreeSet::new();
    for (i, source) in sources {
        let subject = Subject::ServerSource(i);
        if let Some((owner, what)) = owners.get(&Place::Address(source)) {
            let message = format!("the source address {source} is the address of {what}");
            report(
                Finding::error(Code::AddressConflict, subject, message)
                    .related(*owner, format!("{what} has it"))
                    .help("answers to a source address belong to the cluster alone; give it one of its own"),
            );
        }
        let server = view.servers.get(i).copied().flatten();
        if let Some(server) = server.and_then(Place::address)
            && server.is_ipv4() != source.is_ipv4()
        {
            let message = format!("the server {server} cannot get packets from {source}");
            report(
                Finding::error(Code::MixedFamilies, subject, message)
                    .related(Subject::ServerHost(i), "the server")
                    .help("give a source address of the server's IP version"),
            );
        }
        // Said once: the first that is too much is enough to find.
        if distinct.insert(source) && distinct.len() == SOURCE_ADDRESSES_MAX + 1 {
            let message = format!("there are more than {SOURCE_ADDRESSES_MAX} source addresses");
            report(
                Finding::error(Code::TooManyAddresses, subject, message)
                    .label("one too many")
                    .help("servers may share a source address; each gives 65,535 connections to each service of each server"),
            );
        }
    }
}

/// Whose each address is; of several owners the last that is named here.
fn owners<'c>(view: &View<'c>) -> BTreeMap<Place<'c>, (Subject, &'static str)> {
    let servers = view.servers.iter().enumerate();
    let servers = servers.filter_map(|(i, place)| {
        let subject = Subject::ServerHost(i);
        Some(((*place)?, (subject, "a server")))
    });
    let atms = view.atms.iter().enumerate();
    let atms = atms.filter_map(|(i, place)| Some(((*place)?, (Subject::Atm(i), "an ATM"))));
    let vips = view.vips.iter().flatten();
    let vips = vips.map(|(place, subject)| (*place, (*subject, "a virtual host")));
    servers.chain(atms).chain(vips).collect()
}
