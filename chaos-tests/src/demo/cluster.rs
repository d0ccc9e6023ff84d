//! The lab of the demo, with its mail and line servers, and what its ATMs say of themselves.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use super::configuration::{self, ATMS, SERVERS};
use super::error::DemoError;
use super::interrupt::Interrupt;
use super::status::Status;
use crate::lab::{ATMD, Condition, LINES_PORT, Lab, LabError, PortKind, in_namespace, program};
use crate::observer::Mac;

/// A cluster that is up has an active ATM after one election; a busy machine needs a few.
const UP_MAX: Duration = Duration::from_secs(15);

/// One call of `atmctl`; it asks every ATM, and one that is stopped or cut off answers nothing.
const ATMCTL_MAX: Duration = Duration::from_secs(8);

/// Between two looks at something that takes its time.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// How long a port of a lab's server may take to answer a connect.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Of a server that ended: its last words.
const TAIL_LINES: usize = 5;

/// What each server of the tutorial offers besides lines: SMTP, POP3, IMAP.
const OFFERS: [(&str, &[(&str, u16)]); SERVERS] = [
    ("serv1", &[("--smtp", 25), ("--pop3", 110)]),
    ("serv2", &[("--smtp", 25), ("--imap", 143)]),
    ("serv3", &[("--imap", 143), ("--pop3", 110)]),
];

/// An ATM of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Atm {
    /// Its host in the lab.
    pub(super) host: String,
    /// Its name in the cluster.
    pub(super) name: String,
    /// Its interface's address, by which the observer knows it.
    pub(super) mac: Mac,
}

/// Hosts, processes and addresses of the demo. Dropped it ends.
pub(super) struct Cluster {
    pub(super) lab: Lab,
    pub(super) interrupt: Interrupt,
    pub(super) atms: Vec<Atm>,
    pub(super) vip: Ipv4Addr,
    atmctl: String,
    client: String,
}

impl Cluster {
    /// Brings everything up, mail and line servers included; they serve when this returns.
    ///
    /// # Errors
    /// Those of the lab, [`DemoError::Late`] for a server that does not serve, [`DemoError::Interrupted`].
    pub(super) fn start(
        port: PortKind,
        dir: &Path,
        interrupt: Interrupt,
    ) -> Result<Self, DemoError> {
        // What a build has just written would be flushed under the ATMs, and an ATM whose disk stalls hands over.
        rustix::fs::sync();
        let atmctl = program("atmctl")?.to_string_lossy().into_owned();
        let lab = Lab::builder()
            .conf_named("clusterserver.conf", configuration::text()?)
            .client()
            .port(port)
            .dir(dir)
            .start()?;
        let atms = lab
            .record()
            .hosts
            .iter()
            .filter(|host| host.atm)
            .map(|host| Atm {
                host: host.name.clone(),
                name: host.written.clone().unwrap_or_default(),
                mac: host.mac,
            })
            .collect();
        let vip = lab
            .vips()
            .first()
            .copied()
            .ok_or_else(|| DemoError::Unavailable("the configuration has no VIP".to_owned()))?;
        let client = lab.host("client")?.namespace().to_owned();
        let cluster = Self {
            lab,
            interrupt,
            atms,
            vip,
            atmctl,
            client,
        };
        cluster.start_servers()?;
        Ok(cluster)
    }

    fn start_servers(&self) -> Result<(), DemoError> {
        let own = std::env::current_exe().map_err(LabError::io("find the running executable"))?;
        let own = own.to_string_lossy().into_owned();
        // In the client's directory, which the lab empties when it starts: no mail of an earlier run is found.
        let maildir = self.lab.host("client")?.dir().join("maildir");
        let cannot = LabError::io(format!("create {}", maildir.display()));
        fs::create_dir_all(&maildir).map_err(cannot)?;
        let maildir = maildir.to_string_lossy().into_owned();
        let mut ports = Vec::new();
        for (name, offers) in OFFERS {
            let host = self.lab.host(name)?;
            let mut argv = [
                own.as_str(),
                "mail-server",
                "--maildir",
                &maildir,
                "--name",
                name,
            ]
            .map(str::to_owned)
            .to_vec();
            for (option, port) in offers {
                argv.extend([(*option).to_owned(), format!("0.0.0.0:{port}")]);
                ports.push(("mail", name, SocketAddr::from((host.address(), *port))));
            }
            host.spawn("mail", argv, &[])?;
            let lines = format!("0.0.0.0:{LINES_PORT}");
            let argv = [
                own.as_str(),
                "line-server",
                "--listen",
                &lines,
                "--name",
                name,
            ];
            host.spawn("lines", argv, &[])?;
            ports.push((
                "lines",
                name,
                SocketAddr::from((host.address(), LINES_PORT)),
            ));
        }
        for (process, host, port) in ports {
            let what = format!("an answer of {port}");
            self.interrupt.wait_for(&what, UP_MAX, LOOK, || {
                self.require_running(host, process)?;
                Ok(self.connect(port, CONNECT_MAX).ok())
            })?;
        }
        Ok(())
    }

    /// The last warning in the log of atmd on `host`, for a row that failed: why it did what it did.
    pub(super) fn last_warning(&self, host: &str) -> String {
        let log = self.lab.host(host).map(|host| host.log(ATMD));
        let text = log.ok().and_then(|log| fs::read_to_string(log).ok());
        let warnings = text.iter().flat_map(|text| text.lines());
        warnings
            .filter_map(|line| line.split_once(" WARN "))
            .next_back()
            .map(|(_, said)| format!("; the last warning of {host}: {said}"))
            .unwrap_or_default()
    }

    fn require_running(&self, host: &str, process: &str) -> Result<(), DemoError> {
        if self.lab.condition(host, process)? != Condition::Dead {
            return Ok(());
        }
        let log = self.lab.host(host)?.log(process);
        let said = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        Err(DemoError::Lab(LabError::EndedAtOnce {
            host: host.to_owned(),
            process: process.to_owned(),
            log,
            tail: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        }))
    }

    /// A connection from the client's host.
    ///
    /// # Errors
    /// What connect(2) says.
    pub(super) fn connect(
        &self,
        to: SocketAddr,
        limit: Duration,
    ) -> Result<TcpStream, std::io::Error> {
        connect_in(&self.client, to, limit)
    }

    /// The client's network namespace.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    /// Where a service of the VIP is.
    pub(super) fn service(&self, port: u16) -> SocketAddr {
        (self.vip, port).into()
    }

    /// The ATM with this name in the cluster.
    pub(super) fn atm_named(&self, name: &str) -> Option<&Atm> {
        self.atms.iter().find(|atm| atm.name == name)
    }

    /// The ATM with this MAC.
    pub(super) fn atm_with(&self, mac: Mac) -> Option<&Atm> {
        self.atms.iter().find(|atm| atm.mac == mac)
    }

    /// Runs `atmctl` on `host`.
    ///
    /// # Errors
    /// [`DemoError::Refused`] unless it exits with 0.
    pub(super) fn atmctl(&self, host: &str, args: &[&str]) -> Result<String, DemoError> {
        let argv = [&[self.atmctl.as_str()], args].concat();
        let output: Output = self.lab.host(host)?.exec_within(ATMCTL_MAX, argv)?;
        if !output.status.success() {
            return Err(DemoError::Refused {
                command: format!("atmctl {} on {host}", args.join(" ")),
                status: output.status.to_string(),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the ATM on `host` says of the cluster.
    ///
    /// # Errors
    /// [`DemoError::Refused`], [`DemoError::Answer`].
    pub(super) fn status(&self, host: &str) -> Result<Status, DemoError> {
        let args = ["--output", "json", "status"];
        let text = self.atmctl(host, &args)?;
        serde_json::from_str(&text).map_err(|error| DemoError::Answer {
            command: format!("atmctl {} on {host}", args.join(" ")),
            reason: error.to_string(),
        })
    }

    /// Asks `host` until its status is as wanted.
    ///
    /// # Errors
    /// [`DemoError::Late`] with the last answer, [`DemoError::Interrupted`].
    pub(super) fn await_status(
        &self,
        host: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<Status, DemoError> {
        let by = Instant::now() + limit;
        loop {
            let answer = self.status(host);
            let last = match answer {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) => status.summary(),
                Err(DemoError::Lab(LabError::ExecTimeout { .. })) => "no answer".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > by {
                return Err(DemoError::Late {
                    what: what.to_owned(),
                    seconds: limit.as_secs_f64(),
                    last: Some(last),
                });
            }
            self.interrupt.pause(LOOK)?;
        }
    }

    /// Waits until one ATM is active and the others are backups that have everything; gives the active one.
    ///
    /// # Errors
    /// [`DemoError::Late`], [`DemoError::Interrupted`].
    pub(super) fn await_whole(&self) -> Result<(Atm, Status), DemoError> {
        let first = self.atms.first().map_or("atm1", |atm| &atm.host);
        let status = self.await_status(
            first,
            "one active ATM with its backups",
            UP_MAX,
            Status::is_whole,
        )?;
        let active = status
            .active
            .as_deref()
            .and_then(|name| self.atm_named(name));
        let active = active.cloned().ok_or_else(|| DemoError::Answer {
            command: format!("atmctl status on {first}"),
            reason: format!("{:?} is no ATM of this lab", status.active),
        })?;
        Ok((active, status))
    }
}

/// A connection from the network namespace `namespace`.
///
/// # Errors
/// What connect(2) says.
pub(super) fn connect_in(
    namespace: &str,
    to: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, std::io::Error> {
    in_namespace(namespace, || TcpStream::connect_timeout(&to, limit))
        .map_err(std::io::Error::other)?
}

/// Removes what the hosts wrote: after a run in which everything held nobody wants it.
pub(super) fn sweep(dir: &Path) {
    let atms = (1..=ATMS).map(|n| format!("atm{n}"));
    let servers = (1..=SERVERS).map(|n| format!("serv{n}"));
    for host in atms.chain(servers).chain(["client".to_owned()]) {
        // What cannot be removed is emptied by the next run.
        let _ = fs::remove_dir_all(dir.join(host));
    }
    for file in ["hosts", "lab.lock"] {
        let _ = fs::remove_file(dir.join(file));
    }
}
