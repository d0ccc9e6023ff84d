//! The server role as commands for a shell: what `atmd` does on a server, for one where nobody wants a daemon.
//!
//! Invariant: the order is the daemon's. The VIPs come last and go first, so that the host never answers ARP for them.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::nft::{self, Devices, Guard, Rules};
use super::{
    ARP_ANNOUNCE, ARP_IGNORE, ARP_IGNORE_SILENT, Method, ServerPart, TUNNEL_DEVICE,
    TUNNEL_DEVICE_6IN4, TUNNEL_IPV6, VIPS_MAX, can_be_vip, mss, tunnel_mtu,
};

/// Where the settings of before are kept until they are put back. A reboot forgets it, and the settings with it.
const SAVED: &str = "/run/atm-server.sysctl";

/// What the commands are made from.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// What the configuration asks of the host.
    pub part: &'a ServerPart,
    /// The addresses that the tunnel may come from; empty: any.
    pub senders: &'a [IpAddr],
    /// The interface towards the ATMs and the clients.
    pub interface: &'a str,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// Why there are no commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// It would be more than a word to the shell.
    #[error("{0:?} is not the name of an interface as `ip link` shows it")]
    Interface(String),
    /// No TCP segment fits the tunnel.
    #[error("an MTU of {mtu} leaves no room for TCP inside the tunnel: {needed} or more is needed")]
    Mtu {
        /// What was given.
        mtu: u32,
        /// What is enough.
        needed: u32,
    },
    /// An address that no single host can have.
    #[error("{0} cannot be a VIP: choose a unicast address of the network")]
    NotUnicast(IpAddr),
    /// More than one host may serve.
    #[error("{0} VIPs on one server are more than the {VIPS_MAX} it may have")]
    TooManyVips(usize),
}

impl Setup<'_> {
    /// The commands that make a host the server.
    ///
    /// # Errors
    /// Every [`SetupError`]: what the daemon would refuse, too.
    pub fn commands(&self) -> Result<String, SetupError> {
        let ruleset = self.checked_ruleset()?;
        let mut text = self.title("becomes the server");
        if self.part.method == Method::Nat {
            text += "#\n# It is reached by nat alone, and nothing on it has to be changed.\n";
            return Ok(text + &self.gateway());
        }
        text += &format!(
            "# For a root shell: `sh -e`. May be run again. `--undo` prints the way back, which needs {SAVED}.\n\
             # None of the VIPs may be an address of another interface than lo: it would answer ARP for it.\n"
        );
        text += &self.gateway();
        text += &self.save();
        text += &self.silence();
        if let Some(ruleset) = &ruleset {
            text += REVERSE_PATH;
            text += &self.tunnel(ruleset);
        }
        text += "\n# The VIPs, last of all.\nip link set lo up\n";
        for vip in &self.part.vips {
            _ = match vip {
                IpAddr::V4(vip) => writeln!(text, "ip addr replace {vip}/32 dev lo"),
                // No duplicate address detection: the ATM owns it. Deprecated: no connection of the host comes from it.
                IpAddr::V6(vip) => writeln!(
                    text,
                    "ip addr replace {vip}/128 dev lo nodad preferred_lft 0"
                ),
            };
        }
        Ok(text)
    }

    /// The commands that put the host back as it was before [`commands`](Self::commands).
    ///
    /// # Errors
    /// As there.
    pub fn undo(&self) -> Result<String, SetupError> {
        let tunnelled = self.checked_ruleset()?.is_some();
        let mut text = self.title("is no longer the server");
        if self.part.method == Method::Nat {
            return Ok(text + "#\n# It is reached by nat alone: nothing on it was changed.\n");
        }
        text += "# For a root shell: `sh -e`. May be run again.\n\n# The VIPs, first of all.\n";
        for vip in &self.part.vips {
            let length = if vip.is_ipv4() { 32 } else { 128 };
            _ = writeln!(
                text,
                "ip addr del {vip}/{length} dev lo 2> /dev/null || true"
            );
        }
        if tunnelled {
            text += "\n# The tunnel.\n";
            for (device, _) in self.devices() {
                _ = writeln!(text, "ip link del {device} 2> /dev/null || true");
            }
            let table = nft::TABLE;
            text += &here(&format!("table {table}\ndelete table {table}\n"));
        }
        _ = write!(
            text,
            "\n# The settings of before; an interface that is gone has none.\n\
             [ ! -e {SAVED} ] || {{ sysctl -q -e -p {SAVED} && rm {SAVED}; }}\n"
        );
        Ok(text)
    }

    /// The nft table of a tunnel, and every refusal.
    fn checked_ruleset(&self) -> Result<Option<String>, SetupError> {
        if !is_plain(self.interface) {
            return Err(SetupError::Interface(self.interface.to_owned()));
        }
        let part = self.part;
        if part.vips.len() > VIPS_MAX {
            return Err(SetupError::TooManyVips(part.vips.len()));
        }
        if let Some(vip) = part.vips.iter().find(|vip| !can_be_vip(**vip)) {
            return Err(SetupError::NotUnicast(*vip));
        }
        if part.method != Method::Tunnel {
            return Ok(None);
        }
        let mtu = self.mtu;
        let mss = mss(mtu, part.address, self.has_ipv6())
            .map_err(|needed| SetupError::Mtu { mtu, needed })?;
        Ok(Some(nft::ruleset(&Rules {
            vips: &part.vips,
            mss,
            kernel_tunnel: Some(Guard {
                atms: self.senders,
                devices: Devices::needed(part.address, self.has_ipv6()),
            }),
        })))
    }

    fn has_ipv6(&self) -> bool {
        self.part.vips.iter().any(IpAddr::is_ipv6)
    }

    fn title(&self, what: &str) -> String {
        let (part, interface) = (self.part, self.interface);
        let method = match part.method {
            Method::Tunnel => "tunnel",
            Method::Direct => "direct",
            Method::Nat => "nat",
        };
        let mut text = format!(
            "# This host {what} {} ({}), method {method}, on {interface}",
            part.name, part.address
        );
        if part.method == Method::Tunnel {
            text += &format!(" with an MTU of {} bytes", self.mtu);
        }
        text + ".\n"
    }

    /// A route is the owner's to set.
    fn gateway(&self) -> String {
        self.part.nat_gateway.map_or_else(String::new, |gateway| {
            format!(
                "# Answers of services that are reached by nat have to go through the Gateway; routes are yours to set:\n\
                 #   ip route replace default via {gateway}\n"
            )
        })
    }

    fn save(&self) -> String {
        let mut keys = Vec::new();
        for interface in ["all", self.interface] {
            for key in ["arp_ignore", "arp_announce"] {
                keys.push(format!("net/ipv4/conf/{interface}/{key}"));
            }
        }
        let filters = if self.part.method == Method::Tunnel {
            // `all` first: on the way back it gets its filter before any interface loses the one it was lent.
            keys.push("net/ipv4/conf/all/rp_filter".to_owned());
            "\n    sysctl -a -r '^net\\.ipv4\\.conf\\..*\\.rp_filter$' 2> /dev/null"
        } else {
            ""
        };
        format!(
            "\n# The settings as they are, once.\n\
             if [ ! -e {SAVED} ]; then\n  {{\n    sysctl {}{filters}\n  }} > {SAVED}.new\n  mv {SAVED}.new {SAVED}\nfi\n",
            keys.join(" ")
        )
    }

    fn silence(&self) -> String {
        let silent = ARP_IGNORE_SILENT.map(|value| value.to_string()).join("|");
        format!(
            "\n# No ARP for the VIPs: the ATMs speak for them.\n\
             for dev in all {}; do\n  \
             case $(sysctl -n net/ipv4/conf/$dev/arp_ignore) in {silent}) ;; *) sysctl -w net/ipv4/conf/$dev/arp_ignore={ARP_IGNORE} ;; esac\n  \
             [ $(sysctl -n net/ipv4/conf/$dev/arp_announce) -ge {ARP_ANNOUNCE} ] || sysctl -w net/ipv4/conf/$dev/arp_announce={ARP_ANNOUNCE}\n\
             done\n",
            self.interface
        )
    }

    fn tunnel(&self, ruleset: &str) -> String {
        let (local, ipv6) = (self.part.address, self.has_ipv6());
        let mtu = tunnel_mtu(self.mtu, local, ipv6);
        let mut text = "\n# What comes through the tunnel is unpacked by the kernel.\n".to_owned();
        for (device, kind) in self.devices() {
            _ = write!(
                text,
                "ip link show dev {device} > /dev/null 2>&1 || ip link add {device} type {kind} local {local}\n\
                 ip link set {device} mtu {mtu}\n\
                 sysctl -w net/ipv4/conf/{device}/rp_filter=0\n"
            );
            if ipv6 {
                for (key, value) in TUNNEL_IPV6 {
                    _ = writeln!(text, "sysctl -w net/ipv6/conf/{device}/{key}={value}");
                }
            } else {
                // A kernel without IPv6 has nothing to switch off.
                _ = writeln!(text, "sysctl -e -w net/ipv6/conf/{device}/disable_ipv6=1");
            }
        }
        text += "\n# Segments of answers fit the tunnel, and it takes packets ";
        text += if self.senders.is_empty() {
            "to VIPs only.\n# From every sender: an ATM has no known address in the IP version of the tunnel.\n"
        } else {
            "from ATMs to VIPs only.\n"
        };
        text += &here(ruleset);
        for (device, _) in self.devices() {
            _ = writeln!(text, "ip link set {device} up");
        }
        text
    }

    fn devices(&self) -> Vec<(&'static str, &'static str)> {
        match Devices::needed(self.part.address, self.has_ipv6()) {
            Devices::Ipip => vec![(TUNNEL_DEVICE, "ipip")],
            Devices::IpipAndSit => vec![(TUNNEL_DEVICE, "ipip"), (TUNNEL_DEVICE_6IN4, "sit")],
            Devices::Ip6tnl => vec![(TUNNEL_DEVICE, "ip6tnl mode any")],
        }
    }
}

/// Without it on `all` no single device can be without one: the kernel takes the larger value of both.
const REVERSE_PATH: &str = "
# No reverse path filter on `all`, which would hold for the tunnel; each interface that had it from there gets it itself.
strict=$(sysctl -n net/ipv4/conf/all/rp_filter)
for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do
  case $filter in */atmtun[01]/*) continue ;; esac
  [ $(cat $filter) -ge $strict ] || echo $strict > $filter
done
sysctl -w net/ipv4/conf/all/rp_filter=0
";

fn here(transaction: &str) -> String {
    format!("nft -f - << 'END'\n{transaction}END\n")
}

/// Whether a name can be one of an interface (IFNAMSIZ with its zero byte) and is one word to every shell.
fn is_plain(interface: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
    (1..=15).contains(&interface.len())
        && interface.bytes().all(word)
        && !interface.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(address: &str, method: Method, vips: &[&str]) -> ServerPart {
        ServerPart {
            name: "serv1".to_owned(),
            address: address.parse().unwrap(),
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            method,
            nat_gateway: None,
        }
    }

    fn setup<'a>(part: &'a ServerPart, senders: &'a [IpAddr]) -> Setup<'a> {
        Setup {
            part,
            senders,
            interface: "eth0",
            mtu: 1500,
        }
    }

    /// Where each of `words` stands first, which has to be in order.
    fn in_order(text: &str, words: &[&str]) {
        let mut at = 0;
        for word in words {
            let found = text[at..].find(word);
            assert!(
                found.is_some(),
                "{word:?} is not there, or too early, in\n{text}"
            );
            at += found.unwrap();
        }
    }

    #[test]
    fn the_vips_come_last_and_go_first() {
        let both = ["10.1.0.100", "2001:db8::100"];
        let part = part("10.1.0.11", Method::Tunnel, &both);
        let senders = ["10.1.0.1".parse().unwrap()];
        let setup = setup(&part, &senders);
        in_order(
            &setup.commands().unwrap(),
            &[
                "> /run/atm-server.sysctl.new\n  mv",
                "in 1|2|8)",
                "arp_ignore=1",
                "arp_announce=2",
                "all/rp_filter=0",
                "ip link add atmtun0 type ipip local 10.1.0.11\n",
                "ip link set atmtun0 mtu 1480",
                "ip link add atmtun1 type sit local 10.1.0.11\n",
                "addr_gen_mode=1",
                "elements = { 10.1.0.100 }",
                "maxseg size set 1440",
                "maxseg size set 1420",
                "ip saddr != @atms",
                "ip link set atmtun0 up",
                "ip link set atmtun1 up",
                "ip addr replace 10.1.0.100/32 dev lo\n",
                "ip addr replace 2001:db8::100/128 dev lo nodad preferred_lft 0",
            ],
        );
        in_order(
            &setup.undo().unwrap(),
            &[
                "ip addr del 10.1.0.100/32 dev lo",
                "ip addr del 2001:db8::100/128 dev lo",
                "ip link del atmtun0",
                "ip link del atmtun1",
                "delete table inet atm_server",
                "sysctl -q -e -p /run/atm-server.sysctl && rm",
            ],
        );
    }

    #[test]
    fn direct_needs_no_tunnel_and_nat_nothing_at_all() {
        let direct = part("10.1.0.12", Method::Direct, &["10.1.0.100"]);
        let setup_direct = setup(&direct, &[]);
        for text in [
            setup_direct.commands().unwrap(),
            setup_direct.undo().unwrap(),
        ] {
            assert!(!text.contains("atmtun") && !text.contains("nft"), "{text}");
            assert!(!text.contains("rp_filter"), "{text}");
        }
        let nat = ServerPart {
            nat_gateway: "192.168.7.1".parse().ok(),
            ..part("192.168.7.13", Method::Nat, &[])
        };
        let setup_nat = setup(&nat, &[]);
        let text = setup_nat.commands().unwrap();
        assert!(text.contains("default via 192.168.7.1"), "{text}");
        for text in [text, setup_nat.undo().unwrap()] {
            assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        }
    }

    #[test]
    fn over_ipv6_one_device_takes_both_and_unknown_atms_may_send() {
        let part = part("2001:db8::11", Method::Tunnel, &["10.1.0.100"]);
        let text = setup(&part, &[]).commands().unwrap();
        in_order(
            &text,
            &[
                "ip link add atmtun0 type ip6tnl mode any local 2001:db8::11\n",
                "mtu 1460",
                "disable_ipv6=1",
                "From every sender",
                "maxseg size set 1420",
            ],
        );
        assert!(!text.contains("!= @atms"), "{text}");
    }

    #[test]
    fn what_the_daemon_refuses_is_refused() {
        let small = part("10.1.0.11", Method::Tunnel, &["10.1.0.100"]);
        let refused = Setup {
            mtu: 100,
            ..setup(&small, &[])
        };
        assert_eq!(
            refused.commands(),
            Err(SetupError::Mtu {
                mtu: 100,
                needed: 576
            })
        );
        let loopback = part("10.1.0.11", Method::Direct, &["127.0.0.1"]);
        assert!(matches!(
            setup(&loopback, &[]).commands(),
            Err(SetupError::NotUnicast(_))
        ));
        let direct = part("10.1.0.11", Method::Direct, &["10.1.0.100"]);
        for interface in [
            "",
            "eth0; reboot",
            "averyveryverylongname",
            "..",
            "a b",
            "-r",
        ] {
            let named = Setup {
                interface,
                ..setup(&direct, &[])
            };
            assert!(
                matches!(named.undo(), Err(SetupError::Interface(_))),
                "{interface:?}"
            );
        }
    }
}
