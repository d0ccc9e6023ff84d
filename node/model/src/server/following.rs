//! Whose word a server follows, of all ATMs that tell it what to do.
//!
//! Invariants: of one group no version is ever followed after a higher one, and of one version nothing that asks for more after
//! what asks for less; another group is followed only while more of the ATMs that can be heard speak for it than for the one that
//! is followed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Method, ServerPart};
use crate::ids::ConfigNumber;

/// What one version of the configuration asks of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// The group of ATMs whose version it is.
    pub group: Vec<u8>,
    /// The version. 0: none, as what a file says.
    pub version: ConfigNumber,
    /// What the host has to do; `None`: it is no server of this version. As the connections end that were opened under earlier
    /// versions it becomes less.
    pub part: Option<ServerPart>,
    /// The ATMs of the version: as AtmPool writes them, and their addresses.
    pub atms: Vec<(String, IpAddr)>,
}

impl NodePlan {
    /// What is said later in the life of a group ranks higher: a higher version, and within a version what asks for less, for
    /// [remnants](super::remnants) only shrink.
    fn rank(&self) -> (ConfigNumber, Reverse<usize>) {
        let asks = self.part.as_ref().map_or(0, |part| {
            1 + 2 * part.vips.len() + usize::from(part.method == Method::Tunnel)
        });
        (self.version, Reverse(asks))
    }
}

/// The word that is followed, and what each ATM said last.
#[derive(Clone, Debug)]
pub struct Following {
    kept: NodePlan,
    heard: BTreeMap<IpAddr, NodePlan>,
}

impl Following {
    /// Begins with `kept`, until an ATM says something newer.
    #[must_use]
    pub fn new(kept: NodePlan) -> Self {
        Self {
            kept,
            heard: BTreeMap::new(),
        }
    }

    /// What is followed.
    #[must_use]
    pub fn kept(&self) -> &NodePlan {
        &self.kept
    }

    /// The ATM at `from` says `plan`. Returns whether another word is followed from now on.
    pub fn heard(&mut self, from: IpAddr, plan: NodePlan) -> bool {
        self.heard.insert(from, plan);
        self.settle()
    }

    /// The ATM at `from` cannot be heard any more. What it said last stays in force, unless the other ATMs are of another group.
    pub fn lost(&mut self, from: IpAddr) -> bool {
        self.heard.remove(&from);
        self.settle()
    }

    /// The ATMs that can be heard and speak for another group than the one that is followed.
    #[must_use]
    pub fn strangers(&self) -> Vec<IpAddr> {
        let heard = self.heard.iter();
        let strangers = heard.filter(|(_, plan)| plan.group != self.kept.group);
        strangers.map(|(from, _)| *from).collect()
    }

    fn settle(&mut self) -> bool {
        let voices = |group: &[u8]| {
            let heard = self.heard.values();
            heard.filter(|plan| plan.group == group).count()
        };
        // Of equally many the group that is followed; of two others the one of the lower address, whichever came first.
        let mut group = self.kept.group.as_slice();
        for plan in self.heard.values() {
            if voices(&plan.group) > voices(group) {
                group = &plan.group;
            }
        }
        let of_group = self.heard.values().filter(|plan| plan.group == group);
        let newest = of_group.max_by_key(|plan| plan.rank());
        match newest {
            Some(plan) if plan.group != self.kept.group || plan.rank() > self.kept.rank() => {
                self.kept = plan.clone();
                true
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(group: u8, version: u64) -> NodePlan {
        NodePlan {
            group: vec![group],
            version: ConfigNumber(version),
            part: None,
            atms: vec![],
        }
    }

    fn atm(n: u8) -> IpAddr {
        [10, 1, 0, n].into()
    }

    fn followed(following: &Following) -> (u8, u64) {
        let kept = following.kept();
        (kept.group.first().copied().unwrap_or(0), kept.version.0)
    }

    #[test]
    fn the_highest_version_is_followed_and_never_an_older_one() {
        let mut following = Following::new(plan(1, 3));
        assert!(!following.heard(atm(1), plan(1, 3)), "ties are the same");
        assert!(!following.heard(atm(2), plan(1, 2)), "one that is behind");
        assert!(following.heard(atm(3), plan(1, 5)));
        assert!(!following.heard(atm(1), plan(1, 4)));
        assert!(!following.lost(atm(3)), "what it said stays in force");
        assert_eq!(followed(&following), (1, 5));
        assert!(following.heard(atm(2), plan(1, 6)));
    }

    #[test]
    fn a_file_is_followed_until_anybody_says_something() {
        let file = NodePlan {
            group: vec![],
            ..plan(0, 0)
        };
        let mut following = Following::new(file);
        assert!(following.heard(atm(1), plan(1, 1)));
        assert_eq!(followed(&following), (1, 1));
    }

    #[test]
    fn what_old_connections_need_goes_with_them() {
        let asking = |method, vips: u8| NodePlan {
            part: Some(ServerPart {
                name: "serv1".to_owned(),
                address: atm(11),
                vips: (0..vips).map(|n| atm(100 + n)).collect(),
                method,
                nat_gateway: None,
            }),
            ..plan(1, 5)
        };
        let mut following = Following::new(asking(Method::Tunnel, 2));
        assert!(!following.heard(atm(1), asking(Method::Tunnel, 2)));
        assert!(following.heard(atm(1), asking(Method::Tunnel, 1)));
        assert!(
            !following.heard(atm(2), asking(Method::Tunnel, 2)),
            "behind"
        );
        assert!(following.heard(atm(2), asking(Method::Direct, 1)));
        assert!(following.heard(atm(1), plan(1, 5)));
        // A higher version may ask for anything.
        let higher = NodePlan {
            version: ConfigNumber(6),
            ..asking(Method::Tunnel, 3)
        };
        assert!(following.heard(atm(1), higher.clone()));
        assert_eq!(following.kept(), &higher);
    }

    #[test]
    fn another_group_is_followed_where_more_atms_speak_for_it() {
        // A group made anew, with versions from 1 again, while one ATM of the old one still runs.
        let mut following = Following::new(plan(1, 9));
        assert!(!following.heard(atm(1), plan(1, 9)));
        assert!(!following.heard(atm(2), plan(2, 1)), "as many");
        assert_eq!(following.strangers(), [atm(2)]);
        assert!(following.heard(atm(3), plan(2, 1)));
        assert_eq!(followed(&following), (2, 1));
        assert_eq!(following.strangers(), [atm(1)]);
        // One ATM alone, when nobody of the old group answers.
        let mut following = Following::new(plan(1, 9));
        following.heard(atm(1), plan(1, 9));
        following.heard(atm(2), plan(2, 1));
        assert!(following.lost(atm(1)));
        assert_eq!(followed(&following), (2, 1));
    }
}
