//! From winning to speaking, and from speaking to silence: the tasks around the rules.

use std::time::Duration;

use model::command::Response;
use model::ids::Epoch;

use crate::clock::{MS, True};
use crate::event::{Event, Later, Message};
use crate::fault::Planted;
use crate::judge::Violation;
use crate::process::Claim;
use crate::raft::What;
use crate::world::World;

/// A lease published this long after the last fault owes nothing to what was under way.
const HEALED_AFTER: True = 200 * MS;

impl World {
    /// The tasks learn what Raft's role is.
    pub(crate) fn notice(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let local = process.now(self.now);
        let leads = process.raft.leads();
        if leads == process.told {
            return Ok(());
        }
        process.told = leads;
        process.claim = Claim::None;
        match leads {
            Some(term) => {
                process.keeper.elected(term, local);
                self.claim(me)
            }
            None => {
                process.keeper.deposed();
                Ok(())
            }
        }
    }

    /// Asks for an epoch.
    pub(crate) fn claim(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let Some(term) = process.told else {
            return Ok(());
        };
        if self.planted == Planted::NoClaimGate {
            let epoch = process
                .state
                .tenure()
                .map_or(1, |tenure| tenure.epoch.0 + 1);
            let longest = Duration::from_millis(140);
            process.begin_waiting(term, Epoch(epoch), longest, process.now(self.now));
            return self.wake(me);
        }
        let begin = What::Begin {
            by: me,
            lease: process.lease,
        };
        if let Some(index) = process.raft.propose(begin) {
            process.claim = Claim::Proposed { term, index };
        }
        self.send_round(me);
        self.after_raft(me)
    }

    /// Speaks, when the wait is over and the tasks still know of this term.
    pub(crate) fn wake(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let Claim::Waiting {
            term,
            epoch,
            length,
            until,
        } = process.claim
        else {
            return Ok(());
        };
        let local = process.now(self.now);
        if local < until {
            let of = process.incarnation;
            let at = process.clock.when(until, self.now + 1);
            self.queue.put(
                at,
                Event::Later {
                    process: me,
                    of,
                    later: Later::Wake,
                },
            );
            return Ok(());
        }
        process.claim = Claim::Active { epoch };
        process.keeper.tenure_begun(term, epoch, length, local);
        self.judge.claims(me, term, self.processes[me].applied)?;
        self.tell(|_| format!("{me} may speak in epoch {epoch}, term {term}"));
        self.check_voice(me)
    }

    /// The packet path of `me` may have got a new lease.
    pub(crate) fn check_voice(&mut self, me: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(lease) = self.processes[me]
            .keeper
            .speaks(self.processes[me].now(now))
        else {
            return Ok(());
        };
        let voices = self.processes.iter().filter(|process| process.is_up);
        let voices = voices
            .filter_map(|process| Some((process.me, process.keeper.speaks(process.now(now))?)));
        let before = self.judge.spoken;
        self.judge.speaks(me, lease, voices)?;
        if lease.epoch != before {
            self.tell(|_| format!("{me} speaks in epoch {}", lease.epoch));
            self.tally.claims += 1;
            let won = self.processes[me].won.map_or(now, |(_, at)| at);
            self.tally.waited += now - won;
        }
        if now >= self.heal_at + HEALED_AFTER {
            self.spoke_after_healing = Some(now);
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, me: usize) -> Result<(), Violation> {
        let process = &mut self.processes[me];
        let index = process.applied;
        let entry = process.raft.entry(index);
        let older = process
            .state
            .tenure()
            .filter(|tenure| !tenure.ended)
            .map(|tenure| tenure.lease);
        let response = process.apply_next();
        self.judge.committed(index, entry)?;
        self.judge.applied(index, response.clone())?;
        match (response, process.claim) {
            (
                Response::EpochBegun {
                    epoch,
                    longest_older_lease,
                },
                Claim::Proposed { term, index: mine },
            ) if mine == index && term == entry.term => {
                let longest = match (self.planted, older) {
                    (Planted::ForgetsOlderLease, older) => older.unwrap_or_default(),
                    _ => longest_older_lease,
                };
                let local = process.now(self.now);
                process.begin_waiting(term, epoch, longest, local);
                self.wake(me)?;
            }
            (Response::EpochEnded, Claim::Ending { index: mine }) if mine == index => {
                process.claim = Claim::None;
                self.transfer(me);
            }
            (
                Response::Refused(_),
                Claim::Proposed { index: mine, .. } | Claim::Ending { index: mine },
            ) if mine == index => {
                process.claim = Claim::None;
            }
            _ => {}
        }
        if matches!(entry.what, What::Members(members) if !members.is_joint() && !members.contains(me))
        {
            // The change that removes this leader is committed.
            self.processes[me].raft.retire();
        }
        Ok(())
    }

    /// Hands leadership to some other voter, as Raft's transfer does.
    pub(crate) fn transfer(&mut self, me: usize) {
        let to = self.chance.index(self.processes.len());
        if to != me {
            self.send(me, to, None, Message::Stand);
        }
    }
}
