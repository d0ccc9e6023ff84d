//! The text of the nftables table of a server: clamps the MSS that the server announces, and guards the kernel's tunnel.

use std::net::IpAddr;

use super::{Mss, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4};

/// The table's family and name; nothing else of nftables is touched.
pub const TABLE: &str = "inet atm_server";

/// Its name alone.
pub const TABLE_NAME: &str = "atm_server";

/// What the table does.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// The addresses of this server's answers, of both IP versions.
    pub vips: &'a [IpAddr],
    /// What their segments are cut to.
    pub mss: Mss,
    /// Set where the kernel unpacks the tunnel: then the table checks what our own decapsulation would check.
    pub kernel_tunnel: Option<Guard<'a>>,
}

/// Who may send to the kernel's tunnel devices.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// The senders that are accepted, all of the outer IP version; empty for any.
    pub atms: &'a [IpAddr],
    /// The devices that are ours.
    pub devices: Devices,
}

/// Which of the kernel's devices unpack the tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Devices {
    /// ipip: IPv4 in IPv4.
    Ipip,
    /// ipip and sit: both in IPv4.
    IpipAndSit,
    /// ip6tnl: both in IPv6.
    Ip6tnl,
}

impl Devices {
    /// Those that unpack a tunnel to `address`; `ipv6`: a VIP is IPv6.
    #[must_use]
    pub fn needed(address: IpAddr, ipv6: bool) -> Self {
        match address {
            IpAddr::V6(_) => Self::Ip6tnl,
            IpAddr::V4(_) if ipv6 => Self::IpipAndSit,
            IpAddr::V4(_) => Self::Ipip,
        }
    }

    /// How nft tells the packets that these devices take. Protocols that none of them takes may belong to a tunnel of
    /// the host's owner.
    fn carriers(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipip => ("ip protocol 4", "ip"),
            Self::IpipAndSit => ("ip protocol { 4, 41 }", "ip"),
            // Extension headers may stand in front.
            Self::Ip6tnl => ("meta nfproto ipv6 meta l4proto { 4, 41 }", "ip6"),
        }
    }
}

/// The text of the transaction. The first two lines make the table empty whether or not it is there.
#[must_use]
pub fn ruleset(rules: &Rules<'_>) -> String {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = rules.vips.iter().partition(|vip| vip.is_ipv4());
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    text += &set("vips", "ipv4_addr", &v4);
    text += &set("vips6", "ipv6_addr", &v6);
    // Only the server's SYN-ACK tells the client how much to send, and it does not pass the ATM.
    text += "  chain output {\n    type filter hook output priority mangle; policy accept;\n";
    text += &clamp("ip saddr @vips", rules.mss.v4);
    if let Some(mss) = rules.mss.v6 {
        text += &clamp("ip6 saddr @vips6", mss);
    }
    text += "  }\n";
    if let Some(guard) = rules.kernel_tunnel {
        let (carried, ip) = guard.devices.carriers();
        text += "  counter inner_destination { }\n  counter outer_source { }\n";
        text += &set(
            "atms",
            if ip == "ip" { "ipv4_addr" } else { "ipv6_addr" },
            guard.atms,
        );
        text += "  chain tunnel {\n    type filter hook prerouting priority raw; policy accept;\n";
        if !guard.atms.is_empty() {
            text += &format!("    {carried} {ip} saddr != @atms counter name outer_source drop\n");
        }
        for inside in ["ip daddr != @vips", "ip6 daddr != @vips6"] {
            text += &format!(
                "    iifname {{ \"{TUNNEL_DEVICE}\", \"{TUNNEL_DEVICE_6IN4}\" }} {inside} counter name \
                 inner_destination drop\n"
            );
        }
        text += "  }\n";
    }
    text + "}\n"
}

fn clamp(answers: &str, mss: u32) -> String {
    format!(
        "    {answers} tcp flags & (syn|ack) == syn|ack tcp option maxseg size > {mss} tcp option maxseg size set {mss}\n"
    )
}

fn set(name: &str, kind: &str, addresses: &[IpAddr]) -> String {
    let mut text = format!("  set {name} {{\n    type {kind}\n");
    if !addresses.is_empty() {
        let mut addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        addresses.sort();
        addresses.dedup();
        text += &format!("    elements = {{ {} }}\n", addresses.join(", "));
    }
    text + "  }\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(of: &[&str]) -> Vec<IpAddr> {
        of.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn vips() -> Vec<IpAddr> {
        addresses(&["10.1.0.101", "10.1.0.100", "2001:db8::100"])
    }

    const BOTH: Mss = Mss {
        v4: 1440,
        v6: Some(1420),
    };

    fn guarded(atms: &[&str], devices: Devices) -> String {
        ruleset(&Rules {
            vips: &vips(),
            mss: BOTH,
            kernel_tunnel: Some(Guard {
                atms: &addresses(atms),
                devices,
            }),
        })
    }

    #[test]
    fn a_tunnel_server_clamps_what_it_announces_in_both_versions() {
        let text = ruleset(&Rules {
            vips: &vips(),
            mss: BOTH,
            kernel_tunnel: None,
        });
        assert_eq!(
            text,
            "table inet atm_server\ndelete table inet atm_server\ntable inet atm_server {\n  set vips {\n    type \
             ipv4_addr\n    elements = { 10.1.0.100, 10.1.0.101 }\n  }\n  set vips6 {\n    type ipv6_addr\n    \
             elements = { 2001:db8::100 }\n  }\n  chain output {\n    type filter hook output priority mangle; policy \
             accept;\n    ip saddr @vips tcp flags & (syn|ack) == syn|ack tcp option maxseg size > 1440 tcp option \
             maxseg size set 1440\n    ip6 saddr @vips6 tcp flags & (syn|ack) == syn|ack tcp option maxseg size > 1420 \
             tcp option maxseg size set 1420\n  }\n}\n"
        );
        let only_v4 = ruleset(&Rules {
            vips: &vips(),
            mss: Mss { v4: 1440, v6: None },
            kernel_tunnel: None,
        });
        assert!(!only_v4.contains("ip6 saddr"), "{only_v4}");
    }

    #[test]
    fn the_kernels_tunnel_is_guarded_as_ours_is() {
        for (devices, atm, rule) in [
            (
                Devices::Ipip,
                "10.1.0.1",
                "    ip protocol 4 ip saddr != @atms counter",
            ),
            (
                Devices::IpipAndSit,
                "10.1.0.1",
                "    ip protocol { 4, 41 } ip saddr != @atms counter",
            ),
            (
                Devices::Ip6tnl,
                "2001:db8::1",
                "    meta nfproto ipv6 meta l4proto { 4, 41 } ip6 saddr != @atms counter",
            ),
        ] {
            let text = guarded(&[atm], devices);
            for rule in [
                rule,
                "    iifname { \"atmtun0\", \"atmtun1\" } ip daddr != @vips counter name inner_destination drop",
                "    iifname { \"atmtun0\", \"atmtun1\" } ip6 daddr != @vips6 counter name inner_destination drop",
            ] {
                assert!(text.contains(rule), "{rule} in {text}");
            }
            let anyone = guarded(&[], devices);
            assert!(!anyone.contains("!= @atms"), "{anyone}");
        }
    }
}
