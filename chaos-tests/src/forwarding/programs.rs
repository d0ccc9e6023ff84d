//! What runs on the servers of a scenario.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::configuration::Ports;
use super::rig::RigError;
use super::scenario::{Family, Method, Scenario};
use crate::cluster::{Cluster, SETTLE_MAX, on_every_address, wait_until};
use crate::lab::{Host, tool_path};
use crate::mail;
use crate::services::{EchoServer, HttpServer};

/// The name whose TXT record is the name of the server.
pub const DNS_NAME: &str = "id.my.org";

/// A server has its VIPs when its daemon has started; this long at most on a loaded machine.
const ADDRESS_MAX: Duration = SETTLE_MAX;

/// Running programs. Dropping it ends them; dnsmasq ends with the lab.
pub(super) struct Programs {
    http: Vec<HttpServer>,
    mail: Vec<mail::Server>,
    echo: Vec<EchoServer>,
}

/// Where dnsmasq is, if it is installed.
#[must_use]
pub fn dnsmasq() -> Option<PathBuf> {
    tool_path("dnsmasq")
}

impl Programs {
    pub(super) fn start(
        scenario: &Scenario,
        cluster: &Cluster,
        udp: bool,
        dns: bool,
    ) -> Result<Self, RigError> {
        let lab = cluster.lab();
        let maildir = lab.host("client")?.dir().join("maildir");
        std::fs::create_dir_all(&maildir)
            .map_err(failed(format!("create {}", maildir.display())))?;
        let mut programs = Self {
            http: Vec::new(),
            mail: Vec::new(),
            echo: Vec::new(),
        };
        let hosts = lab.hosts();
        let servers = hosts.iter().filter(|host| host.is_server());
        for (host, method) in servers.zip(scenario.servers) {
            let name = host.name().to_owned();
            let http = host.in_netns(|| HttpServer::start(on_every_address(Ports::HTTP), &name))?;
            programs
                .http
                .push(http.map_err(failed(format!("serve HTTP on {name}")))?);
            let args = mail::ServerArgs {
                maildir: maildir.clone(),
                name: name.clone(),
                smtp: Some(on_every_address(Ports::SMTP)),
                pop3: Some(on_every_address(Ports::POP3)),
                imap: None,
                domain: vec!["mail.my.org".to_owned()],
            };
            let mail = host.in_netns(|| mail::Server::start(args))?;
            programs
                .mail
                .push(mail.map_err(failed(format!("serve mail on {name}")))?);
            let served = served_addresses(scenario, *method, host, &lab.virtual_addresses());
            for address in served.iter().filter(|_| udp) {
                let at = SocketAddr::from((*address, Ports::ECHO));
                let echo = host.in_netns(|| EchoServer::start(at, &name))?;
                programs
                    .echo
                    .push(echo.map_err(failed(format!("echo on {name}")))?);
            }
            if dns {
                start_dns(host, &served)?;
            }
        }
        Ok(programs)
    }
}

/// To which addresses packets come on this server: with NAT to its own, else to the VIPs.
fn served_addresses(
    scenario: &Scenario,
    method: Method,
    host: &Host<'_>,
    vips: &[IpAddr],
) -> Vec<IpAddr> {
    match (method, scenario.family) {
        (Method::Tunnel | Method::Direct, _) => vips.to_vec(),
        (Method::Nat | Method::NatSource, Family::V4) => vec![host.address().into()],
        (Method::Nat | Method::NatSource, Family::V6) => vec![host.address6().into()],
    }
}

/// Starts dnsmasq on `addresses`, each with a socket of its own, so that answers come from the address that was asked; nothing
/// where it is not installed.
///
/// # Errors
/// The host does not have the addresses in time, or the program cannot be started.
pub fn start_dns(host: &Host<'_>, addresses: &[IpAddr]) -> Result<(), RigError> {
    let what = format!("{addresses:?} on {}", host.name());
    wait_until(&what, ADDRESS_MAX, || {
        let bind = || {
            let bound = addresses
                .iter()
                .map(|address| UdpSocket::bind((*address, 0)));
            bound.collect::<Result<Vec<_>, _>>().map(drop)
        };
        let bound = host.in_netns(bind).map_err(|error| error.to_string())?;
        bound.map_err(|error| error.to_string())
    })?;
    let Some(program) = dnsmasq() else {
        return Ok(());
    };
    let mut argv = vec![
        program.to_string_lossy().into_owned(),
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        "--pid-file".to_owned(),
        // Without root there is nobody else to become.
        "--user=root".to_owned(),
        "--log-facility=-".to_owned(),
        "--bind-interfaces".to_owned(),
        format!("--txt-record={DNS_NAME},{}", host.name()),
    ];
    for address in addresses {
        argv.push(format!("--listen-address={address}"));
    }
    host.spawn("dns", argv, &[])?;
    Ok(())
}

fn failed<E: std::fmt::Display>(what: String) -> impl FnOnce(E) -> RigError {
    move |error| RigError::Program {
        what,
        why: error.to_string(),
    }
}
