//! The `pnet` port: pnet's datalink channel, one frame per system call. The simplest port, and the slowest.
//!
//! pnet would read its own sends when two channels share an interface, and cut frames longer than its read buffer
//! without a word: it is given a socket with `PACKET_IGNORE_OUTGOING` and a buffer for the longest frame. There is no
//! virtio-net header here: what the sender's stack left undone is inferred ([`offload::infer`]).
#![expect(
    unsafe_code,
    reason = "pnet owns the socket and lends out only its number"
)]

use std::io;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::time::Duration;

use dataplane_core::Frame;
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender, NetworkInterface};

use super::outbox::Outbox;
use super::{ETHERNET_OVERHEAD, FRAME_LEN_MAX, ReceiveCounters, offload, socket, vlan};
use crate::clock;

/// About 30 GSO frames, or 2,700 small ones, which are 20 ms of work. More is worse: under overload every frame would
/// wait longer than the core's age limit and be received only to be thrown away (16 MiB cost half of the throughput).
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// The receiving half.
pub(crate) struct Receiver {
    channel: Box<dyn DataLinkReceiver>,
    fd: RawFd,
    mtu: u16,
    /// The frame of this batch (a batch is one frame here), with a copy since pnet lends it read-only.
    frame: Box<[u8]>,
    len: usize,
    taken_at: u64,
    stamp: Option<u64>,
    counters: ReceiveCounters,
}

/// The sending half.
pub(crate) struct Sender {
    channel: Box<dyn DataLinkSender>,
    fd: RawFd,
}

/// Opens both halves; pnet closes the socket when both are gone.
pub(crate) fn open(interface: &NetworkInterface, mtu: u16) -> io::Result<(Receiver, Sender)> {
    let socket = socket::open(RECEIVE_BUFFER_BYTES)?;
    vlan::cut_tagged(&socket)?;
    // pnet owns the number from here on, and closes it also when it fails.
    let fd = socket.into_raw_fd();
    let config = Config {
        socket_fd: Some(fd),
        read_buffer_size: FRAME_LEN_MAX,
        write_buffer_size: ETHERNET_OVERHEAD + usize::from(mtu),
        read_timeout: Some(Duration::ZERO),
        write_timeout: Some(Duration::ZERO),
        // A VIP is reached at our own Ethernet address.
        promiscuous: false,
        ..Config::default()
    };
    let Channel::Ethernet(sender, receiver) = datalink::channel(interface, config)? else {
        return Err(io::Error::other("pnet opened a channel of an unknown kind"));
    };
    let receiver = Receiver {
        channel: receiver,
        fd,
        mtu,
        frame: vec![0; FRAME_LEN_MAX].into_boxed_slice(),
        len: 0,
        taken_at: 0,
        stamp: None,
        counters: ReceiveCounters::default(),
    };
    // Switches the kernel's stamps on, so that the first frame has one.
    let _none_yet = socket::last_stamp(&receiver.fd());
    let channel = sender;
    Ok((receiver, Sender { channel, fd }))
}

impl Receiver {
    /// Takes one frame if there is one, without waiting.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.len = 0;
        let frame = match self.channel.next() {
            Ok(frame) => frame,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
                ) =>
            {
                return Ok(0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            // pnet's word for POLLERR; the socket has the reason.
            Err(error) => return Err(super::pending_error(self.fd()).unwrap_or(error)),
        };
        if frame.len() == vlan::CUT_LEN as usize {
            self.counters.other_vlan += 1;
            return Ok(0);
        }
        let Some(copy) = self.frame.get_mut(..frame.len()) else {
            self.counters.truncated += 1;
            return Ok(0);
        };
        copy.copy_from_slice(frame);
        self.len = frame.len();
        self.stamp = socket::last_stamp(&self.fd());
        self.taken_at = clock::realtime_nanos();
        Ok(1)
    }

    /// The frame and how long it waited in the socket.
    pub(crate) fn frame(&mut self, index: usize) -> Option<(Frame<'_>, Duration)> {
        if index > 0 || self.len == 0 {
            return None;
        }
        // A frame that fills the buffer was cut by the kernel, which tells pnet nothing of it.
        if self.len == FRAME_LEN_MAX {
            self.counters.truncated += 1;
            return None;
        }
        let waited = Duration::from_nanos(
            self.stamp
                .map_or(0, |stamp| self.taken_at.saturating_sub(stamp)),
        );
        let bytes = self.frame.get_mut(..self.len)?;
        let offload = offload::infer(bytes, self.mtu);
        Some((Frame { bytes, offload }, waited))
    }

    /// What went wrong so far.
    pub(crate) fn counters(&mut self) -> ReceiveCounters {
        self.counters.kernel_dropped += socket::take_drops(&self.fd());
        self.counters
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: pnet's receiver owns this number and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Sender {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: pnet closes this number only when both halves are gone, and `self` is one of them.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, outbox: &Outbox, from: usize) -> io::Result<usize> {
        match self.channel.send_to(outbox.frame(from), None) {
            Some(Ok(())) => Ok(1),
            // pnet's word for a full send queue.
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Some(Err(error)) => Err(error),
            None => Err(io::Error::other("pnet took no frame")),
        }
    }
}
