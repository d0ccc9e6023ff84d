//! Writing a history while the run goes on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use super::event::{Event, HARNESS, Kind};
use super::file::{EVENTS_MAX, HistoryError, encode};
use super::op::Op;

/// Bytes gathered before they are written: some thousand events a system call.
const BUFFER_BYTES: usize = 1 << 20;

/// CLOCK_MONOTONIC in nanoseconds: the time axis of histories.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Writes events as lines, from any number of threads: clones write to the same history. An event costs its encoding and a
/// short lock; what cannot be written is counted and told by [`finish`](Self::finish), never silently left out.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    next_process: AtomicU64,
    sink: Mutex<Sink>,
}

struct Sink {
    to: Box<dyn Write + Send>,
    written: u64,
    refused: u64,
    error: Option<HistoryError>,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events in the history.
    pub events: u64,
}

/// The history is not whole: it proves nothing.
#[derive(Debug, thiserror::Error)]
#[error("the history is not whole: {written} events are in it, {refused} are not")]
pub struct RecordError {
    /// Events in the history.
    pub written: u64,
    /// Events that were not written.
    pub refused: u64,
    /// Why the first of them was not.
    #[source]
    pub first: HistoryError,
}

impl Recorder {
    /// Begins a history in a new file at `path`; one that is there is replaced.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Self, HistoryError> {
        let file = File::create(path).map_err(|source| HistoryError::Io {
            what: format!("cannot create {}", path.display()),
            source,
        })?;
        Ok(Self::to(BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    /// Begins a history that is written to `to`, which should gather small writes.
    #[must_use]
    pub fn to(to: impl Write + Send + 'static) -> Self {
        let sink = Sink {
            to: Box::new(to),
            written: 0,
            refused: 0,
            error: None,
        };
        Self {
            shared: Arc::new(Shared {
                next_process: AtomicU64::new(HARNESS + 1),
                sink: Mutex::new(sink),
            }),
        }
    }

    /// A process number that nobody has.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.shared.next_process.fetch_add(1, Ordering::Relaxed)
    }

    /// Records that `process` begins `op` now. To be called before anything is sent.
    pub fn invoke(&self, process: u64, op: Op) {
        self.record(monotonic_ns(), process, Kind::Invoke, op);
    }

    /// Records that `op` of `process` has taken effect. To be called after everything was received.
    pub fn ok(&self, process: u64, op: Op) {
        self.record(monotonic_ns(), process, Kind::Ok, op);
    }

    /// Records that `op` of `process` has taken no effect and never will. Where there is doubt, it is [`info`](Self::info).
    pub fn fail(&self, process: u64, op: Op) {
        self.record(monotonic_ns(), process, Kind::Fail, op);
    }

    /// Records that nobody knows what becomes of `op` of `process`.
    pub fn info(&self, process: u64, op: Op) {
        self.record(monotonic_ns(), process, Kind::Info, op);
    }

    /// Records a fact, seen now.
    pub fn fact(&self, op: Op) {
        self.fact_at(monotonic_ns(), op);
    }

    /// Records a fact of the time `t_ns`.
    pub fn fact_at(&self, t_ns: u64, op: Op) {
        self.record(t_ns, HARNESS, Kind::Info, op);
    }

    /// Records any event; its order among those of its process is the order of the calls.
    pub fn record(&self, t_ns: u64, process: u64, kind: Kind, op: Op) {
        let event = Event {
            t_ns,
            process,
            kind,
            op,
        };
        // The line's number in errors is what would be its number if nobody else wrote meanwhile; close enough to find it.
        let text = encode(&event, self.sink().written + 1);
        self.sink().write(text);
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// An event could not be written.
    pub fn finish(&self) -> Result<Summary, RecordError> {
        let mut sink = self.sink();
        if let Err(source) = sink.to.flush() {
            sink.refuse(HistoryError::Io {
                what: "cannot write the end of the history".to_owned(),
                source,
            });
        }
        let (written, refused) = (sink.written, sink.refused);
        match sink.error.take() {
            None => Ok(Summary { events: written }),
            Some(first) => Err(RecordError {
                written,
                refused,
                first,
            }),
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.shared
            .sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn write(&mut self, text: Result<Vec<u8>, HistoryError>) {
        let line = self.written + 1;
        if line > u64::try_from(EVENTS_MAX).unwrap_or(u64::MAX) {
            return self.refuse(HistoryError::TooMany);
        }
        let written = text.and_then(|text| {
            self.to.write_all(&text).map_err(|source| HistoryError::Io {
                what: format!("cannot write line {line} of the history"),
                source,
            })
        });
        match written {
            Ok(()) => self.written += 1,
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: HistoryError) {
        self.refused += 1;
        self.error.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::history::History;

    #[test]
    fn many_threads_write_one_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let recorder = recorder.clone();
                scope.spawn(move || {
                    let process = recorder.process();
                    for element in 0..1000 {
                        recorder.invoke(process, Op::SetAdd { element });
                        recorder.ok(process, Op::SetAdd { element });
                    }
                });
            }
        });
        assert_eq!(recorder.finish().unwrap(), Summary { events: 8000 });
        let history = History::read(&path).unwrap();
        let pairs = crate::history::pairs(&history.events).unwrap();
        assert_eq!(pairs.len(), 4000);
        assert!(pairs.iter().all(|pair| (1..=4).contains(&pair.process)));
    }

    #[test]
    fn what_is_not_written_is_told() {
        struct Full(u64);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let recorder = Recorder::to(Full(2));
        for id in 0..5 {
            recorder.fact(Op::FaultStop { id });
        }
        let error = recorder.finish().unwrap_err();
        assert_eq!((error.written, error.refused), (2, 3));
        assert_eq!(
            error.first.to_string(),
            "cannot write line 3 of the history"
        );
    }
}
