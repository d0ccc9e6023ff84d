//! Against a real kernel, in a network namespace of its own.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

/// How long a change may take to be seen; nobody waits for it who is not disappointed.
const LIMIT: Duration = Duration::from_secs(20);

/// A host with the interface `e0` (10.9.0.2/24), whose cable ends in `p0` of the same host.
pub(crate) struct Host {
    name: String,
}

impl Host {
    /// `None`, with the reason on stderr, where namespaces cannot be had.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let host = Self {
            name: format!("rt{}x{number}", std::process::id()),
        };
        if let Err(reason) = ip(&["netns", "add", &host.name], "") {
            // Not captured by the test harness: a skipped test must be seen.
            let skipped = format!("skipped {test}: no network namespaces here: {reason}\n");
            std::io::stderr().write_all(skipped.as_bytes()).unwrap();
            return None;
        }
        host.ip("link set lo up\n\
                 link add e0 address 02:00:00:00:09:02 type veth peer name p0\n\
                 link set p0 up\nlink set e0 up\naddr add 10.9.0.2/24 dev e0\n");
        Some(host)
    }

    /// Commands of ip(8), one a line.
    pub(crate) fn ip(&self, commands: &str) {
        ip(&["-n", &self.name, "-batch", "-"], commands).unwrap();
    }

    /// Runs in a thread of its own inside the host.
    pub(crate) fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let work = || {
                let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                work()
            };
            scope.spawn(work).join().unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may not have come into being.
        let _missing = ip(&["netns", "del", &self.name], "");
    }
}

fn ip(arguments: &[&str], input: &str) -> Result<(), String> {
    run("ip", arguments, input)
}

/// Runs a program in this thread's network namespace with `input`; what it complains of.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

async fn until(follower: &mut Follower, what: &str, seen: impl Fn(&View) -> bool) {
    let wait = async { while !seen(&follower.next().await) {} };
    tokio::time::timeout(LIMIT, wait)
        .await
        .unwrap_or_else(|_| panic!("not seen: {what}"));
}

fn next_hop(view: &View, to: &str) -> Option<String> {
    let next_hop = view.routes.next_hop(to.parse().unwrap())?;
    Some(next_hop.to_string())
}

#[test]
fn the_kernels_routes_and_addresses_are_followed() {
    let Some(host) = Host::new("the_kernels_routes_and_addresses_are_followed") else {
        return;
    };
    host.on(|| {
        block_on(async {
            let preferred = "fd00:9::2".parse().unwrap();
            let mut follower = Follower::open("e0", Some(preferred)).unwrap();
            let first = follower.look().unwrap();
            assert_eq!(next_hop(&first, "10.9.0.77").unwrap(), "10.9.0.77");
            assert_eq!(next_hop(&first, "10.50.0.1"), None);
            assert_eq!(first.own.first().unwrap(), &IpAddr::from([10, 9, 0, 2]));

            for (commands, to, expected) in [
                (
                    "route add default via 10.9.0.254",
                    "10.50.0.1",
                    Some("10.9.0.254"),
                ),
                (
                    "route add 10.50.0.0/24 via 10.9.0.253",
                    "10.50.0.1",
                    Some("10.9.0.253"),
                ),
                (
                    "route replace 10.50.0.0/24 via 10.9.0.252",
                    "10.50.0.1",
                    Some("10.9.0.252"),
                ),
                (
                    "route add 10.50.0.0/24 via 10.9.0.251 metric 7",
                    "10.50.0.1",
                    Some("10.9.0.252"),
                ),
                (
                    "route del 10.50.0.0/24 via 10.9.0.252",
                    "10.50.0.1",
                    Some("10.9.0.251"),
                ),
                ("route add blackhole 10.50.0.1/32", "10.50.0.1", None),
                ("route replace unreachable 10.50.0.0/28", "10.50.0.2", None),
                (
                    "route add 10.51.0.0/24 nexthop via 10.9.0.9 nexthop via 10.9.0.8",
                    "10.51.0.1",
                    Some("10.9.0.9"),
                ),
                (
                    "addr add fd00:9::1/64 dev e0 nodad",
                    "fd00:9::7",
                    Some("fd00:9::7"),
                ),
                (
                    "route add 2001:db8::/32 via fd00:9::fe dev e0",
                    "2001:db8::1",
                    Some("fd00:9::fe"),
                ),
                (
                    "route replace 2001:db8::/32 via fe80::fe dev e0",
                    "2001:db8::1",
                    Some("fe80::fe"),
                ),
                (
                    "route add ::/0 via fe80::1 dev e0",
                    "2001:db9::1",
                    Some("fe80::1"),
                ),
                ("route del default", "10.52.0.1", None),
            ] {
                // A change of another interface wakes, and decides nothing.
                host.ip(&format!(
                    "{commands}\naddr add 10.60.0.2/24 dev p0\naddr del 10.60.0.2/24 dev p0\n"
                ));
                until(&mut follower, commands, |view| {
                    next_hop(view, to).as_deref() == expected
                })
                .await;
            }

            host.ip("addr add fd00:9::2/64 dev e0 nodad\n");
            until(&mut follower, "the preferred address", |view| {
                view.ours6.address == Some(preferred)
            })
            .await;
            // The kernel does not tell of the IPv4 routes that go with a link.
            host.ip("link set e0 down\n");
            until(&mut follower, "the link that went", |view| {
                next_hop(view, "10.9.0.77").is_none()
            })
            .await;
            host.ip("link set e0 up\n");
            until(&mut follower, "the link that came", |view| {
                next_hop(view, "10.9.0.77").is_some() && next_hop(view, "10.51.0.1").is_none()
            })
            .await;
        });
    });
}

/// More changes than a socket's buffer holds while nobody reads: some words are lost, the outcome is not.
#[test]
fn lost_messages_lose_no_route() {
    let Some(host) = Host::new("lost_messages_lose_no_route") else {
        return;
    };
    host.on(|| {
        block_on(async {
            let mut follower = Follower::open("e0", None).unwrap();
            let mut commands = String::new();
            for number in 0..3000 {
                let (high, low) = (number / 250, number % 250);
                commands += &format!("route add 10.50.{high}.{low}/32 via 10.9.0.254\n");
            }
            host.ip(&commands);
            // The first message in the buffer is an old one; the error stands behind what was not lost.
            until(&mut follower, "the last of many", |view| {
                next_hop(view, "10.50.11.249").as_deref() == Some("10.9.0.254")
            })
            .await;
            host.ip("route replace 10.50.11.249/32 via 10.9.0.253\n");
            until(&mut follower, "what came after them", |view| {
                next_hop(view, "10.50.11.249").as_deref() == Some("10.9.0.253")
            })
            .await;
        });
    });
}

/// An interface that is away leaves the last view in force, and is seen again under another index.
#[test]
fn an_interface_that_comes_back_is_followed_again() {
    let Some(host) = Host::new("an_interface_that_comes_back_is_followed_again") else {
        return;
    };
    host.on(|| {
        block_on(async {
            let mut follower = Follower::open("e0", None).unwrap();
            follower.look().unwrap();
            host.ip("link del e0\n");
            let none = tokio::time::timeout(2 * RETRY, follower.next()).await;
            assert!(none.is_err(), "{none:?}");
            host.ip(
                "link add e0 type veth peer name p0\nlink set p0 up\nlink set e0 up\n\
                     addr add 10.9.0.2/24 dev e0\nroute add 10.50.0.0/24 via 10.9.0.1\n",
            );
            until(&mut follower, "the interface that came back", |view| {
                next_hop(view, "10.50.0.1").as_deref() == Some("10.9.0.1")
            })
            .await;
        });
    });
}
