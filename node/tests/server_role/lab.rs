//! A client and a server host as network namespaces of their own, removed when the test ends.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) const CLIENT: IpAddr = v4(50);
pub(crate) const SERVER: IpAddr = v4(11);
pub(crate) const VIP: IpAddr = v4(100);
pub(crate) const VIP2: IpAddr = v4(101);
/// Stands on the server's `lo` before anything of ours.
pub(crate) const STANDING_VIP: IpAddr = v4(102);

pub(crate) const CLIENT6: IpAddr = v6(0x50);
pub(crate) const SERVER6: IpAddr = v6(0x11);
pub(crate) const VIP6: IpAddr = v6(0x100);
/// Stands on the server's `lo` before anything of ours.
pub(crate) const STANDING_VIP6: IpAddr = v6(0x102);

/// What a client sends to is caught and put into the tunnel.
pub(crate) const VIPS: [IpAddr; 3] = [VIP, VIP2, VIP6];

const fn v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, host))
}

const fn v6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, host))
}

/// The address of a version at one end of the wire.
pub(crate) fn client(version_of: IpAddr) -> IpAddr {
    if version_of.is_ipv4() {
        CLIENT
    } else {
        CLIENT6
    }
}

/// The hosts of one test: `server` and `client` on one wire, and `hole`, where the client's packets to a VIP go when
/// the test's encapsulator has seen them.
pub(crate) struct Lab {
    prefix: String,
    pub(crate) state: tempfile::TempDir,
}

impl Lab {
    /// Builds the hosts, or prints why it cannot.
    pub(crate) fn build() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            let _ = writeln!(std::io::stderr(), "skipped: this kernel has no IPv6");
            return None;
        }
        let prefix = format!(
            "sr{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            prefix,
            state: tempfile::tempdir().unwrap(),
        };
        let [server, client, hole] = ["server", "client", "hole"].map(|host| lab.namespace(host));
        let batch = format!(
            "netns add {server}\nnetns add {client}\nnetns add {hole}\n\
             link add eth0 netns {server} type veth peer name eth0 netns {client}\n\
             link add out0 netns {client} type veth peer name out1 netns {hole}\n"
        );
        if let Err(why) = ip(&["-batch", "-"], &batch) {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: no network namespaces here: {why}"
            );
            return None;
        }
        let on = |host: &str, commands: &str| {
            ip(&["-n", &lab.namespace(host), "-batch", "-"], commands).unwrap()
        };
        // IPv6 would finish its own configuration between two snapshots.
        lab.within("server", || {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode", "1").unwrap();
        });
        on(
            "server",
            &format!(
                "link set lo up\naddr add {STANDING_VIP}/32 dev lo\naddr add {STANDING_VIP6}/128 dev lo nodad\n\
                 addr add {SERVER}/24 dev eth0\nlink set eth0 up\naddr add {SERVER6}/64 dev eth0 nodad\n\
                 addr add fe80::11/64 dev eth0 nodad\n"
            ),
        );
        on(
            "client",
            &format!(
                "link set lo up\naddr add {CLIENT}/24 dev eth0\nlink set eth0 up\n\
                 addr add {CLIENT6}/64 dev eth0 nodad\n"
            ),
        );
        on("hole", "link set out1 up\n");
        // Without ARP and neighbour discovery the client sends to a VIP without asking; what it sends ends in the hole.
        on("client", "link set out0 arp off up\n");
        on(
            "client",
            &format!(
                "route add {VIP}/32 dev out0 src {CLIENT}\nroute add {VIP2}/32 dev out0 src {CLIENT}\n\
                 route add {VIP6}/128 dev out0 src {CLIENT6}\n"
            ),
        );
        lab.within("client", || {
            for name in ["all", "eth0"] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
            }
        });
        // What a careful administrator may have: the filter everywhere, a table of his own.
        lab.within("server", || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/default/rp_filter", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2").unwrap();
            let table = "table inet own {\n  chain input {\n    type filter hook input priority 0; policy accept;\n  }\n}\n";
            feed(Command::new("nft").args(["-f", "-"]), table).unwrap();
        });
        Some(lab)
    }

    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs `act` in a thread that lives in a host; what it starts lives there, too.
    pub(crate) fn within<T: Send>(&self, host: &str, act: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from("/run/netns").join(self.namespace(host));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(path).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                act()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// As [`within`](Self::within), for an async function.
    pub(crate) fn run<T: Send, F: Future<Output = T>>(
        &self,
        host: &str,
        act: impl FnOnce() -> F + Send,
    ) -> T {
        self.within(host, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(act())
        })
    }

    /// Everything of the server that the role may touch, as text: addresses, links, settings, nftables.
    pub(crate) fn snapshot(&self) -> String {
        self.within("server", || {
            let show = |program: &str, arguments: &[&str]| {
                let output = Command::new(program).args(arguments).output().unwrap();
                assert!(output.status.success(), "{program} {arguments:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let mut text = show("ip", &["-details", "addr"]);
            text += &show("ip", &["rule"]);
            text += &show("ip", &["-6", "rule"]);
            text += &show("ip", &["-4", "route", "show", "table", "all"]);
            text += &show("ip", &["-6", "route", "show", "table", "all"]);
            text += &show("nft", &["list", "ruleset"]);
            let mut settings: Vec<String> = Vec::new();
            for version in ["ipv4", "ipv6"] {
                let conf = format!("/proc/sys/net/{version}/conf");
                for entry in std::fs::read_dir(conf).unwrap() {
                    for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
                        let path = file.unwrap().path();
                        // A few files are write-only.
                        if let Ok(value) = std::fs::read_to_string(&path) {
                            settings.push(format!("{} {value}", path.display()));
                        }
                    }
                }
            }
            settings.sort();
            text + &settings.concat()
        })
    }

    /// Fails with the lines that differ from an earlier snapshot.
    #[track_caller]
    pub(crate) fn assert_is(&self, before: &str, when: &str) {
        let after = self.snapshot();
        let lines = |of: &str, and_not_of: &str, mark: &str| -> String {
            let missing = of
                .lines()
                .filter(|line| !and_not_of.lines().any(|other| other == *line));
            missing.map(|line| format!("{mark} {line}\n")).collect()
        };
        let difference = lines(before, &after, "-") + &lines(&after, before, "+");
        assert!(
            before == after,
            "{when}: the host is not as before:\n{difference}"
        );
    }

    /// The value of a setting of the server.
    pub(crate) fn setting(&self, interface: &str, key: &str) -> String {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
        self.within("server", || {
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        })
    }

    /// What `program` prints in the server.
    pub(crate) fn show(&self, program: &str, arguments: &[&str]) -> String {
        self.within("server", || {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in ["server", "client", "hole"] {
            let _ = ip(&["netns", "del", &self.namespace(host)], "");
        }
    }
}

fn ip(arguments: &[&str], input: &str) -> Result<(), String> {
    feed(Command::new("ip").args(arguments), input)
}

fn feed(command: &mut Command, input: &str) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("{command:?}: {error}"))?;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .map_err(|error| error.to_string())?;
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
