//! Real servers: `atmd` forwards, the kernel of a server opens each kind of tunnel, and a client's whole exchange must come through.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::lab::{ATMD, PortKind, atmd_toml, in_namespace, program};

use crate::guest::{ip, settings};
use crate::report::Served;

const ATM: &str = "atm1";
const SERVER: &str = "serv1";
const CLIENT: &str = "client";
const SWITCH: &str = "sw";

const ATM4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const ATM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const SERVER4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 11);
const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 200);
const VIP4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 100);

/// A service behind one kind of tunnel.
struct Way {
    name: &'static str,
    vip: IpAddr,
    server: IpAddr,
    port: u16,
    /// The server's device that opens it.
    device: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        name: "tunnel 4in4",
        vip: IpAddr::V4(VIP4),
        server: IpAddr::V4(SERVER4),
        port: 8044,
        device: "tunl0",
    },
    Way {
        name: "tunnel 6in6",
        vip: IpAddr::V6(VIP6),
        server: IpAddr::V6(SERVER6),
        port: 8066,
        device: "ip6tnl1",
    },
    Way {
        name: "tunnel 4in6",
        vip: IpAddr::V4(VIP4),
        server: IpAddr::V6(SERVER6),
        port: 8046,
        device: "ip6tnl1",
    },
    Way {
        name: "tunnel 6in4",
        vip: IpAddr::V6(VIP6),
        server: IpAddr::V4(SERVER4),
        port: 8064,
        device: "sit1",
    },
];

/// The body of a request: hundreds of full frames, so that the client must learn the tunnel's MTU from us.
const BODY_BYTES: usize = 300_000;
/// Until the cluster of one forwards. The guest is slow.
const READY_MAX: Duration = Duration::from_secs(30);
/// For one exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(8);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Builds the hosts, starts the daemon, and asks each service once.
pub(crate) fn run(dir: &Path) -> Result<Vec<Served>, String> {
    build()?;
    serve()?;
    let _atmd = start(dir)?;
    let by = Instant::now() + READY_MAX;
    WAYS.iter().map(|way| ask(way, by)).collect()
}

/// One bridge; a server without any part of ours, set up by hand as docs say a server without `atmd` is.
fn build() -> Result<(), String> {
    let mut batch = format!(
        "netns add {SWITCH}\n\
         link add br0 netns {SWITCH} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
    );
    for (host, last) in [(ATM, 1), (SERVER, 11), (CLIENT, 200)] {
        batch += &format!(
            "netns add {host}\n\
             link add p-{host} netns {SWITCH} type veth peer name eth0 netns {host} address 02:00:0a:01:00:{last:02x}\n"
        );
    }
    ip(None, &batch)?;
    let mut batch = "link set br0 addrgenmode none\nlink set br0 up\n".to_owned();
    for host in [ATM, SERVER, CLIENT] {
        batch += &format!("link set p-{host} addrgenmode none\nlink set p-{host} master br0 up\n");
    }
    ip(Some(SWITCH), &batch)?;
    for (host, v4, v6) in [
        (ATM, ATM4, ATM6),
        (SERVER, SERVER4, SERVER6),
        (CLIENT, CLIENT4, CLIENT6),
    ] {
        let batch = format!(
            "link set lo up\n\
             addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n"
        );
        ip(Some(host), &batch)?;
    }
    ip(
        Some(SERVER),
        &format!(
            "link set tunl0 up\n\
             link add sit1 type sit local {SERVER4} remote {ATM4}\n\
             link set sit1 up\n\
             link add ip6tnl1 type ip6tnl mode any local {SERVER6} remote {ATM6} encaplimit none\n\
             link set ip6tnl1 up\n\
             addr add {VIP4}/32 dev lo\n\
             addr add {VIP6}/128 dev lo nodad\n"
        ),
    )?;
    let quiet = [
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/tunl0/rp_filter", "0"),
        ("ipv4/conf/ip6tnl1/rp_filter", "0"),
        ("ipv4/conf/all/arp_ignore", "1"),
        ("ipv4/conf/all/arp_announce", "2"),
    ];
    within(SERVER, || settings(&quiet))?
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    in_namespace(namespace, work).map_err(|error| error.to_string())
}

fn configuration() -> String {
    let mut services = String::new();
    let (mut pool4, mut pool6) = (String::new(), String::new());
    for way in &WAYS {
        let (port, server) = (way.port, if way.server.is_ipv4() { "s4" } else { "s6" });
        services += &format!("  Service w{port} tcp:{port} none\n");
        let pool = if way.vip.is_ipv4() {
            &mut pool4
        } else {
            &mut pool6
        };
        *pool += &format!("  AddServer {server} w{port}/1\n");
    }
    format!(
        "Services\n{services}EndServices\n\
         Servers\n  Server s4 {SERVER4} tunnel noping\n  Server s6 {SERVER6} tunnel noping\nEndServers\n\
         ServerPool P4\n{pool4}EndServerPool\n\
         ServerPool P6\n{pool6}EndServerPool\n\
         AtmPool ATMs\n  AddAtm {ATM4}\n  HeartBeatDelay 500ms\nEndAtmPool\n\
         VirtualHost v4\n  Address {VIP4}\n  AddAtmPool ATMs\n  AddServerPool P4\nEndVirtualHost\n\
         VirtualHost v6\n  Address {VIP6}\n  AddAtmPool ATMs\n  AddServerPool P6\nEndVirtualHost\n"
    )
}

/// The daemon; killed when it goes out of scope.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(dir: &Path) -> Result<Daemon, String> {
    let failed = |error: io::Error| format!("start {ATMD}: {error}");
    let daemon = program(ATMD).map_err(|error| error.to_string())?;
    // Memory of the guest: the machine's files are slow from here.
    let home = Path::new("/run/interop");
    fs::create_dir_all(home).map_err(failed)?;
    let toml = atmd_toml(
        &ATM4.to_string(),
        ATM4,
        &home.to_string_lossy(),
        PortKind::Ring,
    );
    fs::write(home.join("clusterserver.conf"), configuration()).map_err(failed)?;
    fs::write(home.join("atmd.toml"), toml).map_err(failed)?;
    let log = File::create(dir.join("atmd.log")).map_err(failed)?;
    let both = log.try_clone().map_err(failed)?;
    let child = Command::new("ip")
        .args(["netns", "exec", ATM])
        .arg(daemon)
        .arg("--config")
        .arg(home.join("atmd.toml"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both)
        .spawn()
        .map_err(failed)?;
    Ok(Daemon(child))
}

/// Listens on every service's port of the VIPs, which the server has on its loopback.
fn serve() -> Result<(), String> {
    for way in &WAYS {
        let address = SocketAddr::new(way.vip, way.port);
        let listener = within(SERVER, || TcpListener::bind(address))?;
        let listener = listener.map_err(|error| format!("listen at {address}: {error}"))?;
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // What went wrong the client sees.
                thread::spawn(move || answer(connection));
            }
        });
    }
    Ok(())
}

/// HTTP/1.1 (RFC 9112), as much of it as one POST with Content-Length needs.
fn answer(connection: TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(EXCHANGE_MAX))?;
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.min(BODY_BYTES)];
    reader.read_exact(&mut body)?;
    let said = receipt(&body);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
        said.len()
    );
    reader.into_inner().write_all(answer.as_bytes())
}

/// What the server says of a body: it tells a damaged one from a sound one.
fn receipt(body: &[u8]) -> String {
    // FNV-1a.
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes, {hash:016x}", body.len())
}

/// One exchange; attempts are made until `by`, since a cluster has to find itself first.
fn ask(way: &Way, by: Instant) -> Result<Served, String> {
    let body: Vec<u8> = (0..BODY_BYTES)
        .map(|n| u8::try_from(n % 251).unwrap_or_default())
        .collect();
    let before = opened(way.device)?;
    let said = loop {
        let said = within(CLIENT, || post(SocketAddr::new(way.vip, way.port), &body))?;
        if said.is_ok() || Instant::now() >= by {
            break said;
        }
        thread::sleep(PAUSE);
    };
    let opened = opened(way.device)?.saturating_sub(before);
    let expected = receipt(&body);
    let is_right = said
        .as_ref()
        .is_ok_and(|said| said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with(&expected));
    // The answer alone does not say that this device opened the tunnel.
    let passed = is_right && opened > 0;
    Ok(Served {
        way: way.name.to_owned(),
        device: way.device.to_owned(),
        opened,
        said: match said {
            Ok(said) => said.replace("\r\n", " "),
            Err(error) => error.to_string(),
        },
        passed,
    })
}

fn post(to: SocketAddr, body: &[u8]) -> io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&to, EXCHANGE_MAX)?;
    connection.set_read_timeout(Some(EXCHANGE_MAX))?;
    connection.set_write_timeout(Some(EXCHANGE_MAX))?;
    write!(
        connection,
        "POST / HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    connection.write_all(body)?;
    let mut said = String::new();
    connection.read_to_string(&mut said)?;
    Ok(said)
}

/// Packets that the server's device has received.
fn opened(device: &str) -> Result<u64, String> {
    let text = within(SERVER, || fs::read_to_string("/proc/thread-self/net/dev"))?;
    let text = text.map_err(|error| format!("devices of the server: {error}"))?;
    received(&text, device).ok_or_else(|| format!("the server has no device {device}"))
}

/// The second number behind a device's name in /proc/net/dev.
fn received(text: &str, device: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == device)?;
    numbers.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_device_are_read() {
        let text =
            "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1 2 3\n tunl0: 640 10 0 0\n";
        assert_eq!(received(text, "tunl0"), Some(10));
        assert_eq!(received(text, "sit1"), None);
    }

    #[test]
    fn a_receipt_tells_a_damaged_body() {
        assert_eq!(receipt(b"a"), "1 bytes, af63dc4c8601ec8c");
        assert_ne!(receipt(b"ab"), receipt(b"ba"));
    }

    #[test]
    fn the_server_answers_a_post_with_its_receipt() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || answer(listener.accept().unwrap().0));
        let said = post(address, b"body").unwrap();
        server.join().unwrap().unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with(&receipt(b"body")));
    }

    #[test]
    fn the_configuration_is_valid() {
        let checked = model::conf::check("interop", &configuration());
        assert!(checked.config.is_some(), "{:?}", checked.diagnostics);
    }
}
