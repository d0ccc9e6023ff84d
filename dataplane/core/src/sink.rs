//! Where the core's output goes.

use model::connections::{ConnectionKey, Pin};
use model::sticky::StickyKey;

/// Takes what the core emits. Implemented by the engine (packet port and replicator) and by tests (vectors).
pub trait Sink {
    /// Sends one finished frame (checksums complete, no segmentation left), given in two parts that are
    /// sent back to back: headers built by the core, and the payload borrowed from the received frame.
    fn transmit(&mut self, head: &[u8], body: &[u8]);

    /// Sends one finished frame, given in two parts likewise, to another ATM and to nobody else: it speaks for no VIP and needs no
    /// lease.
    fn relay(&mut self, head: &[u8], body: &[u8]);

    /// Gives one finished packet, without an Ethernet header and in two parts likewise, to the host's own stack: a tunnel packet
    /// from the host to itself. It is forwarded like any other: it needs the lease.
    fn deliver(&mut self, head: &[u8], body: &[u8]);

    /// Asks for a new connection to be replicated. `false`: the replicator has no room, the packet is refused.
    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool;

    /// Asks for the end of a connection to be replicated. `false`: no room; the core asks again later.
    fn close(&mut self, key: ConnectionKey) -> bool;

    /// Asks for a sticky client to be forgotten everywhere. `false`: no room; the core asks again later.
    fn unstick(&mut self, key: StickyKey) -> bool;
}
