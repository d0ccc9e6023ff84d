//! The switch at work: one thread between the ports of a lab.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::lab::{Effect, Frames, Impairment, LabError, in_namespace};
use crate::nemesis::monotonic_ns;

use super::core::{Core, PortId};
use super::counters::{Counters, Lost};
use super::frame::VNET_HEADER_LEN;
use super::socket;

/// Longest frame: GSO and GRO make them up to 64 KiB.
const FRAME_BYTES_MAX: usize = VNET_HEADER_LEN + 14 + (64 << 10);

/// Frames read from one port before the next one has its turn, and before what is due is sent.
const BATCH_FRAMES_MAX: usize = 32;

/// A running switch. It ends when it is dropped.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
    /// Names of the hosts, by port.
    hosts: Vec<String>,
    impairments: Mutex<BTreeMap<String, Vec<Impairment>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// Readable: end.
    end: OwnedFd,
}

impl Switch {
    /// Starts a switch between `ports` of the network namespace `namespace`, each a host's name and an interface.
    ///
    /// # Errors
    /// [`LabError::Io`]: no such namespace or interface, or no right to open packet sockets.
    pub fn start(namespace: &str, ports: &[(String, String)], seed: u64) -> Result<Self, LabError> {
        let cannot = || LabError::io(format!("start the switch of {namespace}"));
        let opened: io::Result<Vec<OwnedFd>> = in_namespace(namespace, || {
            let interfaces = ports.iter().map(|(_, interface)| interface);
            interfaces.map(|name| socket::open(name)).collect()
        })?;
        let sockets = opened.map_err(cannot())?;
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(sockets.len(), seed)),
            end: end.map_err(|error| cannot()(error.into()))?,
        });
        let thread = thread::Builder::new().name("lab-switch".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || work(&shared, &sockets)
        });
        Ok(Self {
            shared,
            hosts: ports.iter().map(|(host, _)| host.clone()).collect(),
            impairments: Mutex::default(),
            thread: Some(thread.map_err(cannot())?),
        })
    }

    /// Puts `impairments` in place as `name`, instead of what was there under this name. Unknown hosts are nobody.
    pub fn impair(&self, name: &str, impairments: &[Impairment]) {
        let mut all = lock(&self.impairments);
        all.insert(name.to_owned(), impairments.to_vec());
        self.tell(&all);
    }

    /// Ends what was put in place as `name`.
    pub fn unimpair(&self, name: &str) {
        let mut all = lock(&self.impairments);
        all.remove(name);
        self.tell(&all);
    }

    /// Names of what is in place.
    #[must_use]
    pub fn impaired(&self) -> Vec<String> {
        lock(&self.impairments).keys().cloned().collect()
    }

    /// What became of frames so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.shared.core).counters()
    }

    fn tell(&self, all: &BTreeMap<String, Vec<Impairment>>) {
        let of = |from: PortId, to: PortId| -> Vec<(Frames, Effect)> {
            let (Some(from), Some(to)) = (self.hosts.get(from.0), self.hosts.get(to.0)) else {
                return Vec::new();
            };
            all.values()
                .flatten()
                .filter(|i| i.from.contains(from) && i.to.contains(to))
                .map(|i| (i.frames, i.effect))
                .collect()
        };
        lock(&self.shared.core).impair(of);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // The counter of an eventfd has room for a one unless it was written 2^64 - 2 times.
        let _ = rustix::io::write(&self.shared.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, sockets: &[OwnedFd]) {
    let mut buffer = vec![0; FRAME_BYTES_MAX].into_boxed_slice();
    loop {
        let mut polled: Vec<PollFd<'_>> = [shared.end.as_fd()]
            .into_iter()
            .chain(sockets.iter().map(OwnedFd::as_fd))
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, time_left(shared).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Nothing that this thread could repair; the lab's tests see hosts that do not reach one another.
            Err(_) => return,
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if polled.first().is_some_and(ready) {
            return;
        }
        for (port, socket) in sockets.iter().enumerate() {
            if polled.get(port + 1).is_some_and(ready) {
                read(shared, PortId(port), socket, &mut buffer);
            }
        }
        send_due(shared, sockets);
    }
}

/// Until the next frame is due; `None`: none waits.
fn time_left(shared: &Shared) -> Option<Timespec> {
    let due = lock(&shared.core).next_due()?;
    let left = due.saturating_sub(monotonic_ns());
    Timespec::try_from(std::time::Duration::from_nanos(left)).ok()
}

fn read(shared: &Shared, port: PortId, socket: &OwnedFd, buffer: &mut [u8]) {
    for _ in 0..BATCH_FRAMES_MAX {
        // With MSG_TRUNC the second number is the frame's own length.
        let received = recv(socket, &mut *buffer, RecvFlags::TRUNC);
        let now = monotonic_ns();
        match received {
            Ok((kept, whole)) if whole <= kept => {
                lock(&shared.core).receive(port, &buffer[..whole], now);
            }
            Ok(_) => lock(&shared.core).unread(Lost::TooLong),
            // Told once when a port goes down; reading goes on when it is up again.
            Err(_) => return,
        }
    }
}

fn send_due(shared: &Shared, sockets: &[OwnedFd]) {
    let now = monotonic_ns();
    loop {
        let Some((port, frame)) = lock(&shared.core).take_due(now) else {
            return;
        };
        let outcome = match sockets.get(port.0) {
            None => Err(Lost::PortDown),
            Some(socket) => match send(socket, frame.with_header(), SendFlags::DONTWAIT) {
                Ok(_) => Ok(()),
                Err(Errno::MSGSIZE) => Err(Lost::TooLong),
                Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => Err(Lost::PortDown),
                Err(_) => Err(Lost::Refused),
            },
        };
        lock(&shared.core).sent(outcome);
    }
}

/// A poisoned lock still guards plain data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
