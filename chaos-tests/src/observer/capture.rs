//! Recording: a thread with a packet socket on the client's second interface.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike as _};

use super::event::{Event, SNAP_BYTES, Scope, classify};
use super::raw::{RawPort, listen};
use super::voices::{Rules, TwoVoices, overlaps};
use crate::lab::{Lab, LabError, OBSERVER_INTERFACE, enter};

/// Events kept: 40 bytes each, so 160 MB; 100 seconds of 40,000 packets per second. More make the verdict invalid.
pub const EVENTS_MAX: usize = 4_000_000;

/// Receive buffer of the socket: a tenth of a second at full speed while the thread gets no processor.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

/// How long the thread waits for a frame before it looks whether it shall end.
const RECEIVE_WAIT: Duration = Duration::from_millis(20);

/// How long the end of an observation may take to come through.
const MARKER_WAIT: Duration = Duration::from_secs(2);

/// Between two markers: one may be lost to a full buffer.
const MARKER_INTERVAL: Duration = Duration::from_millis(20);

/// IEEE 802 local experimental ethertype 1: the frame that marks the end of an observation.
const MARKER: [u8; 20] = [
    2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x88, 0xb5, b'm', b'a', b'r', b'k', b'e', b'r',
];

/// A running observation. Dropped it ends and is forgotten.
pub struct Observer {
    shared: Arc<Shared>,
    /// The switch's end of the observer's link, for markers.
    marker: RawPort,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    marker_seen: AtomicBool,
    recording: Mutex<Recording>,
}

#[derive(Default)]
struct Recording {
    events: Vec<Event>,
    overflow: u64,
    missed: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Every frame that spoke for a VIP, in the order of arrival.
    pub events: Vec<Event>,
    /// Events beyond [`EVENTS_MAX`], not kept.
    pub overflow: u64,
    /// Frames the kernel dropped because the observer was too slow.
    pub missed: u64,
    /// Whether the observer heard the end mark, hence everything before it.
    pub complete: bool,
}

/// The judgement over an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At no time did two ATMs speak for a VIP.
    OneVoice,
    /// They did; what and when.
    TwoVoices(Vec<TwoVoices>),
    /// Something was not seen, and what was seen is in order: nothing is proved.
    Invalid {
        /// Events not kept.
        overflow: u64,
        /// Frames not received.
        missed: u64,
        /// Whether the end mark was heard.
        complete: bool,
    },
}

impl Observation {
    /// Judges it.
    #[must_use]
    pub fn verdict(&self, rules: &Rules) -> Verdict {
        let found = overlaps(&self.events, rules);
        if !found.is_empty() {
            return Verdict::TwoVoices(found);
        }
        if self.overflow > 0 || self.missed > 0 || !self.complete {
            let Self {
                overflow,
                missed,
                complete,
                ..
            } = *self;
            return Verdict::Invalid {
                overflow,
                missed,
                complete,
            };
        }
        Verdict::OneVoice
    }
}

impl Observer {
    /// Begins to observe all VIPs of `lab`. What ATMs send after this has returned is recorded.
    ///
    /// # Errors
    /// The lab has no client, or the socket cannot be had.
    pub fn start(lab: &Lab) -> Result<Self, LabError> {
        let record = lab.record();
        let scope = Scope {
            vips: record.vips.clone(),
            atms: record
                .hosts
                .iter()
                .filter(|h| h.atm)
                .map(|h| h.mac)
                .collect(),
        };
        let namespace = record.host("client")?.namespace.clone();
        let marker = RawPort::open(&record.switch(), "p-obs")?;
        let shared = Arc::new(Shared::default());
        let recorder = Arc::clone(&shared);
        let (ready, is_ready) = mpsc::channel();
        let work = move || {
            let socket = enter(&namespace).and_then(|()| {
                open().map_err(LabError::io(format!(
                    "observe {OBSERVER_INTERFACE} in {namespace}"
                )))
            });
            match socket {
                Ok(socket) => {
                    let _ = ready.send(Ok(()));
                    record_all(&socket, &scope, &recorder);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new()
            .name("observer".to_owned())
            .spawn(work)
            .map_err(LabError::io("start a thread"))?;
        let observer = Self {
            shared,
            marker,
            thread: Some(thread),
        };
        is_ready
            .recv()
            .map_err(|_| LabError::io("start the observer")(io::ErrorKind::BrokenPipe.into()))??;
        Ok(observer)
    }

    /// Number of events so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.recording().events.len()
    }

    /// The events from number `first` on.
    #[must_use]
    pub fn events_from(&self, first: usize) -> Vec<Event> {
        self.recording()
            .events
            .get(first..)
            .unwrap_or_default()
            .to_vec()
    }

    /// The events so far, which are then forgotten: an observation of hours stays small.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.recording().events)
    }

    /// Ends the observation once everything sent before this call has arrived.
    #[must_use]
    pub fn stop(mut self) -> Observation {
        let give_up = Instant::now() + MARKER_WAIT;
        while !self.shared.marker_seen.load(Ordering::Acquire) && Instant::now() < give_up {
            // An error is as good as a lost marker: it is sent again, and its absence is reported.
            let _ = self.marker.send(&MARKER);
            thread::sleep(MARKER_INTERVAL);
        }
        self.end();
        let recording = std::mem::take(&mut *self.recording());
        Observation {
            events: recording.events,
            overflow: recording.overflow,
            missed: recording.missed,
            complete: self.shared.marker_seen.load(Ordering::Acquire),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn recording(&self) -> MutexGuard<'_, Recording> {
        self.shared
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A socket that stamps each frame with the time and counts those it lost.
fn open() -> io::Result<OwnedFd> {
    let socket = listen(OBSERVER_INTERFACE)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    let wait = i64::try_from(RECEIVE_WAIT.as_micros()).unwrap_or(i64::MAX);
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::microseconds(wait),
    )?;
    // Beyond the machine's limit only with its CAP_NET_ADMIN; a user namespace gets what the limit allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)?;
    }
    Ok(socket)
}

fn record_all(socket: &OwnedFd, scope: &Scope, shared: &Shared) {
    let mut buffer = [0_u8; SNAP_BYTES];
    let mut control = cmsg_space!(TimeSpec, u32);
    while !shared.stop.load(Ordering::Acquire) {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let (length, at, missed) = match received {
            Ok(message) => {
                let (mut at, mut missed) = (None, 0);
                for note in message.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmTimestampns(time) = note {
                        at = nanoseconds(time);
                    } else if let ControlMessageOwned::RxqOvfl(count) = note {
                        missed = count;
                    }
                }
                (message.bytes, at, missed)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            // The interface went away with the lab; without an end mark the observation is invalid.
            Err(_) => return,
        };
        let frame = buffer.get(..length).unwrap_or(&buffer);
        let mut recording = shared
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recording.missed = recording.missed.max(u64::from(missed));
        if frame == MARKER {
            shared.marker_seen.store(true, Ordering::Release);
            continue;
        }
        // A frame without a timestamp was queued before timestamps were asked for: nobody waits for it.
        let Some(event) = at.and_then(|at| classify(frame, at, scope)) else {
            continue;
        };
        if recording.events.len() < EVENTS_MAX {
            recording.events.push(event);
        } else {
            recording.overflow += 1;
        }
    }
}

fn nanoseconds(time: TimeSpec) -> Option<u64> {
    u64::try_from(time.num_nanoseconds()).ok()
}
