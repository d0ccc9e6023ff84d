//! The other ATMs as this interface sees them: where they are, which of them is active, and whose Ethernet address is whose.
//!
//! Invariant: an Ethernet address counts as no ATM's only when those of all other ATMs are known. An address once heard
//! stays known when its host falls silent: what it sent may still arrive.

use std::net::IpAddr;

use model::Instant;
use model::state::{State, Tenure};

use crate::counters::Counters;
use crate::neighbours::Neighbours;
use crate::{Interface, MacAddr, Sink};

/// The other ATMs, as the replicated state knows them. AtmPool bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherAtms {
    /// Their addresses, as far as they are on the interface's own network.
    pub here: Vec<IpAddr>,
    /// There are more, whose address is on another network: nobody can say which Ethernet address is theirs.
    pub elsewhere: bool,
    /// The active one, by the last tenure; `None`: none is, or it is this ATM, or it is elsewhere.
    pub active: Option<IpAddr>,
}

/// Who claims a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claimant {
    /// No ATM.
    Foreign,
    /// The ATM with this address.
    Atm(IpAddr),
    /// The Ethernet address of an ATM is not known, and this may be it.
    Unknown,
}

/// The other ATMs, and what was heard of them.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// `None` until the replicated state was told.
    told: Option<OtherAtms>,
    /// The last Ethernet address of each of `here`, in its order.
    heard: Vec<Option<MacAddr>>,
    neighbours: Neighbours,
}

impl OtherAtms {
    /// The ATMs of a state besides the one whose addresses are `ours`. `is_here`: whether an address is on the interface's
    /// own network. A witness is left out: it has no traffic. `tenure` may be younger than the state's own.
    pub fn of(
        state: &State,
        tenure: Option<&Tenure>,
        ours: impl Fn(IpAddr) -> bool,
        is_here: impl Fn(IpAddr) -> bool,
    ) -> Self {
        let mut others = Self::default();
        let Some(current) = state.current() else {
            return others;
        };
        let active = tenure.filter(|tenure| !tenure.ended);
        for atm in &current.config.atm_pool.atms {
            let Some(address) = current.address(&atm.host) else {
                others.elsewhere = true;
                continue;
            };
            if ours(address) {
                continue;
            }
            let is_active = active.is_some_and(|tenure| tenure.name == atm.host.to_string());
            if !is_here(address) {
                others.elsewhere |= !atm.witness || is_active;
                continue;
            }
            others.here.push(address);
            if is_active {
                others.active = Some(address);
            }
        }
        others
    }
}

impl Group {
    /// Takes what the replicated state says now; who was there before stays known.
    pub(crate) fn set(&mut self, others: OtherAtms, now: Instant) {
        let same = self.told.as_ref().map(|told| &told.here) == Some(&others.here);
        if !same {
            let heard = |address: &IpAddr| self.heard_of(*address);
            self.heard = others.here.iter().map(heard).collect();
            self.neighbours.install(others.here.iter().copied(), now);
        }
        self.told = Some(others);
    }

    /// Somebody says that `address` is at `mac`. `true`: it is an ATM's, and was not known to be.
    pub(crate) fn learn(&mut self, address: IpAddr, mac: MacAddr, now: Instant) -> bool {
        self.neighbours.learn(address, mac, now);
        let Some(at) = self.position(address) else {
            return false;
        };
        let heard = self.heard.get_mut(at);
        heard.is_some_and(|heard| heard.replace(mac) != Some(mac))
    }

    /// Whose this Ethernet address is. Ours is nobody else's: the caller leaves it out.
    pub(crate) fn owner(&self, mac: MacAddr) -> Claimant {
        let Some(told) = &self.told else {
            return Claimant::Unknown;
        };
        let known = told.here.iter().zip(&self.heard);
        if let Some((&address, _)) = known.clone().find(|(_, heard)| **heard == Some(mac)) {
            return Claimant::Atm(address);
        }
        if told.elsewhere || known.clone().any(|(_, heard)| heard.is_none()) {
            return Claimant::Unknown;
        }
        Claimant::Foreign
    }

    /// Whether a frame from this Ethernet address came from its sender, or from the sender's router: no ATM passed it on.
    pub(crate) fn is_direct(&self, mac: MacAddr) -> bool {
        self.told.is_none() || self.owner(mac) == Claimant::Foreign
    }

    /// Whether ATMs are elsewhere, so that a claim of a VIP can be an honest one and nobody can tell.
    pub(crate) fn has_unknowable(&self) -> bool {
        self.told.as_ref().is_none_or(|told| told.elsewhere)
    }

    /// The active ATM, to pass a frame on to that came from the Ethernet address `from`. `None`: there is none that answers, or
    /// the frame may be an ATM's own, which is passed on by nobody.
    pub(crate) fn relay_to(&self, from: MacAddr) -> Option<MacAddr> {
        let active = self.told.as_ref()?.active?;
        let mac = self.neighbours.mac(self.neighbours.position(active)?)?;
        (self.owner(from) == Claimant::Foreign).then_some(mac)
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.neighbours.poll_timeout()
    }

    /// Asks for the ATMs' Ethernet addresses, as for next hops.
    pub(crate) fn ask<S: Sink>(
        &mut self,
        interface: &Interface,
        now: Instant,
        out: &mut S,
        counters: &mut Counters,
    ) {
        self.neighbours.ask(interface, now, out, counters);
    }

    fn position(&self, address: IpAddr) -> Option<usize> {
        let here = &self.told.as_ref()?.here;
        here.iter().position(|atm| *atm == address)
    }

    fn heard_of(&self, address: IpAddr) -> Option<MacAddr> {
        self.heard.get(self.position(address)?).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::command::{Command, Control};
    use model::ids::NodeId;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 3));

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn group(active: Option<IpAddr>, elsewhere: bool) -> Group {
        let mut group = Group::default();
        let here = vec![A, B];
        let others = OtherAtms {
            here,
            elsewhere,
            active,
        };
        group.set(others, Instant::BOOT);
        group
    }

    #[test]
    fn an_address_is_foreign_only_when_all_atms_are_known() {
        assert_eq!(Group::default().owner(mac(9)), Claimant::Unknown);
        let mut group = group(None, false);
        assert!(group.learn(A, mac(1), Instant::BOOT));
        assert_eq!(group.owner(mac(1)), Claimant::Atm(A));
        assert_eq!(group.owner(mac(9)), Claimant::Unknown);
        assert!(group.learn(B, mac(2), Instant::BOOT));
        assert!(!group.learn(B, mac(2), Instant::BOOT), "nothing new");
        assert!(!group.learn(FAR, mac(9), Instant::BOOT), "no ATM");
        assert_eq!(group.owner(mac(9)), Claimant::Foreign);
    }

    #[test]
    fn with_an_atm_elsewhere_nothing_is_foreign_and_nothing_passed_on() {
        let mut group = group(Some(A), true);
        group.learn(A, mac(1), Instant::BOOT);
        group.learn(B, mac(2), Instant::BOOT);
        assert_eq!(group.owner(mac(9)), Claimant::Unknown);
        assert_eq!(group.relay_to(mac(9)), None);
    }

    #[test]
    fn what_may_be_an_atms_is_never_passed_on() {
        let mut group = group(Some(A), false);
        group.learn(A, mac(1), Instant::BOOT);
        assert_eq!(group.relay_to(mac(9)), None, "it may be B's");
        group.learn(B, mac(2), Instant::BOOT);
        assert_eq!(group.relay_to(mac(9)), Some(mac(1)));
        assert_eq!(group.relay_to(mac(1)), None);
        assert_eq!(group.relay_to(mac(2)), None);
    }

    #[test]
    fn who_stays_in_the_group_stays_known() {
        let mut group = group(Some(A), false);
        group.learn(A, mac(1), Instant::BOOT);
        group.learn(B, mac(2), Instant::BOOT);
        let others = OtherAtms {
            here: vec![B],
            elsewhere: false,
            active: Some(B),
        };
        group.set(others, Instant::BOOT);
        assert_eq!(group.relay_to(mac(1)), Some(mac(2)), "A is none any more");
        assert_eq!(group.owner(mac(2)), Claimant::Atm(B));
    }

    #[test]
    fn the_state_says_who_is_where_and_who_is_active() {
        let mut state = State::default();
        let source = "Services\n  Service web tcp:80 connect\nEndServices\n\
             Servers\n  Server s 10.0.0.11 tunnel\nEndServers\n\
             ServerPool Pool\n  AddServer s web/1\nEndServerPool\n\
             AtmPool ATMs\n  AddAtm 10.0.0.1\n  AddAtm 10.0.0.2\n  AddAtm 10.0.0.3\nEndAtmPool\n\
             VirtualHost www.my.org\n  Address 10.0.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n";
        let _applied = state.apply(Command::Control(Control::ApplyConfig {
            source: source.to_owned(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "10.0.0.1".to_owned(),
        }));
        let ours = |address| address == IpAddr::from([10, 0, 0, 3]);
        let others = |state: &State| OtherAtms::of(state, state.tenure(), ours, |_| true);
        let mut expected = OtherAtms {
            here: vec![A, B],
            elsewhere: false,
            active: None,
        };
        assert_eq!(others(&state), expected, "nobody is active");
        let begin = |node, name: &str, term| {
            Command::Control(Control::BeginEpoch {
                node: NodeId(node),
                name: name.to_owned(),
                term,
                lease: std::time::Duration::from_millis(100),
            })
        };
        let _begun = state.apply(begin(2, "10.0.0.2", 1));
        expected.active = Some(B);
        assert_eq!(others(&state), expected);
        let epoch = state.tenure().unwrap().epoch;
        let _ended = state.apply(Command::Control(Control::EndEpoch { epoch }));
        expected.active = None;
        assert_eq!(others(&state), expected, "it fell silent in order");
        let _begun = state.apply(begin(3, "10.0.0.3", 2));
        assert_eq!(others(&state), expected, "this ATM is no other");
        let elsewhere = OtherAtms::of(&state, state.tenure(), ours, |address| address == A);
        assert_eq!((elsewhere.here, elsewhere.elsewhere), (vec![A], true));
    }
}
