//! Namespaces, links, the bridge and its filters: texts for `ip -batch`, `nft -f -` and `bridge`, and running them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::fault::Fault;
use super::netns;
use super::place::{Network, PREFIX_LENGTH_V6, Segment, has_ipv6, twin};
use super::plan::{CLIENT_NAME, PREFIX_LENGTH};
use super::privileges::tool;
use super::record::{HostRecord, Record};

/// The client's second interface, fed with a copy of every ARP and IP frame an ATM sends.
pub const OBSERVER_INTERFACE: &str = "obs0";

/// Builds all namespaces and links of `record`.
pub(crate) fn build(record: &Record) -> Result<(), LabError> {
    let switch = record.switch();
    ip_batch(None, &creation(record))?;
    ip_batch(Some(&switch), &switch_settings(record))?;
    let ipv6 = has_ipv6();
    for host in &record.hosts {
        if ipv6 {
            trust_own_addresses(host)?;
        }
        let observes = observing(record).is_some_and(|client| client.name == host.name);
        ip_batch(Some(&host.namespace), &host_settings(host, ipv6, observes))?;
        if host.place.path_mtu.is_some() {
            set_path_mtu(host, host.place.path_mtu)?;
        }
    }
    if let Some(client) = observing(record) {
        nft(&client.namespace, SILENT_OBSERVER)?;
        nft(&switch, &mirror(record))?;
    }
    Ok(())
}

/// Removes the namespaces; links and filters go with them. Missing ones are no error.
pub(crate) fn destroy(record: &Record) {
    for namespace in record.namespaces() {
        let _ = tool("ip")
            .args(["netns", "del", &namespace])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Name of the bridge port of a host.
#[must_use]
pub fn bridge_port(host: &str) -> String {
    format!("p-{host}")
}

/// Name of the bridge port of a router's second interface.
fn second_port(host: &str) -> String {
    format!("q-{host}")
}

/// The client, if it has the observer's interface.
fn observing(record: &Record) -> Option<&HostRecord> {
    let mut hosts = record.hosts.iter();
    hosts.find(|host| record.observed && host.name == CLIENT_NAME)
}

fn creation(record: &Record) -> String {
    let switch = record.switch();
    let mut batch = String::new();
    for namespace in record.namespaces() {
        let _ = writeln!(batch, "netns add {namespace}");
    }
    for bridge in bridges(record) {
        let _ = writeln!(
            batch,
            "link add {bridge} netns {switch} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        );
    }
    for host in &record.hosts {
        let _ = writeln!(
            batch,
            "link add {port} netns {switch} type veth peer name eth0 netns {namespace} address {mac}",
            port = bridge_port(&host.name),
            namespace = host.namespace,
            mac = format_mac(host.mac),
        );
        if let Some((_, address)) = host.place.second {
            let [a, b, c, d] = address.octets();
            let _ = writeln!(
                batch,
                "link add {port} netns {switch} type veth peer name eth1 netns {namespace} address {mac}",
                port = second_port(&host.name),
                namespace = host.namespace,
                mac = format_mac([2, 1, a, b, c, d]),
            );
        }
    }
    if let Some(client) = observing(record) {
        let _ = writeln!(
            batch,
            "link add p-obs netns {switch} type veth peer name {OBSERVER_INTERFACE} netns {}",
            client.namespace
        );
    }
    batch
}

fn switch_settings(record: &Record) -> String {
    // A switch has no address of its own, so none is generated for its ports: they stay silent.
    let mut batch = String::new();
    for bridge in bridges(record) {
        let _ = writeln!(
            batch,
            "link set {bridge} addrgenmode none\nlink set {bridge} up"
        );
    }
    let mut connect = |port: String, segment: Segment| {
        let master = if record.switched {
            String::new()
        } else {
            format!("master {} ", segment.bridge())
        };
        let _ = writeln!(
            batch,
            "link set {port} addrgenmode none\nlink set {port} {master}up"
        );
    };
    for host in &record.hosts {
        connect(bridge_port(&host.name), host.place.segment);
        if let Some((segment, _)) = host.place.second {
            connect(second_port(&host.name), segment);
        }
    }
    if observing(record).is_some() {
        batch += "link set p-obs addrgenmode none\nlink set p-obs up\n";
    }
    batch
}

/// The bridges that the hosts' interfaces need; none with the userspace switch.
fn bridges(record: &Record) -> BTreeSet<&'static str> {
    if record.switched {
        return BTreeSet::new();
    }
    let own = record.hosts.iter().map(|host| host.place.segment);
    let second = record.hosts.iter().filter_map(|host| host.place.second);
    own.chain(second.map(|(segment, _)| segment))
        .chain([Segment::Cluster])
        .map(Segment::bridge)
        .collect()
}

/// No duplicate address detection: the plan gives no address twice, and a link-local address that is still tentative keeps a
/// router from asking for its neighbours for a second or two.
fn trust_own_addresses(host: &HostRecord) -> Result<(), LabError> {
    netns::in_namespace(&host.namespace, || {
        let interfaces = ["all", "eth0"]
            .into_iter()
            .chain(host.place.second.map(|_| "eth1"));
        for interface in interfaces {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
            fs::write(&path, "0").map_err(LabError::io(format!("write 0 to {path}")))?;
        }
        Ok(())
    })?
}

fn host_settings(host: &HostRecord, ipv6: bool, observes: bool) -> String {
    let mut batch = String::from("link set lo up\nlink set eth0 up\n");
    if host.place.is_router() {
        batch += "link set eth1 up\n";
    }
    let mut address = |interface: &str, address: Ipv4Addr| {
        let _ = writeln!(batch, "addr add {address}/{PREFIX_LENGTH} dev {interface}");
        if ipv6 {
            let twin = twin(address);
            let _ = writeln!(
                batch,
                "addr add {twin}/{PREFIX_LENGTH_V6} dev {interface} nodad"
            );
        }
    };
    address("eth0", host.address);
    for further in &host.place.further {
        address("eth0", *further);
    }
    if let Some((_, second)) = host.place.second {
        address("eth1", second);
    }
    for route in &host.place.routes {
        let to = match route.to {
            Some(network) => network.prefixes(),
            None => ["default", "default"].map(str::to_owned),
        };
        let [v4, v6] = to;
        let _ = writeln!(batch, "route add {v4} via {}", route.via);
        if ipv6 {
            let _ = writeln!(batch, "route add {v6} via {}", twin(route.via));
        }
    }
    if observes {
        let _ = writeln!(
            batch,
            "link set {OBSERVER_INTERFACE} addrgenmode none\nlink set {OBSERVER_INTERFACE} arp off up"
        );
    }
    batch
}

/// Lets a router pass packets of at most `mtu` bytes on. The links stay as they are: only its routes to the two networks know,
/// so it is the router that says so, as it would before a narrower link in between.
pub(crate) fn set_path_mtu(host: &HostRecord, mtu: Option<u16>) -> Result<(), LabError> {
    let Some((_, second)) = host.place.second else {
        return Err(LabError::NotARouter(host.name.clone()));
    };
    let mut batch = String::new();
    for (interface, address) in [("eth0", host.address), ("eth1", second)] {
        let [v4, v6] = Network::of(address).prefixes();
        let (mut limit, mut locked) = (String::new(), String::new());
        if let Some(mtu) = mtu {
            limit = format!(" mtu {mtu}");
            // The kernel looks at the MTU of an IPv6 route only if it is locked; else forwarding goes by that of the link.
            locked = format!(" mtu lock {mtu}");
        }
        let _ = writeln!(batch, "route replace {v4} dev {interface}{limit}");
        if has_ipv6() {
            // 256 is the metric of the route that came with the address, which this one replaces.
            let _ = writeln!(
                batch,
                "route replace {v6} dev {interface} metric 256{locked}"
            );
        }
    }
    ip_batch(Some(&host.namespace), &batch)
}

/// The client's own stack must not act on the copies; packet sockets see frames before this hook.
const SILENT_OBSERVER: &str = "
table netdev observer {
 chain in {
  type filter hook ingress device \"obs0\" priority 0; policy drop;
 }
}
";

/// Copies what ATMs send to the observer. The hook runs before the bridge, so frames of a cut port are copied as well.
fn mirror(record: &Record) -> String {
    let mut text = String::from("\ntable netdev mirror {\n");
    for host in record.hosts.iter().filter(|h| h.atm) {
        let _ = write!(
            text,
            " chain {name} {{\n  type filter hook ingress device \"{port}\" priority -500; policy accept;\n  \
             ether type {{ arp, ip }} dup to \"p-obs\"\n }}\n",
            name = host.name,
            port = bridge_port(&host.name),
        );
    }
    text += "}\n";
    text
}

/// Stops every frame between `host` and the other ATMs, in both directions.
pub(crate) fn cut_from_peers(record: &Record, host: &HostRecord) -> Result<(), LabError> {
    let peers: Vec<_> = record
        .hosts
        .iter()
        .filter(|h| h.atm && h.name != host.name)
        .map(|h| format!("\"{}\"", bridge_port(&h.name)))
        .collect();
    let table = peer_table(&host.name);
    // Declared, deleted and declared again: the text gives the same result whether or not the table was there.
    let mut text =
        format!("table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n");
    text += " chain forward {\n  type filter hook forward priority 0; policy accept;\n";
    if !peers.is_empty() {
        let (own, peers) = (bridge_port(&host.name), peers.join(", "));
        let _ = writeln!(text, "  iifname \"{own}\" oifname {{ {peers} }} drop");
        let _ = writeln!(text, "  iifname {{ {peers} }} oifname \"{own}\" drop");
    }
    text += " }\n}\n";
    nft(&record.switch(), &text)
}

/// Undoes [`cut_from_peers`]; no error if nothing was cut.
pub(crate) fn join_peers(record: &Record, host: &HostRecord) -> Result<(), LabError> {
    let table = peer_table(&host.name);
    nft(
        &record.switch(),
        &format!("table bridge {table}\ndelete table bridge {table}\n"),
    )
}

/// Silences (`true`) or revives the bridge port of `host`; its carrier stays.
pub(crate) fn set_port_cut(record: &Record, host: &HostRecord, cut: bool) -> Result<(), LabError> {
    // BR_STATE_DISABLED and BR_STATE_FORWARDING of linux/if_bridge.h.
    let state = if cut { "0" } else { "3" };
    let (switch, port) = (record.switch(), bridge_port(&host.name));
    let by = Instant::now() + CARRIER_MAX;
    loop {
        let words = ["link", "set", "dev", &port, "state", state];
        match in_namespace(&switch, "bridge", &words) {
            Err(LabError::Command { stderr, .. })
                if !cut && stderr.contains(NO_CARRIER_YET) && Instant::now() < by =>
            {
                thread::sleep(CARRIER_PAUSE);
            }
            done => return done.map(drop),
        }
    }
}

/// The kernel looks at a link that came up within a second, and until then lets no state of its port be set.
const CARRIER_MAX: Duration = Duration::from_secs(3);

/// Between two attempts.
const CARRIER_PAUSE: Duration = Duration::from_millis(5);

/// ENETDOWN, as `bridge` says it.
const NO_CARRIER_YET: &str = "Network is down";

/// Carrier of the host's `eth0`: the other end of its link goes down, or up again.
pub(crate) fn set_carrier(record: &Record, host: &HostRecord, up: bool) -> Result<(), LabError> {
    let (port, state) = (bridge_port(&host.name), if up { "up" } else { "down" });
    ip_batch(
        Some(&record.switch()),
        &format!("link set {port} {state}\n"),
    )
}

/// Brings every port of every host up and forwarding.
pub(crate) fn revive_ports(record: &Record) -> Result<(), LabError> {
    let mut batch = String::new();
    for host in &record.hosts {
        let port = bridge_port(&host.name);
        let _ = writeln!(batch, "link set {port} up");
    }
    ip_batch(Some(&record.switch()), &batch)?;
    let bridged = record.hosts.iter().filter(|_| !record.switched);
    bridged
        .into_iter()
        .try_for_each(|host| set_port_cut(record, host, false))
}

/// How a host is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// To everybody.
    Up,
    /// To nobody; its carrier stays.
    Cut,
    /// To nobody, and it sees no carrier.
    Down,
    /// To everybody but the other ATMs.
    CutPeers,
}

/// How every host of `record` is connected, in the record's order; `impaired` are the names of its impairments.
pub(crate) fn links(record: &Record, impaired: &[String]) -> Result<Vec<Link>, LabError> {
    let switch = record.switch();
    let listed = |program: &str| {
        let listed = in_namespace(&switch, program, &["-json", "link"])?;
        Ok::<serde_json::Value, LabError>(serde_json::from_str(&listed).unwrap_or_default())
    };
    let (ports, bridged) = (listed("ip")?, listed("bridge")?);
    let tables = in_namespace(&switch, "nft", &["list", "tables"])?;
    let is_up = |host: &HostRecord| {
        let flags = &entry(&ports, host)["flags"];
        let mut flags = flags.as_array().into_iter().flatten();
        flags.any(|flag| flag == "UP")
    };
    let is_impaired = |fault: Fault, host: &HostRecord| {
        let name = fault.impairment_of(&host.name);
        name.is_some_and(|name| impaired.contains(&name))
    };
    let is_cut = |host: &HostRecord| {
        let silenced = !record.switched && entry(&bridged, host)["state"] != "forwarding";
        silenced || is_impaired(Fault::Cut, host)
    };
    let is_cut_from_peers = |host: &HostRecord| {
        let table = format!("table bridge {}", peer_table(&host.name));
        tables.lines().any(|line| line.trim() == table) || is_impaired(Fault::CutPeers, host)
    };
    let link = |host: &HostRecord| {
        if !is_up(host) {
            Link::Down
        } else if is_cut(host) {
            Link::Cut
        } else if is_cut_from_peers(host) {
            Link::CutPeers
        } else {
            Link::Up
        }
    };
    Ok(record.hosts.iter().map(link).collect())
}

/// What a list of links says of the port of `host`.
fn entry<'a>(links: &'a serde_json::Value, host: &HostRecord) -> &'a serde_json::Value {
    const NOTHING: &serde_json::Value = &serde_json::Value::Null;
    let name = bridge_port(&host.name);
    let mut links = links.as_array().into_iter().flatten();
    links.find(|link| link["ifname"] == name).unwrap_or(NOTHING)
}

pub(super) fn peer_table(host: &str) -> String {
    format!("cut_{host}")
}

/// Six bytes as `02:00:0a:01:00:01`.
#[must_use]
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn ip_batch(namespace: Option<&str>, batch: &str) -> Result<(), LabError> {
    let mut args = Vec::new();
    if let Some(namespace) = namespace {
        args.extend(["-n", namespace]);
    }
    args.extend(["-batch", "-"]);
    run("ip", &args, batch).map(drop)
}

pub(super) fn nft(namespace: &str, text: &str) -> Result<(), LabError> {
    run("ip", &["netns", "exec", namespace, "nft", "-f", "-"], text).map(drop)
}

pub(super) fn in_namespace(
    namespace: &str,
    program: &str,
    args: &[&str],
) -> Result<String, LabError> {
    let mut all = vec!["netns", "exec", namespace, program];
    all.extend(args);
    run("ip", &all, "")
}

fn run(program: &str, args: &[&str], input: &str) -> Result<String, LabError> {
    let command = format!("{program} {}", args.join(" "));
    let cannot_run = || LabError::io(format!("run `{command}`"));
    let mut child = tool(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_run())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that gave up early closes its input; its exit status tells the story.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(cannot_run())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(LabError::Command {
            command,
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}
