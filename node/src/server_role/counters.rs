//! What became of the tunnel's packets, counted by name.

use std::sync::atomic::{AtomicU64, Ordering};

use super::packet::Discard;

/// What became of the packets of the tunnel since the start, each packet in exactly one field.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Handed to this host's own stack.
    pub delivered: u64,
    /// Of these: with a transport checksum that the sender, or this host's receive offload, left unfinished.
    pub delivered_partial_checksum: u64,
    /// Discarded: the outer header is no IP header.
    pub outer_malformed: u64,
    /// Discarded: the sender is none of the ATMs.
    pub outer_source: u64,
    /// Discarded: congestion was marked on the way, and the packet inside cannot carry the mark (RFC 6040).
    pub outer_congestion: u64,
    /// Discarded: fewer bytes inside than a header of its version has.
    pub inner_truncated: u64,
    /// Discarded: inside is not the version that the protocol number announced.
    pub inner_version: u64,
    /// Discarded: an IPv4 header length below 20 bytes or behind the end.
    pub inner_header_length: u64,
    /// Discarded: a total or payload length below the header's or behind the end.
    pub inner_total_length: u64,
    /// Discarded: to an address that is none of the VIPs.
    pub inner_destination: u64,
    /// Discarded by the tunnel device, which somebody set down or removed.
    pub tunnel_refused: u64,
    /// Discarded by the kernel because the receive buffer was full.
    pub receive_buffer_full: u64,
}

impl Counters {
    /// Every counter with its name, in a fixed order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 12] {
        [
            ("delivered", self.delivered),
            (
                "delivered_partial_checksum",
                self.delivered_partial_checksum,
            ),
            ("outer_malformed", self.outer_malformed),
            ("outer_source", self.outer_source),
            ("outer_congestion", self.outer_congestion),
            ("inner_truncated", self.inner_truncated),
            ("inner_version", self.inner_version),
            ("inner_header_length", self.inner_header_length),
            ("inner_total_length", self.inner_total_length),
            ("inner_destination", self.inner_destination),
            ("tunnel_refused", self.tunnel_refused),
            ("receive_buffer_full", self.receive_buffer_full),
        ]
    }
}

/// The counters while they are counted, by one thread.
#[derive(Debug, Default)]
pub(super) struct Tally {
    delivered: AtomicU64,
    partial_checksum: AtomicU64,
    tunnel_refused: AtomicU64,
    discarded: [AtomicU64; 8],
}

impl Tally {
    pub(super) fn delivered(&self, partial_checksum: bool) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if partial_checksum {
            self.partial_checksum.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn tunnel_refused(&self) {
        self.tunnel_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn discarded(&self, reason: Discard) {
        self.discarded[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counters as they stand; `receive_buffer_full` is the kernel's own count.
    pub(super) fn snapshot(&self, receive_buffer_full: u64) -> Counters {
        let discarded = |reason: Discard| self.discarded[reason as usize].load(Ordering::Relaxed);
        Counters {
            delivered: self.delivered.load(Ordering::Relaxed),
            delivered_partial_checksum: self.partial_checksum.load(Ordering::Relaxed),
            outer_malformed: discarded(Discard::OuterMalformed),
            outer_source: discarded(Discard::OuterSource),
            outer_congestion: discarded(Discard::OuterCongestion),
            inner_truncated: discarded(Discard::InnerTruncated),
            inner_version: discarded(Discard::InnerVersion),
            inner_header_length: discarded(Discard::InnerHeaderLength),
            inner_total_length: discarded(Discard::InnerTotalLength),
            inner_destination: discarded(Discard::InnerDestination),
            tunnel_refused: self.tunnel_refused.load(Ordering::Relaxed),
            receive_buffer_full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_discard_has_a_counter_of_its_own() {
        let reasons = [
            (Discard::OuterMalformed, "outer_malformed"),
            (Discard::OuterSource, "outer_source"),
            (Discard::OuterCongestion, "outer_congestion"),
            (Discard::InnerTruncated, "inner_truncated"),
            (Discard::InnerVersion, "inner_version"),
            (Discard::InnerHeaderLength, "inner_header_length"),
            (Discard::InnerTotalLength, "inner_total_length"),
            (Discard::InnerDestination, "inner_destination"),
        ];
        for (reason, name) in reasons {
            let tally = Tally::default();
            tally.discarded(reason);
            let counted: Vec<_> = tally
                .snapshot(0)
                .named()
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect();
            assert_eq!(counted, [(name, 1)]);
        }
    }
}
