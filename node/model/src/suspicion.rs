//! When a quorum of the voters believes that the leader is gone, and which of them stands for election.
//!
//! A voter suspects a leader that has fallen silent, or whose host refuses connections to it. Nobody is deposed by one
//! opinion: a voter stands only when a quorum suspects the leader of the same term, itself among them, and of these the one
//! with the longest log stands alone, so that no two candidates split the votes.
//!
//! Invariant: nothing here is needed for safety. Votes, lease and wait-out hold whoever stands whenever; what is decided here
//! is only how soon a takeover begins, and how rarely one begins that nobody needs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::Instant;
use crate::ids::NodeId;
use crate::lease::{Term, Voters};

/// A voter stands no more often than this on suspicion. A leader that is suspected again and again, for whatever reason,
/// costs one election in this time; the ordinary election timeout has no such bound and remains.
pub const STAND_PAUSE: Duration = Duration::from_secs(1);

/// The end of a voter's log: longer logs compare greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// Term of the last entry.
    pub term: Term,
    /// Its index.
    pub index: u64,
}

/// What one voter knows of suspicions against the leader it follows.
#[derive(Clone, Debug)]
pub struct Suspicions {
    me: NodeId,
    /// What another voter said counts for so long; it says it again while it holds.
    validity: Duration,
    voters: Voters,
    /// Term of the leader that is followed.
    followed: Option<Term>,
    mine: Option<LogEnd>,
    others: BTreeMap<NodeId, Told>,
    stood: Option<Instant>,
}

/// What another voter said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    term: Term,
    log: LogEnd,
    at: Instant,
}

impl Suspicions {
    /// A voter that follows nobody yet.
    pub fn new(me: NodeId, validity: Duration) -> Self {
        Self {
            me,
            validity,
            voters: Voters::new(),
            followed: None,
            mine: None,
            others: BTreeMap::new(),
            stood: None,
        }
    }

    /// This voter follows the leader of this term, or none. Its own suspicion was of the former one and is forgotten.
    pub fn follow(&mut self, leader: Option<Term>, voters: Voters) {
        if self.followed != leader {
            self.followed = leader;
            self.mine = None;
        }
        self.others
            .retain(|id, _| voters.iter().any(|set| set.contains(id)));
        self.voters = voters;
    }

    /// This voter, whose log ends here, suspects the leader; or `None`: it has heard from it.
    pub fn set_mine(&mut self, log: Option<LogEnd>) {
        self.mine = log;
    }

    /// Whether this voter suspects the leader.
    pub fn is_mine(&self) -> bool {
        self.mine.is_some()
    }

    /// Another voter suspects the leader of this term. Bounded: one entry for each voter.
    pub fn told(&mut self, from: NodeId, term: Term, log: LogEnd, now: Instant) {
        if from != self.me && self.is_voter(from) {
            self.others.insert(from, Told { term, log, at: now });
        }
    }

    /// Whether this voter stands for election now. Having said so, it does not say so again for [`STAND_PAUSE`].
    pub fn stands(&mut self, now: Instant) -> bool {
        let due = self
            .stood
            .is_none_or(|stood| now.saturating_since(stood) >= STAND_PAUSE);
        let stands = due && self.candidate(now) == Some(self.me);
        if stands {
            self.stood = Some(now);
        }
        stands
    }

    /// The voter that ought to stand: of a quorum that suspects the leader the one with the longest log, and of equals the
    /// one with the lowest number. `None`: there is no such quorum, or this voter is not of it.
    fn candidate(&self, now: Instant) -> Option<NodeId> {
        let (followed, mine) = (self.followed?, self.mine?);
        let mut suspecting: BTreeMap<NodeId, LogEnd> = self
            .others
            .iter()
            .filter(|(_, told)| {
                told.term == followed && now.saturating_since(told.at) < self.validity
            })
            .map(|(id, told)| (*id, told.log))
            .collect();
        suspecting.insert(self.me, mine);
        let quorum = self.is_voter(self.me)
            && self.voters.iter().all(|set| {
                set.iter().filter(|id| suspecting.contains_key(id)).count() > set.len() / 2
            });
        let best = suspecting
            .into_iter()
            .max_by_key(|(id, log)| (*log, Reverse(*id)));
        best.filter(|_| quorum).map(|(id, _)| id)
    }

    fn is_voter(&self, id: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const VALIDITY: Duration = Duration::from_millis(40);

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn log(index: u64) -> LogEnd {
        LogEnd { term: 3, index }
    }

    fn voters(n: u64) -> Voters {
        vec![(1..=n).map(NodeId).collect::<BTreeSet<_>>()]
    }

    /// Voter `me` of `n`, which follows the leader of term 7.
    fn voter(me: u64, n: u64) -> Suspicions {
        let mut rules = Suspicions::new(NodeId(me), VALIDITY);
        rules.follow(Some(7), voters(n));
        rules
    }

    #[test]
    fn one_opinion_is_not_enough() {
        let mut rules = voter(2, 3);
        rules.set_mine(Some(log(5)));
        assert!(!rules.stands(ms(0)), "alone");
        rules.told(NodeId(3), 7, log(5), ms(1));
        assert!(rules.stands(ms(1)), "with another");
    }

    #[test]
    fn the_opinion_of_others_alone_moves_nobody() {
        let mut rules = voter(2, 5);
        for other in [3, 4, 5] {
            rules.told(NodeId(other), 7, log(5), ms(0));
        }
        assert!(!rules.stands(ms(0)), "this voter hears the leader");
    }

    #[test]
    fn the_longest_log_stands_and_of_equals_the_lowest_number() {
        for (mine, others, who) in [(5, 5, 2), (5, 6, 3), (6, 5, 2)] {
            let (mut two, mut three) = (voter(2, 3), voter(3, 3));
            two.set_mine(Some(log(mine)));
            three.set_mine(Some(log(others)));
            two.told(NodeId(3), 7, log(others), ms(0));
            three.told(NodeId(2), 7, log(mine), ms(0));
            let stand = (two.stands(ms(0)), three.stands(ms(0)));
            assert_eq!(stand, (who == 2, who == 3), "{mine} {others}");
        }
        assert!(
            LogEnd { term: 4, index: 1 } > log(9),
            "a later term is longer"
        );
    }

    #[test]
    fn what_was_said_long_ago_or_of_another_leader_does_not_count() {
        let mut rules = voter(2, 3);
        rules.set_mine(Some(log(5)));
        rules.told(NodeId(3), 6, log(5), ms(0));
        assert!(!rules.stands(ms(0)), "of the leader before");
        rules.told(NodeId(3), 7, log(5), ms(0));
        assert!(!rules.stands(ms(40)), "expired");
        rules.told(NodeId(3), 7, log(5), ms(40));
        rules.follow(Some(8), voters(3));
        assert!(!rules.stands(ms(41)), "a new leader is not suspected");
        rules.follow(None, voters(3));
        rules.set_mine(Some(log(5)));
        assert!(!rules.stands(ms(42)), "there is no leader to suspect");
    }

    #[test]
    fn a_voter_that_hears_the_leader_again_does_not_stand() {
        let mut rules = voter(2, 3);
        rules.set_mine(Some(log(5)));
        rules.set_mine(None);
        rules.told(NodeId(3), 7, log(5), ms(0));
        assert!(!rules.stands(ms(0)));
    }

    #[test]
    fn a_leader_that_is_suspected_again_and_again_costs_one_election_in_the_pause() {
        let mut rules = voter(2, 3);
        let mut elections = 0;
        for at in 0..5_000 {
            rules.follow(Some(7 + at), voters(3));
            rules.set_mine(Some(log(5)));
            rules.told(NodeId(3), 7 + at, log(5), ms(at));
            elections += u32::from(rules.stands(ms(at)));
        }
        assert_eq!(elections, 5);
    }

    #[test]
    fn a_quorum_is_one_of_both_sets_and_strangers_are_none_of_it() {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let mut rules = Suspicions::new(NodeId(2), VALIDITY);
        rules.follow(Some(7), vec![set(&[1, 2, 3]), set(&[1, 4, 5])]);
        rules.set_mine(Some(log(5)));
        rules.told(NodeId(3), 7, log(5), ms(0));
        rules.told(NodeId(9), 7, log(5), ms(0));
        assert!(!rules.stands(ms(0)), "nobody of the second set");
        rules.told(NodeId(4), 7, log(4), ms(0));
        rules.told(NodeId(5), 7, log(4), ms(0));
        assert!(rules.stands(ms(0)));

        let mut stranger = Suspicions::new(NodeId(9), VALIDITY);
        stranger.follow(Some(7), voters(3));
        stranger.set_mine(Some(log(9)));
        stranger.told(NodeId(2), 7, log(5), ms(0));
        stranger.told(NodeId(3), 7, log(5), ms(0));
        assert!(!stranger.stands(ms(0)), "no voter");
    }

    /// Two backups of three, an active ATM that died: whatever is lost or late, at most one of them stands.
    #[test]
    fn at_most_one_of_two_stands() {
        for (mine, others) in (0..8).flat_map(|a| (0..8).map(move |b| (a, b))) {
            let (mut two, mut three) = (voter(2, 3), voter(3, 3));
            two.set_mine(Some(log(mine)));
            three.set_mine(Some(log(others)));
            let mut stood = 0;
            for at in 0..8 {
                two.told(NodeId(3), 7, log(others), ms(at));
                stood += u32::from(two.stands(ms(at)));
                three.told(NodeId(2), 7, log(mine), ms(at));
                stood += u32::from(three.stands(ms(at)));
            }
            assert_eq!(stood, 1, "{mine} {others}");
        }
    }
}
