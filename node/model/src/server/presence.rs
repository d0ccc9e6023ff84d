//! Whether the `atmd` of a server is there, as one ATM hears it. Pure; time is an argument.
//!
//! A check asks a server's own address, and clients ask a VIP. Where `atmd` itself unpacks the tunnel, a host whose `atmd` was killed or
//! stopped passes every check and serves nobody. What is known of that is what the daemon said while it was there: a server that never
//! had one, or whose kernel unpacks, is checked and no more.
//!
//! Invariant: no host is gone while a connection of it is open, or of which nothing was ever heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;

/// How long the daemon of a server may be away, as when it is started anew. Longer than a server takes to come back to an ATM that
/// could not hear it: one attempt that is not answered (5 s), and the longest pause after it (6.25 s).
pub const AWAY_MAX: Duration = Duration::from_secs(12);

/// Why a host that is gone is down, for people.
pub const GONE: &str =
    "its atmd is not heard any more, and nothing else unpacks the tunnel there: start it";

/// The daemons of servers: whether they are there, and are needed.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    hosts: BTreeMap<IpAddr, Host>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    /// Connections of its daemon: while one breaks the next may be there already.
    connections: usize,
    /// The host serves nobody without its daemon.
    needs_it: bool,
    /// Since when the daemon is away.
    away: Option<Instant>,
}

impl Presence {
    /// The daemon of the server at `address` has connected.
    pub fn came(&mut self, address: IpAddr) {
        let host = self.hosts.entry(address).or_default();
        host.connections += 1;
        host.away = None;
    }

    /// The daemon said how it is, over a connection that is open. `needs_it`: without it the host serves nobody.
    pub fn said(&mut self, address: IpAddr, needs_it: bool) {
        // It may have been forgotten meanwhile, with a version that did not have it.
        let host = self.hosts.entry(address).or_default();
        host.needs_it = needs_it;
        host.away = None;
    }

    /// The daemon's connection goes on, and its host has another address, or is no server any more.
    pub fn moved(&mut self, address: IpAddr) {
        if let Some(host) = self.hosts.get_mut(&address) {
            host.connections = host.connections.saturating_sub(1);
            if host.connections == 0 {
                self.hosts.remove(&address);
            }
        }
    }

    /// A connection of the daemon has ended.
    pub fn left(&mut self, address: IpAddr, now: Instant) {
        if let Some(host) = self.hosts.get_mut(&address) {
            host.connections = host.connections.saturating_sub(1);
            if host.connections == 0 {
                host.away = Some(now);
            }
        }
    }

    /// Forgets all but the servers at these addresses.
    pub fn keep(&mut self, known: &BTreeSet<IpAddr>) {
        self.hosts.retain(|address, _| known.contains(address));
    }

    /// The hosts that serve nobody.
    #[must_use]
    pub fn gone(&self, now: Instant) -> BTreeSet<IpAddr> {
        let hosts = self.hosts.iter();
        let gone = hosts.filter(|(_, host)| {
            host.needs_it && host.away.is_some_and(|since| now > since + AWAY_MAX)
        });
        gone.map(|(address, _)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::BOOT + Duration::from_secs(seconds)
    }

    /// What a daemon does, second by second: `+` connects, `u` says that it unpacks, `k` that the kernel does, `x` a
    /// connection ends, `m` its host moves away, `f` all is forgotten, `.` nothing. Then whether the host is gone, `after` the last of it.
    fn is_gone(deeds: &str, after: u64) -> bool {
        let host = "10.1.0.1".parse().unwrap();
        let mut presence = Presence::default();
        for (second, deed) in (0..).zip(deeds.chars()) {
            match deed {
                '+' => presence.came(host),
                'u' => presence.said(host, true),
                'k' => presence.said(host, false),
                'x' => presence.left(host, at(second)),
                'm' => presence.moved(host),
                'f' => presence.keep(&BTreeSet::new()),
                _ => {}
            }
        }
        let end = u64::try_from(deeds.len()).unwrap() - 1;
        presence.gone(at(end + after)).contains(&host)
    }

    #[test]
    fn a_host_is_gone_when_the_daemon_that_it_needs_is_away_for_long() {
        let long = AWAY_MAX.as_secs() + 1;
        for (what, deeds, after, expected) in [
            ("killed", "+ux", long, true),
            ("not for long yet", "+ux", long - 1, false),
            ("the kernel unpacks on", "+kx", long, false),
            ("the kernel unpacks after all", "+ukx", long, false),
            ("started anew in time", "+ux+u", long, false),
            ("started anew too late", "+ux..............+u", 1, false),
            ("started anew and killed again", "+ux+ux", long, true),
            ("the kernel unpacks since then", "+ux+kx", long, false),
            ("it said nothing this time", "+ux+x", long, true),
            ("the next came before the first broke", "+u+ux", long, false),
            ("and broke, too", "+u+uxx", long, true),
            ("still there", "+u", 1000, false),
            ("never heard", ".", 1000, false),
            ("moved away", "+um", long, false),
            ("moved away, and the connection broke", "+umx", long, false),
            ("one of two moved away", "+u+umx", long, true),
            ("forgotten, and it went on", "+ufu", long, false),
            ("forgotten, heard again and killed", "+ufux", long, true),
            ("away and forgotten", "+uxf", long, false),
            (
                "forgotten, and the next came before the first broke",
                "+uf+uxu",
                long,
                false,
            ),
        ] {
            assert_eq!(is_gone(deeds, after), expected, "{what}");
        }
    }

    #[test]
    fn what_left_the_configuration_is_forgotten() {
        let host = "10.1.0.1".parse().unwrap();
        let mut presence = Presence::default();
        presence.came(host);
        presence.said(host, true);
        presence.keep(&BTreeSet::new());
        presence.left(host, at(0));
        assert_eq!(presence.gone(at(100)), BTreeSet::new());
    }
}
