//! Who else claims a VIP, since when, and how often it was heard (RFC 5227 §2.4).
//!
//! Invariant: an entry ends by itself, [`QUIET`] after the last claim.

use std::net::IpAddr;
use std::time::Duration;

use model::Instant;

use crate::MacAddr;
use crate::group::Claimant;

/// Entries kept: more than one host claims a VIP only where somebody makes addresses up, and 64 of them tell enough.
const CONFLICTS_MAX: usize = 64;
/// A conflict that was not heard for this long is over. A host that uses an address asks for its neighbours, in the
/// address's name, whenever it has not heard of them for about 30 s, and everybody hears that.
const QUIET: Duration = Duration::from_secs(60);

/// One host that claims, or is about to take, one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The VIP.
    pub vip: IpAddr,
    /// The Ethernet address that claims it.
    pub mac: MacAddr,
    /// Whose that is, as far as it was known at the last claim.
    pub claimant: Claimant,
    /// The first claim.
    pub first: Instant,
    /// The last claim.
    pub last: Instant,
    /// Claims heard.
    pub claims: u64,
}

/// The conflicts that are not over.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    all: Vec<Conflict>,
}

impl Conflicts {
    /// A claim was heard. `false`: of a new claimant, and there are too many.
    pub(crate) fn heard(
        &mut self,
        vip: IpAddr,
        mac: MacAddr,
        claimant: Claimant,
        now: Instant,
    ) -> bool {
        let known = self
            .all
            .iter_mut()
            .find(|conflict| (conflict.vip, conflict.mac) == (vip, mac));
        if let Some(conflict) = known {
            conflict.claimant = claimant;
            conflict.last = now;
            conflict.claims = conflict.claims.saturating_add(1);
            return true;
        }
        let room = self.all.len() < CONFLICTS_MAX;
        if room {
            self.all.push(Conflict {
                vip,
                mac,
                claimant,
                first: now,
                last: now,
                claims: 1,
            });
        }
        room
    }

    /// This Ethernet address turns out to be an ATM's: what it said when nobody knew was no conflict.
    pub(crate) fn forget(&mut self, mac: MacAddr) {
        self.all
            .retain(|conflict| conflict.mac != mac || conflict.claimant != Claimant::Unknown);
    }

    /// The conflicts, oldest first.
    pub(crate) fn all(&self) -> &[Conflict] {
        &self.all
    }

    /// When the next one is over.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.all.iter().map(|conflict| conflict.last + QUIET).min()
    }

    /// Ends those that were not heard for long.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.all.retain(|conflict| now < conflict.last + QUIET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 100));

    fn at(seconds: u64) -> Instant {
        Instant::BOOT + Duration::from_secs(seconds)
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    #[test]
    fn a_conflict_lasts_until_it_is_quiet() {
        let mut conflicts = Conflicts::default();
        assert_eq!(conflicts.poll_timeout(), None);
        for seconds in [10, 20, 50] {
            assert!(conflicts.heard(VIP, mac(1), Claimant::Foreign, at(seconds)));
        }
        let expected = Conflict {
            vip: VIP,
            mac: mac(1),
            claimant: Claimant::Foreign,
            first: at(10),
            last: at(50),
            claims: 3,
        };
        assert_eq!(conflicts.all(), std::slice::from_ref(&expected));
        assert_eq!(conflicts.poll_timeout(), Some(at(110)));
        conflicts.expire(at(109));
        assert_eq!(conflicts.all(), [expected]);
        conflicts.expire(at(110));
        assert_eq!(conflicts.all(), []);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_is_in_it() {
        let mut conflicts = Conflicts::default();
        for last in 0..64 {
            assert!(conflicts.heard(VIP, mac(last), Claimant::Foreign, at(1)));
        }
        assert!(!conflicts.heard(VIP, mac(64), Claimant::Foreign, at(2)));
        assert!(conflicts.heard(VIP, mac(63), Claimant::Foreign, at(2)));
        assert_eq!(conflicts.all().len(), 64);
        conflicts.expire(at(61));
        assert!(conflicts.heard(VIP, mac(64), Claimant::Foreign, at(61)));
        assert_eq!(conflicts.all().len(), 2);
    }

    #[test]
    fn what_an_atm_said_before_it_was_known_is_forgotten() {
        let mut conflicts = Conflicts::default();
        conflicts.heard(VIP, mac(1), Claimant::Unknown, at(1));
        conflicts.heard(VIP, mac(2), Claimant::Unknown, at(1));
        conflicts.forget(mac(1));
        let left: Vec<_> = conflicts.all().iter().map(|c| c.mac).collect();
        assert_eq!(left, [mac(2)]);
    }
}
