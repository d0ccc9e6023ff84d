//! What a configuration asks of a host as a server. Every host decides it by this one function: a server from its file, an
//! ATM from the replicated version, `atmctl` from whatever file it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Method, Names, Resolved};
use crate::conf::{Config, ForwardingMethod, Host, Server, VirtualHost};
use crate::ids::VirtualServiceId;
use crate::state::State;
use crate::version::offers;

/// What a configuration asks of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPart {
    /// Its `Server` line.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// The virtual addresses that have to stand on it, in order.
    pub vips: Vec<IpAddr>,
    /// How packets reach it.
    pub method: Method,
    /// The router through which its answers have to go, where services reach it by `nat`.
    pub nat_gateway: Option<IpAddr>,
}

impl ServerPart {
    /// A host may have several `Server` lines, one for each method by which its services are reached; they have its
    /// address in common. Only the VIPs of services that reach it by `tunnel` or `direct` are to stand on it: with any
    /// other on its `lo` it would speak to itself where it is a client.
    #[must_use]
    pub fn of(file: &Resolved<'_>, name: &str) -> Option<Self> {
        let named = file
            .config
            .servers
            .iter()
            .find(|server| server.name == name)?;
        let address = file.address(&named.host)?;
        let own: Vec<&Server> = file
            .config
            .servers
            .iter()
            .filter(|server| file.address(&server.host) == Some(address))
            .collect();
        let reached_by =
            |server: &Server| file.config.reached_by(server.method, address, file.hosts);
        let by = |method| own.iter().any(|server| reached_by(server) == method);
        let method = if by(ForwardingMethod::Tunnel) {
            Method::Tunnel
        } else if by(ForwardingMethod::Direct) {
            Method::Direct
        } else {
            Method::Nat
        };
        let with_vips: Vec<&str> = own
            .iter()
            .filter(|server| server.method != ForwardingMethod::Nat)
            .map(|server| server.name.as_str())
            .collect();
        let mut vips: Vec<IpAddr> = file
            .config
            .virtual_hosts
            .iter()
            .filter(|host| is_served_by(file, host, &with_vips))
            .flat_map(VirtualHost::virtual_addresses)
            .filter_map(|host| file.address(&host))
            .collect();
        vips.sort_unstable();
        vips.dedup();
        let nat = file.config.nat.as_ref();
        let nat_gateway = nat.and_then(|nat| nat.gateway_of(address));
        Some(Self {
            name: name.to_owned(),
            address,
            vips,
            method,
            // With full NAT answers go to an address of the ATMs, whatever the routes.
            nat_gateway: nat_gateway.filter(|_| {
                own.iter()
                    .any(|server| server.method == ForwardingMethod::Nat && server.source.is_none())
            }),
        })
    }
}

/// What live connections need of a host although the version in force does not ask for it: a server, a service or a method
/// that left the configuration stays for the connections that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remnant {
    /// The `Server` lines by which they reach it, of this version or of an earlier one.
    pub names: BTreeSet<String>,
    /// Their VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// Whether any of them comes through the tunnel.
    pub tunnel: bool,
}

/// Every remnant, by the address of its host. Within one version they only shrink: new connections go where it says.
#[must_use]
pub fn remnants(state: &State) -> BTreeMap<IpAddr, Remnant> {
    let mut remnants: BTreeMap<IpAddr, Remnant> = BTreeMap::new();
    let offered: BTreeMap<VirtualServiceId, BTreeSet<String>> = state
        .services()
        .iter()
        .filter_map(|(id, service)| {
            let current = state.current().filter(|_| service.configured)?;
            let offers = offers(current, &service.virtual_host, &service.name);
            let offering = offers.map(|(server, _)| server.name);
            let fallback = fallbacks(&current.config)
                .find(|(of, _)| *of == service.name)
                .map(|(_, server)| server.to_owned());
            Some((*id, offering.chain(fallback).collect()))
        })
        .collect();
    for ((service, server), count) in state.connections().counts() {
        let names = offered.get(service);
        let (Some(service), Some(server)) =
            (state.services().get(service), state.servers().get(server))
        else {
            continue;
        };
        let is_offered = server.configured && names.is_some_and(|of| of.contains(&server.name));
        if *count == 0 || is_offered || server.method == ForwardingMethod::Nat {
            continue;
        }
        let remnant = remnants.entry(server.address).or_default();
        remnant.names.insert(server.name.clone());
        remnant.vips.insert(service.vip);
        let reached_by = state
            .current()
            .map(|current| current.reached_by(server.method, server.address));
        remnant.tunnel |= reached_by == Some(ForwardingMethod::Tunnel);
    }
    remnants
}

impl ServerPart {
    /// What the host that is called by one of `names` has to do: `part`, and what its live connections need besides.
    #[must_use]
    pub fn with_remnants(
        part: Option<Self>,
        names: &Names,
        remnants: &BTreeMap<IpAddr, Remnant>,
    ) -> Option<Self> {
        let (address, remnant) = match &part {
            Some(part) => remnants.get_key_value(&part.address),
            None => remnants.iter().find(|(address, remnant)| {
                let mut lines = remnant.names.iter();
                lines.any(|line| names.given.as_ref() == Some(line))
                    || names.is(&Host::Address(**address), Some(**address))
            }),
        }
        .map_or((None, None), |(address, found)| {
            (Some(*address), Some(found))
        });
        let (Some(address), Some(remnant)) = (address, remnant) else {
            return part;
        };
        let mut part = part.unwrap_or_else(|| Self {
            name: remnant.names.first().cloned().unwrap_or_default(),
            address,
            vips: Vec::new(),
            method: Method::Direct,
            nat_gateway: None,
        });
        part.vips.extend(&remnant.vips);
        part.vips.sort_unstable();
        part.vips.dedup();
        // A host in the role of the tunnel takes packets that come by its MAC address as well.
        part.method = match part.method {
            _ if remnant.tunnel => Method::Tunnel,
            Method::Tunnel => Method::Tunnel,
            Method::Direct | Method::Nat => Method::Direct,
        };
        Some(part)
    }
}

/// Whether one of these servers is in a pool behind the virtual host, or the fallback of a service that such a pool offers.
fn is_served_by(file: &Resolved<'_>, host: &VirtualHost, servers: &[&str]) -> bool {
    let falls_back: Vec<&str> = fallbacks(file.config)
        .filter(|(_, server)| servers.contains(server))
        .map(|(service, _)| service)
        .collect();
    file.config
        .server_pools
        .iter()
        .filter(|pool| host.server_pools.contains(&pool.name))
        .flat_map(|pool| &pool.servers)
        .any(|added| {
            let mut offers = added.offers.iter();
            servers.contains(&added.server.as_str())
                || offers.any(|offer| falls_back.contains(&offer.service.as_str()))
        })
}

/// Services with the server that takes their connections when nobody who offers them does. It need not be in a pool.
fn fallbacks(config: &Config) -> impl Iterator<Item = (&str, &str)> {
    let services = config.services.iter();
    services.filter_map(|service| Some((service.name.as_str(), service.fallback.as_deref()?)))
}

/// The addresses that the tunnel of a server at `address` comes from: those of the ATMs in its IP version. A file has one
/// address of each ATM; where that is of the other version, its name may have more, which `known` has as well.
///
/// # Errors
/// The ATM without a known address in that version. Then every sender has to be accepted: the packets of an ATM that is not
/// known must not be thrown away when it becomes active.
pub fn senders(known: &[(String, Vec<IpAddr>)], address: IpAddr) -> Result<Vec<IpAddr>, String> {
    let mut senders = Vec::new();
    for (atm, addresses) in known {
        let before = senders.len();
        senders.extend(
            addresses
                .iter()
                .copied()
                .filter(|known| same_version(*known, address)),
        );
        if senders.len() == before {
            return Err(atm.clone());
        }
    }
    senders.sort_unstable();
    senders.dedup();
    Ok(senders)
}

/// Whether two addresses are of the same IP version.
#[must_use]
pub fn same_version(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{Command, Control, Response};
    use crate::connections::{ConnectionChange, ConnectionKey};
    use crate::ids::{ConfigNumber, Epoch, NodeId};

    const FILE: &str = "\
NAT
  Gateway 192.168.7.1
EndNAT
Services
  Service http tcp:80 connect
  Service smtp tcp:25 connect
EndServices
Servers
  Server web1 10.1.0.11 tunnel
  Server mail1 10.1.0.11 nat
  Server web2 10.1.0.12 direct
  Server mail3 10.1.0.13 nat
  Server web6 2001:db8::11 tunnel
EndServers
ServerPool Web
  AddServer web1 http/1
  AddServer web2 http/1
  AddServer web6 http/1
EndServerPool
ServerPool Mail
  AddServer mail1 smtp/1
  AddServer mail3 smtp/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
  AddAtm 10.1.0.2
EndAtmPool
VirtualHost web
  Address 10.1.0.100
  Address 2001:db8::100
  AddAtmPool ATMs
  AddServerPool Web
EndVirtualHost
VirtualHost mail
  Address 10.1.0.200
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

    fn config(text: &str) -> Config {
        crate::conf::check("test", text).config.unwrap()
    }

    fn part(config: &Config, name: &str) -> Option<ServerPart> {
        let hosts = BTreeMap::new();
        let hosts = &hosts;
        ServerPart::of(&Resolved { config, hosts }, name)
    }

    fn addresses(of: &[&str]) -> Vec<IpAddr> {
        of.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn each_host_gets_the_vips_that_reach_it_and_no_other() {
        // `direct` cannot change the IP version, so its pool is behind the IPv4 address alone.
        let text = FILE
            .replace("  AddServer web2 http/1\n", "")
            .replace(
                "EndServerPool\nServerPool Mail\n",
                "EndServerPool\nServerPool Local\n  AddServer web2 http/1\nEndServerPool\nServerPool Mail\n",
            )
            .replace(
                "VirtualHost mail\n",
                "VirtualHost local\n  Address 10.1.0.150\n  AddAtmPool ATMs\n  AddServerPool Local\nEndVirtualHost\nVirtualHost mail\n",
            );
        let file = config(&text);
        let gateway = addresses(&["192.168.7.1"]).pop();
        let web = ["10.1.0.100", "2001:db8::100"];
        for (name, address, vips, method, nat_gateway) in [
            ("web1", "10.1.0.11", &web[..], Method::Tunnel, gateway),
            // The same host by its other name.
            ("mail1", "10.1.0.11", &web[..], Method::Tunnel, gateway),
            (
                "web2",
                "10.1.0.12",
                &["10.1.0.150"][..],
                Method::Direct,
                None,
            ),
            ("mail3", "10.1.0.13", &[][..], Method::Nat, gateway),
            ("web6", "2001:db8::11", &web[..], Method::Tunnel, None),
        ] {
            let expected = ServerPart {
                name: name.to_owned(),
                address: address.parse().unwrap(),
                vips: addresses(vips),
                method,
                nat_gateway,
            };
            assert_eq!(part(&file, name), Some(expected), "{name}");
        }
        assert_eq!(part(&file, "nobody"), None);
    }

    #[test]
    fn a_direct_server_that_is_an_atm_prepares_a_tunnel() {
        let text = FILE
            .replace("web2 10.1.0.12 direct", "web2 10.1.0.2 direct")
            .replace("  Address 2001:db8::100\n", "");
        let found = part(&config(&text), "web2").unwrap();
        assert_eq!(found.method, Method::Tunnel);
        assert_eq!(found.vips, addresses(&["10.1.0.100"]));
    }

    /// `sorry` is in no pool.
    fn with_fallback(method: &str) -> String {
        FILE.replace("tcp:80 connect", "tcp:80 connect fallback=sorry")
            .replace("  Address 2001:db8::100\n", "")
            .replace(
                "EndServers",
                &format!("  Server sorry 10.1.0.19 {method}\nEndServers"),
            )
    }

    #[test]
    fn a_fallback_gets_the_vips_of_the_services_whose_place_it_takes() {
        for (method, vips) in [
            ("tunnel", &["10.1.0.100"][..]),
            ("direct", &["10.1.0.100"]),
            ("nat", &[]),
        ] {
            let found = part(&config(&with_fallback(method)), "sorry").unwrap();
            assert_eq!(found.vips, addresses(vips), "{method}");
        }
    }

    #[test]
    fn connections_of_a_fallback_are_no_remnants_while_it_is_one() {
        let mut state = State::default();
        let version = |source| {
            Command::Control(Control::ApplyConfig {
                source,
                hosts: BTreeMap::new(),
                expected: None,
                by: "10.1.0.1".to_owned(),
            })
        };
        let applied = state.apply(version(with_fallback("tunnel")));
        assert_eq!(applied, Response::Applied(ConfigNumber(1)));
        state.apply(Command::Control(Control::BeginEpoch {
            node: NodeId(1),
            name: "10.1.0.1".to_owned(),
            term: 1,
            lease: Duration::from_millis(100),
        }));
        let sorry = state
            .servers()
            .iter()
            .find(|(_, known)| known.name == "sorry");
        let sorry = *sorry.unwrap().0;
        let http = state
            .services()
            .iter()
            .find(|(_, known)| known.name == "http");
        let key = ConnectionKey {
            service: *http.unwrap().0,
            client: "192.0.2.7".parse().unwrap(),
            port: 4_000,
        };
        state.apply(Command::Connections {
            epoch: Epoch(1),
            changes: vec![ConnectionChange::Open(key, sorry.into())],
        });
        assert_eq!(state.connections().len(), 1);
        assert_eq!(remnants(&state), BTreeMap::new());
        let applied = state.apply(version(
            with_fallback("tunnel").replace(" fallback=sorry", ""),
        ));
        assert_eq!(applied, Response::Applied(ConfigNumber(2)));
        let left: Vec<_> = remnants(&state).into_keys().collect();
        assert_eq!(left, addresses(&["10.1.0.19"]), "it is one no more");
    }

    #[test]
    fn senders_are_listed_only_where_all_are_known() {
        let v4: IpAddr = "10.1.0.11".parse().unwrap();
        let v6: IpAddr = "2001:db8::11".parse().unwrap();
        let known = |of: &[&[&str]]| -> Vec<(String, Vec<IpAddr>)> {
            let named = (1..).zip(of);
            named
                .map(|(n, of)| (format!("atm{n}"), addresses(of)))
                .collect()
        };
        let both = known(&[&["10.1.0.1"], &["10.1.0.2", "2001:db8::2"]]);
        assert_eq!(senders(&both, v4), Ok(addresses(&["10.1.0.1", "10.1.0.2"])));
        assert_eq!(senders(&both, v6), Err("atm1".to_owned()));
        let six = known(&[&["2001:db8::2"], &["2001:db8::1"]]);
        assert_eq!(
            senders(&six, v6),
            Ok(addresses(&["2001:db8::1", "2001:db8::2"]))
        );
    }

    #[test]
    fn live_connections_keep_their_vips_and_their_tunnel() {
        let remnants = |names: &[&str], vips: &[&str], tunnel| {
            let remnant = Remnant {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                vips: addresses(vips).into_iter().collect(),
                tunnel,
            };
            BTreeMap::from([("10.1.0.11".parse().unwrap(), remnant)])
        };
        let part = |method, vips: &[&str]| ServerPart {
            name: "web1".to_owned(),
            address: "10.1.0.11".parse().unwrap(),
            vips: addresses(vips),
            method,
            nat_gateway: None,
        };
        let by_name = Names {
            given: Some("web1".to_owned()),
            ..Names::default()
        };
        let by_address = Names {
            addresses: addresses(&["192.0.2.1", "10.1.0.11"]),
            ..Names::default()
        };
        let (direct, nat) = (Method::Direct, Method::Nat);
        let both = ["10.1.0.100", "10.1.0.101"];
        for (before, names, left, after) in [
            // Another method, and a VIP that left.
            (
                Some(part(direct, &both[..1])),
                &by_name,
                remnants(&["web1"], &both[..1], true),
                Some(part(Method::Tunnel, &both[..1])),
            ),
            (
                Some(part(direct, &both[..1])),
                &by_name,
                remnants(&["web1"], &both[1..], false),
                Some(part(direct, &both)),
            ),
            (
                Some(part(nat, &[])),
                &by_name,
                remnants(&["web1"], &both[..1], false),
                Some(part(direct, &both[..1])),
            ),
            // A server that left, by its name and by its address.
            (
                None,
                &by_name,
                remnants(&["web1"], &both, true),
                Some(part(Method::Tunnel, &both)),
            ),
            (
                None,
                &by_address,
                remnants(&["web1"], &both, false),
                Some(part(direct, &both)),
            ),
            (None, &by_name, remnants(&["web2"], &both, false), None),
            (
                Some(part(direct, &both)),
                &by_name,
                BTreeMap::new(),
                Some(part(direct, &both)),
            ),
        ] {
            assert_eq!(ServerPart::with_remnants(before, names, &left), after);
        }
    }
}
