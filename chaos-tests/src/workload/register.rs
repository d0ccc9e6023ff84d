//! The configuration as one register: linearizable reads and compare-and-set, from several ATMs at a time.
//!
//! The value stands in the text ([`Document`]); a compare-and-set is an apply of the text that was read, with another value, on the
//! condition of the version that was read. Keys change every [`Shared::key_span`]: a history of one key stays short, which is what
//! makes it possible to check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::asking::{Atm, NoAnswer, Task};
use super::document::{Document, Register};
use super::pace::Pace;
use crate::history::{Op, Recorder};

/// What all clients of the register share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    pub(crate) stop: Arc<AtomicBool>,
    /// The latest key that is known to be in the register.
    pub(crate) key: Arc<AtomicU64>,
    /// The latest value or element; each is used once.
    pub(crate) value: Arc<AtomicU64>,
    pub(crate) key_span: Duration,
    /// Operations that were begun, for whoever watches.
    pub(crate) operations: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(recorder: Recorder, key_span: Duration) -> Self {
        Self {
            recorder,
            stop: Arc::default(),
            key: Arc::default(),
            value: Arc::default(),
            key_span,
            operations: Arc::default(),
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn next_value(&self) -> u64 {
        self.value.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// A client that reads, changes what it read, and reads again, until it is stopped.
pub(crate) fn client(shared: Shared, atm: Atm, mut pace: Pace) -> Task {
    Box::pin(async move {
        let mut process = shared.recorder.process();
        while !shared.stopped() {
            pace.wait().await;
            let Some((version, document)) = read(&shared, &atm, process).await else {
                continue;
            };
            if pace.one_in(2) {
                continue;
            }
            let op = Change::of_value(&shared, version, document);
            if !op.make(&shared, &atm, process).await {
                // Its operation may still be under way, so somebody else goes on.
                process = shared.recorder.process();
            }
        }
    })
}

/// Begins a new key every [`Shared::key_span`].
pub(crate) fn turner(shared: Shared, atm: Atm, mut pace: Pace) -> Task {
    Box::pin(async move {
        let mut process = shared.recorder.process();
        let mut turned = Instant::now();
        while !shared.stopped() {
            pace.wait().await;
            let known = shared.key.load(Ordering::SeqCst);
            if known > 0 && turned.elapsed() < shared.key_span {
                continue;
            }
            let Ok((version, document)) = show(&atm).await else {
                continue;
            };
            let key = document.register.key.max(known) + 1;
            let change = Change::of_key(&shared, version, document, key);
            if !change.make(&shared, &atm, process).await {
                process = shared.recorder.process();
            }
            if shared.key.load(Ordering::SeqCst) > known {
                turned = Instant::now();
            }
        }
    })
}

/// What is in force, unrecorded.
pub(crate) async fn show(atm: &Atm) -> Result<(u64, Document), NoAnswer> {
    let version = atm.show(false).await?;
    let document =
        Document::parse(&version.source).map_err(|error| NoAnswer::Unknown(error.to_string()))?;
    Ok((version.number, document))
}

async fn read(shared: &Shared, atm: &Atm, process: u64) -> Option<(u64, Document)> {
    let key = shared.key.load(Ordering::SeqCst);
    if key == 0 {
        return None;
    }
    shared.operations.fetch_add(1, Ordering::Relaxed);
    shared.recorder.invoke(process, Op::read(key));
    match show(atm).await {
        Ok((version, document)) => {
            let Register { key: found, value } = document.register;
            shared.key.fetch_max(found, Ordering::SeqCst);
            if found > key {
                // The register has gone on to another key: of this one nothing was learnt.
                shared.recorder.fail(process, Op::read(key));
            } else {
                // An older key stands for a register that was not written yet.
                let value = (found == key).then_some(value);
                shared.recorder.ok(process, Op::RegisterRead { key, value });
            }
            Some((version, document))
        }
        Err(_) => {
            // A read that was not answered has no effect, whatever became of it.
            shared.recorder.fail(process, Op::read(key));
            None
        }
    }
}

/// A change on the condition of a version.
struct Change {
    op: Op,
    key: u64,
    text: String,
    expected: u64,
}

impl Change {
    fn of_value(shared: &Shared, expected: u64, mut document: Document) -> Self {
        let new = shared.next_value();
        let Register { key, value } = document.register;
        document.register.value = new;
        Self {
            op: Op::cas(key, value, new),
            key,
            text: document.render(),
            expected,
        }
    }

    fn of_key(shared: &Shared, expected: u64, mut document: Document, key: u64) -> Self {
        let value = shared.next_value();
        document.register = Register { key, value };
        Self {
            op: Op::RegisterWrite { key, value },
            key,
            text: document.render(),
            expected,
        }
    }

    /// Makes it; says whether it is known what became of it.
    async fn make(self, shared: &Shared, atm: &Atm, process: u64) -> bool {
        let recorder = &shared.recorder;
        shared.operations.fetch_add(1, Ordering::Relaxed);
        recorder.invoke(process, self.op.clone());
        match atm.apply(self.text, self.expected).await {
            Ok(_) => {
                let mut done = self.op;
                if let Op::RegisterCas { swapped, .. } = &mut done {
                    *swapped = Some(true);
                }
                shared.key.fetch_max(self.key, Ordering::SeqCst);
                recorder.ok(process, done);
                true
            }
            // Another version says nothing about the value, which may be the expected one all the same.
            Err(NoAnswer::OtherVersion | NoAnswer::Refused(_)) => {
                recorder.fail(process, self.op);
                true
            }
            Err(NoAnswer::Unknown(_)) => {
                recorder.info(process, self.op);
                false
            }
        }
    }
}
