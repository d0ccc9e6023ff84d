//! The simulated cluster: who is where, and its clusterserver.conf.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use dataplane_core::MacAddr;

/// The one virtual service.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// Its port.
pub(crate) const PORT: u16 = 7000;
/// Real servers.
pub(crate) const SERVERS: u8 = 3;

/// ATMs of the largest simulated cluster.
pub(crate) const ATMS_MAX: usize = 9;

/// An ATM's address.
pub(crate) fn atm(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number(index, 1)).into()
}

/// Its Ethernet address.
pub(crate) fn atm_mac(index: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number(index, 1)])
}

/// An operator's address.
pub(crate) fn operator(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number(index, 200)).into()
}

/// A server's address.
pub(crate) fn server(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 50 + index)
}

/// Its Ethernet address.
pub(crate) fn server_mac(index: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, index])
}

/// Text of a version of the configuration; `value` is what the register holds.
pub(crate) fn text(atms: usize, value: u64) -> String {
    let mut text = format!(
        "# value {value}\nServices\n  Service lines tcp:{PORT} none\nEndServices\nServers\n"
    );
    for index in 0..SERVERS {
        let _ = writeln!(text, "  Server serv{index} {} direct", server(index));
    }
    text.push_str("EndServers\nServerPool Pool\n");
    for index in 0..SERVERS {
        let _ = writeln!(text, "  AddServer serv{index} lines/1");
    }
    text.push_str("EndServerPool\nAtmPool ATMs\n");
    for index in 0..atms {
        let _ = writeln!(text, "  AddAtm {}", atm(index));
    }
    let _ = write!(
        text,
        "  HeartBeatDelay 100ms\n  MaxLostHeartbeats 3\n  NumConnections 20000\n  ConnectionTimeout 3600\nEndAtmPool\n\
         VirtualHost sim\n  Address {VIP}\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n"
    );
    text
}

/// What the register holds in a version.
pub(crate) fn value(text: &str) -> Option<u64> {
    text.strip_prefix("# value ")?.lines().next()?.parse().ok()
}

fn number(index: usize, from: u8) -> u8 {
    from.saturating_add(u8::try_from(index).unwrap_or(u8::MAX))
}
