//! The kinds of problems a configuration can have, under names that do not change.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The kind of a problem. Its text is stable: scripts may depend on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name, in kebab-case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

codes! {
    /// More than [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX) bytes.
    FileTooLarge = "file-too-large",
    /// More than [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX) bytes.
    LineTooLong = "line-too-long",
    /// Bytes that are not UTF-8.
    InvalidUtf8 = "invalid-utf8",
    /// A control character other than tab and line end.
    ControlCharacter = "control-character",
    /// More problems than are reported.
    TooManyProblems = "too-many-problems",
    /// The first word of a line is no keyword.
    UnknownKeyword = "unknown-keyword",
    /// A keyword that belongs in another block.
    MisplacedKeyword = "misplaced-keyword",
    /// A block without its end.
    UnclosedBlock = "unclosed-block",
    /// A block closed by the end of another kind of block.
    WrongEnd = "wrong-end",
    /// An end without a block.
    StrayEnd = "stray-end",
    /// Too few arguments.
    MissingArgument = "missing-argument",
    /// Too many arguments.
    ExtraArgument = "extra-argument",
    /// A block without a line it needs.
    MissingDirective = "missing-directive",
    /// A directive with one value, given twice.
    DuplicateDirective = "duplicate-directive",
    /// A block that stands once, given twice.
    DuplicateBlock = "duplicate-block",
    /// A name, or a reference to it, given twice.
    DuplicateName = "duplicate-name",
    /// A flag or option given twice.
    DuplicateOption = "duplicate-option",
    /// Not a name.
    BadName = "bad-name",
    /// Not an absolute path.
    BadPath = "bad-path",
    /// Not `tcp:<port>` or `udp:<port>`.
    BadPort = "bad-port",
    /// Not `<service>/<weight>`, or a weight out of bounds.
    BadWeight = "bad-weight",
    /// Not a whole number, or out of bounds.
    BadNumber = "bad-number",
    /// Not a duration, zero, or out of bounds.
    BadDuration = "bad-duration",
    /// Not an address, or one that no host can have.
    BadAddress = "bad-address",
    /// Neither an address nor a host name.
    BadHost = "bad-host",
    /// Not a network mask.
    BadMask = "bad-mask",
    /// A forwarding method that does not exist.
    UnknownMethod = "unknown-method",
    /// A flag or option that does not exist.
    UnknownOption = "unknown-option",
    /// An option with a value it cannot have.
    BadOptionValue = "bad-option-value",
    /// An option that has no effect without another.
    OptionWithoutEffect = "option-without-effect",
    /// A service over UDP with an agent of ours that speaks TCP only.
    TcpOnlyAgent = "tcp-only-agent",
    /// `tls=` asks an agent of ours for a way to encrypt that its protocol, or UDP, does not have.
    TlsNotSpoken = "tls-not-spoken",
    /// A service names an agent that does not exist.
    UnknownAgent = "unknown-agent",
    /// A pool offers a service that does not exist.
    UnknownService = "unknown-service",
    /// A pool adds a server that does not exist.
    UnknownServer = "unknown-server",
    /// A virtual host adds a pool that does not exist.
    UnknownPool = "unknown-pool",
    /// A `UserCheck` with the name of a built-in agent.
    BuiltInAgent = "built-in-agent",
    /// More services than `NumServices`.
    TooManyServices = "too-many-services",
    /// More servers than `NumServers`.
    TooManyServers = "too-many-servers",
    /// More than [`ATMS_MAX`](super::ATMS_MAX) ATMs.
    TooManyAtms = "too-many-atms",
    /// More than [`VIRTUAL_ADDRESSES_MAX`](super::VIRTUAL_ADDRESSES_MAX) virtual addresses, or more than
    /// [`SOURCE_ADDRESSES_MAX`](super::SOURCE_ADDRESSES_MAX) source addresses.
    TooManyAddresses = "too-many-addresses",
    /// No `AtmPool` block.
    NoAtmPool = "no-atm-pool",
    /// No ATM that carries traffic.
    OnlyWitnesses = "only-witnesses",
    /// A `nat` server without `source=`, and no `Gateway`.
    NatWithoutGateway = "nat-without-gateway",
    /// A server with `source=` and another method than `nat`.
    SourceWithoutNat = "source-without-nat",
    /// A `direct` server that is an ATM.
    DirectToAtm = "direct-to-atm",
    /// A `nat` server that is an ATM.
    NatToAtm = "nat-to-atm",
    /// A check that may outlast its interval.
    TimeoutExceedsFrequency = "timeout-exceeds-frequency",
    /// A subnet whose address is one of its hosts.
    HostBits = "host-bits",
    /// A service that no server offers.
    ServiceNotOffered = "service-not-offered",
    /// A server that no pool adds.
    ServerNotInPool = "server-not-in-pool",
    /// A pool that adds no server.
    EmptyPool = "empty-pool",
    /// A pool that no virtual host adds.
    PoolNotUsed = "pool-not-used",
    /// An agent that no service names.
    AgentNotUsed = "agent-not-used",
    /// No `VirtualHost` block.
    NoVirtualHost = "no-virtual-host",
    /// A name without an address.
    UnresolvedHost = "unresolved-host",
    /// Two ATMs, or two virtual addresses of one host, with one address.
    DuplicateAddress = "duplicate-address",
    /// One address offers one service of one virtual host twice.
    DuplicateOffer = "duplicate-offer",
    /// A virtual address that is the address of an ATM or a server, or a source address that is one of the three.
    AddressConflict = "address-conflict",
    /// One virtual address has one protocol and port twice.
    ServiceOverlap = "service-overlap",
    /// A virtual address and a server of different IP versions, with a method that cannot bridge them; or a server
    /// and its source address.
    MixedFamilies = "mixed-families",
    /// An ATM outside the network of the first.
    OutsideNetwork = "outside-network",
    /// A `nat` server outside the subnet.
    OutsideSubnet = "outside-subnet",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            assert!(seen.insert(code.as_str()), "{code}");
        }
    }
}
