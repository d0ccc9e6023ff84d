//! Speaks for the VIPs in ARP and in neighbour discovery: answers who asks, announces a takeover, repeats the announcement, defends it.
//!
//! Everything it sends goes through a [`Voice`], so it is silent without the lease.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use model::Instant;

use crate::counters::{Counters, Event};
use crate::gate::Voice;
use crate::routes::Routes;
use crate::wire::arp::{Arp, Operation};
use crate::wire::nd;
use crate::{MacAddr, Sink};

/// When the announcements of a takeover are sent, counted from its start: at once; again while the switch still
/// learns; and twice more for who lost the first ones.
const BURST: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];
/// `SendArpDelay` below this would only be load.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// VIPs announced in one go; the rest follows in the next call, after the next batch of frames.
const BATCH: usize = 64;
/// A foreign claim is answered with an announcement at most this often (RFC 5227 §1.1, DEFEND_INTERVAL), so that two
/// hosts that claim one address do not shout at each other.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// The schedule of announcements.
#[derive(Debug, Default)]
pub(crate) struct Speaker {
    /// `None` until the first tenure.
    due: Option<Instant>,
    started: Instant,
    /// Announcements of the burst that are over.
    step: usize,
    /// VIPs of the present announcement that are done.
    done: usize,
    defended: Option<Instant>,
}

impl Speaker {
    /// A takeover, or VIPs that are new: the burst starts.
    pub(crate) fn begin(&mut self, now: Instant) {
        *self = Self {
            due: Some(now),
            started: now,
            ..Self::default()
        };
    }

    /// New VIPs matter only to one who speaks.
    pub(crate) fn vips_changed(&mut self, now: Instant) {
        if self.due.is_some() {
            self.begin(now);
        }
    }

    /// Somebody else claims a VIP.
    pub(crate) fn defend(&mut self, now: Instant) {
        if self
            .defended
            .is_none_or(|last| now >= last + DEFEND_INTERVAL)
        {
            self.defended = Some(now);
            self.due = self.due.map(|due| due.min(now));
        }
    }

    /// When the next announcement is due, were the lease held.
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The lease ran out at `until` before the announcement that was due: it waits for the next lease.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.due = self.due.map(|due| due.max(until));
    }

    /// Announces the VIPs if that is due. IPv4: the request form, which RFC 5227 §2.3 prescribes, and the reply form, which
    /// some stacks are alone to believe. IPv6: an unsolicited advertisement that overrides (RFC 4861 §7.2.6).
    pub(crate) fn announce<S: Sink>(
        &mut self,
        mac: MacAddr,
        routes: &Routes,
        now: Instant,
        voice: &mut Voice<'_, S>,
        counters: &mut Counters,
    ) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let vips = &routes.vips;
        for &vip in vips.iter().skip(self.done).take(BATCH) {
            match vip {
                IpAddr::V4(vip) => {
                    for (operation, target_mac) in [
                        (Operation::Request, MacAddr::ZERO),
                        (Operation::Reply, MacAddr::BROADCAST),
                    ] {
                        let claim = Arp {
                            operation,
                            sender_mac: mac,
                            sender: vip,
                            target_mac,
                            target: vip,
                        };
                        voice.transmit(&claim.frame(MacAddr::BROADCAST), &[]);
                        counters.note(Event::GratuitousArp);
                    }
                }
                IpAddr::V6(vip) => {
                    let router = routes.is_gateway(vip.into());
                    voice.transmit(&nd::advertisement(mac, vip, router, None), &[]);
                    counters.note(Event::UnsolicitedAdvertisement);
                }
            }
        }
        self.done += BATCH;
        if self.done < vips.len() {
            return;
        }
        self.done = 0;
        self.step = self.step.saturating_add(1);
        self.due = Some(match BURST.get(self.step) {
            Some(&after) => self.started + after,
            None => now + routes.arp_interval.max(INTERVAL_MIN),
        });
    }
}

/// Answers a request for a VIP (RFC 826), to the asker alone.
pub(crate) fn answer<S: Sink>(mac: MacAddr, request: &Arp, voice: &mut Voice<'_, S>) {
    let reply = Arp {
        operation: Operation::Reply,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    voice.transmit(&reply.frame(request.sender_mac), &[]);
}

/// Answers a solicitation for a VIP (RFC 4861 §7.2.4), to the asker alone; who looks whether the address is free has no address
/// yet, and is told with everybody (RFC 4862 §5.4.3 makes it give the address up). `router`: the address is a `Gateway`.
pub(crate) fn advertise<S: Sink>(
    mac: MacAddr,
    vip: Ipv6Addr,
    router: bool,
    asker: Option<(MacAddr, Ipv6Addr)>,
    voice: &mut Voice<'_, S>,
) {
    voice.transmit(&nd::advertisement(mac, vip, router, asker), &[]);
}
