//! Kernel IPVS as the router: the frames of a file go in, what comes out is kept, step by step.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use chaos_tests::lab::{format_mac, in_namespace};
use chaos_tests::observer::{RawPort, arp_request};
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::guest::{command, ip, settings};
use crate::ours::without_neighbourhood;
use crate::traffic::Traffic;
use crate::world::{GATEWAY, Method, ROUTER4, ROUTER6, UPLINK4, UPLINK6, VIP4, VIP6, WAYS, mac};

const DIRECTOR: &str = "director";
const WIRE: &str = "wire";
const INTERFACE: &str = "eth0";

/// After so long the router counts as dead.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A receive gives up after so long, to look at the time.
const RECEIVE_MAX: i64 = 200;
/// The longest frame, and more.
const FRAME_MAX: usize = 4096;

/// Of the director's kernel: a router that is not silenced by limits, and that keeps to itself what nobody asked for.
const SETTINGS: [(&str, &str); 11] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/eth0/rp_filter", "0"),
    // The comparison asks for more errors than a second allows.
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
    // All hosts are on one wire here: it would tell clients to go to servers themselves.
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/eth0/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/eth0/accept_dad", "0"),
    ("ipv6/conf/eth0/router_solicitations", "0"),
];

/// Plays `sent.json` of `dir`, and writes `ipvs.json`.
pub(crate) fn run(dir: &Path) -> Result<(), String> {
    let sent = Traffic::read(&dir.join("sent.json")).and_then(|sent| sent.frames());
    let sent = sent.map_err(|error| format!("sent.json: {error}"))?;
    build()?;
    let wire = Wire::open()?;
    let mut answers = Vec::new();
    // Also what the interface says when it comes up is over then.
    wire.drain()?;
    for (step, frames) in sent.iter().enumerate() {
        for frame in frames {
            let failed = |error: io::Error| format!("step {step}: send: {error}");
            wire.port.send(frame).map_err(failed)?;
        }
        let answer = wire
            .drain()
            .map_err(|error| format!("step {step}: {error}"))?;
        answers.push(without_neighbourhood(answer));
    }
    let written = Traffic::new(&answers).write(&dir.join("ipvs.json"));
    written.map_err(|error| format!("ipvs.json: {error}"))
}

fn build() -> Result<(), String> {
    let own = format_mac(mac(ROUTER4.into()).0);
    ip(
        None,
        &format!(
            "netns add {DIRECTOR}\n\
             netns add {WIRE}\n\
             link add {INTERFACE} netns {WIRE} type veth peer name {INTERFACE} netns {DIRECTOR} address {own}\n"
        ),
    )?;
    let silent =
        format!("link set {INTERFACE} addrgenmode none\nlink set {INTERFACE} arp off up\n");
    ip(Some(WIRE), &silent)?;
    in_namespace(DIRECTOR, || settings(&SETTINGS)).map_err(|error| error.to_string())??;
    let mut batch = format!(
        "link set lo up\n\
         link set {INTERFACE} addrgenmode none\n\
         addr add {ROUTER4}/24 dev {INTERFACE}\n\
         addr add {GATEWAY}/24 dev {INTERFACE}\n\
         addr add {ROUTER6}/64 dev {INTERFACE} nodad\n\
         addr add {VIP4}/32 dev lo\n\
         addr add {VIP6}/128 dev lo nodad\n\
         link set {INTERFACE} up\n\
         route add default via {UPLINK4}\n\
         route add default via {UPLINK6}\n"
    );
    let hosts = WAYS.iter().map(|way| (way.server, mac(way.server)));
    let uplink = mac(UPLINK4.into());
    for (host, mac) in hosts.chain([(UPLINK4.into(), uplink), (UPLINK6.into(), uplink)]) {
        let mac = format_mac(mac.0);
        batch += &format!("neigh replace {host} lladdr {mac} nud permanent dev {INTERFACE}\n");
    }
    ip(Some(DIRECTOR), &batch)?;
    for way in &WAYS {
        let vip = std::net::SocketAddr::new(way.vip, way.port).to_string();
        let server = std::net::SocketAddr::new(way.server, way.port).to_string();
        let method = match way.method {
            Method::Tunnel => "-i",
            Method::Direct => "-g",
            Method::Nat => "-m",
        };
        for protocol in ["-t", "-u"] {
            let run = ["netns", "exec", DIRECTOR, "ipvsadm"];
            let service = ["-A", protocol, &vip, "-s", "rr"];
            command("ip", &[&run[..], &service].concat(), "")?;
            let server = ["-a", protocol, &vip, "-r", &server, method];
            command("ip", &[&run[..], &server].concat(), "")?;
        }
    }
    Ok(())
}

/// The other end of the director's cable.
struct Wire {
    port: RawPort,
    heard: OwnedFd,
    /// A question to the director, and how its answer begins.
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Wire {
    fn open() -> Result<Self, String> {
        let port = RawPort::open(WIRE, INTERFACE).map_err(|error| error.to_string())?;
        let heard = in_namespace(WIRE, listen).map_err(|error| error.to_string())?;
        let (asker, router) = (mac(UPLINK4.into()).0, mac(ROUTER4.into()).0);
        let answer = [&asker[..], &router, &[0x08, 0x06]].concat();
        Ok(Self {
            port,
            heard: heard.map_err(|error| format!("hear {INTERFACE}: {error}"))?,
            question: arp_request(asker, UPLINK4, ROUTER4),
            answer,
        })
    }

    /// All that the director has sent. One processor takes frames in their order, so with the answer to a question that comes
    /// last everything before it is done: no time has to pass to be sure.
    fn drain(&self) -> Result<Vec<Vec<u8>>, String> {
        self.port
            .send(&self.question)
            .map_err(|error| format!("ask: {error}"))?;
        let by = Instant::now() + ANSWER_MAX;
        let mut frames = Vec::new();
        let mut buffer = vec![0; FRAME_MAX];
        while Instant::now() < by {
            match recvfrom::<LinkAddr>(self.heard.as_raw_fd(), &mut buffer) {
                Ok((len, from)) => {
                    let sent_by_us =
                        from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                    if sent_by_us {
                        continue;
                    }
                    if buffer[..len].starts_with(&self.answer) {
                        return Ok(frames);
                    }
                    frames.push(buffer[..len].to_vec());
                }
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(error) => return Err(format!("hear: {error}")),
            }
        }
        Err(format!(
            "the director answers nothing within {ANSWER_MAX:?}"
        ))
    }
}

fn listen() -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    let address = getifaddrs()?
        .filter(|entry| entry.interface_name == INTERFACE)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    bind(fd.as_raw_fd(), &address)?;
    setsockopt(
        &fd,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(RECEIVE_MAX),
    )?;
    Ok(fd)
}
