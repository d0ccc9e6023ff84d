//! The hosts a configuration asks for: names, addresses, roles. Pure.
//!
//! Invariant: no two hosts share an address, no host has a VIP, and all of it lies in one /24.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use model::conf::{Config, Host};

use super::error::PlanError;
use super::record::PortKind;

/// Length of the network's prefix; one /24 holds every host the limits allow.
pub const PREFIX_LENGTH: u8 = 24;

/// TCP port on which ATMs talk to one another.
pub const PEER_PORT: u16 = 7410;

/// TCP port of the admin service, on each host's loopback.
pub const ADMIN_PORT: u16 = 7411;

/// Host part of the first ATM, server, VIP and of the client, where the file gives names instead of addresses.
const FIRST_ATM: u8 = 1;
const FIRST_SERVER: u8 = 11;
const FIRST_VIP: u8 = 100;
const CLIENT: u8 = 200;
const ROGUE: u8 = 201;

/// Network used when the file names no address at all.
const DEFAULT_NETWORK: [u8; 3] = [10, 1, 0];

/// Name of the host that clients run in.
pub(crate) const CLIENT_NAME: &str = "client";

/// Name of the host that has no part in the cluster.
pub const ROGUE_NAME: &str = "rogue";

/// Everything that has to be built for one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hosts: ATMs, servers that are no ATMs, the client, the rogue.
    pub hosts: Vec<HostPlan>,
    /// IPv4 addresses of the virtual hosts, in file order.
    pub vips: Vec<Ipv4Addr>,
    /// What each name in the file resolves to.
    pub names: BTreeMap<String, Ipv4Addr>,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// `atm1`, `serv1`, `client`.
    pub name: String,
    /// Address of `eth0`.
    pub address: Ipv4Addr,
    /// Listed in the ATM pool.
    pub atm: bool,
    /// Listed under Servers.
    pub server: bool,
    /// The host as the file writes it; `None` for the client and the rogue.
    pub written: Option<String>,
}

impl Plan {
    /// Lays `config` out: the n-th ATM is `atm<n>`, the n-th server `serv<n>`, unless it is one of the ATMs.
    ///
    /// # Errors
    /// [`PlanError`]: addresses in more than one /24, IPv6 hosts, shared addresses, no address left.
    pub fn new(config: &Config, client: bool) -> Result<Self, PlanError> {
        let mut addresses = Addresses::of_literals(config)?;
        let mut plan = Self {
            hosts: Vec::new(),
            vips: Vec::new(),
            names: BTreeMap::new(),
        };

        for virtual_host in &config.virtual_hosts {
            if let (Host::Address(IpAddr::V6(_)), true) =
                (&virtual_host.host, virtual_host.addresses.is_empty())
            {
                continue; // An IPv6 VIP needs no place in the IPv4 network.
            }
            if virtual_host.addresses.is_empty() {
                let vip = addresses.resolve(&virtual_host.host, FIRST_VIP, &mut plan.names)?;
                plan.vips.push(vip);
            } else {
                plan.vips
                    .extend(virtual_host.addresses.iter().filter_map(ipv4));
                if let (Host::Name(name), Some(vip)) = (
                    &virtual_host.host,
                    virtual_host.addresses.iter().find_map(ipv4),
                ) {
                    plan.names.insert(name.clone(), vip);
                }
            }
        }
        for (n, atm) in config.atm_pool.atms.iter().enumerate() {
            let address = addresses.resolve(&atm.host, FIRST_ATM, &mut plan.names)?;
            plan.add(format!("atm{}", n + 1), address, Some(&atm.host), true)?;
        }
        for (n, server) in config.servers.iter().enumerate() {
            let address = addresses.resolve(&server.host, FIRST_SERVER, &mut plan.names)?;
            plan.add(format!("serv{}", n + 1), address, Some(&server.host), false)?;
        }
        if client {
            let address = addresses.free_from(CLIENT)?;
            plan.add(CLIENT_NAME.to_owned(), address, None, false)?;
        }
        Ok(plan)
    }

    /// Adds the host `rogue`.
    ///
    /// # Errors
    /// [`PlanError::NetworkFull`].
    pub(crate) fn add_rogue(&mut self) -> Result<(), PlanError> {
        let hosts = self.hosts.iter().map(|host| host.address);
        let taken: Vec<Ipv4Addr> = hosts.chain(self.vips.iter().copied()).collect();
        let network = taken
            .first()
            .map_or(DEFAULT_NETWORK, |first| split(*first).0);
        let [a, b, c] = network;
        let mut free = (ROGUE..=254).map(|host| Ipv4Addr::new(a, b, c, host));
        let address = free
            .find(|address| !taken.contains(address))
            .ok_or(PlanError::NetworkFull)?;
        self.add(ROGUE_NAME.to_owned(), address, None, false)
    }

    /// Adds a host, or the role of server to the ATM that already has this address.
    fn add(
        &mut self,
        name: String,
        address: Ipv4Addr,
        host: Option<&Host>,
        atm: bool,
    ) -> Result<(), PlanError> {
        if self.vips.contains(&address) {
            return Err(PlanError::SharedAddress {
                address,
                first: name,
                second: "a virtual host".to_owned(),
            });
        }
        if let Some(same) = self.hosts.iter_mut().find(|h| h.address == address) {
            if !atm && same.atm && !same.server && host.is_some() {
                same.server = true;
                return Ok(());
            }
            return Err(PlanError::SharedAddress {
                address,
                first: same.name.clone(),
                second: name,
            });
        }
        let written = host.map(ToString::to_string);
        let server = !atm && written.is_some();
        self.hosts.push(HostPlan {
            name,
            address,
            atm,
            server,
            written,
        });
        Ok(())
    }

    /// Text of the hosts file every host sees as `/etc/hosts`.
    #[must_use]
    pub fn hosts_file(&self) -> String {
        let mut text = String::from("127.0.0.1 localhost\n");
        for host in &self.hosts {
            let _ = writeln!(text, "{} {}", host.address, host.name);
        }
        for (name, address) in &self.names {
            if !self.hosts.iter().any(|h| h.name == *name) {
                let _ = writeln!(text, "{address} {name}");
            }
        }
        text
    }
}

/// Text of a host's `atmd.toml`; `directory` is the host's own directory in the lab's.
#[must_use]
pub fn atmd_toml(written: &str, address: Ipv4Addr, directory: &str, port: PortKind) -> String {
    format!(
        "name = {written:?}\n\
         interface = \"eth0\"\n\
         cluster_config = {conf:?}\n\
         data_dir = {data:?}\n\
         port = \"{port}\"\n\
         peer_listen = \"{address}:{PEER_PORT}\"\n\
         admin_listen = \"127.0.0.1:{ADMIN_PORT}\"\n",
        conf = format!("{directory}/clusterserver.conf"),
        data = format!("{directory}/data"),
    )
}

fn ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

/// The /24 of the lab and which of its addresses are taken.
struct Addresses {
    network: [u8; 3],
    taken: Vec<u8>,
}

impl Addresses {
    /// Takes every address the file spells out, so that none of them is given to a name.
    fn of_literals(config: &Config) -> Result<Self, PlanError> {
        let hosts = config
            .atm_pool
            .atms
            .iter()
            .map(|a| &a.host)
            .chain(config.servers.iter().map(|s| &s.host));
        let mut literals = Vec::new();
        for host in hosts {
            match host {
                Host::Address(IpAddr::V4(v4)) => literals.push(*v4),
                Host::Address(IpAddr::V6(v6)) => return Err(PlanError::Ipv6Host(v6.to_string())),
                Host::Name(_) => {}
            }
        }
        for virtual_host in &config.virtual_hosts {
            literals.extend(virtual_host.addresses.iter().filter_map(ipv4));
            if let (Host::Address(IpAddr::V4(v4)), true) =
                (&virtual_host.host, virtual_host.addresses.is_empty())
            {
                literals.push(*v4);
            }
        }
        let network = literals
            .first()
            .map_or(DEFAULT_NETWORK, |first| split(*first).0);
        if let Some(&other) = literals.iter().find(|a| split(**a).0 != network) {
            return Err(PlanError::TwoNetworks {
                address: literals[0],
                other,
            });
        }
        Ok(Self {
            network,
            taken: literals.iter().map(|a| split(*a).1).collect(),
        })
    }

    /// The address of `host`: its own, the one its name already has, or the next free one from `first` on.
    fn resolve(
        &mut self,
        host: &Host,
        first: u8,
        names: &mut BTreeMap<String, Ipv4Addr>,
    ) -> Result<Ipv4Addr, PlanError> {
        match host {
            Host::Address(IpAddr::V4(v4)) => Ok(*v4),
            Host::Address(IpAddr::V6(v6)) => Err(PlanError::Ipv6Host(v6.to_string())),
            Host::Name(name) => {
                if let Some(&known) = names.get(name) {
                    return Ok(known);
                }
                let address = self.free_from(first)?;
                names.insert(name.clone(), address);
                Ok(address)
            }
        }
    }

    fn free_from(&mut self, first: u8) -> Result<Ipv4Addr, PlanError> {
        let host = (first..=254)
            .find(|h| !self.taken.contains(h))
            .ok_or(PlanError::NetworkFull)?;
        self.taken.push(host);
        let [a, b, c] = self.network;
        Ok(Ipv4Addr::new(a, b, c, host))
    }
}

fn split(address: Ipv4Addr) -> ([u8; 3], u8) {
    let [a, b, c, host] = address.octets();
    ([a, b, c], host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::read_configuration;

    /// Lays out a file with these ATMs, servers and virtual host.
    fn plan(atms: &[&str], servers: &[&str], virtual_host: &str) -> Result<Plan, PlanError> {
        let mut text =
            String::from("Services\n Service smtp tcp:25 connect\nEndServices\nServers\n");
        for (n, host) in servers.iter().enumerate() {
            text += &format!(" Server s{n} {host} tunnel\n");
        }
        text += "EndServers\nServerPool mail\n";
        for n in 0..servers.len() {
            text += &format!(" AddServer s{n} smtp/1\n");
        }
        text += "EndServerPool\nAtmPool ATMs\n";
        for host in atms {
            text += &format!(" AddAtm {host}\n");
        }
        text += &format!(
            "EndAtmPool\nVirtualHost {virtual_host}\n AddAtmPool ATMs\n AddServerPool mail\nEndVirtualHost\n"
        );
        Plan::new(&read_configuration("test", &text)?, true)
    }

    /// Hosts as `name address role`.
    fn hosts(plan: &Plan) -> Vec<String> {
        let role = |h: &HostPlan| match (h.atm, h.server) {
            (true, true) => "atm+server",
            (true, false) => "atm",
            (false, true) => "server",
            (false, false) => "client",
        };
        plan.hosts
            .iter()
            .map(|h| format!("{} {} {}", h.name, h.address, role(h)))
            .collect()
    }

    #[test]
    fn names_get_the_addresses_of_the_scheme() {
        let plan = plan(
            &["a.my.org", "b.my.org"],
            &["s.my.org", "t.my.org"],
            "mail.my.org",
        )
        .unwrap();
        assert_eq!(
            hosts(&plan),
            [
                "atm1 10.1.0.1 atm",
                "atm2 10.1.0.2 atm",
                "serv1 10.1.0.11 server",
                "serv2 10.1.0.12 server",
                "client 10.1.0.200 client"
            ]
        );
        assert_eq!(plan.vips, [Ipv4Addr::new(10, 1, 0, 100)]);
        assert_eq!(plan.hosts[0].written.as_deref(), Some("a.my.org"));
        let file = plan.hosts_file();
        for line in [
            "10.1.0.1 atm1",
            "10.1.0.1 a.my.org",
            "10.1.0.12 t.my.org",
            "10.1.0.100 mail.my.org",
        ] {
            assert!(file.lines().any(|l| l == line), "{line} in {file}");
        }
    }

    #[test]
    fn addresses_of_the_file_are_kept_and_not_given_to_names() {
        let plan = plan(
            &["192.168.7.11", "b.my.org"],
            &["s.my.org", "192.168.7.2"],
            "192.168.7.1",
        )
        .unwrap();
        assert_eq!(
            hosts(&plan),
            [
                "atm1 192.168.7.11 atm",
                "atm2 192.168.7.3 atm",
                "serv1 192.168.7.12 server",
                "serv2 192.168.7.2 server",
                "client 192.168.7.200 client"
            ]
        );
    }

    #[test]
    fn a_host_may_be_both() {
        let plan = plan(
            &["a.my.org", "10.1.0.5"],
            &["10.1.0.5", "a.my.org", "c.my.org"],
            "mail.my.org",
        )
        .unwrap();
        assert_eq!(
            hosts(&plan),
            [
                "atm1 10.1.0.1 atm+server",
                "atm2 10.1.0.5 atm+server",
                "serv3 10.1.0.11 server",
                "client 10.1.0.200 client"
            ]
        );
    }

    #[test]
    fn what_cannot_be_laid_out_is_refused_by_name() {
        let (one, other) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1));
        assert_eq!(
            plan(&["10.1.0.1"], &["10.2.0.1"], "mail.my.org"),
            Err(PlanError::TwoNetworks {
                address: one,
                other
            })
        );
        assert_eq!(
            plan(&["10.1.0.1"], &["fd00::1"], "mail.my.org"),
            Err(PlanError::Ipv6Host("fd00::1".to_owned()))
        );
        let invalid = plan(&["a.my.org"], &[], "mail.my.org\n AddAtmPool nothing");
        assert!(
            matches!(&invalid, Err(PlanError::Invalid(text)) if text.contains("nothing")),
            "{invalid:?}"
        );
    }

    #[test]
    fn quotes_and_backslashes_stay_inside_their_value() {
        let text = atmd_toml(
            "10.1.0.1",
            Ipv4Addr::new(10, 1, 0, 1),
            "/tmp/a \"b\" \\c",
            PortKind::Pnet,
        );
        assert!(
            text.contains(r#"data_dir = "/tmp/a \"b\" \\c/data""#),
            "{text}"
        );
        assert!(
            text.contains("port = \"pnet\"\npeer_listen = \"10.1.0.1:7410\"\n"),
            "{text}"
        );
    }
}
