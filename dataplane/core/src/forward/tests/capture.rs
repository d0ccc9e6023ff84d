//! What a test's forwarder sends: kept for the test, and written down for another program to judge.
//!
//! With the environment variable `ATM_PCAP_DIR` every frame goes also into the file `dataplane-core.pcapng` of that folder, with the name of
//! its test as its comment. docs/TESTING.md says who reads it.

use std::fs::{self, File};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::thread;

use model::connections::{ConnectionKey, Pin};
use model::sticky::StickyKey;

use crate::Sink;
use crate::testing::Recorder;

/// A recorder that writes down what it records.
#[derive(Debug, Default)]
pub(super) struct Capture {
    recorder: Recorder,
    /// The test sends packets that were damaged before they came to us: they go on as they are, and nobody is to judge them.
    pub(super) damaged: bool,
}

impl Deref for Capture {
    type Target = Recorder;

    fn deref(&self) -> &Recorder {
        &self.recorder
    }
}

impl DerefMut for Capture {
    fn deref_mut(&mut self) -> &mut Recorder {
        &mut self.recorder
    }
}

impl Capture {
    fn write_down(&self, frame: &[u8]) {
        if let (Some(file), false) = (&*FILE, self.damaged) {
            let current = thread::current();
            let test = current.name().unwrap_or("a test without a name");
            let block = packet(frame, test);
            let mut file = file.lock().unwrap();
            file.write_all(&block).expect("the folder has room");
        }
    }
}

impl Sink for Capture {
    fn transmit(&mut self, head: &[u8], body: &[u8]) {
        self.write_down(&[head, body].concat());
        self.recorder.transmit(head, body);
    }

    /// Written down as a frame from nobody to nobody.
    fn deliver(&mut self, head: &[u8], body: &[u8]) {
        let ethertype: [u8; 2] = match head.first().map(|first| first >> 4) {
            Some(4) => [0x08, 0x00],
            _ => [0x86, 0xdd],
        };
        self.write_down(&[&[0; 12][..], &ethertype, head, body].concat());
        self.recorder.deliver(head, body);
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> bool {
        self.recorder.open(key, pin)
    }

    fn relay(&mut self, head: &[u8], body: &[u8]) {
        self.recorder.relay(head, body);
    }

    fn unstick(&mut self, key: StickyKey) -> bool {
        self.recorder.unstick(key)
    }

    fn close(&mut self, key: ConnectionKey) -> bool {
        self.recorder.close(key)
    }
}

/// One file for all tests of this process.
static FILE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the tests write is said by who runs them"
    )]
    let folder = std::env::var("ATM_PCAP_DIR").ok()?;
    fs::create_dir_all(&folder).expect("ATM_PCAP_DIR can be made");
    let path = Path::new(&folder).join("dataplane-core.pcapng");
    let mut file = File::create(path).expect("ATM_PCAP_DIR can be written to");
    file.write_all(&header()).expect("the folder has room");
    Some(Mutex::new(file))
});

/// Section header and the description of one Ethernet interface (draft-ietf-opsawg-pcapng §4.1, §4.2).
fn header() -> Vec<u8> {
    const BYTE_ORDER: u32 = 0x1a2b_3c4d;
    const VERSION_1_0: u32 = 1;
    const UNKNOWN_LENGTH: u32 = u32::MAX;
    const ETHERNET: u32 = 1;
    const NO_SNAP_LENGTH: u32 = 0;
    let section = [BYTE_ORDER, VERSION_1_0, UNKNOWN_LENGTH, UNKNOWN_LENGTH];
    let interface = [ETHERNET, NO_SNAP_LENGTH];
    [
        block(0x0a0d_0d0a, &section.map(u32::to_le_bytes).concat()),
        block(1, &interface.map(u32::to_le_bytes).concat()),
    ]
    .concat()
}

/// An enhanced packet block with a comment (§4.3, §3.5), at no time.
fn packet(frame: &[u8], comment: &str) -> Vec<u8> {
    const COMMENT: u16 = 1;
    const END_OF_OPTIONS: [u8; 4] = [0; 4];
    let len = u32::try_from(frame.len()).unwrap();
    let (interface, time) = (0, 0);
    let mut body = [interface, time, time, len, len]
        .map(u32::to_le_bytes)
        .concat();
    body.extend(padded(frame));
    body.extend(COMMENT.to_le_bytes());
    body.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
    body.extend(padded(comment.as_bytes()));
    body.extend(END_OF_OPTIONS);
    block(6, &body)
}

/// Type, length, body, length again (§3.1).
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(12 + body.len()).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, body, &len].concat()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}
