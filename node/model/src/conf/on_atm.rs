//! Servers that are ATMs as well: how they can be reached (ADR-0012).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::types::{Config, ForwardingMethod};

impl ForwardingMethod {
    /// What this method is when the server is an ATM; `None`: it cannot be.
    ///
    /// `direct` is `tunnel` then. A backup could not tell a frame for its server role from one of a client that has not heard of a
    /// takeover, and its kernel would reset the live connections of other servers; what comes in a tunnel is for its server role.
    /// Answers of a server behind NAT have to pass the active ATM; those of one on the active ATM do not.
    #[must_use]
    pub const fn towards_atm(self) -> Option<Self> {
        match self {
            Self::Tunnel | Self::Direct => Some(Self::Tunnel),
            Self::Nat => None,
        }
    }
}

impl Config {
    /// How packets reach the server at `address` whose line says `method`; `hosts` has the addresses of names. Everybody who
    /// forwards to a server, or prepares one, asks here.
    #[must_use]
    pub fn reached_by(
        &self,
        method: ForwardingMethod,
        address: IpAddr,
        hosts: &BTreeMap<String, IpAddr>,
    ) -> ForwardingMethod {
        let mut atms = self.atm_pool.atms.iter();
        let is_atm = atms.any(|atm| atm.host.address(hosts) == Some(address));
        if is_atm {
            // A version that is in force since before `nat` to an ATM was refused keeps what it says.
            method.towards_atm().unwrap_or(method)
        } else {
            method
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    const FILE: &str = "\
        Services\n  Service web tcp:80 connect\nEndServices\n\
        Servers\n  Server serv1 10.1.0.1 tunnel\nEndServers\n\
        ServerPool Pool\n  AddServer serv1 web/1\nEndServerPool\n\
        AtmPool ATMs\n  AddAtm 10.1.0.1\n  AddAtm atm2\nEndAtmPool\n\
        VirtualHost www\n  Address 10.1.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n";

    #[test]
    fn a_server_is_reached_as_its_line_says_unless_it_is_an_atm() {
        use ForwardingMethod::{Direct, Nat, Tunnel};
        let config = check("file", FILE).config.unwrap();
        let [first, named, none] = [[10, 1, 0, 1], [10, 1, 0, 2], [10, 1, 0, 3]].map(IpAddr::from);
        let hosts = BTreeMap::from([("atm2".to_owned(), named)]);
        for (method, address, expected) in [
            (Tunnel, first, Tunnel),
            (Direct, first, Tunnel),
            (Direct, named, Tunnel),
            (Direct, none, Direct),
            (Nat, none, Nat),
            (Nat, first, Nat),
        ] {
            let found = config.reached_by(method, address, &hosts);
            assert_eq!(found, expected, "{method:?} {address}");
        }
    }
}
