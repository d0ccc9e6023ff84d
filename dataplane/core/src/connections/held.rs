//! First packets that wait for their connection's record: one each, in buffers that are used again.

use std::num::NonZeroU32;

/// Where a packet waits: one more than its slot, so that an entry without one spends no room on saying so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(NonZeroU32);

impl Place {
    fn new(slot: u32) -> Option<Self> {
        NonZeroU32::new(slot.checked_add(1)?).map(Self)
    }

    const fn slot(self) -> u32 {
        self.0.get() - 1
    }
}

/// The pool. Holds at most `max` packets of at most an MTU each, which is its bound in bytes.
#[derive(Debug)]
pub(crate) struct Held {
    slots: Vec<Slot>,
    free: Vec<u32>,
    max: usize,
}

#[derive(Debug)]
struct Slot {
    /// The connection that waits; `None`: free.
    owner: Option<u32>,
    packet: Vec<u8>,
}

impl Held {
    /// An empty pool; buffers are made when they are first needed.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max: max.min(u32::MAX as usize - 1),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    pub(crate) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Copies a packet into the pool; `None` when it is full.
    pub(crate) fn put(&mut self, owner: u32, packet: &[u8]) -> Option<Place> {
        if self.is_full() {
            return None;
        }
        let at = self.free.pop().or_else(|| {
            let at = u32::try_from(self.slots.len()).ok()?;
            self.slots.push(Slot {
                owner: None,
                packet: Vec::new(),
            });
            Some(at)
        })?;
        let place = Place::new(at)?;
        let slot = &mut self.slots[at as usize];
        slot.owner = Some(owner);
        slot.packet.clear();
        slot.packet.extend_from_slice(packet);
        Some(place)
    }

    /// The packet at `at`.
    pub(crate) fn packet(&self, at: Place) -> Option<&[u8]> {
        self.slots
            .get(at.slot() as usize)
            .filter(|slot| slot.owner.is_some())
            .map(|slot| slot.packet.as_slice())
    }

    /// Lets go of the packet at `at`.
    pub(crate) fn release(&mut self, at: Place) {
        if let Some(slot) = self.slots.get_mut(at.slot() as usize)
            && slot.owner.take().is_some()
        {
            self.free.push(at.slot());
        }
    }

    /// Any one connection that waits, looked for from slot `from` on, and where to look next.
    pub(crate) fn owner_from(&self, from: usize) -> Option<(u32, usize)> {
        let rest = self.slots.get(from..)?;
        rest.iter()
            .enumerate()
            .find_map(|(step, slot)| Some((slot.owner?, from + step + 1)))
    }
}
