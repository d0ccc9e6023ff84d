//! Which of an interface's IPv6 addresses are ours to use.

use std::fs;
use std::net::Ipv6Addr;

/// Of the calling thread's network namespace; `/proc/net` would be that of the process. A kernel without IPv6 has no such file.
const ADDRESSES: &str = "/proc/thread-self/net/if_inet6";

/// Flags of an address (linux/if_addr.h); the file shows the lower eight bits.
mod flag {
    /// Made up for privacy and given up within a day (RFC 8981).
    pub(super) const TEMPORARY: u8 = 0x01;
    /// In use although duplicate address detection still runs (RFC 4429).
    pub(super) const OPTIMISTIC: u8 = 0x04;
    /// Somebody else has it (RFC 4862 §5.4.5).
    pub(super) const DUPLICATE: u8 = 0x08;
    /// Not for anything new (RFC 4862 §5.5.4).
    pub(super) const DEPRECATED: u8 = 0x20;
    /// Duplicate address detection still runs (RFC 4862 §5.4).
    pub(super) const TENTATIVE: u8 = 0x40;
    /// Configured, without a lifetime.
    pub(super) const PERMANENT: u8 = 0x80;
}

/// The IPv6 addresses an interface sends from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses6 {
    /// Global or unique local (RFC 4193): source of the outer header of a tunnel over IPv6.
    pub address: Option<Ipv6Addr>,
    /// Link-local: source of neighbour solicitations.
    pub link_local: Option<Ipv6Addr>,
}

/// The IPv6 addresses of an interface of this thread's network namespace that are fit for use. `preferred` is taken when
/// the interface has it; else a permanent one before one with a lifetime, a global one before a unique local one, and
/// then the lowest: the same choice with every look. Temporary and deprecated addresses, and those whose duplicate
/// address detection has not ended well, are never chosen.
pub fn addresses6(interface: &str, preferred: Option<Ipv6Addr>) -> Addresses6 {
    choose(
        &fs::read_to_string(ADDRESSES).unwrap_or_default(),
        interface,
        preferred,
    )
}

#[derive(Clone, Copy)]
struct Entry {
    address: Ipv6Addr,
    flags: u8,
}

impl Entry {
    /// Columns: address, interface index, prefix length, scope, flags, all in hexadecimal, and the interface's name
    /// (Linux net/ipv6/addrconf.c, `if6_seq_show`).
    fn parse(line: &str, interface: &str) -> Option<Self> {
        let mut columns = line.split_ascii_whitespace();
        let address = u128::from_str_radix(columns.next()?, 16).ok()?;
        let flags = u8::from_str_radix(columns.nth(3)?, 16).ok()?;
        (columns.next()? == interface).then_some(Self {
            address: address.into(),
            flags,
        })
    }

    const fn has(self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The kernel would send from it.
    const fn valid(self) -> bool {
        !self.has(flag::DUPLICATE) && (!self.has(flag::TENTATIVE) || self.has(flag::OPTIMISTIC))
    }

    const fn lasting(self) -> bool {
        self.valid() && !self.has(flag::TEMPORARY | flag::DEPRECATED)
    }

    /// Fit to be the source of packets that leave the link.
    const fn global(self) -> bool {
        let address = self.address;
        !(address.is_unicast_link_local()
            || address.is_multicast()
            || address.is_loopback()
            || address.is_unspecified())
    }

    /// The lowest is the best.
    const fn rank(self) -> (bool, bool, Ipv6Addr) {
        (
            !self.has(flag::PERMANENT),
            self.address.is_unique_local(),
            self.address,
        )
    }
}

fn choose(table: &str, interface: &str, preferred: Option<Ipv6Addr>) -> Addresses6 {
    let entries = table
        .lines()
        .filter_map(|line| Entry::parse(line, interface))
        .filter(|entry| entry.valid());
    let best = |fit: fn(Entry) -> bool| {
        entries
            .clone()
            .filter(|entry| entry.lasting() && fit(*entry))
            .min_by_key(|entry| entry.rank())
            .map(|entry| entry.address)
    };
    // Whoever named the address wants it, deprecated or not.
    let named = entries
        .clone()
        .find(|entry| Some(entry.address) == preferred && entry.global())
        .map(|entry| entry.address);
    Addresses6 {
        address: named.or_else(|| best(Entry::global)),
        link_local: best(|entry| entry.address.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        00000000000000000000000000000001 01 80 10 80       lo\n\
        fe80000000000000aaaaaafffeaaaaaa 02 40 20 80       e0\n\
        20010db8000000000000000000000020 02 40 00 80       e0\n\
        20010db8000000000000000000000010 02 40 00 00       e0\n\
        20010db8000000000000000000000005 02 40 00 01       e0\n\
        20010db8000000000000000000000004 02 40 00 20       e0\n\
        20010db8000000000000000000000003 02 40 00 c0       e0\n\
        20010db8000000000000000000000002 02 40 00 88       e0\n\
        fd000000000000000000000000000001 02 40 00 80       e0\n\
        fe80000000000000bbbbbbfffebbbbbb 03 40 20 c0       e1\n\
        20010db8000000000000000000000099 03 40 00 44       e1\n\
        20010db8000000000000000000000098 03 40 00 00       e10\n";

    fn address(text: &str) -> Option<Ipv6Addr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_lasting_address_is_chosen() {
        let chosen = choose(TABLE, "e0", None);
        assert_eq!(chosen.address, address("2001:db8::20"));
        assert_eq!(chosen.link_local, address("fe80::aaaa:aaff:feaa:aaaa"));
        // Without a permanent global one: a permanent unique local one, then one with a lifetime.
        let without = |gone: &[&str]| {
            let table: Vec<&str> = TABLE
                .lines()
                .filter(|line| !gone.iter().any(|gone| line.starts_with(gone)))
                .collect();
            choose(&table.join("\n"), "e0", None).address
        };
        let first = "20010db8000000000000000000000020";
        assert_eq!(without(&[first]), address("fd00::1"));
        assert_eq!(without(&[first, "fd00"]), address("2001:db8::10"));
        // What is temporary, deprecated, tentative or a duplicate is never chosen.
        let second = "20010db8000000000000000000000010";
        assert_eq!(without(&[first, "fd00", second]), None);
    }

    #[test]
    fn a_preferred_address_is_taken_if_the_interface_has_it() {
        let chosen = |preferred| choose(TABLE, "e0", address(preferred)).address;
        assert_eq!(chosen("fd00::1"), address("fd00::1"));
        assert_eq!(chosen("2001:db8::4"), address("2001:db8::4"), "deprecated");
        assert_eq!(chosen("2001:db8::3"), address("2001:db8::20"), "tentative");
        assert_eq!(chosen("2001:db8::99"), address("2001:db8::20"), "elsewhere");
        assert_eq!(chosen("fe80::aaaa:aaff:feaa:aaaa"), address("2001:db8::20"));
    }

    #[test]
    fn an_optimistic_address_counts_and_a_tentative_one_does_not() {
        let chosen = choose(TABLE, "e1", None);
        assert_eq!(chosen.address, address("2001:db8::99"));
        assert_eq!(chosen.link_local, None);
    }

    #[test]
    fn lines_that_cannot_be_read_are_no_addresses() {
        for table in [
            "",
            "zz 02 40 00 80 e0",
            "20010db8000000000000000000000020 02 40 00",
            "1 2 3 4 100 e0",
        ] {
            assert_eq!(choose(table, "e0", None), Addresses6::default(), "{table}");
        }
    }
}
