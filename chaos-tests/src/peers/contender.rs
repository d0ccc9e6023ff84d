//! Who is measured: this product at three paces, and the routers people use instead.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One router under test, with its pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// This product, HeartBeatDelay 100 ms, MaxLostHeartbeats 2.
    #[serde(rename = "ours-100ms")]
    #[value(name = "ours-100ms")]
    Ours100Ms,
    /// This product, HeartBeatDelay 50 ms, MaxLostHeartbeats 3.
    #[serde(rename = "ours-50ms")]
    #[value(name = "ours-50ms")]
    Ours50Ms,
    /// This product with its fast profile.
    #[serde(rename = "ours-fast")]
    #[value(name = "ours-fast")]
    OursFast,
    /// keepalived, VRRPv2, advertisements every second.
    #[serde(rename = "keepalived-1s")]
    #[value(name = "keepalived-1s")]
    Keepalived1S,
    /// keepalived, VRRPv3, every 100 ms.
    #[serde(rename = "keepalived-100ms")]
    #[value(name = "keepalived-100ms")]
    Keepalived100Ms,
    /// keepalived, VRRPv3, every 10 ms, with real-time priority and locked memory.
    #[serde(rename = "keepalived-10ms")]
    #[value(name = "keepalived-10ms")]
    Keepalived10Ms,
    /// keepalived every 100 ms with tuned conntrackd; DNAT to the servers.
    #[serde(rename = "conntrackd-100ms")]
    #[value(name = "conntrackd-100ms")]
    Conntrackd100Ms,
    /// ucarp, every second.
    #[serde(rename = "ucarp-1s")]
    #[value(name = "ucarp-1s")]
    Ucarp1S,
}

/// What kind of router it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This product.
    Ours,
    /// keepalived alone: the VIP is an address of the router's kernel.
    Keepalived,
    /// keepalived, nft DNAT and conntrackd.
    Conntrackd,
    /// ucarp: the VIP is an address of the router's kernel.
    Ucarp,
}

impl Contender {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::Ours100Ms,
        Self::Ours50Ms,
        Self::OursFast,
        Self::Keepalived1S,
        Self::Keepalived100Ms,
        Self::Keepalived10Ms,
        Self::Conntrackd100Ms,
        Self::Ucarp1S,
    ];

    /// Its kind.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Ours100Ms | Self::Ours50Ms | Self::OursFast => Kind::Ours,
            Self::Keepalived1S | Self::Keepalived100Ms | Self::Keepalived10Ms => Kind::Keepalived,
            Self::Conntrackd100Ms => Kind::Conntrackd,
            Self::Ucarp1S => Kind::Ucarp,
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ours100Ms => "atmd, heartbeat 100 ms, 2 lost",
            Self::Ours50Ms => "atmd, heartbeat 50 ms, 3 lost",
            Self::OursFast => "atmd, fast profile",
            Self::Keepalived1S => "keepalived, advert 1 s",
            Self::Keepalived100Ms => "keepalived, advert 0.1 s",
            Self::Keepalived10Ms => "keepalived, advert 0.01 s",
            Self::Conntrackd100Ms => "keepalived 0.1 s + conntrackd",
            Self::Ucarp1S => "ucarp, advert 1 s",
        }
    }

    /// The interval at which it tells others that it lives. For the fast profile: the longest that profile may have.
    #[must_use]
    pub fn beat(self) -> Duration {
        Duration::from_millis(match self {
            Self::Ours100Ms | Self::Keepalived100Ms | Self::Conntrackd100Ms => 100,
            Self::Ours50Ms => 50,
            Self::OursFast => 20,
            Self::Keepalived10Ms => 10,
            Self::Keepalived1S | Self::Ucarp1S => 1000,
        })
    }

    /// Whether it forwards connections to servers and means to keep them through a takeover.
    #[must_use]
    pub fn keeps_connections(self) -> bool {
        matches!(self.kind(), Kind::Ours | Kind::Conntrackd)
    }

    /// The programs it needs beside this project's, with their Debian packages.
    #[must_use]
    pub fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self.kind() {
            Kind::Ours => &[],
            Kind::Keepalived => &[("keepalived", "keepalived")],
            Kind::Conntrackd => &[
                ("keepalived", "keepalived"),
                ("conntrackd", "conntrackd"),
                ("conntrack", "conntrack"),
            ],
            Kind::Ucarp => &[("ucarp", "ucarp")],
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            self.to_possible_value()
                .as_ref()
                .map_or("", |value| value.get_name()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_results() {
        for contender in Contender::ALL {
            let json = serde_json::to_string(&contender).unwrap();
            assert_eq!(json, format!("\"{contender}\""));
            assert_eq!(
                Contender::from_str(&contender.to_string(), false),
                Ok(contender)
            );
        }
    }
}
