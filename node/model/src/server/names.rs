//! Who a host is in a configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::conf::{Config, Host, Server};

/// A configuration and the addresses of its names.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'c> {
    /// Checked.
    pub config: &'c Config,
    /// Addresses of the names in it.
    pub hosts: &'c BTreeMap<String, IpAddr>,
}

impl Resolved<'_> {
    /// The address of a host in it.
    #[must_use]
    pub fn address(&self, host: &Host) -> Option<IpAddr> {
        host.address(self.hosts)
    }

    /// The ATMs in order of promotion: as AtmPool writes them, and their addresses.
    #[must_use]
    pub fn atms(&self) -> Vec<(String, IpAddr)> {
        let atms = &self.config.atm_pool.atms;
        atms.iter()
            .filter_map(|atm| Some((atm.host.to_string(), self.address(&atm.host)?)))
            .collect()
    }
}

/// By what a host may be called in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The name that its owner gave it; then no other counts.
    pub given: Option<String>,
    /// Its host name, whole and up to the first dot, in lower case.
    pub host_names: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// Of a host that the system calls `host_name`; `given` is what its owner calls it.
    #[must_use]
    pub fn of_host(given: Option<&str>, host_name: &str, addresses: Vec<IpAddr>) -> Self {
        let whole = host_name.to_lowercase();
        let short = whole.split_once('.').map(|(short, _)| short.to_owned());
        Self {
            given: given.map(str::to_owned),
            host_names: std::iter::once(whole).chain(short).collect(),
            addresses,
        }
    }

    /// Whether this host is the one that is written as `host` and has `address`.
    #[must_use]
    pub fn is(&self, host: &Host, address: Option<IpAddr>) -> bool {
        let written = host.to_string();
        match &self.given {
            Some(given) => {
                let given = given.to_lowercase();
                given == written || address.is_some_and(|address| given == address.to_string())
            }
            None => {
                self.host_names.contains(&written)
                    || address.is_some_and(|address| self.addresses.contains(&address))
            }
        }
    }

    /// The `Server` line of this host.
    #[must_use]
    pub fn server<'c>(&self, file: &Resolved<'c>) -> Option<&'c Server> {
        let given = self.given.as_deref();
        file.config.servers.iter().find(|server| {
            given == Some(server.name.as_str()) || self.is(&server.host, file.address(&server.host))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
Services
  Service http tcp:80 connect
EndServices
Servers
  Server web1 10.1.0.11 tunnel
  Server mail3 10.1.0.13 tunnel
  Server web6 2001:db8::11 tunnel
EndServers
ServerPool Web
  AddServer web1 http/1
  AddServer mail3 http/1
  AddServer web6 http/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
EndAtmPool
VirtualHost web
  Address 10.1.0.100
  AddAtmPool ATMs
  AddServerPool Web
EndVirtualHost
";

    #[test]
    fn a_host_name_counts_whole_and_short_and_once() {
        let names = |host_name| Names::of_host(None, host_name, Vec::new()).host_names;
        assert_eq!(names("Web1.Example.com"), ["web1.example.com", "web1"]);
        assert_eq!(names("web1"), ["web1"]);
    }

    #[test]
    fn a_host_is_found_by_the_name_it_was_given_or_by_its_own() {
        let file = crate::conf::check("test", FILE).config.unwrap();
        let hosts = BTreeMap::new();
        let file = Resolved {
            config: &file,
            hosts: &hosts,
        };
        let found = |given: Option<&str>, host_names: &[&str], own: &[&str]| {
            let names = Names {
                given: given.map(str::to_owned),
                host_names: host_names.iter().map(|name| (*name).to_owned()).collect(),
                addresses: own.iter().map(|address| address.parse().unwrap()).collect(),
            };
            names.server(&file).map(|server| server.name.clone())
        };
        for (given, own, expected) in [
            (Some("mail3"), &[][..], Some("mail3")),
            (Some("10.1.0.13"), &[], Some("mail3")),
            (Some("2001:DB8::11"), &[], Some("web6")),
            // A given name counts alone.
            (Some("nobody"), &["10.1.0.13"], None),
            (None, &["192.0.2.1", "10.1.0.13"], Some("mail3")),
            (None, &["192.0.2.1"], None),
        ] {
            assert_eq!(
                found(given, &["web1"], own).as_deref(),
                expected,
                "{given:?} {own:?}"
            );
        }
    }
}
