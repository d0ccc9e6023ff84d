//! What must never be seen.

use model::ids::Epoch;

/// A broken promise, or a broken simulation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// P1.
    #[error(
        "two voices: {atm} holds the lease of epoch {epoch} while {other} holds that of epoch {held}"
    )]
    TwoVoices {
        /// Who begins.
        atm: String,
        /// Its tenure.
        epoch: Epoch,
        /// Who has not ended.
        other: String,
        /// Its tenure.
        held: Epoch,
    },
    /// P1.
    #[error("{atm} sends a frame in a VIP's name without a lease ({what})")]
    WithoutLease {
        /// Who.
        atm: String,
        /// What was wrong with its lease.
        what: String,
    },
    /// P1: what a stopped process finds in its socket is thrown away.
    #[error("{atm} acts on a frame that waited {waited_ms} ms in its socket")]
    StaleFrame {
        /// Who.
        atm: String,
        /// How long, by the clock of the frame's timestamp.
        waited_ms: u64,
    },
    /// P2.
    #[error("the acknowledged connection {connection} is lost: {what}")]
    ConnectionLost {
        /// Client and port.
        connection: String,
        /// What was seen.
        what: String,
    },
    /// P3.
    #[error("{atm} begins epoch {epoch} before the claim gate: {what}")]
    ClaimGate {
        /// Who.
        atm: String,
        /// Its tenure.
        epoch: Epoch,
        /// What is missing.
        what: String,
    },
    /// P4.
    #[error("{atm} differs from another ATM at index {index}: {what}")]
    Diverged {
        /// Who.
        atm: String,
        /// The applied index.
        index: u64,
        /// In what.
        what: String,
    },
    /// The state contradicts itself.
    #[error("{atm}'s state at index {index}: {what}")]
    Invariant {
        /// Whose.
        atm: String,
        /// The applied index.
        index: u64,
        /// The model's words.
        what: String,
    },
    /// P5.
    #[error("{atm} received {frames} frames and counted {verdicts} verdicts")]
    Verdicts {
        /// Who.
        atm: String,
        /// Frames it was given.
        frames: u64,
        /// Verdicts it counted.
        verdicts: u64,
    },
    /// After the last fault everything must come to work again.
    #[error("{seconds} s after the last fault: {what}")]
    NotHealed {
        /// How long it was waited.
        seconds: u64,
        /// What is still missing.
        what: String,
    },
    /// The simulated consensus lost a committed entry: the simulation is at fault, not its subject.
    #[error("simulated consensus: {0}")]
    Consensus(String),
}

impl Violation {
    /// Violations with the same name are the same to the shrinker.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TwoVoices { .. } => "two-voices",
            Self::WithoutLease { .. } => "without-lease",
            Self::StaleFrame { .. } => "stale-frame",
            Self::ConnectionLost { .. } => "connection-lost",
            Self::ClaimGate { .. } => "claim-gate",
            Self::Diverged { .. } => "diverged",
            Self::Invariant { .. } => "invariant",
            Self::Verdicts { .. } => "verdicts",
            Self::NotHealed { .. } => "not-healed",
            Self::Consensus(_) => "consensus",
        }
    }
}
