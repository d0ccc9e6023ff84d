//! Addresses: in the file, and of its names.

use std::collections::BTreeMap;

use model::conf::{Code, check, print};

use crate::{BASE, Case, codes};

pub(crate) const CASES: &[Case] = &[
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
];

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
