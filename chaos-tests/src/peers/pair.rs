//! Two routers of another make in a lab, with the servers and the client everybody gets.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::contender::{Contender, Kind};
use super::ear::Ear;
use super::error::PeersError;
use super::rig::{SERVERS, SPEAK_MAX};
use super::setup::Router;
use crate::lab::{Condition, LINES_PORT, Lab, LabError, Signal};
use crate::lines::{Server, ServerArgs};

const ROUTERS: [&str; 2] = ["atm1", "atm2"];

/// Host part of the address that servers answer through; no host of a lab of this size has it.
const GATEWAY_HOST: u8 = 101;

/// What killed routers leave behind and refuse to start over.
const LEFT_BY_KILL: [&str; 4] = [
    "keepalived.pid",
    "vrrp.pid",
    "conntrackd.lock",
    "conntrackd.ctl",
];

/// How long a killed process may take to go.
const DEATH_MAX: Duration = Duration::from_secs(5);

/// The second router listens for one advertisement before it counts as standing by.
const STAND_BY: Duration = Duration::from_millis(500);

pub(super) struct Pair {
    /// Before the lab: they end while their hosts still exist.
    _servers: Vec<Server>,
    lab: Lab,
    contender: Contender,
}

impl Pair {
    /// Builds the lab and starts both routers; the first one speaks when this returns.
    pub(super) fn start(contender: Contender) -> Result<Self, PeersError> {
        let builder = Lab::builder().atms(ROUTERS.len()).servers(SERVERS).client();
        let lab = builder.without_daemons().start()?;
        let servers = if contender.keeps_connections() {
            serve(&lab)?
        } else {
            Vec::new()
        };
        let pair = Self {
            _servers: servers,
            lab,
            contender,
        };
        pair.furnish()?;
        pair.begin()?;
        Ok(pair)
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Ends the routers, forgets everything they left in their kernels, and starts them anew.
    pub(super) fn begin_again(&self) -> Result<(), PeersError> {
        let dying: Vec<_> = ROUTERS
            .iter()
            .map(|host| self.lab.processes_of(host))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        for process in &dying {
            process.signal(Signal::KILL);
        }
        let by = Instant::now() + DEATH_MAX;
        while dying.iter().any(|p| p.condition() != Condition::Dead) {
            self.lab.processes_of(ROUTERS[0])?;
            if Instant::now() >= by {
                return Err(PeersError::Late {
                    what: "the end of killed routers".to_owned(),
                    limit: DEATH_MAX,
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
        for host in ROUTERS {
            // An address that is not there is as good as one removed.
            for address in [self.vip(), self.gateway()] {
                let address = format!("{address}/32");
                self.lab
                    .host(host)?
                    .exec(["ip", "address", "del", &address, "dev", "eth0"])?;
            }
            if self.contender.kind() == Kind::Conntrackd {
                self.run(host, &["conntrack", "-F"])?;
            }
        }
        self.begin()
    }

    /// The preferred router first, so that it is the one that speaks.
    fn begin(&self) -> Result<(), PeersError> {
        let ear = Ear::open(&self.lab, self.vip())?;
        for (number, name) in ROUTERS.iter().enumerate() {
            self.with_router(number, |router| {
                let host = self.lab.host(name)?;
                for file in LEFT_BY_KILL {
                    // Most of them are not there.
                    let _ = fs::remove_file(host.dir().join(file));
                }
                match self.contender.kind() {
                    Kind::Ucarp => drop(host.spawn("ucarp", router.ucarp(), &[])?),
                    Kind::Conntrackd => {
                        host.spawn("conntrackd", router.conntrackd(), &[])?;
                        host.spawn("keepalived", router.keepalived(), &[])?;
                    }
                    Kind::Keepalived | Kind::Ours => {
                        host.spawn("keepalived", router.keepalived(), &[])?;
                    }
                }
                Ok(())
            })?;
            let speaker = ear.wait_for_speaker(SPEAK_MAX)?;
            if speaker != self.lab.host(ROUTERS[0])?.mac() {
                return Err(PeersError::Void(format!(
                    "not {} became the active router",
                    ROUTERS[0]
                )));
            }
        }
        thread::sleep(STAND_BY);
        Ok(())
    }

    fn vip(&self) -> Ipv4Addr {
        vip_of(&self.lab)
    }

    fn gateway(&self) -> Ipv4Addr {
        gateway_of(self.vip())
    }

    fn with_router<T>(
        &self,
        number: usize,
        act: impl FnOnce(Router<'_>) -> Result<T, PeersError>,
    ) -> Result<T, PeersError> {
        let host = self.lab.host(ROUTERS[number])?;
        let servers: Vec<_> = self
            .lab
            .hosts()
            .iter()
            .filter(|h| h.is_server())
            .map(|h| h.address())
            .collect();
        act(Router {
            number,
            own: host.address(),
            other: self.lab.host(ROUTERS[1 - number])?.address(),
            vip: self.vip(),
            gateway: self.gateway(),
            servers: &servers,
            dir: &host.dir(),
        })
    }

    /// Files, kernel settings and packet filter of both routers.
    fn furnish(&self) -> Result<(), PeersError> {
        for (number, name) in ROUTERS.iter().enumerate() {
            self.with_router(number, |router| {
                match self.contender.kind() {
                    Kind::Ucarp => {
                        for (file, text) in router.ucarp_scripts() {
                            write(&router.dir.join(file), &text)?;
                        }
                    }
                    Kind::Keepalived | Kind::Ours => {
                        let text = router.keepalived_conf(self.contender);
                        write(&router.dir.join("keepalived.conf"), &text)?;
                    }
                    Kind::Conntrackd => {
                        let text = router.keepalived_conf(self.contender);
                        write(&router.dir.join("keepalived.conf"), &text)?;
                        write(
                            &router.dir.join("conntrackd.conf"),
                            &router.conntrackd_conf(),
                        )?;
                        write(&router.dir.join("notify.sh"), &router.notify_script())?;
                        let filter = router.dir.join("filter.nft");
                        write(&filter, &router.filter())?;
                        self.run(name, &["nft", "-f", &filter.display().to_string()])?;
                    }
                }
                Ok(())
            })?;
            if self.contender.kind() == Kind::Conntrackd {
                // A forwarder that says nothing of its own, and takes up no connection in the middle.
                self.set(
                    name,
                    &[
                        ("ipv4/ip_forward", "1"),
                        ("ipv4/conf/all/send_redirects", "0"),
                        ("ipv4/conf/eth0/send_redirects", "0"),
                        ("netfilter/nf_conntrack_tcp_loose", "0"),
                    ],
                )?;
            }
        }
        Ok(())
    }

    fn set(&self, host: &str, values: &[(&str, &str)]) -> Result<(), PeersError> {
        self.lab.in_netns(host, || {
            for (name, value) in values {
                let path = Path::new("/proc/sys/net").join(name);
                fs::write(&path, value).map_err(PeersError::file("write", &path))?;
            }
            Ok(())
        })?
    }

    fn run(&self, host: &str, argv: &[&str]) -> Result<(), PeersError> {
        run(&self.lab, host, argv)
    }
}

/// Lines on every server, whose answers to the client go through the pair.
fn serve(lab: &Lab) -> Result<Vec<Server>, PeersError> {
    let client = lab.host("client")?.address().to_string();
    let gateway = gateway_of(vip_of(lab)).to_string();
    let mut servers = Vec::new();
    for host in lab.hosts().iter().filter(|h| h.is_server()) {
        let route = [
            "ip", "route", "add", &client, "via", &gateway, "dev", "eth0",
        ];
        run(lab, host.name(), &route)?;
        let args = ServerArgs {
            listen: SocketAddr::from(([0, 0, 0, 0], LINES_PORT)),
            name: host.name().to_owned(),
        };
        let server = host.in_netns(|| Server::start(args))?;
        servers.push(server.map_err(|error| PeersError::Command {
            host: host.name().to_owned(),
            command: "serve lines".to_owned(),
            said: error.to_string(),
        })?);
    }
    Ok(servers)
}

fn run(lab: &Lab, host: &str, argv: &[&str]) -> Result<(), PeersError> {
    let output = lab.host(host)?.exec(argv)?;
    if output.status.success() {
        return Ok(());
    }
    Err(PeersError::Command {
        host: host.to_owned(),
        command: argv.join(" "),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn vip_of(lab: &Lab) -> Ipv4Addr {
    let vips = lab.vips();
    vips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn gateway_of(vip: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = vip.octets();
    Ipv4Addr::new(a, b, c, GATEWAY_HOST)
}

/// Scripts are run, the rest is read; both only by root.
fn write(path: &Path, text: &str) -> Result<(), PeersError> {
    let cannot = || LabError::io(format!("write {}", path.display()));
    fs::write(path, text).map_err(cannot())?;
    let script = path.extension().is_some_and(|e| e == "sh");
    let mode = if script { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(cannot())?;
    Ok(())
}
