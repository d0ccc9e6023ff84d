//! What this host's kernel says of its addresses and routes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use dataplane_core::Interface;
use pnet::datalink;

/// The host name, in lower case.
pub(crate) fn name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().to_lowercase()
}

/// Addresses of all interfaces but the loopback's.
pub(crate) fn local_addresses() -> Vec<IpAddr> {
    let interfaces = datalink::interfaces();
    let addresses = interfaces
        .iter()
        .flat_map(|interface| interface.ips.iter().map(|network| network.ip()));
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// Where packets to `address` go when the kernel's routes cannot be followed: to itself on the connected network, else to
/// the default router. IPv6 is taken to be on the link.
pub(crate) fn next_hop_without_routes(interface: &Interface, address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V4(v4) = address else {
        return Some(address);
    };
    let rest = u32::BITS.saturating_sub(interface.prefix_len.into());
    let mask = u32::MAX.checked_shl(rest).unwrap_or(0);
    if (v4.to_bits() ^ interface.address.to_bits()) & mask == 0 {
        return Some(address);
    }
    default_gateway().map(IpAddr::V4)
}

/// The IPv4 router of the default route; `None` without one.
fn default_gateway() -> Option<Ipv4Addr> {
    parse_default_gateway(&fs::read_to_string("/proc/net/route").ok()?)
}

/// Columns of /proc/net/route: interface, destination, gateway, flags, …; addresses in hexadecimal, host byte order
/// (Linux net/ipv4/fib_trie.c, `fib_route_seq_show`).
fn parse_default_gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (destination, gateway) = (columns.next()?, columns.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use dataplane_core::MacAddr;

    use super::*;

    #[test]
    fn the_connected_network_needs_no_router() {
        let interface = |prefix_len| Interface {
            mac: MacAddr::ZERO,
            address: Ipv4Addr::new(10, 1, 0, 2),
            prefix_len,
            address6: None,
            link_local: None,
            mtu: 1500,
        };
        let near = "10.1.0.77".parse().unwrap();
        assert_eq!(next_hop_without_routes(&interface(24), near), Some(near));
        let far = "192.0.2.1".parse().unwrap();
        assert_eq!(next_hop_without_routes(&interface(0), far), Some(far));
        assert_ne!(next_hop_without_routes(&interface(32), near), Some(near));
        let six = "2001:db8::1".parse().unwrap();
        assert_eq!(next_hop_without_routes(&interface(24), six), Some(six));
    }

    #[test]
    fn the_default_route_is_found() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                      eth0\t0000010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                      eth0\t00000000\tFE00010A\t0003\t0\t0\t0\t00000000\n";
        #[cfg(target_endian = "little")]
        assert_eq!(
            parse_default_gateway(routes),
            Some(Ipv4Addr::new(10, 1, 0, 254))
        );
        assert_eq!(parse_default_gateway("Iface\n"), None);
        assert_eq!(parse_default_gateway("Iface\nx y\nx 00000000 zz\n"), None);
    }
}
