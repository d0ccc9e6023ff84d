//! The numbers of the server role: names of devices, sizes of packets, values of settings.

use std::net::IpAddr;

/// VIPs of one host; each costs a comparison per packet and a line in a journal that is rewritten whole.
pub const VIPS_MAX: usize = 1024;

/// The name of the device out of which the tunnel's packets come, whoever unpacks them.
pub const TUNNEL_DEVICE: &str = "atmtun0";

/// The name of the second device where the kernel unpacks IPv6 in IPv4: it has a kind of its own for that.
pub const TUNNEL_DEVICE_6IN4: &str = "atmtun1";

/// Values of `arp_ignore` that keep a VIP on `lo` silent (ip-sysctl.rst): 2 is 1 with a further condition and 8 answers
/// nothing; 3 would answer for a VIP.
pub const ARP_IGNORE_SILENT: [i32; 3] = [1, 2, 8];

/// What `arp_ignore` becomes where it is none of these: only addresses of the interface a request came in on are answered for.
pub const ARP_IGNORE: i32 = 1;

/// What `arp_announce` has to be at least: the best address for the target is the sender's, so never a VIP of `lo`.
pub const ARP_ANNOUNCE: i32 = 2;

/// The settings of a tunnel device that takes IPv6 without having an address: no duplicate address detection, no router
/// solicitations, nothing that somebody at the other end would have to read. ip-sysctl.rst: addr_gen_mode 1 makes no
/// link-local address.
pub const TUNNEL_IPV6: [(&str, i32); 4] = [
    ("addr_gen_mode", 1),
    ("accept_dad", 0),
    ("accept_ra", 0),
    ("disable_ipv6", 0),
];

/// The headers of IP and TCP without options, as the MSS counts them (RFC 9293 §3.7.1, RFC 8200 §8.3).
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// The smallest MSS that makes sense: what every host accepts (RFC 9293 §3.7.1) would be 536, but a tunnel may be
/// smaller; below this only headers travel.
const MSS_MIN: u32 = 88;
/// The smallest MTU for an IPv4 tunnel (RFC 791 §3.1), and that of any link with IPv6 (RFC 8200 §5): below it the kernel
/// takes IPv6 off an interface.
const MTU_MIN_V4: u32 = 576;
const MTU_MIN_V6: u32 = 1280;

/// The largest TCP segments, in bytes, whose packets fit the tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mss {
    /// In IPv4.
    pub v4: u32,
    /// In IPv6; `None` where no VIP is IPv6.
    pub v6: Option<u32>,
}

/// The largest TCP segments whose packets still fit a tunnel to `address` over a link of `mtu` bytes; `ipv6`: a VIP is IPv6.
///
/// # Errors
/// The smallest MTU that is enough.
pub fn mss(mtu: u32, address: IpAddr, ipv6: bool) -> Result<Mss, u32> {
    if ipv6 && mtu < MTU_MIN_V6 {
        return Err(MTU_MIN_V6);
    }
    let fitting = |headers| {
        let mss = mtu.checked_sub(overhead(address) + headers)?;
        // The option has 16 bits; only `lo` has an MTU beyond them.
        (mss >= MSS_MIN).then_some(mss.min(u32::from(u16::MAX)))
    };
    Ok(Mss {
        v4: fitting(HEADERS_V4).ok_or(MTU_MIN_V4)?,
        v6: if ipv6 { fitting(HEADERS_V6) } else { None },
    })
}

/// The MTU of the tunnel device: what fits the tunnel, but never so little that the kernel takes IPv6 off it. Nothing is
/// ever sent into it, and what comes out of it may be larger.
#[must_use]
pub fn tunnel_mtu(mtu: u32, address: IpAddr, ipv6: bool) -> u32 {
    let fitting = mtu.saturating_sub(overhead(address));
    if ipv6 {
        fitting.max(MTU_MIN_V6)
    } else {
        fitting
    }
}

/// Whether one host of the network can have this address on `lo`.
#[must_use]
pub fn can_be_vip(vip: IpAddr) -> bool {
    let special = vip.is_unspecified() || vip.is_loopback() || vip.is_multicast();
    let version = match vip {
        IpAddr::V4(vip) => !vip.is_broadcast(),
        // A mapped address is IPv4 to every socket.
        IpAddr::V6(vip) => vip.to_ipv4_mapped().is_none() && !vip.is_unicast_link_local(),
    };
    !special && version
}

/// The outer header: RFC 2003 §3, RFC 4213 §3.2; RFC 2473 §3 without extension headers.
fn overhead(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn segments_fit_each_of_the_four_tunnels() {
        for (to, mtu, expected) in [
            ("10.1.0.11", 1500, (1440, Some(1420))),
            ("2001:db8::11", 1500, (1420, Some(1400))),
            ("10.1.0.11", 9000, (8940, Some(8920))),
            ("2001:db8::11", 1280, (1200, Some(1180))),
        ] {
            let mss = mss(mtu, address(to), true).unwrap();
            assert_eq!((mss.v4, mss.v6), expected, "{to} at {mtu}");
        }
        let only_v4 = mss(576, address("10.1.0.11"), false);
        assert_eq!(only_v4, Ok(Mss { v4: 516, v6: None }));
    }

    #[test]
    fn an_mtu_without_room_is_refused_with_the_one_that_is_needed() {
        assert_eq!(mss(100, address("10.1.0.11"), false), Err(576));
        assert_eq!(mss(1279, address("10.1.0.11"), true), Err(1280));
    }

    #[test]
    fn the_tunnel_device_keeps_ipv6_where_the_network_is_small() {
        for (to, ipv6, mtu, expected) in [
            ("10.1.0.11", false, 1500, 1480),
            ("10.1.0.11", false, 1280, 1260),
            ("2001:db8::11", true, 1500, 1460),
            ("2001:db8::11", true, 1300, 1280),
        ] {
            assert_eq!(tunnel_mtu(mtu, address(to), ipv6), expected);
        }
    }

    #[test]
    fn addresses_that_no_host_has_for_itself_are_no_vips() {
        for (vip, expected) in [
            ("10.1.0.100", true),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("2001:db8::100", true),
            ("fd00::1", true),
            ("fe80::1", false),
            ("::1", false),
            ("::", false),
            ("ff02::1", false),
            ("::ffff:10.1.0.100", false),
        ] {
            assert_eq!(can_be_vip(address(vip)), expected, "{vip}");
        }
    }
}
