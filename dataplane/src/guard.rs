//! The guard: keeps the host's own kernel from what the forwarder answers for.
//!
//! nftables rules at netdev ingress drop packets to the VIPs, and what servers behind NAT answer to clients. AF_PACKET, XDP
//! and tc see every frame before them, so the engine loses nothing. Without them a host with ip_forward=1, or with a VIP on
//! lo, would send resets, redirects or host-unreachable to clients, or carry an answer on with the server's own address.
//!
//! ARP is neither IPv4 nor IPv6 and passes. So does a neighbour solicitation for a VIP: it goes to the solicited-node
//! multicast address (RFC 4291 §2.7.1). The unicast probe of a client that doubts its entry (RFC 4861 §7.3.3) goes to the
//! VIP itself and is dropped for the kernel, which has no such address; the engine has seen it.
//!
//! The rules stay when this process dies: a kernel without a forwarder beside it must be just as silent. So nothing is
//! removed on drop; `remove` is called by an orderly end.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use model::conf::Protocol;

/// Why the guard could not be changed. What was in place stays in place.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// There is no `nft` program.
    #[error("the program nft is missing: install the Debian package nftables")]
    NftMissing,
    /// An interface's name that cannot be written in a ruleset.
    #[error("interface name {0:?} cannot be guarded: it has a quote or a backslash")]
    Name(String),
    /// nft refused; its own words.
    #[error("nft refused the guard of the VIPs: {0}")]
    Refused(String),
    /// nft could not be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
}

/// What the kernel is kept from. Order and repetitions do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// Packets to these addresses.
    pub vips: Vec<IpAddr>,
    /// Packets from this address and port by this protocol, unless they go to one of `own`: answers to clients, which the
    /// forwarder carries on. (A fragment after the first has no port and passes: a client that gets it from an address
    /// it never spoke to throws it away.)
    pub nat_servers: Vec<(IpAddr, Protocol, u16)>,
    /// Addresses of this host: what servers answer to its health checks stays the kernel's.
    pub own: Vec<IpAddr>,
}

/// The guard on one interface. All calls run `nft` and wait for it (a few milliseconds).
#[derive(Clone, Debug)]
pub struct Guard {
    interface: String,
}

impl Guard {
    /// Puts the guard in place, in one transaction with the removal of an earlier one on this interface.
    pub fn install(interface: &str, guarded: &Guarded) -> Result<Self, GuardError> {
        if interface.contains(['"', '\\', '\n']) {
            return Err(GuardError::Name(interface.to_owned()));
        }
        let guard = Self {
            interface: interface.to_owned(),
        };
        guard.update(guarded)?;
        Ok(guard)
    }

    /// Replaces what is guarded: at no time is something unguarded that is in both.
    pub fn update(&self, guarded: &Guarded) -> Result<(), GuardError> {
        nft(&ruleset(&self.interface, guarded))
    }

    /// The name of the guard's table on an interface, of the family netdev.
    pub fn table(interface: &str) -> String {
        table_name(interface)
    }

    /// Takes the guard away.
    pub fn remove(self) -> Result<(), GuardError> {
        let table = table_name(&self.interface);
        // Declaring the table first makes the removal of one that is already gone succeed.
        nft(&format!(
            "table netdev {table} {{}}\ndelete table netdev {table}\n"
        ))
    }
}

fn ruleset(interface: &str, guarded: &Guarded) -> String {
    let table = table_name(interface);
    let mut rules = String::new();
    for family in [Family::V4, Family::V6] {
        let ip = family.keyword();
        if let Some(vips) = set(guarded.vips.iter().filter(|vip| family.has(vip))) {
            rules.push_str(&format!("    {ip} daddr {vips} counter drop\n"));
        }
    }
    for family in [Family::V4, Family::V6] {
        let ip = family.keyword();
        let elsewhere = set(guarded.own.iter().filter(|own| family.has(own)))
            .map_or(String::new(), |own| format!(" {ip} daddr != {own}"));
        for (protocol, word) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
            let answering = guarded
                .nat_servers
                .iter()
                .filter(|(server, by, _)| family.has(server) && *by == protocol)
                .map(|(server, _, port)| Answering(*server, *port));
            if let Some(answering) = set(answering) {
                rules.push_str(&format!(
                    "    {ip} saddr . {word} sport {answering}{elsewhere} counter drop\n"
                ));
            }
        }
    }
    format!(
        "table netdev {table} {{}}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain in {{\n    \
         type filter hook ingress device \"{interface}\" priority -500; policy accept;\n{rules}  }}\n}}\n"
    )
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn keyword(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn has(self, address: &IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Where a server answers from, as an element of a concatenation (nft(8), "Concatenations").
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Answering(IpAddr, u16);

impl fmt::Display for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}", self.0, self.1)
    }
}

/// An anonymous set, sorted and without repetitions; `None` without elements, for an empty one is a syntax error to nft.
fn set<T: Ord + fmt::Display>(elements: impl Iterator<Item = T>) -> Option<String> {
    let elements: BTreeSet<T> = elements.collect();
    if elements.is_empty() {
        return None;
    }
    let words: Vec<String> = elements.iter().map(T::to_string).collect();
    Some(format!("{{ {} }}", words.join(", ")))
}

/// `atm_guard_<interface>`, with bytes that an nft identifier cannot have written in hexadecimal.
fn table_name(interface: &str) -> String {
    let mut name = String::from("atm_guard_");
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
    }
    name
}

fn nft(ruleset: &str) -> Result<(), GuardError> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GuardError::NftMissing);
        }
        other => other.map_err(GuardError::Run)?,
    };
    // nft may refuse before it has read everything; then its own words matter, not the broken pipe.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(ruleset.as_bytes()));
    let output = child.wait_with_output().map_err(GuardError::Run)?;
    if !output.status.success() {
        return Err(GuardError::Refused(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    written.map_err(GuardError::Run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(vips: &[&str]) -> Guarded {
        Guarded {
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            ..Guarded::default()
        }
    }

    /// The rules of the chain, without counters and verdicts.
    fn rules(guarded: &Guarded) -> Vec<String> {
        ruleset("e0", guarded)
            .lines()
            .filter_map(|line| line.trim().strip_suffix(" counter drop"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_ruleset_replaces_itself() {
        let text = ruleset("e-0", &guarded(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
        assert!(
            text.starts_with(
                "table netdev atm_guard_e_2d0 {}\ndelete table netdev atm_guard_e_2d0\n"
            ),
            "{text}"
        );
        assert!(text.contains("device \"e-0\""), "{text}");
        assert!(
            text.contains("ip daddr { 10.0.0.1, 10.0.0.2 } counter drop"),
            "{text}"
        );
        assert_eq!(rules(&Guarded::default()), [""; 0]);
    }

    #[test]
    fn each_family_has_a_rule_of_its_own() {
        assert_eq!(
            rules(&guarded(&["2001:db8::1", "10.0.0.1", "2001:db8::"])),
            [
                "ip daddr { 10.0.0.1 }",
                "ip6 daddr { 2001:db8::, 2001:db8::1 }"
            ]
        );
        assert_eq!(rules(&guarded(&["::1:2"])), ["ip6 daddr { ::1:2 }"]);
    }

    #[test]
    fn answers_of_nat_servers_are_dropped_unless_they_are_to_the_host() {
        let mut guarded = guarded(&["10.0.0.1"]);
        let server = |address: &str, protocol, port| (address.parse().unwrap(), protocol, port);
        guarded.nat_servers = vec![
            server("10.0.0.9", Protocol::Tcp, 80),
            server("10.0.0.10", Protocol::Tcp, 80),
            server("10.0.0.9", Protocol::Tcp, 25),
            server("10.0.0.9", Protocol::Tcp, 80),
            server("10.0.0.9", Protocol::Udp, 53),
            server("fd00::9", Protocol::Tcp, 80),
        ];
        guarded.own = vec![
            "10.0.0.2".parse().unwrap(),
            "fd00::2".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
        ];
        assert_eq!(
            rules(&guarded),
            [
                "ip daddr { 10.0.0.1 }",
                "ip saddr . tcp sport { 10.0.0.9 . 25, 10.0.0.9 . 80, 10.0.0.10 . 80 } ip daddr != { 10.0.0.2 }",
                "ip saddr . udp sport { 10.0.0.9 . 53 } ip daddr != { 10.0.0.2 }",
                "ip6 saddr . tcp sport { fd00::9 . 80 } ip6 daddr != { fd00::2 }",
            ]
        );
        guarded.own.clear();
        assert_eq!(rules(&guarded)[3], "ip6 saddr . tcp sport { fd00::9 . 80 }");
    }

    #[test]
    fn a_name_that_would_leave_its_quotes_is_refused() {
        assert!(matches!(
            Guard::install("e\"0", &Guarded::default()),
            Err(GuardError::Name(_))
        ));
    }
}
