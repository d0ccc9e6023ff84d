//! The packet sources and sinks. The only code that opens a packet socket or uses `unsafe`.

mod addresses6;
mod interface;
mod offload;
mod outbox;
mod pnet;
mod ring;
#[cfg(atm_sim)]
pub(crate) mod simulated;
mod socket;
mod vlan;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;
use std::time::Duration;

use dataplane_core::{Frame, Interface};

pub use addresses6::{Addresses6, addresses6};
pub(crate) use interface::{Found, find};
pub use interface::{InterfaceError, interface_names};
pub(crate) use outbox::{Outbox, Push};

/// Frames received in one batch. 64 frames of 1514 bytes stay inside the second-level cache, and a batch lasts about
/// 200 microseconds, so the lease is looked at at least that often under full load.
const BATCH_FRAMES_MAX: usize = 64;
/// Ethernet header and one VLAN tag.
pub(crate) const ETHERNET_OVERHEAD: usize = 14 + 4;
/// The longest frame a port takes: an IPv4 packet of 65,535 bytes in its Ethernet header, with room to see that one was longer.
const FRAME_LEN_MAX: usize = 65_535 + ETHERNET_OVERHEAD + 1;

/// Which port an engine uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortKind {
    /// A receive ring shared with the kernel, sendmmsg, virtio-net headers. The default.
    #[default]
    Ring,
    /// pnet's datalink channel: one system call per frame, offloads inferred.
    Pnet,
}

/// A word that names no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no port named {0:?} (there are: ring, pnet)")]
pub struct UnknownPort(pub String);

impl FromStr for PortKind {
    type Err = UnknownPort;
    fn from_str(word: &str) -> Result<Self, UnknownPort> {
        match word {
            "ring" => Ok(Self::Ring),
            "pnet" => Ok(Self::Pnet),
            _ => Err(UnknownPort(word.to_owned())),
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Pnet => "pnet",
        })
    }
}

/// Frames that never became frames of the core. Never reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveCounters {
    /// The kernel had no room: the engine did not keep up, or was stopped.
    pub kernel_dropped: u64,
    /// Longer than 64 KiB, or the queue for long frames was full.
    pub truncated: u64,
    /// Tagged for another VLAN.
    pub other_vlan: u64,
}

impl ReceiveCounters {
    /// Each with its name in telemetry: kebab-case, never given to another.
    pub const fn named(self) -> [(&'static str, u64); 3] {
        [
            ("kernel-dropped", self.kernel_dropped),
            ("truncated", self.truncated),
            ("other-vlan", self.other_vlan),
        ]
    }

    /// The sum of both, field by field.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            kernel_dropped: self.kernel_dropped + other.kernel_dropped,
            truncated: self.truncated + other.truncated,
            other_vlan: self.other_vlan + other.other_vlan,
        }
    }
}

/// The receiving half of a port. A batch is `fill`, `frame` for each index below what it returned, `release`.
pub(crate) enum Receiver {
    Ring(ring::Receiver),
    Pnet(pnet::Receiver),
    #[cfg(atm_sim)]
    Simulated(simulated::Receiver),
}

/// The sending half of a port.
pub(crate) enum Sender {
    Ring(ring::Sender),
    Pnet(pnet::Sender),
    #[cfg(atm_sim)]
    Simulated(simulated::Sender),
}

/// Opens a port on an interface that was found before.
pub(crate) fn open(kind: PortKind, found: &Found) -> io::Result<(Receiver, Sender)> {
    let Interface { mtu, .. } = found.interface;
    Ok(match kind {
        PortKind::Ring => {
            let (receiver, sender) = ring::open(found.device.index, mtu)?;
            (Receiver::Ring(receiver), Sender::Ring(sender))
        }
        PortKind::Pnet => {
            let (receiver, sender) = pnet::open(&found.device, mtu)?;
            (Receiver::Pnet(receiver), Sender::Pnet(sender))
        }
    })
}

/// Marks what any socket sends from now on (`SO_MARK`, socket(7)). Needs CAP_NET_ADMIN.
pub(crate) fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    socket::set_mark(socket, mark)
}

/// Has the kernel queue as much for any socket as for that of a port.
pub(crate) fn enlarge_send_buffer(socket: &impl AsFd) -> io::Result<()> {
    socket::enlarge_send_buffer(socket)
}

impl Receiver {
    /// Takes what has arrived without waiting: how many frames this batch has, at most [`BATCH_FRAMES_MAX`].
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        match self {
            Self::Ring(port) => Ok(port.fill()),
            Self::Pnet(port) => port.fill(),
            #[cfg(atm_sim)]
            Self::Simulated(port) => Ok(port.fill()),
        }
    }

    /// A frame of this batch and how long it waited since the kernel received it. `None`: not for us, and counted here.
    pub(crate) fn frame(&mut self, index: usize) -> Option<(Frame<'_>, Duration)> {
        match self {
            Self::Ring(port) => port.frame(index),
            Self::Pnet(port) => port.frame(index),
            #[cfg(atm_sim)]
            Self::Simulated(port) => port.frame(index),
        }
    }

    /// Ends the batch.
    pub(crate) fn release(&mut self) {
        match self {
            Self::Ring(port) => port.release(),
            Self::Pnet(_) => {}
            #[cfg(atm_sim)]
            Self::Simulated(_) => {}
        }
    }

    /// What went wrong so far.
    pub(crate) fn counters(&mut self) -> ReceiveCounters {
        match self {
            Self::Ring(port) => port.counters(),
            Self::Pnet(port) => port.counters(),
            #[cfg(atm_sim)]
            Self::Simulated(_) => ReceiveCounters::default(),
        }
    }

    /// To be polled for input. An error there (the link went down) is fetched with [`pending_error`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ring(port) => port.fd(),
            Self::Pnet(port) => port.fd(),
            #[cfg(atm_sim)]
            Self::Simulated(port) => port.fd(),
        }
    }
}

impl Sender {
    /// Marks everything sent from now on (`SO_MARK`, socket(7)); 0: no mark. Needs CAP_NET_ADMIN.
    pub(crate) fn set_mark(&self, mark: u32) -> io::Result<()> {
        let fd = match self {
            Self::Ring(port) => port.fd(),
            Self::Pnet(port) => port.fd(),
            // The kernel's gate stands on real interfaces only.
            #[cfg(atm_sim)]
            Self::Simulated(_) => return Ok(()),
        };
        socket::set_mark(&fd, mark)
    }

    /// Sends frames from slot `from` on without waiting. `Ok(n)`: the first n of them went out, n > 0.
    pub(crate) fn send(&mut self, outbox: &Outbox, from: usize) -> io::Result<usize> {
        match self {
            Self::Ring(port) => port.send(outbox, from),
            Self::Pnet(port) => port.send(outbox, from),
            #[cfg(atm_sim)]
            Self::Simulated(port) => Ok(port.send(outbox, from)),
        }
    }
}

/// The error a socket has stored (`SO_ERROR`), if any.
pub(crate) fn pending_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    match rustix::net::sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_by_name() {
        for kind in [PortKind::Ring, PortKind::Pnet] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(
            "xdp".parse::<PortKind>().unwrap_err().to_string(),
            "no port named \"xdp\" (there are: ring, pnet)"
        );
    }
}
