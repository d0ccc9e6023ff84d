//! Path MTUs of tunnels: how large an outer packet to a server may be, as far as routers have told (RFC 2003 §5.1, RFC 2473 §7.1).
//!
//! Invariant: a server has an entry only while it is less than the link carries, and it only gets less until it is forgotten.

use std::net::IpAddr;
use std::time::Duration;

use model::Instant;
use rustc_hash::FxHashMap;

use crate::wire::ipv6;

/// How long what a router told is believed: then a larger packet tries the path again (RFC 1191 §6.3, RFC 8201 §4).
const LIFETIME: Duration = Duration::from_secs(600);
/// No path is believed to be narrower, as anybody may forge what a router says. Every IPv4 host takes packets of this size (RFC 791
/// §3.1), and so does every path that is worth a tunnel.
const V4_MIN: u16 = 576;

/// What is known of the paths to the servers; as many as there are servers by tunnel.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    by_server: FxHashMap<IpAddr, Learned>,
    /// No entry ends before this.
    next: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    mtu: u16,
    until: Instant,
}

impl PathMtus {
    /// The largest packet, in bytes, that goes to a server over a link that carries `link`.
    pub(crate) fn to(&self, server: IpAddr, link: u16) -> u16 {
        if self.by_server.is_empty() {
            return link;
        }
        self.by_server
            .get(&server)
            .map_or(link, |learned| learned.mtu.min(link))
    }

    /// A router said that packets to a server may have `told` bytes. Whether that is news.
    pub(crate) fn learn(&mut self, server: IpAddr, told: u16, link: u16, now: Instant) -> bool {
        let mtu = match server {
            IpAddr::V4(_) => told.max(V4_MIN),
            // Nobody may say so (RFC 8201 §4).
            IpAddr::V6(_) if told < ipv6::MTU_MIN => return false,
            IpAddr::V6(_) => told,
        };
        if mtu >= self.to(server, link) {
            return false;
        }
        let until = now + LIFETIME;
        self.by_server.insert(server, Learned { mtu, until });
        self.next.get_or_insert(until);
        true
    }

    /// Forgets who is no server by tunnel any more.
    pub(crate) fn keep(&mut self, is_server: impl Fn(IpAddr) -> bool) {
        self.by_server.retain(|server, _| is_server(*server));
    }

    /// When `expire` may have something to do.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let mut next: Option<Instant> = None;
        self.by_server.retain(|_, learned| {
            let stays = learned.until > now;
            if stays {
                next = Some(next.map_or(learned.until, |next| next.min(learned.until)));
            }
            stays
        });
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u16 = 1500;

    fn at(seconds: u64) -> Instant {
        Instant::BOOT + Duration::from_secs(seconds)
    }

    #[test]
    fn a_path_gets_narrower_only_and_never_too_narrow() {
        for (server, told, known) in [
            ("10.5.0.11", &[1400][..], 1400),
            ("10.5.0.11", &[1400, 1450, 1400], 1400),
            ("10.5.0.11", &[1400, 1300], 1300),
            ("10.5.0.11", &[1500, 9000], LINK),
            ("10.5.0.11", &[68], 576),
            ("10.5.0.11", &[0], 576),
            ("2001:db8::11", &[1400], 1400),
            ("2001:db8::11", &[1280], 1280),
            ("2001:db8::11", &[1279, 0], LINK),
        ] {
            let server = server.parse().unwrap();
            let mut paths = PathMtus::default();
            let mut before = LINK;
            for told in told {
                let news = paths.learn(server, *told, LINK, at(0));
                let after = paths.to(server, LINK);
                assert_eq!(news, after < before, "{server} {told}");
                before = after;
            }
            assert_eq!(paths.to(server, LINK), known, "{server} {told:?}");
            assert_eq!(paths.to(server, 600), known.min(600));
            assert_eq!(paths.to("10.5.0.12".parse().unwrap(), LINK), LINK);
        }
    }

    #[test]
    fn each_is_forgotten_ten_minutes_after_it_was_told() {
        let [one, other] = ["10.5.0.11", "10.5.0.12"].map(|server| server.parse().unwrap());
        let mut paths = PathMtus::default();
        assert_eq!(paths.poll_timeout(), None);
        assert!(paths.learn(one, 1400, LINK, at(0)));
        assert!(paths.learn(other, 1300, LINK, at(100)));
        // The same again is no news, and does not prolong it.
        assert!(!paths.learn(one, 1400, LINK, at(300)));
        let known = |paths: &PathMtus| [one, other].map(|server| paths.to(server, LINK));
        for (seconds, left) in [
            (599, [1400, 1300]),
            (600, [LINK, 1300]),
            (700, [LINK, LINK]),
        ] {
            paths.expire(at(seconds));
            assert_eq!(known(&paths), left, "{seconds}");
        }
        assert_eq!(paths.poll_timeout(), None);
    }

    #[test]
    fn who_is_no_server_any_more_is_forgotten() {
        let [one, other] = ["10.5.0.11", "10.5.0.12"].map(|server| server.parse().unwrap());
        let mut paths = PathMtus::default();
        for server in [one, other] {
            assert!(paths.learn(server, 1400, LINK, at(0)));
        }
        paths.keep(|server| server == other);
        assert_eq!(
            [one, other].map(|server| paths.to(server, LINK)),
            [LINK, 1400]
        );
    }
}
