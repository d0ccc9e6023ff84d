//! Addresses of host names from a file in the form of /etc/hosts: an address, then its names; `#` begins a comment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use crate::failure::Failure;

/// A thousand servers have some 50 KB of names; a file of more than this is another one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads a file: names in lower case, each with its first IPv4 address, or with its first IPv6 address if it has no other, as the
/// ATM that applies a configuration resolves them.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, IpAddr>, Failure> {
    let fail = |line, why| Failure::Hosts {
        path: path.to_owned(),
        line,
        why,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| Failure::File {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(1, format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    parse(&String::from_utf8_lossy(&bytes)).map_err(|(line, why)| fail(line, why))
}

fn parse(text: &str) -> Result<BTreeMap<String, IpAddr>, (usize, String)> {
    let mut hosts: BTreeMap<String, IpAddr> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_whitespace();
        let Some(address) = words.next() else {
            continue;
        };
        let problem = |why: &str| (at + 1, format!("`{address}` {why}"));
        // A scope (fe80::1%eth0) means an interface that the ATM does not have.
        let address: IpAddr = address
            .parse()
            .map_err(|_| problem("is no IP address: a line is an address and its names"))?;
        let mut names = words.peekable();
        if names.peek().is_none() {
            return Err(problem("has no name"));
        }
        for name in names {
            let known = hosts.entry(name.to_lowercase()).or_insert(address);
            if known.is_ipv6() && address.is_ipv4() {
                *known = address;
            }
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_name_holds_and_ipv4_before_ipv6() {
        let text = "\
# the cluster
::1 localhost
127.0.0.1\tlocalhost   # both
2001:db8::1 Atm1
10.0.0.1 atm1.example atm1

10.0.0.2 atm1
2001:db8::9 serv9
";
        let hosts = parse(text).unwrap();
        for (name, address) in [
            ("localhost", "127.0.0.1"),
            ("atm1", "10.0.0.1"),
            ("atm1.example", "10.0.0.1"),
            ("serv9", "2001:db8::9"),
        ] {
            assert_eq!(hosts[name], address.parse::<IpAddr>().unwrap(), "{name}");
        }
    }

    #[test]
    fn problems_have_their_line() {
        for (text, line) in [("10.0.0.1 a\nb 10.0.0.2\n", 2), ("10.0.0.1 # a\n", 1)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }
}
