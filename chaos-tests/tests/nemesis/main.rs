//! The nemesis: each of its faults has the effect it names, in namespaces, and none once it has ended.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

mod hosts;
mod network;
mod probing;
mod userspace_switch;
