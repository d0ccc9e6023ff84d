//! A TCP listener with one thread per session, all of them ended when it is dropped.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Sessions at one time: more than a test opens, and a bound on threads.
const SESSIONS_MAX: usize = 128;

/// How soon a listener notices that it shall stop, and between two attempts to take a session.
const STOP_CHECK: Duration = Duration::from_millis(5);

/// The sessions that are open, by number.
type Sessions = BTreeMap<u64, (TcpStream, Option<JoinHandle<()>>)>;

/// A running listener.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    sessions: Arc<Mutex<Sessions>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address`, and runs `session` on a thread of its own for each connection; those beyond [`SESSIONS_MAX`] are
    /// closed at once.
    pub(super) fn start(
        name: &str,
        address: SocketAddr,
        session: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let sessions: Arc<Mutex<Sessions>> = Arc::default();
        let (stop, open, session) = (
            Arc::clone(&stopping),
            Arc::clone(&sessions),
            Arc::new(session),
        );
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    // Nobody is waiting, or out of descriptors: neither is cured by haste.
                    let Ok((stream, _)) = listener.accept() else {
                        thread::sleep(STOP_CHECK);
                        continue;
                    };
                    number += 1;
                    admit(&open, number, stream, &session);
                }
            })?;
        Ok(Self {
            address,
            stopping,
            sessions,
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn admit<S: Fn(TcpStream) + Send + Sync + 'static>(
    open: &Arc<Mutex<Sessions>>,
    number: u64,
    stream: TcpStream,
    session: &Arc<S>,
) {
    let mut sessions = lock(open);
    let ours = stream
        .set_nonblocking(false)
        .and_then(|()| stream.try_clone());
    let (Ok(ours), true) = (ours, sessions.len() < SESSIONS_MAX) else {
        return;
    };
    let (list, session) = (Arc::clone(open), Arc::clone(session));
    let thread = thread::Builder::new().spawn(move || {
        session(stream);
        lock(&list).remove(&number);
    });
    // The session takes itself out under the same lock, so it is in the list before that.
    if let Ok(thread) = thread {
        sessions.insert(number, (ours, Some(thread)));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let threads: Vec<_> = {
            let mut sessions = lock(&self.sessions);
            for (stream, _) in sessions.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            sessions
                .values_mut()
                .filter_map(|(_, thread)| thread.take())
                .collect()
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn lock(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    // The list is whole between any two statements: a panic elsewhere does not spoil it.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}
