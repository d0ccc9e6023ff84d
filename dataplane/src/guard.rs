//! The guard of the VIP: keeps the host's own kernel from answering what is sent to it.
//!
//! nftables rules at netdev ingress drop IP packets to the VIPs. AF_PACKET, XDP and tc see every frame before them, so
//! the engine loses nothing; ARP passes, and so do neighbour solicitations to the VIP's multicast group. Without it a host with ip_forward=1, or with the VIP on lo,
//! would send resets, redirects or host-unreachable to clients.
//!
//! The rule stays when this process dies: a kernel without a forwarder beside it must be just as silent. So nothing is
//! removed on drop; `remove` is called by an orderly end.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

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
    #[error("nft refused the guard of the VIP: {0}")]
    Refused(String),
    /// nft could not be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
}

/// The guard on one interface. All calls run `nft` and wait for it (a few milliseconds).
#[derive(Clone, Debug)]
pub struct Guard {
    interface: String,
}

impl Guard {
    /// Puts the guard of `vips` in place, in one transaction with the removal of an earlier one on this interface.
    pub fn install(interface: &str, vips: &[IpAddr]) -> Result<Self, GuardError> {
        if interface.contains(['"', '\\', '\n']) {
            return Err(GuardError::Name(interface.to_owned()));
        }
        let guard = Self {
            interface: interface.to_owned(),
        };
        guard.update(vips)?;
        Ok(guard)
    }

    /// Replaces the guarded addresses: at no time is one that is in both lists unguarded.
    pub fn update(&self, vips: &[IpAddr]) -> Result<(), GuardError> {
        nft(&ruleset(&self.interface, vips))
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

fn ruleset(interface: &str, vips: &[IpAddr]) -> String {
    let table = table_name(interface);
    let mut sorted = vips.to_vec();
    sorted.sort();
    sorted.dedup();
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = sorted.into_iter().partition(IpAddr::is_ipv4);
    // An empty set is a syntax error to nft; no addresses, no rule.
    let rule = |family: &str, addresses: Vec<IpAddr>| match addresses.as_slice() {
        [] => String::new(),
        some => {
            let some: Vec<_> = some.iter().map(IpAddr::to_string).collect();
            format!(
                "    {family} daddr {{ {} }} counter drop\n",
                some.join(", ")
            )
        }
    };
    let rule = rule("ip", v4) + &rule("ip6", v6);
    format!(
        "table netdev {table} {{}}\ndelete table netdev {table}\ntable netdev {table} {{\n  chain in {{\n    \
         type filter hook ingress device \"{interface}\" priority -500; policy accept;\n{rule}  }}\n}}\n"
    )
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

    #[test]
    fn the_ruleset_replaces_itself() {
        let vips = [
            [10, 0, 0, 2].into(),
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
            "2001:db8::1".parse().unwrap(),
        ];
        let text = ruleset("e-0", &vips);
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
        assert!(
            text.contains("ip6 daddr { 2001:db8::1 } counter drop"),
            "{text}"
        );
        assert!(!ruleset("e0", &[]).contains("daddr"));
    }

    #[test]
    fn a_name_that_would_leave_its_quotes_is_refused() {
        assert!(matches!(
            Guard::install("e\"0", &[]),
            Err(GuardError::Name(_))
        ));
    }
}
