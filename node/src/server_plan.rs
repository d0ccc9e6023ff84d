//! What clusterserver.conf asks of this host as a server.
//!
//! Never imports: sockets of the data path, consensus.

use std::net::IpAddr;
use std::time::Duration;

use model::conf::{ForwardingMethod, Host, Server, VirtualHost};
use tracing::warn;

use crate::cluster_file::ClusterFile;
use crate::server_role::{Method, Plan};
use crate::settings::Settings;

/// A name server that does not answer within this counts as not knowing the name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The plan of the host that has the `Server` line `name`; `None` when that line has no address.
pub(crate) async fn plan(settings: &Settings, file: &ClusterFile, name: &str) -> Option<Plan> {
    let part = Part::of(file, name)?;
    let atms = match part.method {
        Method::Tunnel => senders(file, part.address).await,
        Method::Direct | Method::Nat => Vec::new(),
    };
    Some(Plan {
        interface: settings.interface.clone(),
        address: part.address,
        vips: part.vips,
        method: part.method,
        atms,
        nat_gateway: part.nat_gateway,
        state_dir: settings.data_dir.clone(),
    })
}

/// What the file alone says of a host.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    address: IpAddr,
    vips: Vec<IpAddr>,
    method: Method,
    nat_gateway: Option<IpAddr>,
}

impl Part {
    /// A host may have several `Server` lines, one for each method by which its services are reached; they have its
    /// address in common. Only the VIPs of services that reach it by `tunnel` or `direct` are to stand on it: with any
    /// other on its `lo` it would speak to itself where it is a client.
    fn of(file: &ClusterFile, name: &str) -> Option<Self> {
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
        let reached_by = |server: &Server| {
            let (config, hosts) = (&file.config, &file.hosts);
            config.reached_by(server.method, address, hosts)
        };
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

/// Whether one of these servers is in a pool behind the virtual host.
fn is_served_by(file: &ClusterFile, host: &VirtualHost, servers: &[&str]) -> bool {
    file.config
        .server_pools
        .iter()
        .filter(|pool| host.server_pools.contains(&pool.name))
        .flat_map(|pool| &pool.servers)
        .any(|added| servers.contains(&added.server.as_str()))
}

/// The ATMs' addresses in the IP version in which the tunnel comes. The file has one address of each ATM; where that is
/// of the other version, its name may have more. Unless all of them are known, every sender is accepted: the packets of
/// an ATM that is not known here must not be thrown away when it becomes active.
async fn senders(file: &ClusterFile, address: IpAddr) -> Vec<IpAddr> {
    let mut senders = Vec::new();
    for atm in &file.config.atm_pool.atms {
        let mut known: Vec<IpAddr> = file.address(&atm.host).into_iter().collect();
        if known.iter().all(|known| !same_version(*known, address))
            && let Host::Name(name) = &atm.host
        {
            let lookup = tokio::net::lookup_host((name.as_str(), 0));
            if let Ok(Ok(found)) = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
                known.extend(found.map(|found| found.ip()));
            }
        }
        known.retain(|known| same_version(*known, address));
        if known.is_empty() {
            warn!(
                atm = %atm.host, server = %address,
                "an ATM has no known address in the IP version of the tunnel: the tunnel is accepted from every sender \
                 (give the name of the ATM an address in that version, or this server one in the ATM's)"
            );
            return Vec::new();
        }
        senders.extend(known);
    }
    senders.sort_unstable();
    senders.dedup();
    senders
}

fn same_version(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
NAT
  Gateway 192.168.7.1
  Gateway 2001:db8::99
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
  Server mail6 2001:db8::13 nat
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
ServerPool Mail6
  AddServer mail6 smtp/1
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
VirtualHost mail6
  Address 2001:db8::200
  AddAtmPool ATMs
  AddServerPool Mail6
EndVirtualHost
";

    async fn file(text: &str) -> ClusterFile {
        ClusterFile::parse("test", text.to_owned()).await.unwrap().0
    }

    fn addresses(of: &[&str]) -> Vec<IpAddr> {
        of.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn each_host_gets_the_vips_that_reach_it_and_no_other() {
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
        let file = file(&text).await;
        let gateway = addresses(&["192.168.7.1"]).pop();
        let gateway6 = addresses(&["2001:db8::99"]).pop();
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
            ("mail6", "2001:db8::13", &[][..], Method::Nat, gateway6),
        ] {
            let expected = Part {
                address: address.parse().unwrap(),
                vips: addresses(vips),
                method,
                nat_gateway,
            };
            assert_eq!(Part::of(&file, name), Some(expected), "{name}");
        }
        assert_eq!(Part::of(&file, "nobody"), None);
    }

    #[tokio::test]
    async fn a_direct_server_that_is_an_atm_prepares_a_tunnel() {
        let text = FILE
            .replace("web2 10.1.0.12 direct", "web2 10.1.0.2 direct")
            .replace("  Address 2001:db8::100\n", "");
        let part = Part::of(&file(&text).await, "web2").unwrap();
        assert_eq!(part.method, Method::Tunnel);
        assert_eq!(part.vips, addresses(&["10.1.0.100"]));
    }

    #[tokio::test]
    async fn senders_are_listed_only_where_all_are_known() {
        let text = FILE.replace("  AddServer web2 http/1\n", "");
        let known = file(&text).await;
        let v4: IpAddr = "10.1.0.11".parse().unwrap();
        let v6: IpAddr = "2001:db8::11".parse().unwrap();
        assert_eq!(
            senders(&known, v4).await,
            addresses(&["10.1.0.1", "10.1.0.2"])
        );
        assert_eq!(senders(&known, v6).await, addresses(&[]));
        let mixed = file(&text.replace("AddAtm 10.1.0.2", "AddAtm 2001:db8::2")).await;
        assert_eq!(senders(&mixed, v4).await, addresses(&[]));
        let both = text
            .replace("AddAtm 10.1.0.1\n", "AddAtm 2001:db8::1\n")
            .replace("AddAtm 10.1.0.2", "AddAtm 2001:db8::2");
        assert_eq!(
            senders(&file(&both).await, v6).await,
            addresses(&["2001:db8::1", "2001:db8::2"])
        );
    }
}
