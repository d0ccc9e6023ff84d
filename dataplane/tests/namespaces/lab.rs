//! A client, an ATM and a server in namespaces of their own, joined by a bridge in a fourth. Gone with the value.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use dataplane::{Event, Handle, LeaseCell, PortKind, boottime};
use dataplane_core::{ForwardingTable, Limits, NextHop, Real, VirtualService};
use model::Instant;
use model::conf::{ForwardingMethod, Protocol, Replication, Scheduler};
use model::connections::ConnectionChange;
use model::ids::{ServerId, VirtualServiceId};
use model::sticky::StickyRules;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const ATM: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);
pub(crate) const PORT: u16 = 80;
pub(crate) const ATM_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];

const HOSTS: [(&str, Ipv4Addr, u8); 3] = [
    ("client", CLIENT, 1),
    ("atm", ATM, 2),
    ("server", SERVER, 3),
];
static RUNS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Lab {
    prefix: String,
}

impl Lab {
    /// `None`, with the reason on stderr, where namespaces cannot be had.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let lab = Self {
            prefix: format!(
                "dp{}x{}",
                std::process::id(),
                RUNS.fetch_add(1, Ordering::Relaxed)
            ),
        };
        if let Err(reason) = run("ip", &["netns", "add", &lab.name("hub")]) {
            // Not captured by the test harness: a skipped test must be seen.
            let skipped = format!("skipped {test}: no network namespaces here: {reason}\n");
            io::stderr().write_all(skipped.as_bytes()).unwrap();
            return None;
        }
        lab.build();
        Some(lab)
    }

    fn build(&self) {
        let hub = self.name("hub");
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "br0", "up"]);
        for (host, address, number) in HOSTS {
            let name = self.name(host);
            ip(&["netns", "add", &name]);
            let mac = format!("02:00:00:00:09:{number:02x}");
            ip(&[
                "link", "add", "e0", "netns", &name, "address", &mac, "type", "veth", "peer",
                "name", host, "netns", &hub,
            ]);
            ip(&["-n", &hub, "link", "set", host, "master", "br0", "up"]);
            ip(&[
                "-n",
                &name,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "e0",
            ]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            ip(&["-n", &name, "link", "set", "e0", "up"]);
        }
        // The server's side of tunnel and direct routing: the VIP on lo, silent to ARP.
        let quiet = "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce";
        run(
            "ip",
            &["netns", "exec", &self.name("server"), "sh", "-c", quiet],
        )
        .unwrap();
        ip(&[
            "-n",
            &self.name("server"),
            "addr",
            "add",
            &format!("{VIP}/32"),
            "dev",
            "lo",
        ]);
        // A bridge port learns and forwards at once without STP; duplicate address detection is IPv6 only.
        thread::sleep(Duration::from_millis(100));
    }

    /// Of every host's interface and of the bridge's ports.
    pub(crate) fn set_mtu(&self, mtu: u16) {
        for (host, _, _) in HOSTS {
            ip(&[
                "-n",
                &self.name("hub"),
                "link",
                "set",
                host,
                "mtu",
                &mtu.to_string(),
            ]);
            ip(&[
                "-n",
                &self.name(host),
                "link",
                "set",
                "e0",
                "mtu",
                &mtu.to_string(),
            ]);
        }
    }

    pub(crate) fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// Runs in a thread of its own inside a host's network namespace; threads and processes started there stay there.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let name = self.name(host);
        thread::spawn(move || {
            enter(&name);
            work()
        })
    }

    /// [`spawn`](Self::spawn), and waits for the result.
    pub(crate) fn on<T: Send + 'static>(
        &self,
        host: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.spawn(host, work).join().unwrap()
    }

    /// Every frame a host receives from now on: (when, bytes).
    pub(crate) fn observe(&self, host: &str) -> mpsc::Receiver<(Instant, Vec<u8>)> {
        let (sender, receiver) = mpsc::channel();
        let (started, ready) = mpsc::channel();
        self.spawn(host, move || {
            let every = rustix::net::Protocol::from_raw(
                std::num::NonZeroU32::new(u32::from(3_u16.to_be())).unwrap(),
            );
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::PACKET,
                rustix::net::SocketType::RAW,
                rustix::net::SocketFlags::CLOEXEC,
                Some(every),
            )
            .unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).unwrap();
            // Lets the thread see that its test is over.
            let timeout = Some(Duration::from_millis(100));
            rustix::net::sockopt::set_socket_timeout(
                &socket,
                rustix::net::sockopt::Timeout::Recv,
                timeout,
            )
            .unwrap();
            started.send(()).unwrap();
            let mut buffer = vec![0; 70_000];
            let mut nothing = 0;
            while nothing < 100 {
                match rustix::net::recv(&socket, &mut buffer[..], rustix::net::RecvFlags::empty()) {
                    Ok((length, _)) => {
                        nothing = 0;
                        if sender
                            .send((boottime(), buffer[..length].to_vec()))
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(_timeout) => nothing += 1,
                }
            }
        });
        ready.recv().unwrap();
        receiver
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in ["client", "atm", "server", "hub"] {
            // It may not have come into being.
            let _missing = run("ip", &["netns", "del", &self.name(host)]);
        }
    }
}

/// Moves this thread into a named network namespace.
pub(crate) fn enter(name: &str) {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

pub(crate) fn ip(arguments: &[&str]) {
    run("ip", arguments).unwrap();
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// An engine whose replicator says yes to everything at once.
pub(crate) struct Router {
    pub(crate) handle: Handle,
    pub(crate) lease: Arc<LeaseCell>,
}

impl Router {
    /// Starts in this thread's namespace.
    pub(crate) fn start(kind: PortKind, method: ForwardingMethod) -> Self {
        let lease = Arc::new(LeaseCell::new());
        let config = dataplane::EngineConfig {
            interface: "e0".to_owned(),
            port: kind,
            address: None,
            limits: Limits {
                pending_max: 1000,
                connections_max: 10_000,
            },
        };
        let (handle, mut events) = dataplane::start(config, Arc::clone(&lease)).unwrap();
        block_on(handle.install(table(method))).unwrap();
        block_on(handle.barrier()).unwrap();
        let replicator = handle.clone();
        thread::spawn(move || {
            block_on(async {
                while let Some(event) = events.recv().await {
                    let change = match event {
                        Event::Open(key, pin) => ConnectionChange::Open(key, pin),
                        Event::Close(key) => ConnectionChange::Close(key),
                        Event::Unstick(key) => ConnectionChange::Unstick(key),
                    };
                    if replicator.commit(vec![change]).await.is_err() {
                        return;
                    }
                }
            });
        });
        Self { handle, lease }
    }
}

impl Router {
    /// What the engine counted, for the message of a failed assertion.
    pub(crate) fn account(&self) -> String {
        let snapshot = block_on(self.handle.snapshot()).unwrap();
        let stats =
            dataplane::Count::ALL.map(|count| (count.name(), self.handle.stats().count(count)));
        format!("{snapshot:?} {stats:?}")
    }
}

pub(crate) fn table(method: ForwardingMethod) -> ForwardingTable {
    let (service, server) = (VirtualServiceId(1), ServerId(1));
    ForwardingTable {
        applied_index: 1,
        next_hop: NextHop::default(),
        sticky: StickyRules::default(),
        vips: vec![VIP.into()],
        gateways: vec![],
        services: vec![VirtualService {
            id: service,
            vip: VIP.into(),
            protocol: Protocol::Tcp,
            port: PORT,
            scheduler: Scheduler::Wrr,
            replication: Replication::Quorum,
            share: vec![(server, 1)],
            reset: vec![],
        }],
        servers: vec![Real {
            id: server,
            address: SERVER.into(),
            next_hop: Some(SERVER.into()),
            here: false,
            method,
            source: None,
        }],
        connections_max: 10_000,
        connection_timeout: Duration::from_secs(30),
        send_arp_delay: Duration::from_secs(20),
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Waits for a condition, at most `limit`.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = boottime() + limit;
    while boottime() < end {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    condition()
}
