//! The `NAT` block beside the addresses of servers and ATMs.

use std::net::IpAddr;

use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::nat::Nat;
use super::super::places::Subject;
use super::super::types::ForwardingMethod;
use super::Report;
use super::view::{Place, View};

pub(super) fn check(view: &View<'_>, report: &mut Report<'_>) {
    let Some(nat) = &view.config.nat else { return };
    owners(view, nat, report);
    for (i, server) in view.config.servers.iter().enumerate() {
        let needs_gateway = server.method == ForwardingMethod::Nat && server.source.is_none();
        let address = view.servers.get(i).copied().flatten();
        let Some(address) = address.and_then(Place::address).filter(|_| needs_gateway) else {
            continue;
        };
        // Where there is none at all it is known without addresses, and told there.
        if nat.gateways().next().is_some() && nat.gateway_of(address).is_none() {
            let message = format!("no `Gateway` has the IP version of the server {address}");
            report(
                Finding::error(Code::NatWithoutGateway, Subject::ServerHost(i), message)
                    .related(Subject::Nat, "the gateway in this block is of the other version")
                    .help("add a second `Gateway` line to the `NAT` block: answers must come back through the active ATM; or add `source=<address>`"),
            );
        }
        if let Some(subnet) = outside(nat, address) {
            let message = format!("the server {address} is outside of the subnet {subnet}");
            report(
                Finding::warning(Code::OutsideSubnet, Subject::ServerHost(i), message)
                    .related(Subject::Nat, "the subnet is given in this block")
                    .help("its answers may not come back through the gateway"),
            );
        }
    }
}

/// The subnet of its IP version that an address is not in.
fn outside(nat: &Nat, address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V4(address) => {
            let (network, mask) = nat.subnet?;
            (mask.network(address) != network).then(|| format!("{network}/{}", mask.0))
        }
        IpAddr::V6(address) => {
            let subnet = nat.subnet6?;
            (!subnet.contains(address)).then(|| subnet.to_string())
        }
    }
}

/// The active ATM has the gateways: with one that is somebody's own it would take that one's packets, or claim its own address.
fn owners(view: &View<'_>, nat: &Nat, report: &mut Report<'_>) {
    let servers = view.servers.iter().enumerate();
    let servers = servers.map(|(i, place)| (place, Subject::ServerHost(i), "a server"));
    let atms = view.atms.iter().enumerate();
    let atms = atms.map(|(i, place)| (place, Subject::Atm(i), "an ATM"));
    let owned: Vec<_> = servers.chain(atms).collect();
    for gateway in nat.gateways() {
        let owner = owned
            .iter()
            .find(|(place, _, _)| place.and_then(Place::address) == Some(gateway));
        if let Some((_, subject, what)) = owner {
            let message = format!("the gateway {gateway} is the address of {what}");
            report(
                Finding::error(Code::AddressConflict, Subject::Nat, message)
                    .related(*subject, format!("{what} has it"))
                    .help("the gateway moves with the active ATM; give it an address of its own"),
            );
        }
    }
}
