//! Rules that are wrong in one point each: the simulation must find every one of them.

/// The rules as they are, or with one part of them left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The rules as they are.
    Nothing,
    /// (a) of the age is left out: appends are not stamped.
    NoAppendStamp,
    /// (b) of the age is left out: a voter forgets that it held a lease itself.
    NoOwnLease,
    /// (c) of the age is left out: a restarted voter believes that it has helped nobody.
    NoStart,
    /// A granted vote fences nothing: late acknowledgements go on extending the voter's lease.
    NoFence,
    /// An append is stamped some time after Raft acknowledged it, so a vote can leave in between.
    LateStamp,
    /// The winner speaks as soon as its epoch has begun.
    NoWaitOut,
    /// The winner waits for the lease itself, as if all clocks ran alike.
    NoClockFactor,
    /// Rounds of a later term extend what is left of an earlier tenure.
    OneDeadline,
    /// A lease counts from when the acknowledgement arrived, not from when the round was sent.
    CountsFromReceipt,
    /// The winner waits for the lease of the last tenure alone, though an older one may be longer.
    ForgetsOlderLease,
    /// A process ends a tenure in which it has not yet waited.
    EndsUnbegunTenure,
    /// The rules go on with the voters there were when the process started.
    OldVoters,
    /// A winner waits, but speaks without having applied the beginning of its epoch.
    NoClaimGate,
    /// A tenure that ended in order is over for the log alone: the packet path keeps its lease.
    EndsWithoutSilence,
}
