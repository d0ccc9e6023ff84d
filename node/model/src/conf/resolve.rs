//! What can only be known once names have addresses. A name without one is left out, or an error: the caller decides.

mod nat;
mod on_atms;
mod sources;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::bounds::{VIRTUAL_ADDRESSES_MAX, VIRTUAL_SERVICES_MAX};
use super::check::check;
use super::code::Code;
use super::diagnostic::{Diagnostic, Finding};
use super::places::Subject;
use super::print::print;
use super::types::{Config, ForwardingMethod, Host, Protocol};
use super::values;
use view::{Offered, Place, View};

/// A problem in a configuration, at the part of it that is at fault.
pub type Problem = Finding<Subject>;

impl Config {
    /// [`Config::problems`], with positions in [`print(self)`](super::print). Where the text is at hand that the
    /// configuration was read from, [`Checked::check_resolved`](super::Checked::check_resolved) has better ones.
    /// Warnings that [`check`](super::check) gives without `hosts` are left out.
    #[must_use]
    pub fn check_resolved(&self, hosts: &BTreeMap<String, IpAddr>) -> Vec<Diagnostic> {
        if self.problems(hosts).is_empty() {
            return Vec::new();
        }
        let text = print(self);
        let checked = check(CANONICAL_FILE_NAME, &text);
        if checked.config.is_none() {
            // It was put together by hand, and not well.
            return checked.diagnostics;
        }
        checked.check_resolved(CANONICAL_FILE_NAME, &text, hosts)
    }

    /// Checks what depends on the addresses of `hosts`, by the names of [`Config::host_names`]. A name that is not
    /// there is an error. The configuration can be used if no problem is an error.
    #[must_use]
    pub fn problems(&self, hosts: &BTreeMap<String, IpAddr>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut report = |problem| problems.push(problem);
        unresolved(self, hosts, &mut report);
        unusable(self, hosts, &mut report);
        check_places(self, hosts, &mut report);
        problems
    }
}

/// What the canonical text is called in its diagnostics.
const CANONICAL_FILE_NAME: &str = "clusterserver.conf";

type Report<'r> = dyn FnMut(Problem) + 'r;
type Hosts = BTreeMap<String, IpAddr>;

/// Checks as far as `hosts` reaches; names that are not there are told apart by themselves.
pub(super) fn check_places(config: &Config, hosts: &Hosts, report: &mut Report<'_>) {
    let view = View::new(config, hosts);
    atms(&view, report);
    networks(&view, report);
    nat::check(&view, report);
    sources::check(&view, report);
    on_atms::check(&view, report);
    if virtual_addresses(&view, report) {
        overlaps(&view, report);
        for (h, _) in config.virtual_hosts.iter().enumerate() {
            families(&view, h, report);
        }
        offers(&view, report);
    }
}

fn hosts_of(config: &Config) -> impl Iterator<Item = (&Host, Subject)> {
    let atms = config
        .atm_pool
        .atms
        .iter()
        .enumerate()
        .map(|(i, atm)| (&atm.host, Subject::Atm(i)));
    let servers = config
        .servers
        .iter()
        .enumerate()
        .map(|(i, server)| (&server.host, Subject::ServerHost(i)));
    let virtual_hosts = config.virtual_hosts.iter().enumerate();
    let virtual_hosts = virtual_hosts
        .filter(|(_, host)| host.addresses.is_empty())
        .map(|(i, host)| (&host.host, Subject::VirtualHost(i)));
    atms.chain(servers).chain(virtual_hosts)
}

fn unresolved(config: &Config, hosts: &Hosts, report: &mut Report<'_>) {
    for (host, subject) in hosts_of(config) {
        if let Some(name) = host.name().filter(|name| !hosts.contains_key(*name)) {
            report(
                Finding::error(
                    Code::UnresolvedHost,
                    subject,
                    format!("the name `{name}` has no address"),
                )
                .help("add it to DNS or to /etc/hosts, or write the address"),
            );
        }
    }
}

/// An address that a name has is held to the same rules as one that is written.
fn unusable(config: &Config, hosts: &Hosts, report: &mut Report<'_>) {
    for (host, subject) in hosts_of(config) {
        let Some((name, address)) = host.name().and_then(|name| Some((name, hosts.get(name)?)))
        else {
            continue;
        };
        let mut usable = values::unicast(*address);
        if matches!(subject, Subject::VirtualHost(_)) {
            usable = usable.and_then(values::virtual_address);
        }
        if let Err(complaint) = usable {
            let message = format!("{}, and it is what `{name}` stands for", complaint.message);
            report(Finding::error(complaint.code, subject, message).help(complaint.help));
        }
    }
}

fn atms(view: &View<'_>, report: &mut Report<'_>) {
    let mut seen = BTreeMap::new();
    for (i, place) in view.atms.iter().enumerate() {
        // Two ATMs with one name are reported where names are.
        let Some(address) = place.and_then(Place::address) else {
            continue;
        };
        if let Some(first) = seen.insert(address, i) {
            report(
                Finding::error(
                    Code::DuplicateAddress,
                    Subject::Atm(i),
                    format!("two ATMs have the address {address}"),
                )
                .related(Subject::Atm(first), "this one too")
                .help("each ATM needs an address of its own"),
            );
        }
    }
}

fn networks(view: &View<'_>, report: &mut Report<'_>) {
    let v4 = |place: &Option<Place<'_>>| match place.and_then(Place::address) {
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) | None => None,
    };
    if let Some(mask) = view.config.network_mask {
        let mut atms = view
            .atms
            .iter()
            .enumerate()
            .filter_map(|(i, place)| Some((i, v4(place)?)));
        if let Some((first, reference)) = atms.next() {
            let network = mask.network(reference);
            for (i, address) in atms.filter(|(_, address)| mask.network(*address) != network) {
                let message = format!(
                    "the ATM {address} is outside of the network {network}/{} of the first",
                    mask.0
                );
                report(
                    Finding::warning(Code::OutsideNetwork, Subject::Atm(i), message)
                        .related(Subject::Atm(first), "the first ATM")
                        .help("a virtual address can only move between ATMs on one network; check `NetworkMask`"),
                );
            }
        }
    }
}

/// Whether there are few enough to go on.
fn virtual_addresses(view: &View<'_>, report: &mut Report<'_>) -> bool {
    let mut own = BTreeMap::new();
    for (i, server) in view.servers.iter().enumerate() {
        own.extend(server.map(|place| (place, (Subject::ServerHost(i), "a server"))));
    }
    for (i, atm) in view.atms.iter().enumerate() {
        own.extend(atm.map(|place| (place, (Subject::Atm(i), "an ATM"))));
    }
    for vips in &view.vips {
        let mut seen = BTreeMap::new();
        for (vip, subject) in vips {
            if let Some((other, what)) = own.get(vip) {
                report(
                    Finding::error(
                        Code::AddressConflict,
                        *subject,
                        format!("the virtual address {vip} is the address of {what}"),
                    )
                    .related(*other, format!("{what} has it"))
                    .help("a virtual address belongs to the cluster alone; give it one of its own"),
                );
            }
            if let Some(first) = seen.insert(*vip, *subject) {
                report(
                    Finding::error(
                        Code::DuplicateAddress,
                        *subject,
                        format!("the address {vip} is given twice"),
                    )
                    .label("again here")
                    .related(first, "first given here"),
                );
            }
        }
    }
    let mut all = view.vips.iter().flatten();
    let Some((_, excess)) = all.nth(VIRTUAL_ADDRESSES_MAX) else {
        return true;
    };
    let message = format!("there are more than {VIRTUAL_ADDRESSES_MAX} virtual addresses");
    report(
        Finding::error(Code::TooManyAddresses, *excess, message)
            .label("one too many")
            .help("every one of them is announced in a takeover; use ports, or another cluster"),
    );
    false
}

fn overlaps(view: &View<'_>, report: &mut Report<'_>) {
    let mut taken: BTreeMap<(Place<'_>, Protocol, u16), (usize, &Offered)> = BTreeMap::new();
    for (h, vips) in view.vips.iter().enumerate() {
        let services: BTreeMap<usize, &Offered> = view
            .offers_of(h)
            .map(|offered| (offered.service, offered))
            .collect();
        for (vip, subject) in vips {
            for offered in services.values() {
                let Some(service) = view.service(offered).filter(|service| service.port != 0)
                else {
                    continue;
                };
                let key = (*vip, service.protocol, service.port);
                let before = taken.insert(key, (h, offered));
                if taken.len() > VIRTUAL_SERVICES_MAX {
                    let message =
                        format!("there are more than {VIRTUAL_SERVICES_MAX} virtual services");
                    report(
                        Finding::error(Code::TooManyServices, *subject, message).help(
                            "each service of each virtual address is one; use fewer of either",
                        ),
                    );
                    return;
                }
                let Some((other, before)) = before else {
                    continue;
                };
                let (protocol, port) = (service.protocol.as_str(), service.port);
                if other != h {
                    let message =
                        format!("two virtual hosts serve {protocol} port {port} of {vip}");
                    report(
                        Finding::error(Code::ServiceOverlap, *subject, message)
                            .related(Subject::VirtualHost(other), "this one too")
                            .help(
                                "give one of them another address, or make them one virtual host",
                            ),
                    );
                } else if before.service != offered.service {
                    let first = view
                        .service(before)
                        .map_or("", |service| service.name.as_str());
                    let message = format!(
                        "`{first}` and `{}` are both {protocol} port {port} of {vip}",
                        service.name
                    );
                    report(
                        Finding::error(Code::ServiceOverlap, offered.offer, message)
                            .related(before.offer, "offered here")
                            .help("use one service, or two virtual hosts"),
                    );
                }
            }
        }
    }
}

fn families(view: &View<'_>, host: usize, report: &mut Report<'_>) {
    let vips = view.vips.get(host).map_or(&[][..], Vec::as_slice);
    let mut reported = BTreeSet::new();
    for offered in view.offers_of(host) {
        let Some((Place::Address(server), method, name)) = view.server(offered) else {
            continue;
        };
        if method == ForwardingMethod::Tunnel {
            continue;
        }
        let other = vips.iter().find_map(|(vip, subject)| {
            let vip = vip
                .address()
                .filter(|vip| vip.is_ipv4() != server.is_ipv4())?;
            Some((vip, *subject))
        });
        if let Some((vip, subject)) = other
            && reported.insert(offered.server)
        {
            let method = method.as_str();
            let message = format!("`{name}` ({server}) cannot serve {vip} by `{method}`");
            report(
                Finding::error(Code::MixedFamilies, offered.add_server, message)
                    .related(subject, "the virtual address")
                    .help(format!("`{method}` needs both of one IP version; use `tunnel`, or another server pool")),
            );
        }
    }
}

fn offers(view: &View<'_>, report: &mut Report<'_>) {
    // Virtual hosts with the same pools have the same problems, which are said once.
    let distinct: BTreeMap<&BTreeSet<usize>, usize> = view
        .pools
        .iter()
        .enumerate()
        .map(|(h, pools)| (pools, h))
        .collect();
    let mut reported = BTreeSet::new();
    for host in distinct.into_values() {
        let mut seen = BTreeMap::new();
        for offered in view.offers_of(host) {
            let Some((place, method, name)) = view.server(offered) else {
                continue;
            };
            let Some(first) = seen.insert((offered.service, place, method), offered) else {
                continue;
            };
            if !reported.insert(offered.offer) {
                continue;
            }
            let service = view
                .service(offered)
                .map_or("", |service| service.name.as_str());
            let other = view
                .config
                .servers
                .get(first.server)
                .map_or("", |server| server.name.as_str());
            let message = if offered.server == first.server {
                format!("`{name}` offers `{service}` in two pools of one virtual host")
            } else {
                format!("`{other}` and `{name}` are both {place} and both offer `{service}`")
            };
            report(
                Finding::error(Code::DuplicateOffer, offered.offer, message)
                    .related(first.offer, "first offered here")
                    .help("one address would be taken for two servers; add the weights up in one"),
            );
        }
    }
}
