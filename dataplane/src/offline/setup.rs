//! From the options of a run to the replicated state and the interface of the ATM that it plays.
//!
//! The configuration goes the daemon's way: a committed command, applied to the state.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use dataplane_core::{Interface, MacAddr};
use model::command::{Command, Control, Refusal, Response};
use model::ids::{Epoch, NodeId};
use model::state::State;

use super::network::Network;

/// MTU of Ethernet (RFC 894).
const MTU: u16 = 1500;
/// Prefix of the ATM's network where the file has no `NetworkMask`.
const PREFIX_LEN: u8 = 24;

/// The lease that the tenure is recorded with; nobody waits for it.
const LEASE: Duration = Duration::from_secs(1);

/// What an ATM is made of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The configuration.
    pub source: String,
    /// Addresses of the names in it.
    pub hosts: BTreeMap<String, IpAddr>,
    /// The ATM's own addresses, one of a family; none: that of the first `AddAtm`. The first one gives the Ethernet
    /// address.
    pub own: Vec<IpAddr>,
    /// Ethernet addresses of hosts (the ATM itself among them) that do not follow the rule: 02:00, then the IPv4 address or
    /// the last four bytes of the IPv6 address.
    pub neighbours: BTreeMap<IpAddr, MacAddr>,
    /// MTU of the ATM's interface in bytes; none: that of Ethernet, 1500.
    pub mtu: Option<u16>,
    /// The VLAN whose interface it is, 1 to 4094; none: it is the one without tags.
    pub vlan: Option<u16>,
}

/// Why there is nothing to explain with.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration is refused, as a cluster would.
    #[error("the configuration is refused: {0}")]
    Refused(Refusal),
    /// The configuration names no ATM with an address.
    #[error("the first ATM of the configuration has no address: give it with --own")]
    NoOwn,
    /// Two addresses of one family.
    #[error("{0} and {1} are of one family: an ATM has one address of its own for each")]
    TwoOwn(IpAddr, IpAddr),
    /// A VIP is never an address of an ATM.
    #[error("{0} is a virtual address, it cannot be the ATM's own")]
    OwnIsVirtual(IpAddr),
}

/// The state of a cluster of one that has taken the configuration and made its ATM the active one.
pub(super) fn replicated(
    source: String,
    hosts: BTreeMap<String, IpAddr>,
) -> Result<(State, Epoch), SetupError> {
    let mut state = State::default();
    let mut apply = |control| {
        if let Response::Refused(refusal) = state.apply(Command::Control(control)) {
            return Err(SetupError::Refused(refusal));
        }
        Ok(())
    };
    let by = "offline".to_owned();
    apply(Control::ApplyConfig {
        source,
        hosts,
        expected: None,
        by: by.clone(),
    })?;
    apply(Control::BeginEpoch {
        node: NodeId(1),
        name: by,
        term: 1,
        lease: LEASE,
    })?;
    let epoch = state.tenure().map_or(Epoch(0), |tenure| tenure.epoch);
    Ok((state, epoch))
}

/// The interface of the ATM: its own addresses, as given or that of the first `AddAtm`.
pub(super) fn interface(
    own: &[IpAddr],
    mtu: Option<u16>,
    state: &State,
    network: &Network,
) -> Result<Interface, SetupError> {
    let own = Own::of(own, state)?;
    let mac = network.mac(own.first);
    let mask = state
        .current()
        .and_then(|current| current.config.network_mask);
    Ok(Interface {
        mac,
        address: own.v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix_len: mask.map_or(PREFIX_LEN, |mask| mask.0),
        address6: own.v6,
        link_local: Some(link_local(mac)),
        mtu: mtu.unwrap_or(MTU),
    })
}

/// The ATM's own addresses.
struct Own {
    first: IpAddr,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Own {
    fn of(given: &[IpAddr], state: &State) -> Result<Self, SetupError> {
        let current = state.current();
        let first_atm = || {
            let current = current?;
            current.address(&current.config.atm_pool.atms.first()?.host)
        };
        let given = match given {
            [] => vec![first_atm().ok_or(SetupError::NoOwn)?],
            given => given.to_vec(),
        };
        let mut own = Self {
            first: given[0],
            v4: None,
            v6: None,
        };
        for address in given {
            if is_virtual(state, address) {
                return Err(SetupError::OwnIsVirtual(address));
            }
            let other = match address {
                IpAddr::V4(v4) => own.v4.replace(v4).map(IpAddr::from),
                IpAddr::V6(v6) => own.v6.replace(v6).map(IpAddr::from),
            };
            if let Some(other) = other {
                return Err(SetupError::TwoOwn(other, address));
            }
        }
        Ok(own)
    }
}

pub(super) fn is_virtual(state: &State, address: IpAddr) -> bool {
    state.services().values().any(|entry| entry.vip == address)
}

/// The link-local address that an interface gives itself (RFC 4291 §2.5.6 and appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_made_of_the_ethernet_address() {
        let mac = MacAddr([0x02, 0x00, 0x0a, 0x00, 0x00, 0x01]);
        assert_eq!(link_local(mac).to_string(), "fe80::aff:fe00:1");
    }
}
