//! A frame as AF_PACKET hands it over: a virtio-net header, then Ethernet.
//!
//! Invariant: both headers are there.

use std::sync::Arc;

use crate::lab::Frames;

/// `struct virtio_net_hdr` (VIRTIO 1.2 §5.1.6), without the number of buffers.
pub const VNET_HEADER_LEN: usize = 10;

const ETHERNET_LEN: usize = 14;
const ETHERTYPE_AT: usize = 12;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Sender and target protocol address of ARP over Ethernet and IPv4 (RFC 826), behind the Ethernet header.
const SENDER_AT: usize = ETHERNET_LEN + 14;
const TARGET_AT: usize = ETHERNET_LEN + 24;

/// A frame. Clones share their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Arc<[u8]>);

impl Frame {
    /// Takes what was received, virtio-net header first. `None`: too short to be a frame.
    #[must_use]
    pub fn new(received: &[u8]) -> Option<Self> {
        (received.len() >= VNET_HEADER_LEN + ETHERNET_LEN).then(|| Self(received.into()))
    }

    /// What is to be sent: the virtio-net header first.
    #[must_use]
    pub fn with_header(&self) -> &[u8] {
        &self.0
    }

    /// The Ethernet frame.
    fn ethernet(&self) -> &[u8] {
        self.0.get(VNET_HEADER_LEN..).unwrap_or_default()
    }

    /// Whom it is for.
    #[must_use]
    pub fn destination(&self) -> [u8; 6] {
        self.ethernet().first_chunk().copied().unwrap_or_default()
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> [u8; 6] {
        let source = self.ethernet().get(6..12);
        source.and_then(|s| s.try_into().ok()).unwrap_or_default()
    }

    /// Whether it is one of `frames`.
    #[must_use]
    pub fn is_one_of(&self, frames: Frames) -> bool {
        match frames {
            Frames::All => true,
            Frames::Announcements => self.is_announcement(),
            Frames::LongerThan(bytes) => self.ethernet().len() - ETHERNET_LEN > usize::from(bytes),
        }
    }

    fn is_announcement(&self) -> bool {
        let bytes = self.ethernet();
        let address = |at: usize| bytes.get(at..at + 4);
        bytes.get(ETHERTYPE_AT..ETHERNET_LEN) == Some(&ETHERTYPE_ARP)
            && address(SENDER_AT).is_some()
            && address(SENDER_AT) == address(TARGET_AT)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame of `length` bytes behind its Ethernet header.
    pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], length: usize) -> Frame {
        let ethernet = [&destination[..], &source, &[0x08, 0x00], &vec![0; length]].concat();
        Frame::new(&[&[0; VNET_HEADER_LEN][..], &ethernet].concat()).unwrap()
    }

    pub(crate) fn arp(source: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Frame {
        let body = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &source,
            &sender,
            &[0; 6],
            &target,
        ]
        .concat();
        let ethernet = [&[0xff; 6][..], &source, &ETHERTYPE_ARP, &body].concat();
        Frame::new(&[&[0; VNET_HEADER_LEN][..], &ethernet].concat()).unwrap()
    }

    #[test]
    fn kinds_are_told_apart() {
        let own = [2, 0, 0, 0, 0, 1];
        let claim = arp(own, [10, 1, 0, 100], [10, 1, 0, 100]);
        let question = arp(own, [10, 1, 0, 1], [10, 1, 0, 100]);
        assert!(claim.is_one_of(Frames::Announcements));
        assert!(!question.is_one_of(Frames::Announcements));
        assert_eq!((claim.destination(), claim.source()), ([0xff; 6], own));
        for (length, longer) in [(576, false), (577, true)] {
            let frame = frame([2; 6], own, length);
            assert!(!frame.is_one_of(Frames::Announcements));
            assert_eq!(frame.is_one_of(Frames::LongerThan(576)), longer);
        }
    }

    #[test]
    fn what_is_too_short_is_no_frame() {
        assert_eq!(Frame::new(&[0; 23]), None);
        let shortest = Frame::new(&[0; 24]).unwrap();
        assert!(!shortest.is_one_of(Frames::Announcements));
        assert!(!shortest.is_one_of(Frames::LongerThan(0)));
    }
}
