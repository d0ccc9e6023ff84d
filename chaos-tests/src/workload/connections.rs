//! Connections through the VIP, opened all the time and in the milliseconds before each fault: whoever got a SYN-ACK keeps its
//! server, and numbered lines flow both ways until the client closes it.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::pace::Chance;
use crate::history::{Flow, Link, Op, Recorder};
use crate::lab::enter;
use crate::lines::{Client, ConnectionReport, Options};

/// How long opening may take: a SYN that met a takeover is repeated after 1, 3, 7 and 15 s.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// Between two lines of a connection.
const LINES_INTERVAL: Duration = Duration::from_millis(50);

/// Between two groups of connections.
const GROUP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections opened together.
const GROUP: usize = 3;

/// Connections opened right before a fault.
const BURST: usize = 8;

/// Connections that last as long as the run.
const LASTING: usize = 8;

/// How long the others last, in milliseconds: from "closed within the takeover" to "several faults old".
const LIFE_MS: std::ops::Range<u64> = 500..30_000;

/// How long a connection may take to come to its end: longer than all outages of one storm of faults together.
const FINISH_MAX: Duration = Duration::from_secs(90);

/// The workload while it runs.
pub(crate) struct Connections {
    orders: Sender<Order>,
    keeper: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

/// How many so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) opened: AtomicU64,
    pub(crate) broken: AtomicU64,
}

enum Order {
    Burst,
    /// Opens and closes no more; acknowledged when none is half open or half closed.
    Settle(Sender<()>),
    Finish,
}

impl Connections {
    /// Begins to open connections to `service` from the network namespace `namespace`.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub(crate) fn start(
        namespace: &str,
        service: SocketAddr,
        recorder: Recorder,
        seed: u64,
    ) -> io::Result<Self> {
        let (orders, taken) = channel();
        let counts = Arc::new(Counts::default());
        let keeper = Keeper {
            maker: Maker {
                namespace: namespace.to_owned(),
                service,
                recorder,
                groups: 0,
                counts: Arc::clone(&counts),
            },
            chance: Chance::new(seed),
            live: Vec::new(),
            ending: Vec::new(),
        };
        let keeper = thread::Builder::new()
            .name("connections".to_owned())
            .spawn(move || keeper.run(&taken))?;
        Ok(Self {
            orders,
            keeper: Some(keeper),
            counts,
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Opens some at once.
    pub(crate) fn burst(&self) {
        // Nobody takes orders any more only when the keeper is gone, and then the run has failed already.
        let _ = self.orders.send(Order::Burst);
    }

    /// Opens and closes no more, and returns when none is half open or half closed: no table changes by them from now on.
    pub(crate) fn settle(&self) {
        let (done, is_done) = channel();
        if self.orders.send(Order::Settle(done)).is_ok() {
            let _ = is_done.recv();
        }
    }
}

impl Drop for Connections {
    /// Closes everything and records what became of it.
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Finish);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

struct Keeper {
    maker: Maker,
    chance: Chance,
    live: Vec<(Instant, Group)>,
    ending: Vec<JoinHandle<()>>,
}

impl Keeper {
    fn run(mut self, orders: &Receiver<Order>) {
        let lasting = self.maker.open(LASTING);
        let mut due = Instant::now();
        let mut opens = true;
        loop {
            let now = Instant::now();
            if opens && now >= due {
                due = now + GROUP_INTERVAL;
                self.begin(GROUP);
            }
            if opens {
                self.end_those_over(now);
            }
            let next = self.live.iter().map(|(until, _)| *until).min();
            let wait = next.map_or(due, |next| next.min(due));
            let wait = if opens { wait } else { now + GROUP_INTERVAL };
            match orders.recv_timeout(wait.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Burst) if opens => self.begin(BURST),
                Ok(Order::Burst) => {}
                Ok(Order::Settle(done)) => {
                    opens = false;
                    self.rest();
                    let _ = done.send(());
                }
                Ok(Order::Finish) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.end_all();
        if let Some(group) = lasting {
            group.end();
        }
    }

    fn begin(&mut self, count: usize) {
        let life = LIFE_MS.start + self.chance.below(LIFE_MS.end - LIFE_MS.start);
        let until = Instant::now() + Duration::from_millis(life);
        if let Some(group) = self.maker.open(count) {
            self.live.push((until, group));
        }
    }

    fn end_those_over(&mut self, now: Instant) {
        self.ending.retain(|thread| !thread.is_finished());
        let (over, live) = std::mem::take(&mut self.live)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.live = live;
        for (_, group) in over {
            self.end(group);
        }
    }

    fn end(&mut self, group: Group) {
        let ending = thread::Builder::new().name("connections-end".to_owned());
        // Without a thread the group is dropped, its connections are never closed in the history, and the checker says so.
        if let Ok(thread) = ending.spawn(move || group.end()) {
            self.ending.push(thread);
        }
    }

    /// Waits until none is half open or half closed.
    fn rest(&mut self) {
        for (_, group) in &self.live {
            // Each of them is open or given up within the time of one opening.
            let _ = group.client.wait_open(OPEN_MAX);
        }
        for thread in self.ending.drain(..) {
            let _ = thread.join();
        }
    }

    fn end_all(&mut self) {
        for (_, group) in std::mem::take(&mut self.live) {
            self.end(group);
        }
        self.rest();
    }
}

struct Maker {
    namespace: String,
    service: SocketAddr,
    recorder: Recorder,
    groups: u64,
    counts: Arc<Counts>,
}

impl Maker {
    fn open(&mut self, count: usize) -> Option<Group> {
        self.groups += 1;
        let options = Options {
            prefix: format!("g{}.", self.groups),
            ..Options::new(count, LINES_INTERVAL)
        };
        let opened: Arc<Mutex<Vec<Opened>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let opener = Opener {
            namespace: self.namespace.clone(),
            service: self.service,
            recorder: self.recorder.clone(),
            opened: Arc::clone(&opened),
            over: Arc::clone(&over),
            counts: Arc::clone(&self.counts),
            next: Cell::new(0),
        };
        let client = Client::open(options, move || opener.open()).ok()?;
        Some(Group {
            client,
            opened,
            over,
            recorder: self.recorder.clone(),
            counts: Arc::clone(&self.counts),
        })
    }
}

/// One connection whose opening was answered.
#[derive(Clone, Copy, Debug)]
struct Opened {
    number: usize,
    process: u64,
    link: Link,
}

/// Opens the connections of one group, one after the other.
struct Opener {
    namespace: String,
    service: SocketAddr,
    recorder: Recorder,
    opened: Arc<Mutex<Vec<Opened>>>,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    next: Cell<usize>,
}

impl Opener {
    fn open(&self) -> io::Result<TcpStream> {
        let number = self.next.replace(self.next.get() + 1);
        if number == 0 {
            enter(&self.namespace).map_err(io::Error::other)?;
        }
        if self.over.load(Ordering::SeqCst) {
            return Err(io::Error::other("the group is at its end"));
        }
        let process = self.recorder.process();
        self.recorder.invoke(process, Op::open());
        let opened = TcpStream::connect_timeout(&self.service, OPEN_MAX)
            .and_then(|stream| Ok((stream.local_addr()?, stream)));
        match opened {
            Ok((client, stream)) => {
                self.recorder
                    .ok(process, Op::opened(client, self.service, None));
                let link = Link {
                    client,
                    service: self.service,
                };
                lock(&self.opened).push(Opened {
                    number,
                    process,
                    link,
                });
                self.counts.opened.fetch_add(1, Ordering::Relaxed);
                Ok(stream)
            }
            // A reset is an answer; everything else may still come to be on the other side.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.recorder.fail(process, Op::open());
                Err(error)
            }
            Err(error) => {
                self.recorder.info(process, Op::open());
                Err(error)
            }
        }
    }
}

/// Connections that were opened together and end together.
struct Group {
    client: Client,
    opened: Arc<Mutex<Vec<Opened>>>,
    over: Arc<AtomicBool>,
    recorder: Recorder,
    counts: Arc<Counts>,
}

impl Group {
    /// Closes them in order and records what became of each.
    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        // Each of them is open or given up within the time of one opening.
        let _ = self.client.wait_open(OPEN_MAX);
        let opened = lock(&self.opened).clone();
        for one in &opened {
            let op = Op::ConnectionClose {
                connection: one.link,
            };
            self.recorder.invoke(one.process, op);
        }
        let report = self.client.finish(FINISH_MAX);
        for one in &opened {
            let told = report.per_connection.iter().find(|told| {
                told.token
                    .rsplit_once('.')
                    .is_some_and(|(_, number)| number.parse() == Ok(one.number))
            });
            let flow = flow(one.link, told);
            if !flow.alive {
                self.counts.broken.fetch_add(1, Ordering::Relaxed);
            }
            self.recorder.fact(Op::ConnectionFlow(Box::new(flow)));
            let op = Op::ConnectionClose {
                connection: one.link,
            };
            self.recorder.ok(one.process, op);
        }
    }
}

/// What became of a connection.
fn flow(connection: Link, told: Option<&ConnectionReport>) -> Flow {
    let none = ConnectionReport::default();
    let known = told.unwrap_or(&none);
    let ended = match (told, &known.server) {
        (None, _) => Some("it was opened and is not in the client's report".to_owned()),
        (Some(_), None) => Some(format!(
            "no server ever welcomed it: {}",
            known.ended.as_deref().unwrap_or("silence")
        )),
        (Some(_), Some(_)) => known.ended.clone(),
    };
    Flow {
        connection,
        server: known.server.clone().unwrap_or_default(),
        alive: known.alive && known.server.is_some(),
        ended,
        sent: known.lines_sent,
        acknowledged: known.lines_acknowledged,
        received: known.lines_received,
        lost: known.lost,
        repeated: known.repeated,
        out_of_order: known.out_of_order,
        foreign: 0,
        longest_stall_ns: known.longest_stall_ms * 1_000_000,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
