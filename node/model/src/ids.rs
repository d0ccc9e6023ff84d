//! Identities that are replicated: small numbers given out by the state machine, never by a node on its own.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $raw);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// An ATM as a member of the Raft group. Never reused.
    NodeId(u64)
}
id! {
    /// The number of one tenure of one active ATM. Grows by one with every `BeginEpoch`; never reused.
    Epoch(u64)
}
id! {
    /// A real server at one address with one forwarding method and one `source=`; a server of which one of these changes
    /// is another server.
    ServerId(u16)
}
id! {
    /// A virtual service: VIP, protocol and port.
    VirtualServiceId(u16)
}
id! {
    /// A committed version of the configuration. The first is 1.
    ConfigNumber(u64)
}
