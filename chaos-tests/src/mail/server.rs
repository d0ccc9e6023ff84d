//! The mail server: up to three listeners, one thread per session, all of them ended by [`Server::stop`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::maildir::Store;
use super::wire::{Wire, WireError};
use super::{imap, pop3, smtp};

/// Sessions per protocol. A session has a socket and at most one file open: 3 x 128 x 2 stay below the usual
/// limit of 1024 descriptors.
pub const SESSIONS_MAX: usize = 128;

/// How soon a listener notices that it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Which mail server to run and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Directory of the mailboxes; several servers may share it
    #[arg(long, value_name = "DIR")]
    pub maildir: PathBuf,
    /// Name of this server, shown in greetings and Received headers ([A-Za-z0-9.-], at most 64)
    #[arg(long)]
    pub name: String,
    /// Where to take mail by SMTP, e.g. 0.0.0.0:25
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub smtp: Option<SocketAddr>,
    /// Where to hand out mail by POP3, e.g. 0.0.0.0:110
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub pop3: Option<SocketAddr>,
    /// Where to hand out mail by IMAP, e.g. 0.0.0.0:143
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub imap: Option<SocketAddr>,
    /// Domain whose mail is taken; repeatable
    #[arg(long, value_name = "DOMAIN", default_values_t = ["mail.my.org".to_owned(), "my.org".to_owned()])]
    pub domain: Vec<String>,
}

/// A protocol of the mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 1939.
    Pop3,
    /// RFC 3501.
    Imap,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Imap => "imap",
        })
    }
}

/// Why a mail server does not start.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The name would not fit into greetings and file names.
    #[error("{0:?} cannot be the name of a mail server: use 1 to 64 of [A-Za-z0-9.-]")]
    Name(String),
    /// Neither SMTP nor POP3 nor IMAP was asked for.
    #[error("no protocol to serve: give at least one of --smtp, --pop3, --imap")]
    NoProtocol,
    /// The storage cannot be read.
    #[error("cannot use the mail directory {path}: {source}")]
    Maildir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {protocol}: {source}")]
    Listen {
        /// For which protocol.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Runs a mail server until the process is ended; prints one line per listener to standard output.
///
/// The process may be killed at any time: what was acknowledged is on disk.
///
/// # Errors
/// Everything that keeps it from starting, see [`MailError`].
pub fn serve(args: ServerArgs) -> Result<(), MailError> {
    let server = Server::start(args)?;
    for (protocol, address) in &server.addresses {
        // Whoever started it may have stopped listening; that is no reason to stop serving.
        let _ = writeln!(io::stdout(), "listening {protocol} {address}");
    }
    server.wait();
    Ok(())
}

/// A running mail server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addresses: BTreeMap<Protocol, SocketAddr>,
    shared: Arc<Shared>,
    listeners: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds every address and starts to serve. All or nothing: on an error no thread is left.
    ///
    /// # Errors
    /// See [`MailError`].
    pub fn start(args: ServerArgs) -> Result<Self, MailError> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if !(1..=64).contains(&args.name.len()) || !args.name.bytes().all(harmless) {
            return Err(MailError::Name(args.name));
        }
        let store =
            Store::open(&args.maildir, &args.name).map_err(|source| MailError::Maildir {
                path: args.maildir.clone(),
                source,
            })?;
        let wanted = [
            (Protocol::Smtp, args.smtp),
            (Protocol::Pop3, args.pop3),
            (Protocol::Imap, args.imap),
        ];
        let mut bound = Vec::new();
        for (protocol, address) in wanted
            .into_iter()
            .filter_map(|(protocol, at)| Some((protocol, at?)))
        {
            bound.push((
                protocol,
                listen(address).map_err(|source| MailError::Listen {
                    protocol,
                    address,
                    source,
                })?,
            ));
        }
        if bound.is_empty() {
            return Err(MailError::NoProtocol);
        }
        let shared = Arc::new(Shared {
            name: args.name,
            domains: args.domain,
            store,
            stopping: AtomicBool::new(false),
            next_session: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            sessions: Mutex::default(),
        });
        let mut server = Self {
            addresses: BTreeMap::new(),
            shared,
            listeners: Vec::new(),
        };
        for (protocol, (listener, address)) in bound {
            server.addresses.insert(protocol, address);
            let shared = Arc::clone(&server.shared);
            let thread = thread::Builder::new().name(format!("mail-{protocol}"));
            // An error drops `server`, which stops the listeners before this one.
            let listener = thread.spawn(move || accept(protocol, &listener, &shared));
            server.listeners.push(listener.map_err(MailError::Thread)?);
        }
        Ok(server)
    }

    /// Where `protocol` is served: the real port, also if 0 was asked for. `None` if it is not served.
    #[must_use]
    pub fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.addresses.get(&protocol).copied()
    }

    /// Sessions that ended by a panic: always 0, or there is a fault in this server.
    #[must_use]
    pub fn panicked_sessions(&self) -> u64 {
        self.shared.panicked.load(Ordering::SeqCst)
    }

    /// Ends every session and returns when all threads are gone.
    pub fn stop(self) {
        drop(self);
    }

    fn wait(mut self) {
        for listener in std::mem::take(&mut self.listeners) {
            // A listener that panicked has printed why; the others go on.
            let _ = listener.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for listener in std::mem::take(&mut self.listeners) {
            let _ = listener.join();
        }
        // No session starts any more: listeners are gone. Those that run wake up with a closed connection.
        let threads: Vec<_> = {
            let mut sessions = self.shared.sessions();
            for session in sessions.values() {
                let _ = session.stream.shutdown(Shutdown::Both);
            }
            sessions
                .values_mut()
                .filter_map(|session| session.thread.take())
                .collect()
        };
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// What all sessions of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) domains: Vec<String>,
    pub(crate) store: Store,
    stopping: AtomicBool,
    next_session: AtomicU64,
    panicked: AtomicU64,
    sessions: Mutex<BTreeMap<u64, Session>>,
}

#[derive(Debug)]
struct Session {
    protocol: Protocol,
    stream: Arc<TcpStream>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Session>> {
        // The map is whole between any two statements: a panic elsewhere does not spoil it.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn accept(protocol: Protocol, listener: &TcpListener, shared: &Arc<Shared>) {
    let wait = Timespec::try_from(STOP_CHECK).ok();
    while !shared.is_stopping() {
        let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], wait.as_ref());
        match listener.accept() {
            Ok((stream, peer)) => admit(protocol, stream, peer, shared),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors or a connection reset before it was taken: neither is cured by haste.
            Err(_) => thread::sleep(STOP_CHECK),
        }
    }
}

fn admit(protocol: Protocol, stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    let stream = Arc::new(stream);
    let mut sessions = shared.sessions();
    if sessions
        .values()
        .filter(|session| session.protocol == protocol)
        .count()
        >= SESSIONS_MAX
    {
        drop(sessions);
        let refusal = match protocol {
            Protocol::Smtp => format!("421 {} too many sessions\r\n", shared.name),
            Protocol::Pop3 => "-ERR [SYS/TEMP] too many sessions\r\n".to_owned(),
            Protocol::Imap => "* BYE too many sessions\r\n".to_owned(),
        };
        // The socket is still non-blocking or its send buffer empty: this cannot stall the listener.
        let _ = (&*stream).write_all(refusal.as_bytes());
        return;
    }
    let number = shared.next_session.fetch_add(1, Ordering::Relaxed);
    let thread = {
        let (shared, stream) = (Arc::clone(shared), Arc::clone(&stream));
        let builder = thread::Builder::new().name(format!("{protocol}-{number}"));
        builder.spawn(move || {
            let _registered = Registered {
                number,
                shared: &shared,
            };
            // A session ends by QUIT, by its peer or by a deadline; there is nobody to tell which.
            let _ = Wire::new(stream).and_then(|wire| run(protocol, wire, peer, &shared));
        })
    };
    // The session takes itself out under this same mutex, so it is in the map before that.
    if let Ok(thread) = thread {
        sessions.insert(
            number,
            Session {
                protocol,
                stream,
                thread: Some(thread),
            },
        );
    }
}

fn run(protocol: Protocol, wire: Wire, peer: SocketAddr, shared: &Shared) -> Result<(), WireError> {
    match protocol {
        Protocol::Smtp => smtp::session(wire, peer, shared),
        Protocol::Pop3 => pop3::session(wire, shared),
        Protocol::Imap => imap::session(wire, shared),
    }
}

/// Takes a session out of the map when its thread ends, also by a panic.
struct Registered<'a> {
    number: u64,
    shared: &'a Shared,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.panicked.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(session) = self.shared.sessions().remove(&self.number) {
            let _ = session.stream.shutdown(Shutdown::Both);
        }
    }
}
