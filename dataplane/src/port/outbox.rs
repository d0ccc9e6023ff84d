//! Frames on their way out: preallocated slots, filled by the core and sent in one go.

/// Slots: one GSO frame of 64 KiB becomes 46 segments of 1448 bytes; four of them, or four batches of small frames.
pub(crate) const FRAMES_MAX: usize = 256;

/// Room for the virtio-net header before each frame (VIRTIO 1.2 §5.1.6, the form without `num_buffers`). It stays zero:
/// every frame that leaves is finished.
pub(crate) const VNET_HDR_LEN: usize = 10;

/// What became of a frame that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push {
    /// It has a slot.
    Stored,
    /// Every slot is taken: send first.
    Full,
    /// Longer than any frame of this interface.
    TooLong,
}

/// The slots.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Box<[u8]>,
    slot_len: usize,
    /// Frame lengths, without the virtio-net header; as many as slots are taken.
    lengths: Vec<usize>,
}

impl Outbox {
    /// Slots for frames of at most `frame_len_max` bytes from the Ethernet header on.
    pub(crate) fn new(frame_len_max: usize) -> Self {
        // A multiple of 64 keeps slots from sharing a cache line.
        let slot_len = (VNET_HDR_LEN + frame_len_max).next_multiple_of(64);
        Self {
            bytes: vec![0; slot_len * FRAMES_MAX].into_boxed_slice(),
            slot_len,
            lengths: Vec::with_capacity(FRAMES_MAX),
        }
    }

    /// Stores one frame given in two parts.
    pub(crate) fn push(&mut self, head: &[u8], body: &[u8]) -> Push {
        let length = head.len() + body.len();
        if VNET_HDR_LEN + length > self.slot_len {
            return Push::TooLong;
        }
        if self.lengths.len() == FRAMES_MAX {
            return Push::Full;
        }
        let start = self.lengths.len() * self.slot_len + VNET_HDR_LEN;
        self.bytes[start..start + head.len()].copy_from_slice(head);
        self.bytes[start + head.len()..start + length].copy_from_slice(body);
        self.lengths.push(length);
        Push::Stored
    }

    /// Frames stored.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// The frame in slot `index`, after its zero virtio-net header.
    pub(crate) fn with_vnet_header(&self, index: usize) -> &[u8] {
        let start = index * self.slot_len;
        &self.bytes[start..start + VNET_HDR_LEN + self.lengths[index]]
    }

    /// The frame in slot `index`.
    pub(crate) fn frame(&self, index: usize) -> &[u8] {
        &self.with_vnet_header(index)[VNET_HDR_LEN..]
    }

    /// Empties every slot.
    pub(crate) fn clear(&mut self) {
        self.lengths.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_full_is_named() {
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.push(&[1; 60], &[2; 400]), Push::TooLong);
        for _ in 0..FRAMES_MAX {
            assert_eq!(outbox.push(&[1, 2], &[3]), Push::Stored);
        }
        assert_eq!(outbox.push(&[1], &[]), Push::Full);
        assert_eq!(outbox.frame(FRAMES_MAX - 1), [1, 2, 3]);
        assert_eq!(
            outbox.with_vnet_header(0)[..VNET_HDR_LEN],
            [0; VNET_HDR_LEN]
        );
        outbox.clear();
        assert_eq!(outbox.push(&[9], &[]), Push::Stored);
        assert_eq!((outbox.len(), outbox.frame(0)), (1, &[9_u8][..]));
    }
}
