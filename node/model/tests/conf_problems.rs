//! Every problem that a file can have: its code, and the very text it is found at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use model::conf::{
    Checked, Code, Diagnostic, FILE_BYTES_MAX, LINE_BYTES_MAX, Severity, check, check_bytes, print,
    render,
};

/// Valid, without a warning. Each case replaces one piece of it.
const BASE: &str = "\
NetworkMask 255.255.255.0
NAT
  Subnet 10.1.0.0 255.255.255.0
  Gateway 10.1.0.254
EndNAT
UserCheck mine
  Check /usr/bin/mine
EndUserCheck
Services
  Service smtp tcp:25 mine
  Service imap tcp:143 imapAgent
EndServices
Servers
  Server serv1 10.1.0.11 tunnel
  Server serv2 10.1.0.12 nat noping
EndServers
ServerPool Mail
  AddServer serv1 smtp/1
  AddServer serv2 smtp/2 imap/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
  AddAtm 10.1.0.2 witness
EndAtmPool
VirtualHost 10.1.0.100
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

#[test]
fn the_base_has_no_problem() {
    let checked = check("base", BASE);
    assert_eq!(checked.diagnostics, []);
    assert!(checked.config.is_some());
}

/// What is replaced by what, and what is then found where.
type Case = (&'static str, &'static str, &'static [(Code, &'static str)]);

const CASES: &[Case] = &[
    // lines and blocks
    (
        "NetworkMask",
        "NetworkMsk",
        &[(Code::UnknownKeyword, "NetworkMsk")],
    ),
    (
        "  AddAtmPool ATMs\n",
        "  AddAtmPool ATMs\n  Check /x\n",
        &[(Code::MisplacedKeyword, "Check")],
    ),
    (
        "NAT\n",
        "AddAtm 10.1.0.3\nNAT\n",
        &[(Code::MisplacedKeyword, "AddAtm")],
    ),
    (
        "  Gateway",
        "  NetworkMask 24\n  Gateway",
        &[(Code::MisplacedKeyword, "NetworkMask")],
    ),
    ("EndNAT\n", "", &[(Code::UnclosedBlock, "NAT")]),
    (
        "EndVirtualHost\n",
        "",
        &[(Code::UnclosedBlock, "VirtualHost 10.1.0.100")],
    ),
    (
        "EndServers\n",
        "EndServices\n",
        &[(Code::WrongEnd, "EndServices")],
    ),
    (
        "EndServers\n",
        "EndServers\nEndServers\n",
        &[(Code::StrayEnd, "EndServers")],
    ),
    (
        "EndServers",
        "EndServers now",
        &[(Code::ExtraArgument, "now")],
    ),
    (
        "Servers\n",
        "Servers all of them\n",
        &[(Code::ExtraArgument, "all of them")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask",
        &[(Code::MissingArgument, "NetworkMask")],
    ),
    (
        "tcp:25 mine",
        "tcp:25",
        &[
            (Code::AgentNotUsed, "mine"),
            (Code::MissingArgument, "Service smtp tcp:25"),
        ],
    ),
    (
        "UserCheck mine",
        "UserCheck",
        &[
            (Code::MissingArgument, "UserCheck"),
            (Code::UnknownAgent, "mine"),
        ],
    ),
    (
        "/usr/bin/mine",
        "/usr/bin/mine -v",
        &[(Code::ExtraArgument, "-v")],
    ),
    (
        "  Check /usr/bin/mine\n",
        "",
        &[(Code::MissingDirective, "UserCheck mine")],
    ),
    (
        "  AddAtmPool ATMs\n",
        "",
        &[(Code::MissingDirective, "VirtualHost 10.1.0.100")],
    ),
    (
        "  AddAtm 10.1.0.1\n  AddAtm 10.1.0.2 witness\n",
        "",
        &[(Code::MissingDirective, "AtmPool ATMs")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  gateway 10.1.0.253\n",
        &[(Code::DuplicateDirective, "gateway 10.1.0.253")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 2001:db8::1\n  Gateway 10.1.0.254\n  Gateway 2001:db8::2\n",
        &[(Code::DuplicateDirective, "Gateway 2001:db8::2")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  Subnet 2001:db8::/64\n  Subnet 2001:db9:: 64\n  Subnet 10.1.0.0/24\n",
        &[
            (Code::DuplicateDirective, "Subnet 2001:db9:: 64"),
            (Code::DuplicateDirective, "Subnet 10.1.0.0/24"),
        ],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 10.1.0.254\n  Gateway nowhere\n",
        &[(Code::BadAddress, "nowhere")],
    ),
    (
        "UserCheck",
        "nat\nEndNat\nUserCheck",
        &[(Code::DuplicateBlock, "nat")],
    ),
    (
        "VirtualHost",
        "AtmPool B\nAddAtm a\nEndAtmPool\nVirtualHost",
        &[(Code::DuplicateBlock, "AtmPool B")],
    ),
    // names
    (
        "Service imap",
        "Service smtp",
        &[
            (Code::DuplicateName, "smtp"),
            (Code::UnknownService, "imap"),
        ],
    ),
    (
        "Server serv2",
        "Server serv1",
        &[
            (Code::DuplicateName, "serv1"),
            (Code::UnknownServer, "serv2"),
        ],
    ),
    (
        "AddAtm 10.1.0.2",
        "AddAtm 10.1.0.1",
        &[(Code::DuplicateName, "10.1.0.1")],
    ),
    (
        "AtmPool ATMs\n",
        "ServerPool Mail\nEndServerPool\nAtmPool ATMs\n",
        &[(Code::DuplicateName, "Mail")],
    ),
    (
        "AddServerPool Mail",
        "AddServerPool Mail\nAddServerPool Mail",
        &[(Code::DuplicateName, "Mail")],
    ),
    (
        "imap tcp",
        "im/ap tcp",
        &[
            (Code::BadName, "im/ap"),
            (Code::ServiceNotOffered, "im/ap"),
            (Code::UnknownService, "imap"),
        ],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mien",
        &[(Code::AgentNotUsed, "mine"), (Code::UnknownAgent, "mien")],
    ),
    (
        "serv1 smtp/1",
        "serv1 smpt/1",
        &[(Code::UnknownService, "smpt")],
    ),
    (
        "AddServer serv1",
        "AddServer Serv1",
        &[
            (Code::ServerNotInPool, "serv1"),
            (Code::UnknownServer, "Serv1"),
        ],
    ),
    (
        "AddServerPool Mail",
        "AddServerPool Mial",
        &[(Code::PoolNotUsed, "Mail"), (Code::UnknownPool, "Mial")],
    ),
    (
        "AddAtmPool ATMs",
        "AddAtmPool Router",
        &[(Code::UnknownPool, "Router")],
    ),
    (
        "UserCheck mine",
        "UserCheck HTTP",
        &[(Code::BuiltInAgent, "HTTP"), (Code::UnknownAgent, "mine")],
    ),
    // values
    ("/usr/bin/mine", "bin/mine", &[(Code::BadPath, "bin/mine")]),
    ("tcp:25", "25", &[(Code::BadPort, "25")]),
    ("tcp:25", "sctp:25", &[(Code::BadPort, "sctp:25")]),
    ("tcp:25", "tcp:0", &[(Code::BadPort, "0")]),
    ("tcp:25", "tcp:65536", &[(Code::BadPort, "65536")]),
    ("tcp:25", "tcp:", &[(Code::BadPort, "tcp:")]),
    ("smtp/1", "smtp", &[(Code::BadWeight, "smtp")]),
    ("smtp/1", "smtp/65536", &[(Code::BadWeight, "65536")]),
    ("smtp/1", "smtp/", &[(Code::BadWeight, "smtp/")]),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nMaxLostHeartbeats 1\n",
        &[(Code::BadNumber, "1")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nMaxLostHeartbeats 101\n",
        &[(Code::BadNumber, "101")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumConnections 0\n",
        &[(Code::BadNumber, "0")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumConnections 4000001\n",
        &[(Code::BadNumber, "4000001")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServers many\n",
        &[(Code::BadNumber, "many")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nHeartBeatDelay 9ms\n",
        &[(Code::BadDuration, "9ms")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nHeartBeatDelay 61\n",
        &[(Code::BadDuration, "61")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nSendArpDelay 0\n",
        &[(Code::BadDuration, "0")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nConnectionTimeout 1y\n",
        &[(Code::BadDuration, "1y")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.256",
        &[(Code::BadAddress, "10.1.0.256")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway ::1",
        &[(Code::BadAddress, "::1")],
    ),
    (
        "Server serv1 10.1.0.11",
        "Server serv1 224.0.0.1",
        &[(Code::BadAddress, "224.0.0.1")],
    ),
    (
        "VirtualHost 10.1.0.100",
        "VirtualHost 127.0.0.1",
        &[(Code::BadAddress, "127.0.0.1")],
    ),
    (
        "AddAtmPool",
        "Address mail.my.org\nAddAtmPool",
        &[(Code::BadAddress, "mail.my.org")],
    ),
    (
        "Server serv1 10.1.0.11",
        "Server serv1 -x",
        &[(Code::BadHost, "-x")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask 255.0.255.0",
        &[(Code::BadMask, "255.0.255.0")],
    ),
    (
        "NetworkMask 255.255.255.0",
        "NetworkMask /33",
        &[(Code::BadMask, "/33")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 10.1.0.0/33",
        &[(Code::BadMask, "33")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 10.1.0.7/24",
        &[(Code::HostBits, "10.1.0.7")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8::/129",
        &[(Code::BadMask, "129")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8:: 255.255.255.0",
        &[(Code::BadMask, "255.255.255.0")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet 2001:db8::7/64",
        &[(Code::HostBits, "2001:db8::7")],
    ),
    (
        "Subnet 10.1.0.0 255.255.255.0",
        "Subnet here/24",
        &[(Code::BadAddress, "here")],
    ),
    (
        "10.1.0.11 tunnel",
        "10.1.0.11 tunel",
        &[(Code::UnknownMethod, "tunel")],
    ),
    // options
    (
        "tcp:25 mine",
        "tcp:25 mine stiky",
        &[(Code::UnknownOption, "stiky")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky=yes",
        &[(Code::UnknownOption, "sticky=yes")],
    ),
    (
        "noping",
        "noping sticky",
        &[(Code::UnknownOption, "sticky")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky STICKY",
        &[(Code::DuplicateOption, "STICKY")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine scheduler=rr",
        &[(Code::BadOptionValue, "rr")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky mask=129",
        &[(Code::BadOptionValue, "129")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine sticky persist=0",
        &[(Code::BadDuration, "0")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine persist=9",
        &[(Code::OptionWithoutEffect, "9")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine fallback=serv9",
        &[(Code::UnknownServer, "serv9")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 imapAgent fallback=serv2",
        &[(Code::OptionWithoutEffect, "serv2")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 imapAgent fallback=serv1 on-down=reset tls=starttls",
        &[],
    ),
    (
        "tcp:25 mine",
        "tcp:25 mine on-down=kill",
        &[(Code::BadOptionValue, "kill")],
    ),
    (
        "tcp:25 mine",
        "udp:25 mine on-down=reset",
        &[(Code::OptionWithoutEffect, "reset")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:143 connect tls=implicit",
        &[(Code::OptionWithoutEffect, "implicit")],
    ),
    // agents of ours, and what they cannot
    (
        "tcp:143 imapAgent",
        "udp:143 imapAgent",
        &[(Code::TcpOnlyAgent, "imapAgent")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:53 Connect",
        &[(Code::TcpOnlyAgent, "Connect")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:80 http tls=implicit",
        &[(Code::TcpOnlyAgent, "http")],
    ),
    ("tcp:143 imapAgent", "udp:53 dnsAgent", &[]),
    ("tcp:143 imapAgent", "udp:853 dnsAgent", &[]),
    ("tcp:143 imapAgent", "udp:853 dnsAgent tls=none", &[]),
    (
        "tcp:143 imapAgent",
        "udp:853 dnsAgent tls=implicit",
        &[(Code::TlsNotSpoken, "implicit")],
    ),
    (
        "tcp:143 imapAgent",
        "udp:53 dnsAgent tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:53 dnsAgent tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    ("tcp:143 imapAgent", "tcp:53 dnsAgent tls=implicit", &[]),
    (
        "tcp:143 imapAgent",
        "tcp:80 http tls=starttls",
        &[(Code::TlsNotSpoken, "starttls")],
    ),
    (
        "tcp:143 imapAgent",
        "tcp:80 httpAgent tls=STARTTLS",
        &[(Code::TlsNotSpoken, "STARTTLS")],
    ),
    // A program of their own may know what ours does not.
    ("tcp:25 mine", "udp:25 mine tls=starttls", &[]),
    (
        "EndUserCheck\n",
        "EndUserCheck\nUserCheck imapAgent\n  Check /opt/imapAgent\nEndUserCheck\n",
        &[],
    ),
    ("ServerPool Mail", "ServerPool Mail rise=2 FALL=3", &[]),
    (
        "ServerPool Mail",
        "ServerPool Mail rise=0 fall=101",
        &[(Code::BadNumber, "0"), (Code::BadNumber, "101")],
    ),
    (
        "ServerPool Mail",
        "ServerPool Mail sink=1",
        &[(Code::UnknownOption, "sink=1")],
    ),
    ("nat noping", "nat SOURCE=10.1.0.50 noping", &[]),
    (
        "nat noping",
        "nat source=10.1.0.50 source=10.1.0.51",
        &[(Code::DuplicateOption, "source=10.1.0.51")],
    ),
    (
        "nat noping",
        "nat source",
        &[(Code::UnknownOption, "source")],
    ),
    (
        "nat noping",
        "nat source=atm1",
        &[(Code::BadAddress, "atm1")],
    ),
    (
        "nat noping",
        "nat source=127.0.0.1",
        &[(Code::BadAddress, "127.0.0.1")],
    ),
    (
        "nat noping",
        "nat source=224.0.0.1",
        &[(Code::BadAddress, "224.0.0.1")],
    ),
    (
        "nat noping",
        "tunnel source=10.1.0.50",
        &[(Code::SourceWithoutNat, "10.1.0.50")],
    ),
    // sizes
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServices 1\n",
        &[(Code::TooManyServices, "imap")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServers 1\n",
        &[(Code::TooManyServers, "serv2")],
    ),
    (
        "  AddAtm 10.1.0.1\n",
        "AddAtm 10.1.0.1\nAddAtm a3\nAddAtm a4\nAddAtm a5\nAddAtm a6\nAddAtm a7\nAddAtm a8\n",
        &[(Code::TooManyAtms, "10.1.0.2")],
    ),
    (
        "AddAtm 10.1.0.1",
        "AddAtm 10.1.0.1 witness",
        &[(Code::OnlyWitnesses, "AtmPool ATMs")],
    ),
    // sense
    (
        "  Gateway 10.1.0.254\n",
        "",
        &[(Code::NatWithoutGateway, "nat")],
    ),
    (
        "  Gateway 10.1.0.254\n",
        "  Gateway 2001:db8::1\n",
        &[(Code::NatWithoutGateway, "10.1.0.12")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.2",
        &[(Code::AddressConflict, "NAT")],
    ),
    (
        "Gateway 10.1.0.254",
        "Gateway 10.1.0.11",
        &[(Code::AddressConflict, "NAT")],
    ),
    (
        "  AddServer serv1",
        "  CheckServerTimeout 31\n  AddServer serv1",
        &[(Code::TimeoutExceedsFrequency, "CheckServerTimeout 31")],
    ),
    (
        "  AddServer serv1",
        "  CheckPortFrequency 9\n  AddServer serv1",
        &[(Code::TimeoutExceedsFrequency, "CheckPortFrequency 9")],
    ),
    (
        "EndServices",
        "  Service telnet tcp:23 none\nEndServices",
        &[(Code::ServiceNotOffered, "telnet")],
    ),
    (
        "EndServers\n",
        "  Server serv3 10.1.0.13 direct\nEndServers\n",
        &[(Code::ServerNotInPool, "serv3")],
    ),
    (
        "AtmPool ATMs\n",
        "ServerPool B\nEndServerPool\nAtmPool ATMs\n",
        &[(Code::EmptyPool, "B"), (Code::PoolNotUsed, "B")],
    ),
    (
        "tcp:25 mine",
        "tcp:25 smtpAgent",
        &[(Code::AgentNotUsed, "mine")],
    ),
    // addresses
    (
        "VirtualHost 10.1.0.100",
        "VirtualHost 10.1.0.1",
        &[(Code::AddressConflict, "10.1.0.1")],
    ),
    (
        "VirtualHost 10.1.0.100",
        "VirtualHost 10.1.0.12",
        &[(Code::AddressConflict, "10.1.0.12")],
    ),
    (
        "AddAtmPool",
        "Address 10.1.0.5\nAddress 10.1.0.5\nAddAtmPool",
        &[(Code::DuplicateAddress, "10.1.0.5")],
    ),
    (
        "10.1.0.12 nat noping",
        "10.1.0.11 tunnel",
        &[(Code::DuplicateOffer, "smtp")],
    ),
    (
        "smtp/2",
        "smtp/2 smtp/3",
        &[(Code::DuplicateOffer, "smtp/3")],
    ),
    ("tcp:143", "tcp:25", &[(Code::ServiceOverlap, "imap")]),
    (
        "10.1.0.12 nat",
        "2001:db8::12 nat",
        &[
            (Code::NatWithoutGateway, "2001:db8::12"),
            (Code::MixedFamilies, "serv2"),
        ],
    ),
    (
        "10.1.0.12 nat",
        "2001:db8::12 direct",
        &[(Code::MixedFamilies, "serv2")],
    ),
    ("10.1.0.12 nat", "2001:db8::12 tunnel", &[]),
    (
        "10.1.0.12 nat",
        "10.1.0.1 direct",
        &[(Code::DirectToAtm, "direct")],
    ),
    ("10.1.0.12 nat", "10.1.0.1 tunnel", &[]),
    ("10.1.0.12 nat", "10.1.0.1 nat", &[(Code::NatToAtm, "nat")]),
    (
        "10.1.0.12 nat",
        "10.1.0.2 nat source=10.1.0.50",
        &[(Code::NatToAtm, "nat")],
    ),
    (
        "AddAtm 10.1.0.2",
        "AddAtm 10.1.1.2",
        &[(Code::OutsideNetwork, "10.1.1.2")],
    ),
    (
        "10.1.0.12 nat",
        "10.1.1.12 nat",
        &[(Code::OutsideSubnet, "10.1.1.12")],
    ),
    // With a source address neither gateway nor subnet matter.
    ("10.1.0.12 nat", "10.1.1.12 nat source=10.1.0.50", &[]),
    (
        "10.1.0.12 nat",
        "10.1.0.12 nat source=10.1.0.11",
        &[(Code::AddressConflict, "10.1.0.11")],
    ),
    (
        "10.1.0.12 nat",
        "10.1.0.12 nat source=10.1.0.12",
        &[(Code::AddressConflict, "10.1.0.12")],
    ),
    (
        "10.1.0.12 nat",
        "10.1.0.12 nat source=10.1.0.2",
        &[(Code::AddressConflict, "10.1.0.2")],
    ),
    (
        "10.1.0.12 nat",
        "10.1.0.12 nat source=10.1.0.100",
        &[(Code::AddressConflict, "10.1.0.100")],
    ),
    (
        "10.1.0.12 nat",
        "10.1.0.12 nat source=2001:db8::50",
        &[(Code::MixedFamilies, "2001:db8::50")],
    ),
    // what is not a problem
    (
        "NetworkMask 255.255.255.0\n",
        "networkmask /24 # a comment\r\n",
        &[],
    ),
    (
        "NetworkMask 255.255.255.0\n",
        "\u{feff}NETWORKMASK 24\n\n",
        &[],
    ),
    ("Subnet 10.1.0.0 255.255.255.0", "Subnet 10.1.0.0/24", &[]),
    (
        "tcp:25 mine",
        "TCP:25 mine Sticky Scheduler=WLC replication=async persist=5m mask=24",
        &[],
    ),
    (
        "  AddServer serv2 smtp/2 imap/1\n",
        "AddServer serv2 smtp/2\nAddServer serv2 imap/0\n",
        &[],
    ),
    ("tcp:143 imapAgent", "udp:25 none", &[]),
    ("EndServers\n", "EndServers\nServers\nEndServers\n", &[]),
];

#[test]
fn every_problem_is_found_where_it_is() {
    let mut wrong = String::new();
    for (from, to, expected) in CASES {
        assert!(BASE.contains(from), "{from:?}");
        let source = BASE.replacen(from, to, 1);
        let checked = check("case", &source);
        let found: Vec<_> = checked
            .diagnostics
            .iter()
            .map(|found| (found.code, &source[found.span.clone()]))
            .collect();
        if found != *expected {
            writeln!(
                wrong,
                "{from:?} -> {to:?}: {found:?}, expected {expected:?}"
            )
            .unwrap();
        }
        for diagnostic in &checked.diagnostics {
            positions_agree(diagnostic, &source);
        }
        config_iff_no_error(&checked);
    }
    assert_eq!(wrong, "");
}

fn positions_agree(diagnostic: &Diagnostic, source: &str) {
    let places = std::iter::once((diagnostic.line, diagnostic.column, &diagnostic.span)).chain(
        diagnostic
            .related
            .iter()
            .map(|other| (other.line, other.column, &other.span)),
    );
    for (line, column, span) in places {
        let before = &source[..span.start];
        assert_eq!(line, before.matches('\n').count() + 1);
        assert_eq!(
            column,
            before.chars().rev().take_while(|c| *c != '\n').count() + 1
        );
        assert!(!source[span.clone()].contains('\n'), "{diagnostic:?}");
    }
}

fn config_iff_no_error(checked: &Checked) {
    let errors = checked
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error);
    assert_eq!(
        checked.config.is_none(),
        errors,
        "{:#?}",
        checked.diagnostics
    );
}

#[test]
fn every_code_has_a_case() {
    let in_cases: BTreeSet<Code> = CASES
        .iter()
        .flat_map(|(_, _, expected)| expected.iter().map(|(code, _)| *code))
        .collect();
    // These have a test of their own below.
    let elsewhere = BTreeSet::from([
        Code::FileTooLarge,
        Code::LineTooLong,
        Code::InvalidUtf8,
        Code::ControlCharacter,
        Code::TooManyProblems,
        Code::TooManyAddresses,
        Code::NoAtmPool,
        Code::NoVirtualHost,
        Code::UnresolvedHost,
    ]);
    let all: BTreeSet<Code> = Code::ALL.iter().copied().collect();
    assert_eq!(
        all.difference(&in_cases).copied().collect::<BTreeSet<_>>(),
        elsewhere
    );
}

fn codes(checked: &Checked) -> Vec<Code> {
    checked.diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    for source in ["", "\n\n", "# nothing\n"] {
        assert_eq!(
            codes(&check("empty", source)),
            [Code::NoAtmPool, Code::NoVirtualHost]
        );
    }
}

/// A file of the original may have such a service: it stays a valid one.
#[test]
fn a_user_check_takes_the_place_of_an_agent_of_ours() {
    let source = |check: &str| {
        let udp = BASE.replacen("tcp:143 imapAgent", "udp:143 imapAgent", 1);
        udp.replacen("EndUserCheck\n", &format!("EndUserCheck\n{check}"), 1)
    };
    let ours = check("ours", &source(""));
    assert_eq!(codes(&ours), [Code::TcpOnlyAgent]);
    assert!(ours.config.is_some());
    let theirs = source("UserCheck imapAgent\n  Check /opt/imapAgent\nEndUserCheck\n");
    assert_eq!(codes(&check("theirs", &theirs)), []);
}

#[test]
fn suggestions_and_related_places_are_given() {
    let help = |from: &str, to: &str| {
        let checked = check("case", &BASE.replacen(from, to, 1));
        let found = checked
            .diagnostics
            .into_iter()
            .find(|found| found.severity == Severity::Error);
        found.and_then(|found| found.help).unwrap_or_default()
    };
    for (from, to, expected) in [
        ("NetworkMask", "NetworkMsk", "did you mean `NetworkMask`?"),
        (
            "AddServer serv1",
            "AddServr serv1",
            "did you mean `AddServer`?",
        ),
        (
            "tcp:25 mine",
            "tcp:25 SMTPagent",
            "did you mean `smtpAgent`?",
        ),
        ("tcp:25 mine", "tcp:25 mine stiky", "did you mean `sticky`?"),
        (
            "tcp:25 mine",
            "tcp:25 mine sheduler=wlc",
            "did you mean `scheduler=`?",
        ),
        (
            "tcp:25 mine",
            "tcp:25 mine scheduler=wcl",
            "did you mean `wlc`?",
        ),
        ("serv1 smtp/1", "serv1 smpt/1", "did you mean `smtp`?"),
        (
            "AddServer serv1",
            "AddServer serv9",
            "did you mean `serv1`?",
        ),
        (
            "AddServerPool Mail",
            "AddServerPool mail",
            "did you mean `Mail`?",
        ),
        (
            "10.1.0.11 tunnel",
            "10.1.0.11 tunel",
            "did you mean `tunnel`?",
        ),
        (
            "AtmPool ATMs\n",
            "AtmPool ATMs\nNumServices 1\n",
            "write `NumServices 2` in the `AtmPool` block",
        ),
    ] {
        assert_eq!(help(from, to), expected, "{to}");
    }

    let source = BASE.replacen("EndServers\n", "EndServices\n", 1);
    let checked = check("case", &source);
    let related = &checked.diagnostics[0].related[0];
    assert_eq!(
        (&source[related.span.clone()], related.line),
        ("Servers", 13)
    );
}

#[test]
fn the_same_address_serves_a_port_once() {
    let second = "VirtualHost 10.1.0.100\n AddAtmPool ATMs\n AddServerPool Mail\nEndVirtualHost\n";
    let checked = check("overlap", &format!("{BASE}{second}"));
    assert_eq!(codes(&checked), [Code::ServiceOverlap; 2]);
    assert_eq!(checked.diagnostics[0].line, 29);
    assert_eq!(checked.diagnostics[0].related[0].line, 25);
    let other = second.replace("10.1.0.100", "10.1.0.101");
    assert_eq!(codes(&check("two", &format!("{BASE}{other}"))), []);
}

#[test]
fn virtual_addresses_are_bounded() {
    let mut addresses = String::new();
    for i in 0..257 {
        writeln!(addresses, "  Address 10.2.{}.{}", i / 256, i % 256).unwrap();
    }
    let source = BASE.replacen("  AddAtmPool", &format!("{addresses}  AddAtmPool"), 1);
    let checked = check("many", &source);
    assert_eq!(codes(&checked), [Code::TooManyAddresses]);
    assert_eq!(&source[checked.diagnostics[0].span.clone()], "10.2.1.0");
}

#[test]
fn bytes_that_are_no_text_are_found_where_they_are() {
    let latin1 = [BASE.as_bytes(), b"# M\xfcller \xe4\n"].concat();
    let checked = check_bytes("latin1", &latin1);
    let found: Vec<_> = checked
        .diagnostics
        .iter()
        .map(|found| (found.code, found.line, found.column))
        .collect();
    assert_eq!(
        found,
        [(Code::InvalidUtf8, 29, 4), (Code::InvalidUtf8, 29, 10)]
    );
    assert_eq!(checked.config, None);
    let shown = String::from_utf8_lossy(&latin1);
    assert_eq!(&shown[checked.diagnostics[1].span.clone()], "\u{fffd}");
    assert_eq!(check_bytes("utf8", BASE.as_bytes()), check("utf8", BASE));
    assert_eq!(
        codes(&check_bytes("nul", &[BASE.as_bytes(), b"#\0\n"].concat())),
        [Code::ControlCharacter]
    );
}

#[test]
fn what_is_too_large_is_refused_by_its_size() {
    let line = format!("{BASE}# {}\n", "x".repeat(LINE_BYTES_MAX));
    assert_eq!(codes(&check("line", &line)), [Code::LineTooLong]);
    let just = format!("{BASE}#{}\n", "x".repeat(LINE_BYTES_MAX - 1));
    assert_eq!(codes(&check("line", &just)), []);
    let file = format!("{BASE}{}", "#\n".repeat(FILE_BYTES_MAX / 2));
    assert_eq!(codes(&check("file", &file))[0], Code::FileTooLarge);
    assert_eq!(
        codes(&check_bytes("file", file.as_bytes()))[0],
        Code::FileTooLarge
    );
    let fits = format!("{BASE}{}", "\n".repeat(FILE_BYTES_MAX - BASE.len()));
    assert_eq!(codes(&check_bytes("file", fits.as_bytes())), []);
}

/// What a file leaves to defaults is written out in its canonical form, which must be readable too.
#[test]
fn a_file_whose_canonical_form_is_too_large_is_refused() {
    let mut pools = String::new();
    for i in 0..9000 {
        writeln!(pools, "ServerPool p{i}\nEndServerPool").unwrap();
    }
    let checked = check("pools", &format!("{BASE}{pools}"));
    assert!(codes(&checked).contains(&Code::FileTooLarge));
    assert_eq!(checked.config, None);
}

#[test]
fn too_many_problems_are_counted_and_stay_errors() {
    let checked = check("junk", &"junk\n".repeat(100_000));
    assert_eq!(checked.diagnostics.len(), 202);
    let last = checked.diagnostics.last().unwrap();
    assert_eq!(
        (last.severity, last.code),
        (Severity::Error, Code::TooManyProblems)
    );
    assert_eq!(
        last.message,
        "99801 more errors and 0 more warnings are not shown"
    );
    assert_eq!(checked.config, None);
}

#[test]
fn a_long_offer_is_printed_on_several_lines_and_read_as_one() {
    let (mut services, mut offers) = (String::new(), String::new());
    for i in 0..100 {
        let name = format!("{}{i}", "a-service-with-a-long-name-".repeat(2));
        writeln!(services, "  Service {name} tcp:{} none", 1000 + i).unwrap();
        writeln!(offers, "  AddServer serv1 {name}/{i}").unwrap();
    }
    let source = BASE
        .replacen("EndServices\n", &format!("{services}EndServices\n"), 1)
        .replacen(
            "  AddServer serv2",
            &format!("{offers}  AddServer serv2"),
            1,
        )
        .replacen("AtmPool ATMs\n", "AtmPool ATMs\n  NumServices 102\n", 1);
    let config = check("long", &source).config.unwrap();
    assert_eq!(config.server_pools[0].servers[0].offers.len(), 101);
    let text = print(&config);
    assert_eq!(text.matches("AddServer serv1").count(), 2);
    assert_eq!(check("printed", &text).config, Some(config));
}

#[test]
fn servers_with_a_source_address_need_no_gateway_and_share_it() {
    let source = BASE
        .replacen("  Gateway 10.1.0.254\n", "", 1)
        .replacen("10.1.0.11 tunnel", "10.1.0.11 nat source=10.1.0.50", 1)
        .replacen("nat noping", "nat source=10.1.0.50 noping", 1);
    let checked = check("shared", &source);
    assert_eq!(codes(&checked), []);
    let printed = print(checked.config.as_ref().unwrap());
    let line = "\n  Server serv2 10.1.0.12 nat source=10.1.0.50 noping\n";
    assert!(printed.contains(line), "{printed}");
    assert_eq!(check("printed", &printed).config, checked.config);
}

/// A server's IP version is known once its name has an address.
#[test]
fn nat_servers_need_a_gateway_and_a_subnet_of_their_ip_version() {
    let both = "  Gateway 2001:db8::1\n  Subnet 2001:db8::/64\n  Subnet 10.1.0.0/24\n  Gateway 10.1.0.254\n";
    let nat = "  Subnet 10.1.0.0 255.255.255.0\n  Gateway 10.1.0.254\n";
    let source = BASE
        .replacen("10.1.0.11 tunnel", "2001:db8::11 tunnel", 1)
        .replacen("10.1.0.12 nat", "serv2.my.org nat", 1)
        .replacen("VirtualHost 10.1.0.100", "VirtualHost 2001:db8::100", 1);
    let with_both = source.replacen(nat, both, 1);
    for (source, address, expected) in [
        (&source, "2001:db8::12", &[Code::NatWithoutGateway][..]),
        (&with_both, "2001:db8::12", &[]),
        (&with_both, "2001:db8:1::12", &[Code::OutsideSubnet]),
    ] {
        let checked = check("names", source);
        assert_eq!(codes(&checked), []);
        let hosts = BTreeMap::from([("serv2.my.org".to_owned(), address.parse().unwrap())]);
        let found = checked.check_resolved("names", source, &hosts);
        let found: Vec<_> = found.iter().map(|problem| problem.code).collect();
        assert_eq!(found, expected, "{address}");
    }
    let config = check("both", &with_both).config.unwrap();
    let printed = print(&config);
    let block = "NAT\n  Subnet 10.1.0.0 255.255.255.0\n  Subnet 2001:db8::/64\n  Gateway 10.1.0.254\n  Gateway 2001:db8::1\nEndNAT\n";
    assert!(printed.contains(block), "{printed}");
    assert_eq!(check("printed", &printed).config, Some(config));
}

#[test]
fn source_addresses_are_few() {
    let with = |count: usize| {
        let mut servers = String::new();
        let mut added = String::new();
        for i in 0..count {
            // Each address twice: what counts is how many there are.
            let address = format!("10.4.{}.{}", i / 2 / 250, i / 2 % 250 + 1);
            let host = format!("10.3.{}.{}", i / 250, i % 250 + 1);
            writeln!(servers, "  Server s{i} {host} nat source={address}").unwrap();
            writeln!(added, "  AddServer s{i} smtp/1").unwrap();
        }
        let source = BASE
            .replacen("EndServers\n", &format!("{servers}EndServers\n"), 1)
            .replacen("  AddServer serv1", &format!("{added}  AddServer serv1"), 1);
        codes(&check("many", &source))
    };
    assert_eq!(with(512), []);
    assert_eq!(with(514), [Code::TooManyAddresses]);
    assert_eq!(with(700), [Code::TooManyAddresses]);
}

/// An ATM, another server and a virtual host may only turn out to have the address once their names are looked up.
#[test]
fn a_source_address_is_compared_with_addresses_of_names() {
    let source = BASE
        .replacen("10.1.0.11 tunnel", "serv1.my.org tunnel", 1)
        .replacen("10.1.0.12 nat", "serv2.my.org nat source=10.1.0.50", 1);
    let checked = check("names", &source);
    assert_eq!(codes(&checked), []);
    for (addresses, expected) in [
        (["10.1.0.11", "10.1.0.12"], None),
        (["10.1.0.50", "10.1.0.12"], Some(Code::AddressConflict)),
        (["10.1.0.11", "10.1.0.50"], Some(Code::AddressConflict)),
    ] {
        let hosts = [
            ("serv1.my.org", addresses[0]),
            ("serv2.my.org", addresses[1]),
        ];
        let hosts = hosts.map(|(name, address)| (name.to_owned(), address.parse().unwrap()));
        let found = checked.check_resolved("names", &source, &hosts.into());
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.code, &source[found.span.clone()]))
            .collect();
        let expected: Vec<_> = expected
            .map(|code| (code, "10.1.0.50"))
            .into_iter()
            .collect();
        assert_eq!(found, expected);
    }
}

/// A server may only turn out to be an ATM once names are looked up; one whose name is an ATM's is known to be one before, and
/// is told of once.
#[test]
fn a_server_is_compared_with_atms_by_name_and_by_address() {
    let source = |method: &str, atm: &str| {
        BASE.replacen("10.1.0.12 nat", &format!("serv2.my.org {method}"), 1)
            .replacen("AddAtm 10.1.0.2", &format!("AddAtm {atm}"), 1)
    };
    let hosts = |server: &str| {
        let address = |host: &str| (host.to_owned(), server.parse().unwrap());
        BTreeMap::from(["serv2.my.org"].map(address))
    };
    let found = |source: &str, server: &str| {
        let checked = check("names", source);
        let resolved = checked.check_resolved("names", source, &hosts(server));
        let at_once = codes(&checked);
        let later: Vec<_> = resolved.iter().map(|found| found.code).collect();
        (at_once, later)
    };
    for (method, code) in [("direct", Code::DirectToAtm), ("nat", Code::NatToAtm)] {
        let by_address = source(method, "10.1.0.2");
        assert_eq!(found(&by_address, "10.1.0.12"), (vec![], vec![]));
        assert_eq!(found(&by_address, "10.1.0.1"), (vec![], vec![code]));
        let by_name = source(method, "serv2.my.org");
        assert_eq!(
            found(&by_name, "10.1.0.2"),
            (vec![code], vec![]),
            "{method}"
        );
    }
}

#[test]
fn names_are_checked_once_they_have_addresses() {
    let source = "\
NetworkMask 24
Services
  Service smtp tcp:25 none
EndServices
Servers
  Server a a.my.org tunnel
  Server b b.my.org tunnel
EndServers
ServerPool Mail
  AddServer a smtp/1
  AddServer b smtp/1
EndServerPool
AtmPool ATMs
  AddAtm atm1
  AddAtm atm2
EndAtmPool
VirtualHost mail.my.org
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";
    let checked = check("names", source);
    assert_eq!(codes(&checked), []);
    type Resolved = ([&'static str; 5], &'static [(Code, &'static str)]);
    let cases: [Resolved; 8] = [
        (
            [
                "10.1.0.11",
                "10.1.0.12",
                "10.1.0.1",
                "10.1.0.2",
                "10.1.0.100",
            ],
            &[],
        ),
        (
            [
                "10.1.0.11",
                "10.1.0.12",
                "10.1.0.1",
                "10.1.0.1",
                "10.1.0.100",
            ],
            &[(Code::DuplicateAddress, "atm2")],
        ),
        (
            [
                "10.1.0.11",
                "10.1.0.11",
                "10.1.0.1",
                "10.1.0.2",
                "10.1.0.100",
            ],
            &[(Code::DuplicateOffer, "smtp")],
        ),
        (
            [
                "10.1.0.11",
                "10.1.0.12",
                "10.1.0.1",
                "10.1.1.2",
                "10.1.0.100",
            ],
            &[(Code::OutsideNetwork, "atm2")],
        ),
        (
            ["10.1.0.11", "10.1.0.12", "10.1.0.1", "10.1.0.2", "10.1.0.1"],
            &[(Code::AddressConflict, "mail.my.org")],
        ),
        (
            [
                "10.1.0.11",
                "10.1.0.12",
                "10.1.0.1",
                "10.1.0.2",
                "127.0.0.1",
            ],
            &[(Code::BadAddress, "mail.my.org")],
        ),
        (
            ["10.1.0.11", "10.1.0.12", "10.1.0.1", "10.1.0.2", ""],
            &[(Code::UnresolvedHost, "mail.my.org")],
        ),
        (
            ["0.0.0.0", "10.1.0.12", "", "10.1.0.2", "10.1.0.100"],
            &[
                (Code::BadAddress, "a.my.org"),
                (Code::UnresolvedHost, "atm1"),
            ],
        ),
    ];
    for (addresses, expected) in cases {
        let names = ["a.my.org", "b.my.org", "atm1", "atm2", "mail.my.org"];
        let hosts: BTreeMap<_, _> = names
            .iter()
            .zip(addresses)
            .filter_map(|(name, address)| Some(((*name).to_owned(), address.parse().ok()?)))
            .collect();
        let found = checked.check_resolved("names", source, &hosts);
        let found: Vec<_> = found
            .iter()
            .map(|found| (found.code, &source[found.span.clone()]))
            .collect();
        assert_eq!(found, expected, "{addresses:?}");
        let problems = checked.config.as_ref().unwrap().problems(&hosts);
        assert_eq!(problems.len(), expected.len());
        assert_eq!(
            checked
                .config
                .as_ref()
                .unwrap()
                .check_resolved(&hosts)
                .len(),
            expected.len()
        );
    }
}

#[test]
fn a_configuration_put_together_badly_is_not_taken_for_sound() {
    let mut config = check("base", BASE).config.unwrap();
    config.atm_pool.atms.clear();
    config.virtual_hosts[0].host = config.servers[0].host.clone();
    let found = config.check_resolved(&BTreeMap::new());
    let found: Vec<Code> = found.iter().map(|found| found.code).collect();
    assert_eq!(found, [Code::MissingDirective, Code::AddressConflict]);
}

/// Work must not grow with the square of the file.
#[test]
fn hostile_files_come_to_an_end() {
    let filled = |head: &str, line: &dyn Fn(usize) -> String, tail: &str| {
        let mut source = head.to_owned();
        for i in 0.. {
            let line = line(i);
            if source.len() + line.len() + tail.len() > FILE_BYTES_MAX {
                break;
            }
            source.push_str(&line);
        }
        source + tail
    };
    let mut crossing = String::from("Services\n");
    for i in 1..8000 {
        writeln!(crossing, "Service {i} tcp:{i} none").unwrap();
    }
    crossing.push_str("EndServices\nServers\nServer s 10.1.0.1 tunnel\nEndServers\nServerPool p\n");
    for i in 1..8000 {
        writeln!(crossing, "AddServer s {i}/1").unwrap();
    }
    crossing.push_str("EndServerPool\nAtmPool a\nAddAtm 10.1.0.2\nNumServices 8000\nEndAtmPool\n");
    for i in 0..256 {
        writeln!(
            crossing,
            "VirtualHost 10.2.0.{i}\nAddAtmPool a\nAddServerPool p\nEndVirtualHost"
        )
        .unwrap();
    }
    let pool = "ServerPool p\nAddServer s a/1\nEndServerPool\nAtmPool a\nAddAtm x\nEndAtmPool\n";
    let hosts = "VirtualHost h\nAddAtmPool a\n";
    for source in [
        crossing,
        filled("", &|i| format!("ServerPol p{i}\n"), ""),
        filled("", &|_| "AtmPool\n".to_owned(), ""),
        filled(
            "ServerPool p\n",
            &|i| format!("AddServer s{i} a{i}/1\n"),
            "EndServerPool\n",
        ),
        filled(
            "ServerPool p\n",
            &|_| "AddServer s a/1\n".to_owned(),
            "EndServerPool\n",
        ),
        filled(
            "Services\n",
            &|i| format!("Service s{i} tcp:1 a{i}\n"),
            "EndServices\n",
        ),
        filled(
            "Servers\n",
            &|_| "Server s 10.1.0.1 nat\n".to_owned(),
            "EndServers\n",
        ),
        filled("AtmPool a\n", &|i| format!("AddAtm h{i}\n"), "EndAtmPool\n"),
        filled(
            pool,
            &|_| format!("{hosts}AddServerPool p\nEndVirtualHost\n"),
            "",
        ),
        filled(
            &format!("{pool}{hosts}"),
            &|i| format!("Address 10.{}.{}.1\n", i / 256 % 256, i % 256),
            "",
        ),
        filled(
            &format!("{pool}{hosts}"),
            &|_| "AddServerPool p\n".to_owned(),
            "EndVirtualHost\n",
        ),
        "a ".repeat(FILE_BYTES_MAX / 2),
        "\u{1}".repeat(FILE_BYTES_MAX),
        "\u{1}\n".repeat(FILE_BYTES_MAX / 2),
        "\u{2028}".repeat(FILE_BYTES_MAX / 3),
    ] {
        let checked = check("hostile", &source);
        assert!(
            checked.config.is_none(),
            "{}",
            source.get(..80).unwrap_or_default()
        );
        assert!(
            checked.diagnostics.len() <= 401,
            "{}",
            checked.diagnostics.len()
        );
        assert!(!render(&checked.diagnostics, "hostile", &source, false).is_empty());
    }
    let bytes = vec![0xff; FILE_BYTES_MAX];
    assert!(check_bytes("hostile", &bytes).diagnostics.len() <= 401);
}
