//! What this host's kernel says of its addresses and routes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use dataplane_core::Interface;
use pnet::datalink;

/// Addresses of all interfaces but the loopback's.
pub(crate) fn local_addresses() -> Vec<IpAddr> {
    let interfaces = datalink::interfaces();
    let addresses = interfaces
        .iter()
        .flat_map(|interface| interface.ips.iter().map(|network| network.ip()));
    addresses.filter(|address| !address.is_loopback()).collect()
}

/// The IPv4 router of the default route; `None` without one.
pub(crate) fn default_gateway() -> Option<Ipv4Addr> {
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

/// Where frames to a server go: to itself when it is on the connected network, else to the router of the default route.
pub(crate) fn next_hop(address: IpAddr, interface: &Interface) -> Option<IpAddr> {
    let IpAddr::V4(v4) = address else {
        return Some(address);
    };
    let mask = u32::MAX
        .checked_shl(32 - u32::from(interface.prefix_len))
        .unwrap_or(0);
    if (v4.to_bits() ^ interface.address.to_bits()) & mask == 0 {
        return Some(address);
    }
    Some(default_gateway().map_or(address, IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

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
