//! Asking the VIP by ICMP echo every millisecond from the client, as whoever waits for it would notice.
//!
//! The questions go through the client's own stack: its neighbour table decides which router gets them.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::outage::Probe;
use crate::lab::{LabError, in_namespace};
use crate::lines::realtime_ns;

/// Between two questions.
pub(super) const INTERVAL: Duration = Duration::from_millis(1);

/// Probes kept, 24 bytes each: more than five minutes of one trial.
const PROBES_MAX: usize = 400_000;

/// How soon the listening thread notices the end.
const LISTEN_WAIT_US: i64 = 20_000;

/// A sender that is this late (it got no processor) goes on from now instead of sending what it missed in one burst.
const LATE_MAX: Duration = Duration::from_millis(20);

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// A running prober. Dropped it ends.
pub(super) struct EchoProber {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    probes: Mutex<Vec<Probe>>,
}

impl EchoProber {
    /// Asks `vip` from `namespace` until it is dropped.
    ///
    /// # Errors
    /// The namespace cannot be entered, or there is no right to raw sockets in it.
    pub(super) fn start(namespace: &str, vip: Ipv4Addr) -> Result<Self, LabError> {
        let open = in_namespace(namespace, || open(vip))?;
        let port = Arc::new(open.map_err(LabError::io(format!("ping {vip} in {namespace}")))?);
        let shared = Arc::new(Shared::default());
        let mut prober = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        // Tells the answers of this prober from those of any other in the same host.
        let identifier = u16::from_be_bytes(
            realtime_ns().to_be_bytes()[5..7]
                .try_into()
                .unwrap_or_default(),
        );
        let (asked, answers) = (Arc::clone(&shared), Arc::clone(&port));
        prober.run("echo-answers", move || hear(&answers, identifier, &shared))?;
        prober.run("echo-questions", move || ask(&port, identifier, &asked))?;
        Ok(prober)
    }

    fn run(&mut self, name: &str, task: impl FnOnce() + Send + 'static) -> Result<(), LabError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(task);
        let thread = thread.map_err(LabError::io("start a thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// What was asked so far, in order.
    pub(super) fn probes(&self) -> Vec<Probe> {
        self.shared.probes().clone()
    }

    /// What was asked in the last `time`.
    pub(super) fn latest(&self, time: Duration) -> Vec<Probe> {
        let probes = self.shared.probes();
        let since =
            realtime_ns().saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let first = probes.partition_point(|probe| probe.sent < since);
        probes.get(first..).unwrap_or_default().to_vec()
    }
}

impl Drop for EchoProber {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in mem::take(&mut self.threads) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn probes(&self) -> MutexGuard<'_, Vec<Probe>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(vip: Ipv4Addr) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )?;
    let [a, b, c, d] = vip.octets();
    connect(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    setsockopt(
        &fd,
        sockopt::ReceiveTimeout,
        &TimeVal::microseconds(LISTEN_WAIT_US),
    )?;
    Ok(fd)
}

fn ask(port: &OwnedFd, identifier: u16, shared: &Shared) {
    let mut due = Instant::now();
    for number in 0..PROBES_MAX {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let question = question(identifier, u64::try_from(number).unwrap_or(0));
        shared.probes().push(Probe {
            sent: realtime_ns(),
            answered: None,
        });
        // Whatever keeps it from leaving, the VIP was not reached.
        let _ = send(port.as_raw_fd(), &question, MsgFlags::empty());
        due += INTERVAL;
        let now = Instant::now();
        if now.saturating_duration_since(due) > LATE_MAX {
            due = now;
        }
        thread::sleep(due.saturating_duration_since(now));
    }
}

fn hear(port: &OwnedFd, identifier: u16, shared: &Shared) {
    let mut buffer = [0; 128];
    while !shared.stop.load(Ordering::Relaxed) {
        let length = match recv(port.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => continue,
            // Errors of earlier questions, unreachable hosts among them, are told here: those stay unanswered.
            Err(_) => {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
        };
        let at = realtime_ns();
        let packet = buffer.get(..length).unwrap_or_default();
        if let Some(number) = answer(packet, identifier)
            && let Some(probe) = shared.probes().get_mut(number)
        {
            // Two routers may answer the same question.
            probe.answered.get_or_insert(at);
        }
    }
}

/// An echo request (RFC 792) that carries `number`.
fn question(identifier: u16, number: u64) -> [u8; 16] {
    let mut message = [0; 16];
    message[0] = ECHO_REQUEST;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&number.to_be_bytes()[6..]);
    message[8..].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The number in an answer to a question of `identifier`; `packet` begins with its IPv4 header.
fn answer(packet: &[u8], identifier: u16) -> Option<usize> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let message: &[u8; 16] = packet.get(header..)?.first_chunk()?;
    let mine = message[0] == ECHO_REPLY && message[4..6] == identifier.to_be_bytes();
    let number = u64::from_be_bytes(*message.last_chunk()?);
    mine.then(|| usize::try_from(number).ok())?
}

/// The Internet checksum (RFC 1071).
fn checksum(message: &[u8; 16]) -> u16 {
    let words = message.chunks_exact(2);
    let mut sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_the_number_of_its_question() {
        let mut message = question(77, 123_456);
        assert_eq!(checksum(&message), 0, "a right checksum sums up to nothing");
        let packet = |message: [u8; 16]| [&[0x45_u8][..], &[0; 19], &message].concat();
        assert_eq!(answer(&packet(message), 77), None, "a question is none");
        message[0] = ECHO_REPLY;
        assert_eq!(answer(&packet(message), 77), Some(123_456));
        assert_eq!(answer(&packet(message), 78), None);
        assert_eq!(answer(&packet(message)[..30], 77), None);
        assert_eq!(answer(&[], 77), None);
    }
}
