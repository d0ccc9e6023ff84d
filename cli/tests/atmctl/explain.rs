//! `explain`: captures that the test writes, and every line and byte that comes of them.

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::Stdio;

use dataplane_core::MacAddr;
use dataplane_core::testing::{ACK, FIN, PSH, Packet, RST, SYN, arp};
use serde_json::{Value, json};

use crate::capture::{at_once, pcap, pcap_big_endian, pcapng};
use crate::config::Files;
use crate::run::{Outcome, atmctl, command, outcome};

const CONF: &str = "\
Services
  Service smtp tcp:25 smtpAgent
  Service http tcp:80 httpAgent
EndServices
Servers
  Server serv1 10.0.0.11 tunnel
  Server serv2 10.0.0.12 direct
EndServers
ServerPool Mail
  AddServer serv1 smtp/1 http/1
  AddServer serv2 smtp/1
EndServerPool
AtmPool ATMs
  AddAtm 10.0.0.1
EndAtmPool
VirtualHost 10.0.0.100
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ATM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const SERV1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const SERV2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const ROUTER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

/// The Ethernet address of the rule.
fn mac(host: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = host.octets();
    MacAddr([2, 0, a, b, c, d])
}

fn tcp(port: u16, to: u16, flags: u8, data: &[u8]) -> Packet {
    Packet::tcp((CLIENT, port), (VIP, to), flags, data)
}

/// As the router sends it to the ATM.
fn to_atm(packet: &Packet) -> Vec<u8> {
    packet.frame(ROUTER_MAC, mac(ATM))
}

fn tunnelled(packet: &Packet, server: Ipv4Addr, id: u16) -> Vec<u8> {
    packet
        .in_tunnel(ATM, server, id)
        .frame(mac(ATM), mac(server))
}

/// What became of a run: the lines of JSON, and the capture that was written.
struct Run {
    lines: Vec<Value>,
    sent: Vec<u8>,
}

fn explain(conf: &str, capture: &[u8], options: &[&str]) -> Run {
    let files = Files::new();
    let conf = files.write("cluster.conf", conf);
    let capture = files.write("in.pcap", capture);
    let out = files.write("out.pcap", "");
    let arguments = [
        "explain", "--conf", &conf, "--pcap", &capture, "--write", &out,
    ];
    let arguments = [&arguments[..], &["--output", "json"], options].concat();
    let outcome = atmctl(&arguments).done();
    assert_eq!(outcome.stderr, "");
    Run {
        lines: outcome
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        sent: fs::read(out).unwrap(),
    }
}

/// Index, verdict, server, and how many frames were sent.
fn lines(run: &Run) -> Vec<(u64, &str, Option<&str>, u64)> {
    run.lines
        .iter()
        .map(|line| {
            assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
            assert!(!line["reason"].as_str().unwrap().is_empty());
            (
                line["index"].as_u64().unwrap(),
                line["verdict"].as_str().unwrap(),
                line["server"].as_str(),
                line["emitted"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[test]
fn connections_go_to_their_servers_and_every_byte_is_written_at_its_time() {
    let first = tcp(40_000, 25, SYN, &[]);
    let second = tcp(40_001, 25, SYN, &[]);
    let (data, more) = (
        tcp(40_000, 25, ACK | PSH, b"EHLO"),
        tcp(40_001, 25, ACK, b"x"),
    );
    let records = at_once([&first, &second, &data, &more].map(to_atm));
    let run = explain(CONF, &pcap(&records), &[]);
    assert_eq!(
        lines(&run),
        [
            (1, "transmit", Some("serv1"), 1),
            (2, "transmit", Some("serv2"), 1),
            (3, "transmit", Some("serv1"), 1),
            (4, "transmit", Some("serv2"), 1),
        ]
    );
    assert_eq!(
        run.lines[0],
        json!({
            "index": 1,
            "verdict": "transmit",
            "server": "serv1",
            "reason": "first packet, connection recorded",
            "emitted": 1
        })
    );
    assert_eq!(
        run.lines[2]["reason"],
        "sent on to the other end of its connection"
    );
    let direct = |packet: &Packet| packet.frame(mac(ATM), mac(SERV2));
    let sent = [
        tunnelled(&first, SERV1, 1),
        direct(&second),
        tunnelled(&data, SERV1, 2),
        direct(&more),
    ];
    assert_eq!(run.sent, pcap(&at_once(sent)));
}

#[test]
fn what_is_not_forwarded_is_named() {
    let stranger = Packet::tcp((CLIENT, 1), (SERV1, 25), SYN, &[]);
    let ping = Packet::icmp(CLIENT, VIP, 8, 0, [0, 1, 0, 2], b"ping");
    let question = arp(
        (ROUTER_MAC, MacAddr::BROADCAST),
        1,
        (ROUTER_MAC, Ipv4Addr::new(10, 0, 0, 254)),
        (MacAddr::ZERO, VIP),
    );
    let answer = arp(
        (mac(ATM), ROUTER_MAC),
        2,
        (mac(ATM), VIP),
        (ROUTER_MAC, Ipv4Addr::new(10, 0, 0, 254)),
    );
    let mut broken = to_atm(&tcp(40_000, 25, SYN, &[]));
    broken[24] ^= 1;
    let frames = [
        to_atm(&tcp(40_000, 25, ACK, &[])),
        to_atm(&tcp(40_000, 443, SYN, &[])),
        to_atm(&stranger),
        question,
        to_atm(&ping),
        broken,
        vec![1; 5],
    ];
    let run = explain(CONF, &pcap(&at_once(frames)), &[]);
    assert_eq!(
        lines(&run),
        [
            (1, "no-connection", None, 0),
            (2, "no-service", None, 0),
            (3, "host", None, 0),
            (4, "answered", None, 1),
            (5, "answered", None, 1),
            (6, "malformed-checksum", None, 0),
            (7, "host", None, 0),
        ]
    );
    assert!(run.lines.iter().all(|line| line["server"].is_null()));
    let written = 24 + 16 + answer.len();
    assert_eq!(run.sent[40..written], answer);
}

#[test]
fn what_goes_to_the_atms_own_server_is_told_and_nothing_of_it_is_sent() {
    let conf = CONF.replace("serv1 10.0.0.11", "serv1 10.0.0.1");
    let packets = [
        tcp(40_000, 80, SYN, &[]),
        tcp(40_000, 80, ACK, b"GET / HTTP/1.0\r\n"),
    ];
    let capture = pcap(&at_once(packets.each_ref().map(to_atm)));
    let run = explain(&conf, &capture, &[]);
    let delivered = ("deliver", Some("serv1"), 0);
    let told = lines(&run);
    let told: Vec<_> = told.iter().map(|line| (line.1, line.2, line.3)).collect();
    assert_eq!(told, [delivered; 2]);
    assert_eq!(
        run.lines[0]["reason"],
        "first packet, connection recorded; given to this host's own stack"
    );
    assert_eq!(run.sent, pcap(&[]));
    // Another ATM sends the same to it over the wire.
    let to_other = |packet: &Packet| packet.frame(ROUTER_MAC, mac(Ipv4Addr::new(10, 0, 0, 2)));
    let capture = pcap(&at_once(packets.each_ref().map(to_other)));
    let run = explain(&conf, &capture, &["--own", "10.0.0.2"]);
    let told = lines(&run);
    let told: Vec<_> = told.iter().map(|line| (line.1, line.2, line.3)).collect();
    assert_eq!(told, [("transmit", Some("serv1"), 1); 2]);
}

#[test]
fn every_form_of_capture_tells_the_same() {
    let packets = [
        tcp(40_000, 80, SYN, &[]),
        tcp(40_000, 80, ACK, b"GET / HTTP/1.0\r\n"),
    ];
    let records = at_once(packets.each_ref().map(to_atm));
    let sent = at_once([
        tunnelled(&packets[0], SERV1, 1),
        tunnelled(&packets[1], SERV1, 2),
    ]);
    let expected = [
        (1, "transmit", Some("serv1"), 1),
        (2, "transmit", Some("serv1"), 1),
    ];
    for capture in [pcap(&records), pcapng(&records)] {
        let run = explain(CONF, &capture, &[]);
        assert_eq!(lines(&run), expected);
        assert_eq!(run.sent, pcap(&sent));
    }
    let run = explain(CONF, &pcap_big_endian(&records), &[]);
    assert_eq!(lines(&run), expected);
    // Nanoseconds are kept, so the file that is written has them too.
    assert_eq!(run.sent[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
    assert_eq!(run.sent[28..32], 7_u32.to_le_bytes());
    assert_eq!(run.sent.len(), pcap(&sent).len());
}

#[test]
fn a_frame_that_was_cut_off_decides_nothing() {
    let syn = to_atm(&tcp(40_000, 25, SYN, &[]));
    let data = to_atm(&tcp(40_000, 25, ACK, &[7; 1000]));
    let cut = |frame: &[u8]| (1_700_000_000, 0, frame[..54].to_vec(), frame.len());
    let whole = (1_700_000_000, 0, syn.clone(), syn.len());
    // Also one whose captured part would look like a whole first packet.
    let mut padded = cut(&syn);
    padded.3 += 6;
    let run = explain(CONF, &pcap(&[padded, whole, cut(&data)]), &[]);
    assert_eq!(
        lines(&run),
        [
            (1, "cut-off", None, 0),
            (2, "transmit", Some("serv1"), 1),
            (3, "cut-off", None, 0),
        ]
    );
}

#[test]
fn time_passes_between_the_frames() {
    let packet = |seconds, flags| {
        let frame = to_atm(&tcp(40_000, 80, flags, &[]));
        let length = frame.len();
        (seconds, 500_000, frame, length)
    };
    let conf = CONF.replace(
        "EndAtmPool",
        "  ConnectionTimeout 60\n  SendArpDelay 50\nEndAtmPool",
    );
    // Established; then idle for longer than ConnectionTimeout; then a reset, which is remembered for a second.
    let records = [
        packet(100, SYN),
        packet(101, ACK),
        packet(160, ACK),
        packet(250, ACK),
        packet(251, SYN),
        packet(252, RST),
        packet(260, FIN | ACK),
    ];
    let run = explain(&conf, &pcap(&records), &[]);
    let verdicts: Vec<_> = lines(&run).iter().map(|line| (line.1, line.3)).collect();
    assert_eq!(
        verdicts,
        [
            ("transmit", 1),
            ("transmit", 1),
            ("transmit", 1),
            ("no-connection", 0),
            ("transmit", 1),
            ("transmit", 1),
            ("no-connection", 0),
        ]
    );
    // The last announcement of the takeover was half a second before the first frame.
    let claims = |operation, target| {
        arp(
            (mac(ATM), MacAddr::BROADCAST),
            operation,
            (mac(ATM), VIP),
            (target, VIP),
        )
    };
    let announced = [claims(1, MacAddr::ZERO), claims(2, MacAddr::BROADCAST)];
    let mut found = Vec::new();
    let mut rest = &run.sent[24..];
    while let Some((header, after)) = rest.split_first_chunk::<16>() {
        let number = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().unwrap());
        let length = usize::try_from(number(8)).unwrap();
        if announced.iter().any(|frame| frame[..] == after[..length]) {
            found.push((number(0), number(4)));
        }
        rest = &after[length..];
    }
    assert_eq!(
        found,
        [(150, 0), (150, 0), (200, 0), (200, 0), (250, 0), (250, 0)]
    );
}

#[test]
fn names_and_ethernet_addresses_are_given() {
    let conf = CONF
        .replace("Server serv1 10.0.0.11", "Server serv1 Mail.example")
        .replace("AddAtm 10.0.0.1", "AddAtm atm1")
        .replace("VirtualHost 10.0.0.100", "VirtualHost www");
    let files = Files::new();
    let hosts = files.write(
        "hosts",
        "10.0.0.1 atm1\n10.0.0.11 mail.example # the old one\n10.0.0.100 www\n",
    );
    let atm_mac = MacAddr([0x52, 0x54, 0, 0, 0, 0x99]);
    let syn = tcp(40_000, 80, SYN, &[]);
    let capture = pcap(&at_once([syn.frame(ROUTER_MAC, atm_mac)]));
    let run = explain(
        &conf,
        &capture,
        &[
            "--hosts",
            &hosts,
            "--own",
            "10.0.0.2",
            "--neigh",
            "10.0.0.2=52:54:00:00:00:99",
            "--neigh",
            "10.0.0.11=52:54:00:00:00:11",
        ],
    );
    assert_eq!(lines(&run), [(1, "transmit", Some("serv1"), 1)]);
    let own = Ipv4Addr::new(10, 0, 0, 2);
    let serv1_mac = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
    let sent = syn.in_tunnel(own, SERV1, 1).frame(atm_mac, serv1_mac);
    assert_eq!(run.sent, pcap(&at_once([sent])));

    // Without their addresses the names are problems, each at its place.
    let outcome = run_files(&conf, &capture, &[]).failed(1);
    for part in [
        "atm1",
        "mail.example",
        "www",
        ":6:",
        "the configuration is invalid",
    ] {
        assert!(
            outcome.stderr.to_lowercase().contains(part),
            "{part}: {outcome:?}"
        );
    }
}

fn run_files(conf: &str, capture: &[u8], options: &[&str]) -> Outcome {
    let files = Files::new();
    let conf = files.write("cluster.conf", conf);
    let capture = files.write("in.pcap", capture);
    atmctl(&[&["explain", "--conf", &conf, "--pcap", &capture], options].concat())
}

#[test]
fn the_table_says_what_each_frame_was_and_ends_with_sums() {
    let frames = [
        to_atm(&tcp(40_000, 25, SYN, &[])),
        to_atm(&tcp(40_001, 25, ACK, b"abc")),
        to_atm(&Packet::icmp(CLIENT, SERV1, 8, 0, [0; 4], &[])),
    ];
    let outcome = run_files(CONF, &pcap(&at_once(frames)), &[]).done();
    let expected = " \
FRAME          TIME  WHAT                                                      VERDICT               SERVER        WHY
     1      0.000000  192.0.2.7:40000 > 10.0.0.100:25 tcp [SYN] len 0           transmit              serv1         first packet, connection recorded
     2      0.001000  192.0.2.7:40001 > 10.0.0.100:25 tcp [ACK] len 3           no-connection         -             not a first packet, and its connection is not known
     3      0.002000  192.0.2.7 > 10.0.0.11 icmp echo-request                   host                  -             not for a VIP at this ATM's Ethernet address, so it is left to the host's kernel

FRAMES  VERDICT
     1  host
     1  no-connection
     1  transmit
     3  in all
     1  sent
";
    assert_eq!(outcome.stdout, expected);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_capture_of_another_ethernet_address_is_noticed() {
    let syn = tcp(40_000, 25, SYN, &[]).frame(ROUTER_MAC, MacAddr([0x52, 0x54, 0, 0, 0, 0x99]));
    let outcome = run_files(CONF, &pcap(&at_once([syn])), &[]).done();
    assert!(outcome.stdout.contains(" host "), "{outcome:?}");
    assert!(
        outcome.stderr.contains("--neigh OWN=52:54:00:00:00:99"),
        "{outcome:?}"
    );
}

#[test]
fn a_capture_comes_from_stdin_too() {
    let files = Files::new();
    let conf = files.write("cluster.conf", CONF);
    let mut child = command(&[
        "explain", "--conf", &conf, "--pcap", "-", "--output", "json",
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let capture = pcap(&at_once([to_atm(&tcp(40_000, 25, SYN, &[]))]));
    let written = child.stdin.take().unwrap().write_all(&capture);
    // One that has ended before it read everything says why by what it printed and by its exit code.
    assert!(
        written
            .as_ref()
            .err()
            .is_none_or(|error| error.kind() == io::ErrorKind::BrokenPipe),
        "{written:?}"
    );
    let line = outcome(child.wait_with_output().unwrap()).done().json();
    assert_eq!(
        (&line["verdict"], &line["emitted"]),
        (&json!("transmit"), &json!(1))
    );
}

#[test]
fn a_damaged_capture_is_explained_up_to_there() {
    let frames = [SYN, ACK].map(|flags| to_atm(&tcp(40_000, 25, flags, &[])));
    let capture = pcap(&at_once(frames));
    let outcome = run_files(CONF, &capture[..capture.len() - 1], &["--output", "json"]);
    assert_eq!(
        (outcome.code, outcome.stdout.lines().count()),
        (2, 1),
        "{outcome:?}"
    );
    assert!(
        outcome
            .stderr
            .ends_with("packet 2 at offset 94: the file ends in the middle of it\n"),
        "{outcome:?}"
    );
    let outcome = run_files(CONF, b"no capture", &[]).failed(2);
    assert!(outcome.stderr.contains("not a capture"), "{outcome:?}");
    let mut cooked = capture;
    cooked[20] = 113;
    let outcome = run_files(CONF, &cooked, &[]).failed(2);
    assert!(
        outcome.stderr.contains("link type 113 (Linux cooked)"),
        "{outcome:?}"
    );
}

#[test]
fn a_frame_of_another_vlan_is_another_interfaces() {
    let tagged = |tag: u16, frame: &[u8]| {
        let tag = [[0x81, 0], tag.to_be_bytes()].concat();
        [&frame[..12], &tag, &frame[12..]].concat()
    };
    let [first, second, third] = [1, 2, 3].map(|port| tcp(port, 80, SYN, &[]));
    let frames = [
        tagged(5, &to_atm(&first)),
        // Priority 5 (IEEE 802.1Q), with and without a VLAN.
        tagged(5 << 13 | 5, &to_atm(&second)),
        tagged(5 << 13, &to_atm(&third)),
    ];
    let capture = pcap(&at_once(frames));

    let run = explain(CONF, &capture, &[]);
    assert_eq!(
        lines(&run),
        [
            (1, "other-vlan", None, 0),
            (2, "other-vlan", None, 0),
            (3, "transmit", Some("serv1"), 1),
        ]
    );
    assert!(run.lines[0]["reason"].as_str().unwrap().contains("--vlan"));
    assert_eq!(run.sent[40..], tunnelled(&third, SERV1, 1));

    let run = explain(CONF, &capture, &["--vlan", "5"]);
    assert_eq!(
        lines(&run),
        [
            (1, "transmit", Some("serv1"), 1),
            (2, "transmit", Some("serv1"), 1),
            (3, "other-vlan", None, 0),
        ]
    );
    let sent = [tunnelled(&first, SERV1, 1), tunnelled(&second, SERV1, 2)];
    assert_eq!(run.sent, pcap(&at_once(sent.map(|sent| tagged(5, &sent)))));
}

#[test]
fn a_jumbo_frame_passes_where_the_interface_carries_it() {
    let (syn, ack) = (tcp(1, 80, SYN, &[]), tcp(1, 80, ACK, &[7; 8900]));
    let capture = pcap(&at_once([&syn, &ack].map(to_atm)));
    for (options, verdict) in [
        (&[][..], "fragmentation-needed"),
        (&["--mtu", "9000"], "transmit"),
        // 8,940 bytes, and 20 of the tunnel.
        (&["--mtu", "8960"], "transmit"),
        (&["--mtu", "8959"], "fragmentation-needed"),
    ] {
        let run = explain(CONF, &capture, options);
        assert_eq!(
            lines(&run)[1],
            (2, verdict, Some("serv1"), 1),
            "{options:?}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let capture = pcap(&[]);
    for (options, part) in [
        (
            &["--own", "10.0.0.100"][..],
            "10.0.0.100 is a virtual address",
        ),
        (
            &["--own", "10.0.0.1", "--own", "10.0.0.2"],
            "are of one family",
        ),
        (
            &[
                "--neigh",
                "10.0.0.11=2:0:0:0:0:1",
                "--neigh",
                "10.0.0.11=2:0:0:0:0:2",
            ],
            "has two Ethernet addresses",
        ),
        (&["--neigh", "10.0.0.11"], "must be IP=MAC"),
        (&["--vlan", "0"], "0 is not in 1..=4094"),
        (&["--vlan", "4095"], "4095 is not in 1..=4094"),
        (&["--mtu", "67"], "67 is not in 68..=65535"),
        (&["--hosts", "/nowhere/hosts"], "cannot read /nowhere/hosts"),
    ] {
        let outcome = run_files(CONF, &capture, options).failed(2);
        assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
    }
    let outcome = run_files(&CONF.replace("tunnel", "tunel"), &capture, &[]).failed(1);
    assert!(outcome.stderr.contains("tunel"), "{outcome:?}");
    let outcome = atmctl(&["explain", "--conf", "-", "--pcap", "-"]).failed(2);
    assert!(
        outcome.stderr.contains("cannot both be stdin"),
        "{outcome:?}"
    );
}

#[test]
fn the_capture_that_is_read_is_not_overwritten() {
    let files = Files::new();
    let conf = files.write("cluster.conf", CONF);
    let content = pcap(&at_once([to_atm(&tcp(40_000, 25, SYN, &[]))]));
    let capture = files.write("in.pcap", &content);
    let outcome = atmctl(&[
        "explain", "--conf", &conf, "--pcap", &capture, "--write", &capture,
    ]);
    let outcome = outcome.failed(2);
    assert!(outcome.stderr.contains("would overwrite"), "{outcome:?}");
    assert_eq!(fs::read(capture).unwrap(), content);
}

#[test]
fn an_empty_capture_is_explained() {
    let run = explain(CONF, &pcap(&[]), &[]);
    assert!(run.lines.is_empty());
    assert_eq!(run.sent, pcap(&[]));
}
