//! The three mail servers: what each offers, their daemons, and power cuts.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::configuration::configuration;
use super::error::MailClusterError;
use super::files::{START_DOVECOT, START_POSTFIX, setup};
use super::setting::Setting;
use super::storage::{MAILBOXES, STORAGE_HOST, Storage, nfs_version};
use crate::cluster::wait_until;
use crate::lab::{
    ATMD, Builder, Fault, Lab, LabError, MachineSpec, Privileges, available, program,
};

/// A daemon that starts serves within a second; a loaded machine needs a few.
const SERVE_MAX: Duration = Duration::from_secs(90);

/// How long a greeting may take of a daemon that serves.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// A service of the mail cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Smtp,
    Pop3,
    Imap,
}

impl Service {
    /// Its port.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Smtp => 25,
            Self::Pop3 => 110,
            Self::Imap => 143,
        }
    }

    /// Its name in the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Pop3 => "pop-3",
            Self::Imap => "imap4",
        }
    }

    /// What dovecot calls it, if it is one of its own.
    pub(super) fn dovecot(self) -> Option<&'static str> {
        match self {
            Self::Smtp => None,
            Self::Pop3 => Some("pop3"),
            Self::Imap => Some("imap"),
        }
    }
}

/// What each server offers, as the configuration says.
pub(super) const SERVERS: [(&str, [Service; 2]); 3] = [
    ("serv1", [Service::Smtp, Service::Pop3]),
    ("serv2", [Service::Smtp, Service::Imap]),
    ("serv3", [Service::Imap, Service::Pop3]),
];

/// The servers that offer `service`.
pub(super) fn servers_of(service: Service) -> Vec<&'static str> {
    let all = SERVERS.iter();
    let offering = all.filter(|(_, offers)| offers.contains(&service));
    offering.map(|(name, _)| *name).collect()
}

/// A daemon of a mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    Postfix,
    Dovecot,
}

impl Daemon {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Dovecot => "dovecot",
        }
    }

    /// Where its master process says who it is.
    fn pid_file(self) -> &'static str {
        match self {
            Self::Postfix => "/var/spool/postfix/pid/master.pid",
            Self::Dovecot => "/run/dovecot/master.pid",
        }
    }

    fn start(self) -> &'static str {
        match self {
            Self::Postfix => START_POSTFIX,
            Self::Dovecot => START_DOVECOT,
        }
    }

    /// Whether it is the one that serves `service`.
    pub(super) fn serves(self, service: Service) -> bool {
        (self == Self::Dovecot) == service.dovecot().is_some()
    }
}

/// The lab of the mail cluster, without its mail servers.
///
/// # Errors
/// The configuration is not valid; [`MailClusterError::NotRoot`].
pub fn builder(setting: &Setting) -> Result<Builder, MailClusterError> {
    if available().map_err(LabError::from)? != Privileges::Root {
        return Err(MailClusterError::NotRoot);
    }
    let text = configuration(setting)?;
    let mut builder = Lab::builder()
        .conf_named("mail-cluster.conf", text)
        .client()
        .without_observer()
        .further_host(STORAGE_HOST)
        .name(STORAGE_HOST, "serv4.my.org")
        .name("client", "client.my.org");
    if setting.combined {
        for (n, (name, _)) in (1..).zip(SERVERS) {
            builder = builder.name(format!("atm{n}"), format!("{name}.my.org"));
        }
    }
    Ok(builder)
}

/// The mail servers of a lab.
pub struct MailServers<'a> {
    lab: &'a Lab,
    storage: Storage,
    setting: Setting,
}

impl<'a> MailServers<'a> {
    /// Starts the storage, the mail servers and what stands for the rest of my.org; all serve when this returns.
    ///
    /// # Errors
    /// A machine or a daemon does not start; [`ClusterError::Late`](crate::cluster::ClusterError::Late).
    pub fn start(lab: &'a Lab, setting: Setting) -> Result<Self, MailClusterError> {
        let servers = Self {
            lab,
            storage: Storage::here(),
            setting,
        };
        servers.storage.prepare(lab, &servers.network())?;
        servers.start_rest_of_my_org()?;
        for (name, _) in SERVERS {
            servers.start_machine(name)?;
        }
        for (name, offers) in SERVERS {
            for service in offers {
                servers.await_greeting(name, service)?;
            }
        }
        Ok(servers)
    }

    /// How they share the mailboxes, as they have mounted them: one line for people.
    ///
    /// # Errors
    /// [`MailClusterError::Answer`] where a server has no NFS at its mailboxes and should.
    pub fn storage(&self) -> Result<String, MailClusterError> {
        let said = self.storage.describe();
        if self.storage == Storage::Directory {
            return Ok(said.to_owned());
        }
        let mut mounted = Vec::new();
        for (name, _) in SERVERS {
            let host = self.lab.host(&self.host_of(name))?;
            let output = host.exec(["cat", "/proc/mounts"])?;
            let mounts = String::from_utf8_lossy(&output.stdout);
            let version = nfs_version(&mounts).ok_or_else(|| MailClusterError::Answer {
                command: format!("cat /proc/mounts on {name}"),
                reason: format!("no NFS at {MAILBOXES}"),
            })?;
            mounted.push(format!("{name} {version}"));
        }
        Ok(format!("{said}, mounted by {}", mounted.join(", ")))
    }

    /// How the cluster shall be.
    pub(super) fn setting(&self) -> Setting {
        self.setting
    }

    /// The host of the server `name`.
    pub(super) fn host_of(&self, name: &str) -> String {
        if self.setting.combined {
            name.replace("serv", "atm")
        } else {
            name.to_owned()
        }
    }

    /// The network of my.org.
    fn network(&self) -> String {
        let vips = self.lab.vips();
        let [a, b, c, _] = vips.first().map_or([10, 1, 0, 0], |vip| vip.octets());
        format!("{a}.{b}.{c}.0/24")
    }

    /// On serv4 a server for the mail of my.org itself, so that there is somewhere to relay to.
    fn start_rest_of_my_org(&self) -> Result<(), MailClusterError> {
        let maildir = self.relayed();
        fs::create_dir_all(&maildir)
            .map_err(LabError::io(format!("create {}", maildir.display())))?;
        let (lab, maildir) = (program("lab")?, maildir.to_string_lossy().into_owned());
        let argv = [
            &lab.to_string_lossy(),
            "mail-server",
            "--maildir",
            &maildir,
            "--name",
            "serv4.my.org",
            "--domain",
            "my.org",
            "--smtp",
            "0.0.0.0:25",
        ];
        self.lab.host(STORAGE_HOST)?.spawn("mail", argv, &[])?;
        Ok(())
    }

    /// Where serv4 keeps what was relayed to it.
    pub(super) fn relayed(&self) -> std::path::PathBuf {
        self.lab.dir().join(STORAGE_HOST).join("maildir")
    }

    fn start_machine(&self, name: &str) -> Result<(), MailClusterError> {
        let offers = SERVERS.iter().find(|(known, _)| *known == name);
        let offers = offers.map_or(&[][..], |(_, offers)| offers);
        let (binds, mount) = self.storage.on_a_server(self.lab);
        let spec = MachineSpec {
            hostname: format!("{name}.my.org"),
            binds,
            setup: setup(name, offers, &self.network(), mount),
        };
        Ok(self.lab.start_machine(&self.host_of(name), &spec)?)
    }

    /// Power cut: everything on the computer ends at once, and its link is dead.
    ///
    /// # Errors
    /// What the lab says.
    pub(super) fn power_off(&self, name: &str) -> Result<(), MailClusterError> {
        let host = self.host_of(name);
        self.lab.fault(Fault::LinkDown, &host)?;
        self.lab.kill(&host, ATMD)?;
        Ok(self.lab.power_off(&host)?)
    }

    /// Switched on again, with the disk as it was.
    ///
    /// # Errors
    /// What the lab says.
    pub(super) fn power_on(&self, name: &str) -> Result<(), MailClusterError> {
        let host = self.host_of(name);
        self.lab.fault(Fault::Heal, &host)?;
        self.lab.fault(Fault::Restart, &host)?;
        self.start_machine(name)
    }

    /// `kill -9` of the master process.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn kill(&self, name: &str, daemon: Daemon) -> Result<(), MailClusterError> {
        self.shell(name, &format!("kill -9 $(head -n 1 {})", daemon.pid_file()))
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start_daemon(&self, name: &str, daemon: Daemon) -> Result<(), MailClusterError> {
        let start = daemon.start();
        // What it starts keeps its output open, and a pipe would be waited for.
        let log = format!("/var/log/start-{}.log", daemon.name());
        let command =
            format!("{{ {start}; }} </dev/null >{log} 2>&1 || {{ cat {log} >&2; exit 1; }}");
        self.shell(name, &command)
    }

    fn shell(&self, name: &str, command: &str) -> Result<(), MailClusterError> {
        let host = self.lab.host(&self.host_of(name))?;
        let output = host.exec(["sh", "-c", command])?;
        if output.status.success() {
            return Ok(());
        }
        Err(MailClusterError::Client {
            command: format!("{command} on {name}"),
            status: output.status.to_string(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Waits until the server greets at its own address.
    ///
    /// # Errors
    /// [`ClusterError::Late`](crate::cluster::ClusterError::Late).
    pub(super) fn await_greeting(
        &self,
        name: &str,
        service: Service,
    ) -> Result<Duration, MailClusterError> {
        let begun = Instant::now();
        let address = self.lab.host(&self.host_of(name))?.address();
        let what = format!("{} on {name} greets", service.name());
        wait_until(&what, self.setting.here(SERVE_MAX), || {
            let greeting = greeting(self.lab, SocketAddr::from((address, service.port())));
            greeting.map_err(|error| error.to_string())
        })?;
        Ok(begun.elapsed())
    }

    /// Which server greets at the VIP.
    ///
    /// # Errors
    /// What connect(2) or read(2) say; a greeting without a name.
    pub(super) fn greets_at_vip(&self, service: Service) -> std::io::Result<String> {
        let vip = self.lab.vips().first().copied();
        let vip = vip.ok_or_else(|| std::io::Error::other("the configuration has no VIP"))?;
        let line = greeting(self.lab, SocketAddr::from((vip, service.port())))?;
        let named = server_named(&line).map(str::to_owned);
        named.ok_or_else(|| std::io::Error::other(format!("a greeting without a name: {line}")))
    }
}

/// The server whose name is among the words of what it said.
pub(super) fn server_named(said: &str) -> Option<&str> {
    let words = said.split_ascii_whitespace();
    let mut names = words.filter_map(|word| word.strip_suffix(".my.org"));
    names.find(|name| name.starts_with("serv"))
}

/// The first line that a server says to the client.
fn greeting(lab: &Lab, to: SocketAddr) -> std::io::Result<String> {
    let connect = || TcpStream::connect_timeout(&to, GREETING_MAX);
    let stream = lab
        .in_netns("client", connect)
        .map_err(std::io::Error::other)??;
    stream.set_read_timeout(Some(GREETING_MAX))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

/// Number of files in `dir` and below.
pub(super) fn files_below(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(_) | Err(_) => 1,
        })
        .sum()
}
