//! What must hold on every way through a cluster. Each check is one function.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::configuration::Ports;
use super::programs::DNS_NAME;
use super::rig::Rig;
use super::scenario::{Family, Method, Path};
use crate::cluster::{OPEN_MAX, SETTLE_MAX, Trouble};
use crate::lab::{CLIENT_ROUTER_NAME, SERVER_ROUTER_NAME};
use crate::mail::client::{Mail, fetch_by_pop3, send};
use crate::services::{Content, Digest, Flow, Response, digest_of, dns::ask_txt, get, put};

/// A check: `None`, it holds; `Some`, it was left out, and why.
pub type Check = fn(&Rig) -> Result<Option<String>, String>;

/// The checks of the ordinary services.
pub const HTTP: [(&str, Check); 3] = [
    ("HTTP from every server", all_servers_serve),
    ("bulk to the servers", bulk_up),
    ("bulk from the servers", bulk_down),
];
/// See [`mail`].
pub const MAIL: (&str, Check) = ("mail", mail);
/// The checks of UDP.
pub const UDP: [(&str, Check); 2] = [("UDP", udp), ("UDP in fragments", udp_fragments)];
/// See [`dns`].
pub const DNS: (&str, Check) = ("DNS", dns);

/// Bytes of one bulk transfer: hundreds of full windows' worth of segments, in less than a second.
const BULK_BYTES: u64 = 4 << 20;

/// A whole mail session, and one answer over UDP, on a loaded machine.
const SESSION_MAX: Duration = Duration::from_secs(10);

/// Rounds over all servers; with equal weights each server is met in each of them.
const ROUNDS: usize = 2;

/// A datagram that fits into every packet, and one that fits into none: three fragments at least.
const SMALL_BYTES: usize = 512;
const LARGE_BYTES: usize = 4000;

/// Every link carries IPv6 packets of this size (RFC 8200 section 5).
const IPV6_MTU_MIN: u16 = 1280;

/// Connections and flows that are open while an ATM is struck.
const LINES: usize = 40;
const FLOWS: usize = 20;

/// Every server answers, at every virtual address.
///
/// # Errors
/// A request failed, or a server was never met.
pub fn all_servers_serve(rig: &Rig) -> Result<Option<String>, String> {
    for target in rig.targets() {
        let mut met = BTreeSet::new();
        for _ in 0..ROUNDS * servers(rig) {
            let answer = http(rig, target, |stream| get(stream, "/name"))?;
            if answer.text != answer.server {
                return Err(format!("{answer:?} is not the name of who answered"));
            }
            met.insert(answer.server);
        }
        all_met(rig, target, &met)?;
    }
    Ok(None)
}

/// Content that is sent to the servers arrives whole.
///
/// # Errors
/// It does not, or a server was never met.
pub fn bulk_up(rig: &Rig) -> Result<Option<String>, String> {
    let content = Content::new(1, BULK_BYTES);
    let expected = digest_of(content.clone()).map_err(text)?;
    bulk(
        rig,
        |stream| put(stream, "/content", content.clone()),
        |answer| Digest::parse(&answer.text).as_ref() == Some(&expected),
    )
}

/// Content that servers send arrives whole.
///
/// # Errors
/// It does not, or a server was never met.
pub fn bulk_down(rig: &Rig) -> Result<Option<String>, String> {
    let expected = digest_of(Content::new(2, BULK_BYTES)).map_err(text)?;
    let path = format!("/content/2/{BULK_BYTES}");
    bulk(
        rig,
        |stream| get(stream, &path),
        |answer| answer.digest == expected,
    )
}

fn bulk(
    rig: &Rig,
    transfer: impl Fn(&TcpStream) -> Result<Response, crate::services::HttpError>,
    arrived: impl Fn(&Response) -> bool,
) -> Result<Option<String>, String> {
    for target in rig.targets() {
        let mut met = BTreeSet::new();
        for _ in 0..servers(rig) {
            let answer = http(rig, target, &transfer)?;
            if !arrived(&answer) {
                return Err(format!("content changed on its way: {answer:?}"));
            }
            met.insert(answer.server);
        }
        all_met(rig, target, &met)?;
    }
    Ok(None)
}

/// A mail that was sent is read back unchanged.
///
/// # Errors
/// It is not.
pub fn mail(rig: &Rig) -> Result<Option<String>, String> {
    for target in rig.targets() {
        for number in 0..servers(rig) {
            let subject = format!("mail {number} to {target}");
            let body = format!(
                "{}\r\n.\r\nIts last line.\r\n",
                "a line of a mail\r\n".repeat(500)
            );
            let mail = Mail {
                from: "sender@my.org",
                to: "user@mail.my.org",
                subject: &subject,
                body: &body,
            };
            send(open(rig, target, Ports::SMTP)?, SESSION_MAX, &mail).map_err(text)?;
            let stream = open(rig, target, Ports::POP3)?;
            let found = fetch_by_pop3(stream, SESSION_MAX, "user", &subject).map_err(text)?;
            match found {
                Some(found) if found.body == body.as_bytes() => {}
                Some(_) => return Err(format!("{subject:?} was changed on its way")),
                None => return Err(format!("{subject:?} was taken and is not there")),
            }
        }
    }
    Ok(None)
}

/// Datagrams of one flow are answered by one server, those of many flows by all of them.
///
/// # Errors
/// No answer, an answer of another server, or a server was never met.
pub fn udp(rig: &Rig) -> Result<Option<String>, String> {
    flows(rig, SMALL_BYTES)
}

/// The same of datagrams that travel in fragments.
///
/// # Errors
/// As of [`udp`].
pub fn udp_fragments(rig: &Rig) -> Result<Option<String>, String> {
    flows(rig, LARGE_BYTES)
}

fn flows(rig: &Rig, length: usize) -> Result<Option<String>, String> {
    if let [Some(lack), _] = rig.without() {
        return Ok(Some(lack.to_owned()));
    }
    for target in rig.targets_at(Ports::ECHO) {
        let mut met = BTreeSet::new();
        for mut flow in open_flows(rig, target, ROUNDS * servers(rig))? {
            for _ in 0..3 {
                met.insert(flow.exchange(length, SESSION_MAX)?);
            }
        }
        all_met(rig, target.ip(), &met)?;
    }
    Ok(None)
}

/// A real DNS server answers through the VIP.
///
/// # Errors
/// No answer, or a server was never met.
pub fn dns(rig: &Rig) -> Result<Option<String>, String> {
    if let [_, Some(lack)] = rig.without() {
        return Ok(Some(lack.to_owned()));
    }
    for target in rig.targets_at(Ports::DNS) {
        let mut met = BTreeSet::new();
        for id in (1..).take(ROUNDS * servers(rig)) {
            met.insert(inside(rig, || ask_txt(target, DNS_NAME, id, SESSION_MAX))??);
        }
        all_met(rig, target.ip(), &met)?;
    }
    Ok(None)
}

/// Bulk content passes a router with a smaller path MTU in both directions, and the client has been told: its route to the VIP
/// shows the largest packet that gets through.
///
/// # Errors
/// It does not.
pub fn content_passes_path_mtu(rig: &Rig) -> Result<Option<String>, String> {
    let lab = rig.cluster().lab();
    let (router, beyond_the_atm) = match rig.scenario().path {
        Path::ClientRouter => (CLIENT_ROUTER_NAME, 0),
        Path::ServerRouter => (SERVER_ROUTER_NAME, overhead(rig)),
        Path::Flat => return Err("there is no router".to_owned()),
    };
    for mtu in [1400, 1280] {
        lab.set_path_mtu(router, Some(mtu)).map_err(text)?;
        forget_path_mtus(rig)?;
        bulk_down(rig).map_err(|error| format!("path MTU {mtu}, from the servers: {error}"))?;
        forget_path_mtus(rig)?;
        bulk_up(rig).map_err(|error| format!("path MTU {mtu}, to the servers: {error}"))?;
        for target in rig.targets() {
            let known = known_mtu(rig, target)?;
            let expected = match target {
                IpAddr::V4(_) => mtu - beyond_the_atm,
                // No IPv6 client is told less (RFC 8200 section 5): the tunnel goes in fragments.
                IpAddr::V6(_) => (mtu - beyond_the_atm).max(IPV6_MTU_MIN),
            };
            if known != Some(expected) {
                return Err(format!(
                    "path MTU {mtu}: the client's route to {target} shows {known:?}, not {expected}"
                ));
            }
        }
    }
    Ok(None)
}

/// Lets every host forget the path MTUs it was told. Whoever knows one announces it in its MSS, and the other side has nothing
/// left to learn.
fn forget_path_mtus(rig: &Rig) -> Result<(), String> {
    for host in rig.cluster().lab().hosts() {
        let both = "ip route flush cache; ip -6 route flush cache";
        host.exec(["sh", "-c", both]).map_err(text)?;
    }
    Ok(())
}

/// What the tunnel adds to a packet, in bytes: an IPv4 header without options (RFC 791 section 3.1), or one of IPv6 (RFC 8200
/// section 3).
fn overhead(rig: &Rig) -> u16 {
    match (rig.scenario().has(Method::Tunnel), rig.scenario().family) {
        (false, _) => 0,
        (true, Family::V4) => 20,
        (true, Family::V6) => 40,
    }
}

/// The MTU of the client's route to `target`, if it differs from that of its link.
fn known_mtu(rig: &Rig, target: IpAddr) -> Result<Option<u16>, String> {
    let client = rig.cluster().lab().host("client").map_err(text)?;
    let shown = client
        .exec(["ip", "route", "get", &target.to_string()])
        .map_err(text)?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
    Ok(words.nth(1).and_then(|mtu| mtu.parse().ok()))
}

/// Connections and flows of UDP that are open while the active ATM is struck go on, each with the server it had.
///
/// # Errors
/// One is broken, silent, or was given to another server.
pub fn none_lost(rig: &Rig, trouble: Trouble) -> Result<Option<String>, String> {
    let cluster = rig.cluster();
    let lines = cluster.lines(LINES).map_err(text)?;
    let mut flows = Vec::new();
    if rig.without()[0].is_none() {
        for target in rig.targets_at(Ports::ECHO) {
            flows.extend(open_flows(rig, target, FLOWS)?);
        }
    }
    for flow in &mut flows {
        flow.exchange(SMALL_BYTES, SESSION_MAX)?;
    }
    let blow = cluster.strike(trouble).map_err(text)?;
    for flow in &mut flows {
        flow.exchange(SMALL_BYTES, SETTLE_MAX)?;
    }
    cluster
        .wait_until_all_flow(&lines, SETTLE_MAX)
        .map_err(text)?;
    // A new connection is taken as well.
    all_servers_serve(rig)?;
    cluster.mend(&blow).map_err(text)?;
    let report = lines.finish(SETTLE_MAX);
    if report.is_unbroken() {
        Ok(None)
    } else {
        Err(format!("{report:#?}"))
    }
}

fn servers(rig: &Rig) -> usize {
    rig.scenario().servers.len()
}

fn all_met(rig: &Rig, target: IpAddr, met: &BTreeSet<String>) -> Result<(), String> {
    if met.len() == servers(rig) {
        return Ok(());
    }
    Err(format!(
        "only {met:?} of {} servers were met at {target}",
        servers(rig)
    ))
}

fn open(rig: &Rig, target: IpAddr, port: u16) -> Result<TcpStream, String> {
    rig.cluster().connect(target, port, OPEN_MAX).map_err(text)
}

fn http<E: std::fmt::Display>(
    rig: &Rig,
    target: IpAddr,
    talk: impl Fn(&TcpStream) -> Result<Response, E>,
) -> Result<Response, String> {
    talk(&open(rig, target, Ports::HTTP)?).map_err(text)
}

fn open_flows(rig: &Rig, target: SocketAddr, count: usize) -> Result<Vec<Flow>, String> {
    let open = || {
        (0..count)
            .map(|_| Flow::open(target))
            .collect::<Result<_, _>>()
    };
    inside(rig, open)?.map_err(text)
}

fn inside<T: Send>(rig: &Rig, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    rig.cluster().lab().in_netns("client", work).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
