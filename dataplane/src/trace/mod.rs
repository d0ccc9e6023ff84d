//! Live decisions for whoever looks: filters in the engine, a bounded queue out of it for each.
//!
//! Invariant: the packet path never waits for a reader. A decision that finds the queue full is counted instead, and the
//! reader is told how many are missing, at their place. Without a trace a frame costs one branch.

mod filter;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane_core::{About, Verdict};
use model::Instant;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

pub use self::filter::{BadPrefix, Prefix, TraceFilter};
use crate::summary::{self, Summary};
use crate::wake;

/// Traces at a time: each costs every frame a comparison, and nobody reads more.
pub const TRACES_MAX: usize = 4;

/// Decisions that wait for a reader: 160 KiB, and what 100 ms of 10,000 frames a second make.
const DECISIONS_MAX: usize = 1024;

/// Bytes kept of a frame: more than the headers of any sane one (Ethernet 14, VLAN 4, IPv4 60, TCP 20; IPv6 with 50 bytes of extensions).
const HEAD_BYTES: usize = 128;

/// Why there is no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// [`TRACES_MAX`] is reached.
    #[error("this ATM has {TRACES_MAX} traces already: end one of them")]
    TooMany,
    /// See [`Handle::closed`](crate::Handle::closed).
    #[error("the packet engine has ended")]
    Gone,
}

/// What is read of a trace.
#[derive(Clone, Debug)]
pub enum Traced {
    /// One frame and what became of it.
    Decision(Box<Decision>),
    /// So many decisions were made here and lost, since the reader was slow.
    Missed(u64),
}

/// One frame and what became of it.
#[derive(Clone, Debug)]
pub struct Decision {
    /// When it was decided, by the boot-time clock, to the batch.
    pub at: Instant,
    /// Its end; [`Verdict::Held`] is followed by another that is not told.
    pub verdict: Verdict,
    /// Which service and server it was about.
    pub about: About,
    head: Head,
    /// Decisions that were lost right before this one.
    missed: u64,
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: [u8; HEAD_BYTES],
    /// Of the whole frame.
    length: usize,
}

/// What is kept of a frame until it is decided.
#[derive(Debug)]
pub(crate) struct Glimpse {
    head: Head,
    ends: Option<(std::net::IpAddr, std::net::IpAddr)>,
}

/// The engine's side: all traces that somebody reads.
#[derive(Debug, Default)]
pub(crate) struct Traces(Vec<NewTrace>);

/// The engine's side of one trace.
#[derive(Debug)]
pub(crate) struct NewTrace {
    filter: TraceFilter,
    decisions: mpsc::Sender<Decision>,
    missed: Arc<AtomicU64>,
}

/// The reader's side of one trace. It ends when it is dropped.
#[derive(Debug)]
pub struct Trace {
    decisions: mpsc::Receiver<Decision>,
    /// Decisions that found the queue full and that nobody has been told of.
    missed: Arc<AtomicU64>,
    /// The decision that comes after the missed ones that were told last.
    next: Option<Decision>,
    waker: Arc<OwnedFd>,
}

/// Both sides of a trace. `waker` rings the engine.
pub(crate) fn new(filter: TraceFilter, waker: Arc<OwnedFd>) -> (NewTrace, Trace) {
    let (sender, receiver) = mpsc::channel(DECISIONS_MAX);
    let missed = Arc::new(AtomicU64::new(0));
    let new = NewTrace {
        filter,
        decisions: sender,
        missed: Arc::clone(&missed),
    };
    let trace = Trace {
        decisions: receiver,
        missed,
        next: None,
        waker,
    };
    (new, trace)
}

impl Traces {
    /// Adds a trace.
    pub(crate) fn begin(&mut self, trace: NewTrace) -> Result<(), TraceError> {
        self.drop_ended();
        if self.0.len() >= TRACES_MAX {
            return Err(TraceError::TooMany);
        }
        self.0.push(trace);
        Ok(())
    }

    /// Forgets the traces that nobody reads any more.
    pub(crate) fn drop_ended(&mut self) {
        if !self.0.is_empty() {
            self.0.retain(|trace| !trace.decisions.is_closed());
        }
    }

    /// What is to be kept of a frame; `None`: nobody looks.
    pub(crate) fn glimpse(&self, frame: &[u8]) -> Option<Glimpse> {
        if self.0.is_empty() {
            return None;
        }
        Some(Glimpse {
            head: Head::of(frame),
            ends: summary::ends(frame),
        })
    }

    /// Tells everybody whose filter the frame passes.
    pub(crate) fn tell(&self, frame: &Glimpse, at: Instant, verdict: Verdict, about: About) {
        for trace in &self.0 {
            if trace.filter.passes(frame.ends, about) {
                trace.tell(frame, at, verdict, about);
            }
        }
    }
}

impl NewTrace {
    fn tell(&self, frame: &Glimpse, at: Instant, verdict: Verdict, about: About) {
        match self.decisions.try_reserve() {
            Ok(room) => room.send(Decision {
                at,
                verdict,
                about,
                head: frame.head,
                missed: self.missed.swap(0, Ordering::Relaxed),
            }),
            Err(TrySendError::Full(())) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            // The next batch forgets it.
            Err(TrySendError::Closed(())) => {}
        }
    }
}

impl Trace {
    /// The next decision, or how many are missing before it. `None`: the engine has ended. Nothing is lost when this is
    /// cancelled.
    pub async fn next(&mut self) -> Option<Traced> {
        if let Some(decision) = self.next.take() {
            return Some(Traced::Decision(Box::new(decision)));
        }
        // A queue that is read to its end has room: what is missing was made after everything in it.
        if self.decisions.is_empty() {
            let missed = self.missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                return Some(Traced::Missed(missed));
            }
        }
        let decision = self.decisions.recv().await?;
        Some(match decision.missed {
            0 => Traced::Decision(Box::new(decision)),
            missed => {
                self.next = Some(decision);
                Traced::Missed(missed)
            }
        })
    }
}

impl Drop for Trace {
    /// An idle engine looks, too.
    fn drop(&mut self) {
        self.decisions.close();
        wake::ring(&self.waker);
    }
}

impl Decision {
    /// What the frame was, as it came.
    pub fn summary(&self) -> Summary {
        Summary::of(self.head.kept())
    }

    /// The frame's length in bytes, its Ethernet header included.
    pub const fn length(&self) -> usize {
        self.head.length
    }
}

impl Head {
    fn of(frame: &[u8]) -> Self {
        let mut bytes = [0; HEAD_BYTES];
        let kept = frame.len().min(HEAD_BYTES);
        bytes[..kept].copy_from_slice(&frame[..kept]);
        Self {
            bytes,
            length: frame.len(),
        }
    }

    fn kept(&self) -> &[u8] {
        &self.bytes[..self.length.min(HEAD_BYTES)]
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const VIP: [u8; 4] = [10, 0, 0, 100];

    fn filter() -> TraceFilter {
        TraceFilter {
            vip: VIP.into(),
            client: None,
            services: Vec::new(),
            only_services: false,
        }
    }

    /// An IPv4 packet from 192.0.2.`last` to the VIP.
    fn frame(last: u8) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[192, 0, 2, last]);
        frame[30..34].copy_from_slice(&VIP);
        frame
    }

    fn traces(filter: TraceFilter) -> (Traces, Trace) {
        let mut traces = Traces::default();
        let (new, trace) = new(filter, wake::waker().unwrap());
        traces.begin(new).unwrap();
        (traces, trace)
    }

    fn pass(traces: &Traces, frame: &[u8]) {
        let glimpse = traces.glimpse(frame).unwrap();
        traces.tell(&glimpse, Instant::BOOT, Verdict::Transmit, About::default());
    }

    fn read(trace: &mut Trace) -> Option<Traced> {
        use std::task::{Context, Poll, Waker};
        let next = std::pin::pin!(trace.next());
        match next.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(traced) => traced,
            Poll::Pending => None,
        }
    }

    fn source(traced: Option<Traced>) -> Option<IpAddr> {
        match traced {
            Some(Traced::Decision(decision)) => decision.summary().source,
            Some(Traced::Missed(_)) | None => None,
        }
    }

    #[test]
    fn nobody_looks_nothing_is_kept() {
        assert!(Traces::default().glimpse(&frame(1)).is_none());
    }

    #[test]
    fn a_frame_is_told_as_it_came_with_its_whole_length() {
        let (traces, mut trace) = traces(filter());
        let mut long = frame(7);
        long.resize(9000, 1);
        let glimpse = traces.glimpse(&long).unwrap();
        long.fill(0);
        let service = About {
            service: Some(model::ids::VirtualServiceId(3)),
            server: None,
        };
        traces.tell(&glimpse, Instant::BOOT, Verdict::Held, service);
        let Some(Traced::Decision(decision)) = read(&mut trace) else {
            panic!("nothing told");
        };
        assert_eq!(decision.summary().source, Some([192, 0, 2, 7].into()));
        assert_eq!(decision.length(), 9000);
        assert_eq!((decision.verdict, decision.about), (Verdict::Held, service));
        assert!(read(&mut trace).is_none());
    }

    #[test]
    fn what_a_slow_reader_loses_is_counted_at_its_place() {
        let (traces, mut trace) = traces(filter());
        for _ in 0..DECISIONS_MAX + 5 {
            pass(&traces, &frame(1));
        }
        assert!(source(read(&mut trace)).is_some());
        // There is room for one.
        pass(&traces, &frame(2));
        pass(&traces, &frame(3));
        for _ in 1..DECISIONS_MAX {
            assert_eq!(source(read(&mut trace)), Some([192, 0, 2, 1].into()));
        }
        assert!(matches!(read(&mut trace), Some(Traced::Missed(5))));
        assert_eq!(source(read(&mut trace)), Some([192, 0, 2, 2].into()));
        // Missing at the end.
        assert!(matches!(read(&mut trace), Some(Traced::Missed(1))));
        assert!(read(&mut trace).is_none());
        pass(&traces, &frame(4));
        assert_eq!(source(read(&mut trace)), Some([192, 0, 2, 4].into()));
    }

    #[test]
    fn the_number_of_traces_is_bounded_and_a_dropped_one_makes_room() {
        let waker = wake::waker().unwrap();
        let mut traces = Traces::default();
        let mut readers = Vec::new();
        for _ in 0..TRACES_MAX {
            let (trace, reader) = new(filter(), Arc::clone(&waker));
            traces.begin(trace).unwrap();
            readers.push(reader);
        }
        let (trace, _reader) = new(filter(), Arc::clone(&waker));
        assert_eq!(traces.begin(trace), Err(TraceError::TooMany));
        readers.pop();
        let (trace, _reader) = new(filter(), waker);
        traces.begin(trace).unwrap();
        readers.clear();
        traces.drop_ended();
        assert_eq!(traces.0.len(), 1);
    }
}
