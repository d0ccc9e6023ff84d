//! The keywords of the file, which block each belongs in, and how its line is written.

/// A kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BlockKind {
    Nat,
    UserCheck,
    Services,
    Servers,
    ServerPool,
    AtmPool,
    VirtualHost,
}

/// A line that is neither the begin nor the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Directive {
    NetworkMask,
    Subnet,
    Gateway,
    Check,
    Up,
    Down,
    Service,
    Server,
    AddServer,
    CheckServerFrequency,
    CheckServerTimeout,
    CheckPortFrequency,
    CheckPortTimeout,
    AddAtm,
    SendArpDelay,
    HeartBeatDelay,
    MaxLostHeartbeats,
    NumConnections,
    NumServers,
    NumServices,
    ConnectionTimeout,
    Address,
    AddAtmPool,
    AddServerPool,
}

/// What the first word of a line can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Begin(BlockKind),
    End(BlockKind),
    Directive(Directive),
}

impl BlockKind {
    pub(super) const ALL: [Self; 7] = [
        Self::Nat,
        Self::UserCheck,
        Self::Services,
        Self::Servers,
        Self::ServerPool,
        Self::AtmPool,
        Self::VirtualHost,
    ];

    pub(super) const fn begin(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::UserCheck => "UserCheck",
            Self::Services => "Services",
            Self::Servers => "Servers",
            Self::ServerPool => "ServerPool",
            Self::AtmPool => "AtmPool",
            Self::VirtualHost => "VirtualHost",
        }
    }

    pub(super) const fn end(self) -> &'static str {
        match self {
            Self::Nat => "EndNAT",
            Self::UserCheck => "EndUserCheck",
            Self::Services => "EndServices",
            Self::Servers => "EndServers",
            Self::ServerPool => "EndServerPool",
            Self::AtmPool => "EndAtmPool",
            Self::VirtualHost => "EndVirtualHost",
        }
    }

    /// How the line that begins the block is written.
    pub(super) const fn usage(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::UserCheck => "UserCheck <agent-name>",
            Self::Services => "Services",
            Self::Servers => "Servers",
            Self::ServerPool => "ServerPool <name> [rise=<n>] [fall=<n>]",
            Self::AtmPool => "AtmPool <name>",
            Self::VirtualHost => "VirtualHost <name-or-ip>",
        }
    }
}

impl Directive {
    pub(super) const ALL: [Self; 24] = [
        Self::NetworkMask,
        Self::Subnet,
        Self::Gateway,
        Self::Check,
        Self::Up,
        Self::Down,
        Self::Service,
        Self::Server,
        Self::AddServer,
        Self::CheckServerFrequency,
        Self::CheckServerTimeout,
        Self::CheckPortFrequency,
        Self::CheckPortTimeout,
        Self::AddAtm,
        Self::SendArpDelay,
        Self::HeartBeatDelay,
        Self::MaxLostHeartbeats,
        Self::NumConnections,
        Self::NumServers,
        Self::NumServices,
        Self::ConnectionTimeout,
        Self::Address,
        Self::AddAtmPool,
        Self::AddServerPool,
    ];

    /// How the line is written; its first word is the keyword.
    pub(super) const fn usage(self) -> &'static str {
        match self {
            Self::NetworkMask => "NetworkMask <mask>",
            Self::Subnet => "Subnet <network> <mask>",
            Self::Gateway => "Gateway <ip>",
            Self::Check => "Check <path>",
            Self::Up => "Up <path>",
            Self::Down => "Down <path>",
            Self::Service => {
                "Service <name> tcp:<port>|udp:<port> <agent>|http|connect|none [sticky] [key=value ...]"
            }
            Self::Server => {
                "Server <name> <host-or-ip> direct|tunnel|nat [source=<address>] [noping]"
            }
            Self::AddServer => "AddServer <server> <service>/<weight> ...",
            Self::CheckServerFrequency => "CheckServerFrequency <duration>",
            Self::CheckServerTimeout => "CheckServerTimeout <duration>",
            Self::CheckPortFrequency => "CheckPortFrequency <duration>",
            Self::CheckPortTimeout => "CheckPortTimeout <duration>",
            Self::AddAtm => "AddAtm <host-or-ip> [witness]",
            Self::SendArpDelay => "SendArpDelay <duration>",
            Self::HeartBeatDelay => "HeartBeatDelay <duration>",
            Self::MaxLostHeartbeats => "MaxLostHeartbeats <n>",
            Self::NumConnections => "NumConnections <n>",
            Self::NumServers => "NumServers <n>",
            Self::NumServices => "NumServices <n>",
            Self::ConnectionTimeout => "ConnectionTimeout <duration>",
            Self::Address => "Address <ip>",
            Self::AddAtmPool => "AddAtmPool <pool>",
            Self::AddServerPool => "AddServerPool <pool>",
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.usage().split(' ').next().unwrap_or_default()
    }

    /// The block the line belongs in; `None`: outside of all.
    pub(super) const fn home(self) -> Option<BlockKind> {
        match self {
            Self::NetworkMask => None,
            Self::Subnet | Self::Gateway => Some(BlockKind::Nat),
            Self::Check | Self::Up | Self::Down => Some(BlockKind::UserCheck),
            Self::Service => Some(BlockKind::Services),
            Self::Server => Some(BlockKind::Servers),
            Self::AddServer
            | Self::CheckServerFrequency
            | Self::CheckServerTimeout
            | Self::CheckPortFrequency
            | Self::CheckPortTimeout => Some(BlockKind::ServerPool),
            Self::AddAtm
            | Self::SendArpDelay
            | Self::HeartBeatDelay
            | Self::MaxLostHeartbeats
            | Self::NumConnections
            | Self::NumServers
            | Self::NumServices
            | Self::ConnectionTimeout => Some(BlockKind::AtmPool),
            Self::Address | Self::AddAtmPool | Self::AddServerPool => Some(BlockKind::VirtualHost),
        }
    }

    /// Whether the line may stand several times in its block; some may once for each IP version.
    pub(super) const fn repeats(self) -> bool {
        matches!(
            self,
            Self::Subnet
                | Self::Gateway
                | Self::Service
                | Self::Server
                | Self::AddServer
                | Self::AddAtm
                | Self::Address
                | Self::AddServerPool
        )
    }
}

/// The keyword that a word is, in whatever case.
pub(super) fn find(word: &str) -> Option<Keyword> {
    all()
        .find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|(_, keyword)| keyword)
}

fn all() -> impl Iterator<Item = (&'static str, Keyword)> {
    let begins = BlockKind::ALL
        .into_iter()
        .map(|kind| (kind.begin(), Keyword::Begin(kind)));
    let ends = BlockKind::ALL
        .into_iter()
        .map(|kind| (kind.end(), Keyword::End(kind)));
    let directives = Directive::ALL
        .into_iter()
        .map(|directive| (directive.name(), Keyword::Directive(directive)));
    begins.chain(ends).chain(directives)
}

/// Every keyword of the file, as the documentation writes it.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    all().map(|(name, _)| name)
}

/// Every flag and option that may end a line, as the documentation writes it: `sticky`, `persist=`, …
pub fn options() -> impl Iterator<Item = &'static str> {
    SERVICE_OPTIONS
        .iter()
        .chain(SERVER_OPTIONS)
        .chain(POOL_OPTIONS)
        .chain(ATM_OPTIONS)
        .copied()
}

pub(super) const SERVICE_OPTIONS: &[&str] = &[
    "sticky",
    "scheduler=",
    "replication=",
    "persist=",
    "mask=",
    "fallback=",
    "on-down=",
    "tls=",
];
pub(super) const POOL_OPTIONS: &[&str] = &["rise=", "fall="];
pub(super) const SERVER_OPTIONS: &[&str] = &["source=", "noping"];
pub(super) const ATM_OPTIONS: &[&str] = &["witness"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_differ_in_more_than_case() {
        let mut seen = std::collections::BTreeSet::new();
        for keyword in keywords() {
            assert!(seen.insert(keyword.to_ascii_lowercase()), "{keyword}");
            assert!(find(&keyword.to_ascii_uppercase()).is_some(), "{keyword}");
        }
        assert_eq!(
            find("heartbeatdelay"),
            Some(Keyword::Directive(Directive::HeartBeatDelay))
        );
        assert_eq!(find("EndFile"), None);
    }
}
