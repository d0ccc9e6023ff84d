//! What must hold at every true instant, whatever happens.

use model::command::Response;
use model::ids::Epoch;
use model::lease::{Lease, Term};

use crate::raft::Entry;

/// A broken promise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    /// P1.
    #[error(
        "two voices: process {process} begins to speak in epoch {epoch} while process {other} speaks in epoch {held}"
    )]
    TwoVoices {
        process: usize,
        epoch: Epoch,
        other: usize,
        held: Epoch,
    },
    #[error("process {process} speaks in epoch {epoch} after epoch {spoken}")]
    OldEpoch {
        process: usize,
        epoch: Epoch,
        spoken: Epoch,
    },
    /// P3.
    #[error(
        "process {process} may speak for term {term} with {applied} entries applied; {before} were committed before"
    )]
    ClaimGate {
        process: usize,
        term: Term,
        applied: usize,
        before: usize,
    },
    /// P4.
    #[error("entry {index} came to {first:?}, and then to {then:?}")]
    OtherResponse {
        index: usize,
        first: Box<Response>,
        then: Box<Response>,
    },
    /// The simulated Raft is broken, not the lease.
    #[error("entry {index} was committed as {first:?}, and then as {then:?}")]
    OtherEntry {
        index: usize,
        first: Option<Entry>,
        then: Entry,
    },
    #[error("nobody speaks {0} ms after the last fault")]
    Silence(u64),
}

/// Sees everything, with true time. A process begins to speak only when it publishes a lease, and goes on without a gap
/// until it falls silent: two processes ever speak at once exactly if one publishes while another speaks.
#[derive(Default)]
pub(crate) struct Judge {
    /// Everything that is committed, by whichever leader knew first.
    committed: Vec<Entry>,
    /// What it came to, from whoever applied it first.
    responses: Vec<Response>,
    /// The youngest epoch that ever spoke.
    pub(crate) spoken: Epoch,
}

impl Judge {
    /// A leader knows this entry to be committed.
    pub(crate) fn committed(&mut self, index: usize, entry: Entry) -> Result<(), Violation> {
        if self.committed.len() == index {
            self.committed.push(entry);
        }
        match self.committed.get(index) {
            Some(known) if *known == entry => Ok(()),
            first => Err(Violation::OtherEntry {
                index,
                first: first.copied(),
                then: entry,
            }),
        }
    }

    /// A process applied an entry (P4).
    pub(crate) fn applied(&mut self, index: usize, response: Response) -> Result<(), Violation> {
        match self.responses.get(index) {
            Some(known) if *known == response => Ok(()),
            Some(known) => Err(Violation::OtherResponse {
                index,
                first: Box::new(known.clone()),
                then: Box::new(response),
            }),
            None => {
                self.responses.push(response);
                Ok(())
            }
        }
    }

    /// A process publishes a lease that lets it speak at this instant, while `others` speak (P1).
    pub(crate) fn speaks(
        &mut self,
        process: usize,
        lease: Lease,
        others: impl Iterator<Item = (usize, Lease)>,
    ) -> Result<(), Violation> {
        for (other, held) in others {
            if other != process {
                return Err(Violation::TwoVoices {
                    process,
                    epoch: lease.epoch,
                    other,
                    held: held.epoch,
                });
            }
        }
        if lease.epoch < self.spoken {
            return Err(Violation::OldEpoch {
                process,
                epoch: lease.epoch,
                spoken: self.spoken,
            });
        }
        self.spoken = lease.epoch;
        Ok(())
    }

    /// A process that leads `term` is about to speak after applying `applied` entries (P3).
    pub(crate) fn claims(
        &self,
        process: usize,
        term: Term,
        applied: usize,
    ) -> Result<(), Violation> {
        let before = self.committed.partition_point(|entry| entry.term < term);
        let begins = self
            .committed
            .get(..applied)
            .is_some_and(|known| known.iter().any(|entry| entry.term == term));
        if applied < before || !begins {
            return Err(Violation::ClaimGate {
                process,
                term,
                applied,
                before,
            });
        }
        Ok(())
    }
}
