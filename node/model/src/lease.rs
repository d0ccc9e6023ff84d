//! The lease: when an ATM may speak, and how long a new one must wait until no older one can.
//!
//! One [`LeaseRules`] per process, fed by the Raft transport. The argument for its safety stands in
//! docs/adr/0001-lease.md; the test `lease_simulation` attacks it with clocks off by 5 %, pauses, transfers and restarts.
//!
//! Invariant: a lease of term T is extended only by rounds of term T that a quorum acknowledged, and never after this
//! process granted a vote in a later term.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Instant;
use crate::ids::{Epoch, NodeId};
use crate::planted::{self, Bug};

/// A Raft term.
pub type Term = u64;

/// Two clocks of the cluster run at rates that differ from true time by at most this many percent. The one assumption.
pub const CLOCK_RATE_ERROR_PERCENT: u32 = 5;

/// How long a clock that may be fast must wait until a clock that may be slow has counted `lease`:
/// `lease x (1 + e) / (1 - e)`.
pub fn wait_out(lease: Duration) -> Duration {
    // One nanosecond more makes up for the division's rounding.
    lease * (100 + CLOCK_RATE_ERROR_PERCENT) / (100 - CLOCK_RATE_ERROR_PERCENT)
        + Duration::from_nanos(1)
}

/// The voters of the group: one set, or two while a membership change is under way. A quorum is a majority of each.
pub type Voters = Vec<BTreeSet<NodeId>>;

/// The right to speak, as the packet path checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The tenure it belongs to.
    pub epoch: Epoch,
    /// The first instant at which it is no longer held.
    pub until: Instant,
}

/// What one process knows of leases: its own, and what it must tell or wait for on account of others'.
#[derive(Clone, Debug)]
pub struct LeaseRules {
    me: NodeId,
    voters: Voters,
    /// (c) of the vote's age: this process knows nothing of what it promised before it started.
    started: Instant,
    /// (a): the last append from any leader, stamped before Raft saw it.
    last_append: Option<Instant>,
    /// (b): the youngest round that ever extended a lease of this process.
    last_extended: Option<Instant>,
    /// Leases of terms below this are never extended again.
    fence: Term,
    campaign: Option<Campaign>,
    leading: Option<Leading>,
}

/// An election this process takes part in: for each granted vote the latest instant at which the voter helped an older lease.
#[derive(Clone, Debug)]
struct Campaign {
    term: Term,
    grants: BTreeMap<NodeId, Instant>,
}

/// A term this process leads.
#[derive(Clone, Debug)]
struct Leading {
    term: Term,
    since: Instant,
    /// For each other voter: when the youngest round it acknowledged was sent.
    rounds: BTreeMap<NodeId, Instant>,
    tenure: Option<Tenure>,
}

#[derive(Clone, Copy, Debug)]
struct Tenure {
    epoch: Epoch,
    length: Duration,
}

impl LeaseRules {
    /// Rules of a process that started at `started` and has neither promised nor held anything since.
    pub fn new(me: NodeId, voters: Voters, started: Instant) -> Self {
        Self {
            me,
            voters,
            started,
            last_append: None,
            last_extended: None,
            fence: 0,
            campaign: None,
            leading: None,
        }
    }

    /// The group's voters changed.
    pub fn set_voters(&mut self, voters: Voters) {
        self.voters = voters;
    }

    /// An append of any leader arrived. To be called before Raft sees it: an acknowledgement must never be older than its stamp.
    pub fn append_received(&mut self, now: Instant) {
        self.last_append = self.last_append.max(Some(now));
    }

    /// When the last append of any leader arrived.
    pub fn last_append(&self) -> Option<Instant> {
        self.last_append
    }

    /// Raft granted a vote in `term` to another node; the reply has not left yet. Fences own leases of older terms and
    /// returns the age to be sent with the vote: the time since this process last helped any lease along.
    pub fn vote_granted(&mut self, term: Term, now: Instant) -> Duration {
        self.raise_fence(term);
        now.saturating_since(self.last_helped())
    }

    /// This process asks for votes in `term`, and so has granted itself its own.
    pub fn campaign_started(&mut self, term: Term) {
        if self
            .campaign
            .as_ref()
            .is_some_and(|campaign| campaign.term >= term)
        {
            return;
        }
        self.raise_fence(term);
        let own = self.last_helped();
        self.campaign = Some(Campaign {
            term,
            grants: BTreeMap::from([(self.me, own)]),
        });
    }

    /// A vote in `term` was granted to this process by `from`, with this age, and arrived at `now`.
    pub fn grant_received(&mut self, term: Term, from: NodeId, age: Duration, now: Instant) {
        self.campaign_started(term);
        if let Some(campaign) = self
            .campaign
            .as_mut()
            .filter(|campaign| campaign.term == term)
        {
            // No correction for the clock that measured the age: the factor of `wait_out` covers it (ADR-0001).
            let at = now.saturating_sub(age);
            let grant = campaign.grants.entry(from).or_insert(at);
            *grant = (*grant).max(at);
        }
    }

    /// Raft says that this process leads `term`.
    pub fn elected(&mut self, term: Term, now: Instant) {
        if self
            .leading
            .as_ref()
            .is_some_and(|leading| leading.term >= term)
        {
            return;
        }
        self.campaign_started(term);
        self.leading = Some(Leading {
            term,
            since: now,
            rounds: BTreeMap::new(),
            tenure: None,
        });
    }

    /// A follower acknowledged a round of `term` that was sent at `sent`.
    pub fn round_acknowledged(&mut self, term: Term, from: NodeId, sent: Instant) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            let round = leading.rounds.entry(from).or_insert(sent);
            *round = (*round).max(sent);
        }
    }

    /// The instant from which no lease of an older term can be held any more, after winning `term`. `longest` is the
    /// longest lease that an older tenure may hold; zero when the one before was ended in order or never was.
    ///
    /// Without a quorum of ages (the votes were counted by another incarnation of the transport) the whole time is
    /// waited from the election on. `None`: this process does not lead `term`.
    pub fn wait_until(&self, term: Term, longest: Duration) -> Option<Instant> {
        let leading = self
            .leading
            .as_ref()
            .filter(|leading| leading.term == term)?;
        if longest.is_zero() || planted::is(Bug::NoWaitOut) {
            return Some(leading.since);
        }
        let campaign = self
            .campaign
            .as_ref()
            .filter(|campaign| campaign.term == term);
        let helped = campaign
            .filter(|campaign| self.is_quorum(|id| campaign.grants.contains_key(&id)))
            .and_then(|campaign| campaign.grants.values().copied().max());
        Some(helped.unwrap_or(leading.since) + wait_out(longest))
    }

    /// Everything older has run out and the claim gate is passed: from now on acknowledged rounds of `term` extend the
    /// lease of `epoch` by `length`.
    pub fn tenure_begun(&mut self, term: Term, epoch: Epoch, length: Duration) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.tenure = Some(Tenure { epoch, length });
        }
    }

    /// The tenure is over: nothing extends it any more.
    pub fn tenure_ended(&mut self) {
        if let Some(leading) = self.leading.as_mut() {
            leading.tenure = None;
        }
    }

    /// This process does not lead any more, as far as Raft knows.
    pub fn deposed(&mut self) {
        self.leading = None;
    }

    /// The lease as it stands: `sent + length`, where `sent` is when the youngest round that a quorum acknowledged was sent.
    /// `None`: not active, or fenced by a vote for a later term.
    pub fn lease(&mut self, now: Instant) -> Option<Lease> {
        let leading = self
            .leading
            .as_ref()
            .filter(|leading| leading.term >= self.fence)?;
        let tenure = leading.tenure?;
        let sent = self.quorum_sent(leading, now)?;
        self.last_extended = self.last_extended.max(Some(sent));
        Some(Lease {
            epoch: tenure.epoch,
            until: sent + tenure.length,
        })
    }

    /// When the youngest round that a quorum acknowledged was sent; this process acknowledges its own at `now`.
    fn quorum_sent(&self, leading: &Leading, now: Instant) -> Option<Instant> {
        self.voters
            .iter()
            .map(|set| {
                let mut sent: Vec<Option<Instant>> = set
                    .iter()
                    .map(|id| {
                        if *id == self.me {
                            Some(now)
                        } else {
                            leading.rounds.get(id).copied()
                        }
                    })
                    .collect();
                sent.sort_unstable_by(|a, b| b.cmp(a));
                sent.get(set.len() / 2).copied().flatten()
            })
            .min()
            .flatten()
    }

    /// Before the voters are known nothing is a quorum of them.
    fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        !self.voters.is_empty()
            && self
                .voters
                .iter()
                .all(|set| set.iter().filter(|id| has(**id)).count() > set.len() / 2)
    }

    /// The latest instant at which this process helped any lease along, or may have without knowing.
    fn last_helped(&self) -> Instant {
        self.started
            .max(self.last_append.unwrap_or(Instant::BOOT))
            .max(self.last_extended.unwrap_or(Instant::BOOT))
    }

    fn raise_fence(&mut self, term: Term) {
        self.fence = self.fence.max(term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn three(me: u64) -> LeaseRules {
        LeaseRules::new(
            NodeId(me),
            vec![BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)])],
            ms(1000),
        )
    }

    #[test]
    fn a_lease_counts_from_the_send_time_of_the_youngest_quorum_round() {
        let mut rules = three(1);
        rules.elected(5, ms(2000));
        rules.tenure_begun(5, Epoch(1), LEASE);
        assert_eq!(rules.lease(ms(2010)), None);
        rules.round_acknowledged(5, NodeId(2), ms(2005));
        assert_eq!(
            rules.lease(ms(2010)),
            Some(Lease {
                epoch: Epoch(1),
                until: ms(2105)
            })
        );
        rules.round_acknowledged(5, NodeId(3), ms(2001));
        assert_eq!(
            rules.lease(ms(2020)),
            Some(Lease {
                epoch: Epoch(1),
                until: ms(2105)
            })
        );
    }

    #[test]
    fn rounds_of_another_term_extend_nothing() {
        let mut rules = three(1);
        rules.elected(5, ms(2000));
        rules.tenure_begun(5, Epoch(1), LEASE);
        rules.round_acknowledged(6, NodeId(2), ms(2005));
        assert_eq!(rules.lease(ms(2010)), None);
    }

    #[test]
    fn a_granted_vote_fences_the_lease_of_the_voter() {
        let mut rules = three(1);
        rules.elected(5, ms(2000));
        rules.tenure_begun(5, Epoch(1), LEASE);
        rules.round_acknowledged(5, NodeId(2), ms(2050));
        assert!(rules.lease(ms(2051)).is_some());
        // The lease may last until 2150; the age tells the winner of the round at 2050.
        assert_eq!(rules.vote_granted(6, ms(2060)), Duration::from_millis(10));
        rules.round_acknowledged(5, NodeId(3), ms(2059));
        assert_eq!(rules.lease(ms(2061)), None);
    }

    #[test]
    fn a_restarted_voter_counts_from_its_start() {
        let mut rules = three(2);
        assert_eq!(rules.vote_granted(6, ms(1003)), Duration::from_millis(3));
    }

    #[test]
    fn the_winner_waits_for_the_latest_of_a_quorum() {
        let mut rules = three(2);
        rules.append_received(ms(1500));
        rules.campaign_started(6);
        rules.append_received(ms(1900)); // a stale leader that is still talking changes nothing
        rules.elected(6, ms(1650));
        assert_eq!(
            rules.wait_until(6, LEASE),
            Some(ms(1650) + wait_out(LEASE)),
            "no quorum of ages"
        );
        rules.grant_received(6, NodeId(3), Duration::ZERO, ms(1600));
        assert_eq!(rules.wait_until(6, LEASE), Some(ms(1600) + wait_out(LEASE)));
        assert_eq!(rules.wait_until(6, Duration::ZERO), Some(ms(1650)));
        assert_eq!(rules.wait_until(7, LEASE), None);
    }

    #[test]
    fn a_winner_that_does_not_know_the_voters_waits_the_whole_time() {
        let mut rules = LeaseRules::new(NodeId(2), Voters::new(), ms(1000));
        rules.campaign_started(6);
        rules.elected(6, ms(1650));
        assert_eq!(rules.wait_until(6, LEASE), Some(ms(1650) + wait_out(LEASE)));
        rules.tenure_begun(6, Epoch(1), LEASE);
        assert_eq!(rules.lease(ms(1700)), None);
    }

    #[test]
    fn a_group_of_one_extends_its_own_lease() {
        let mut rules = LeaseRules::new(NodeId(1), vec![BTreeSet::from([NodeId(1)])], ms(1000));
        rules.elected(1, ms(1010));
        rules.tenure_begun(1, Epoch(1), LEASE);
        assert_eq!(
            rules.lease(ms(1020)),
            Some(Lease {
                epoch: Epoch(1),
                until: ms(1120)
            })
        );
    }

    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let sets = vec![
            BTreeSet::from([NodeId(1), NodeId(2), NodeId(3)]),
            BTreeSet::from([NodeId(1), NodeId(4), NodeId(5)]),
        ];
        let mut rules = LeaseRules::new(NodeId(1), sets, ms(0));
        rules.elected(1, ms(10));
        rules.tenure_begun(1, Epoch(1), LEASE);
        rules.round_acknowledged(1, NodeId(2), ms(20));
        assert_eq!(rules.lease(ms(30)), None);
        rules.round_acknowledged(1, NodeId(5), ms(25));
        assert_eq!(rules.lease(ms(30)).map(|lease| lease.until), Some(ms(120)));
    }
}
