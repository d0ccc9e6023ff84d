//! Our own end of the tunnel, for kernels without tunnel devices: two raw sockets, one for the IPv4 packets inside
//! (protocol 4) and one for the IPv6 packets (protocol 41), a TUN device and one plain thread.
//!
//! Invariant: only the thread reads the sockets and writes the device; what it may let through reaches it by a bounded
//! channel that it drains before each batch.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::sockopt::{
    set_ipv6_recvtclass, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use tracing::{debug, warn};

use super::counters::{Counters, Tally};
use super::header::Version;
use super::packet::{Filter, Inner, Outer};
use super::sys::{Batch, HEADROOM, Received, attach_tun, receive_drops};
use super::{ServerRoleError, TUNNEL_DEVICE};

/// The running thread. Dropping it ends the thread and, with it, the device.
#[derive(Debug)]
pub(super) struct Decapsulation {
    control: SyncSender<Filter>,
    stop: Arc<OwnedFd>,
    lanes: Arc<[Lane; 2]>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

/// One of the two sockets, and what its protocol number says to be inside.
#[derive(Debug)]
struct Lane {
    socket: OwnedFd,
    version: Version,
}

/// The device, made but not yet fed.
pub(super) struct Tun(File);

/// 8 MiB hold 3500 full packets with the kernel's bookkeeping: 40 ms at 1 Gbit/s, longer than the thread ever waits
/// for a busy core.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Changes of the VIPs that may wait for the thread, which takes them before each batch.
const CONTROL_MAX: usize = 16;
/// After an error of the socket, so that a lasting one does not take a core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// The virtio network header before each packet (virtio 1.2 §5.1.6, legacy form without `num_buffers`).
const VIRTIO_HEADER_LEN: usize = 10;
const _: () = assert!(VIRTIO_HEADER_LEN <= HEADROOM);

impl Tun {
    /// Makes the tunnel device in this thread's network namespace.
    pub(super) fn create() -> Result<Self, ServerRoleError> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open("/dev/net/tun");
        let file = file.map_err(|source| ServerRoleError::NoTun { source })?;
        attach_tun(file.as_fd(), TUNNEL_DEVICE)
            .map_err(|source| ServerRoleError::NoTun { source })?;
        Ok(Self(file))
    }
}

impl Decapsulation {
    /// Starts unpacking into `tun` what `filter` accepts of the packets that come in the IP version of `address`.
    pub(super) fn start(
        tun: Tun,
        address: IpAddr,
        filter: Filter,
    ) -> Result<Self, ServerRoleError> {
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                ServerRoleError::NoPermission("CAP_NET_RAW")
            } else {
                ServerRoleError::Decapsulation { source }
            }
        };
        let lane = |version| Lane::open(address, version).map_err(failed);
        let lanes = Arc::new([lane(Version::V4)?, lane(Version::V6)?]);
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed(errno.into()))?;
        let stop = Arc::new(stop);
        let tally = Arc::new(Tally::default());
        let (control, changes) = sync_channel(CONTROL_MAX);
        let worker = Worker {
            lanes: Arc::clone(&lanes),
            stop: Arc::clone(&stop),
            tun: tun.0,
            filter,
            changes,
            tally: Arc::clone(&tally),
            refused_before: false,
        };
        let thread = std::thread::Builder::new()
            .name("decapsulation".to_owned())
            .spawn(move || worker.run());
        Ok(Self {
            control,
            stop,
            lanes,
            tally,
            thread: Some(thread.map_err(failed)?),
        })
    }

    /// Changes what is let through: every packet received after the return is judged by `filter`.
    pub(super) async fn set_filter(&self, filter: Filter) -> Result<(), ServerRoleError> {
        let mut waiting = filter;
        loop {
            waiting = match self.control.try_send(waiting) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(filter)) => filter,
                Err(TrySendError::Disconnected(_)) => {
                    let source = io::Error::other("its thread has ended");
                    return Err(ServerRoleError::Decapsulation { source });
                }
            };
            // The channel is only drained when packets come; the event makes the thread look.
            let _ = rustix::io::write(&*self.stop, &WAKE.to_ne_bytes());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let dropped = self.lanes.iter().map(|lane| {
            let dropped = receive_drops(lane.socket.as_fd()).unwrap_or_default();
            u64::from(dropped)
        });
        self.tally.snapshot(dropped.sum())
    }
}

/// Added to the event: look at the channel.
const WAKE: u64 = 1;
/// Added to the event: end. Greater than any sum of wakes.
const STOP: u64 = 1 << 32;

impl Drop for Decapsulation {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &STOP.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // At most one batch away from its end.
            let _ = thread.join();
        }
    }
}

impl Lane {
    fn open(address: IpAddr, version: Version) -> io::Result<Self> {
        let protocol = match version {
            Version::V4 => ipproto::IPIP,
            Version::V6 => ipproto::IPV6,
        };
        let family = match address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
        if address.is_ipv6() {
            // The header itself is not delivered, and its congestion mark is needed.
            set_ipv6_recvtclass(&socket, true)?;
        }
        enlarge_receive_buffer(&socket)?;
        Ok(Self { socket, version })
    }
}

/// What the thread owns.
struct Worker {
    lanes: Arc<[Lane; 2]>,
    stop: Arc<OwnedFd>,
    tun: File,
    filter: Filter,
    changes: Receiver<Filter>,
    tally: Arc<Tally>,
    refused_before: bool,
}

impl Worker {
    fn run(mut self) {
        let mut batch = Batch::new();
        let lanes = Arc::clone(&self.lanes);
        while !self.stopped() {
            self.take_changes();
            let mut idle = true;
            // One batch of each in turn, so that neither waits for the other.
            for lane in &*lanes {
                idle &= !self.serve(lane, &mut batch);
            }
            if idle {
                self.wait();
            }
        }
        debug!("decapsulation ended");
    }

    /// Unpacks one batch. Says whether there was one.
    fn serve(&mut self, lane: &Lane, batch: &mut Batch) -> bool {
        let count = match batch.receive(lane.socket.as_fd()) {
            Ok(count) => count,
            Err(error) => {
                use io::ErrorKind::{Interrupted, WouldBlock};
                if !matches!(error.kind(), WouldBlock | Interrupted) {
                    warn!(%error, "cannot receive from the tunnel");
                    std::thread::sleep(PAUSE_AFTER_ERROR);
                }
                return false;
            }
        };
        // Once more: these packets may have come after a change that came while the thread slept.
        self.take_changes();
        for received in batch.datagrams(count) {
            self.take(lane.version, received);
        }
        true
    }

    fn take(&mut self, version: Version, received: Received<'_>) {
        let outer = received.outer.map_or(Outer::V4, |outer| Outer::V6 {
            source: outer.source,
            traffic_class: outer.traffic_class,
        });
        match self
            .filter
            .check(outer, version, &received.bytes[HEADROOM..])
        {
            Ok(inner) => self.deliver(received.bytes, inner),
            Err(reason) => self.tally.discarded(reason),
        }
    }

    fn take_changes(&mut self) {
        while let Ok(filter) = self.changes.try_recv() {
            self.filter = filter;
        }
    }

    /// Hands one packet to the host's stack. The virtio header takes the place of the bytes in front of it.
    fn deliver(&mut self, bytes: &mut [u8], inner: Inner) {
        let start = HEADROOM + inner.start;
        let frame = &mut bytes[start - VIRTIO_HEADER_LEN..start + inner.len];
        frame[..VIRTIO_HEADER_LEN].copy_from_slice(&virtio_header(inner));
        inner.finish(&mut frame[VIRTIO_HEADER_LEN..]);
        // The device takes a packet whole or not at all, so this is one write.
        match self.tun.write_all(frame) {
            Ok(()) => {
                self.tally.delivered(inner.partial.is_some());
                self.refused_before = false;
            }
            Err(error) => {
                self.tally.tunnel_refused();
                if !self.refused_before {
                    self.refused_before = true;
                    warn!(%error, device = TUNNEL_DEVICE, "the tunnel device refuses packets");
                }
            }
        }
    }

    /// Sleeps until a packet or an event comes.
    fn wait(&self) {
        let [first, second] = &*self.lanes;
        let mut waiting = [
            PollFd::new(&first.socket, PollFlags::IN),
            PollFd::new(&second.socket, PollFlags::IN),
            PollFd::new(&*self.stop, PollFlags::IN),
        ];
        // An interrupted or failed wait only makes the loop turn once more.
        if poll(&mut waiting, None).is_err() {
            std::thread::sleep(PAUSE_AFTER_ERROR);
        }
    }

    fn stopped(&self) -> bool {
        let mut sum = [0; 8];
        matches!(rustix::io::read(&*self.stop, &mut sum), Ok(8)) && u64::from_ne_bytes(sum) >= STOP
    }
}

/// An unfinished checksum is named in the header, and the stack treats it as it treats its own: right by
/// construction. All other checksums are the stack's to verify. Native byte order: the device's default.
fn virtio_header(inner: Inner) -> [u8; VIRTIO_HEADER_LEN] {
    const NEEDS_CSUM: u8 = 1;
    let mut header = [0; VIRTIO_HEADER_LEN];
    if let Some(partial) = inner.partial {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&partial.start.to_ne_bytes());
        header[8..10].copy_from_slice(&partial.offset.to_ne_bytes());
    }
    header
}

/// Only CAP_NET_ADMIN of the machine may go beyond `net.core.rmem_max`; in a user namespace that limit holds.
fn enlarge_receive_buffer(socket: &OwnedFd) -> io::Result<()> {
    match set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES) {
        Err(rustix::io::Errno::PERM) => {
            Ok(set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES)?)
        }
        other => Ok(other?),
    }
}
