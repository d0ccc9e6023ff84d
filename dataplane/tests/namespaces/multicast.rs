//! The groups in which IPv6 VIPs are asked for, as the kernel has them.

use std::net::{IpAddr, Ipv6Addr};

use dataplane::{GroupError, SolicitedNodes, solicited_node};

use super::lab::{Lab, ip, run};

#[test]
fn the_groups_of_ipv6_vips_are_joined_and_left() {
    let Some(lab) = Lab::new("the_groups_of_ipv6_vips_are_joined_and_left") else {
        return;
    };
    let [first, second] = ["2001:db8::aa:100", "2001:db8::bb:200"].map(vip);
    let joined = || {
        run(
            "ip",
            &["-n", &lab.name("atm"), "maddr", "show", "dev", "e0"],
        )
        .unwrap()
    };
    let nodes = lab.on("atm", move || {
        let mut nodes = SolicitedNodes::new("e0");
        nodes
            .follow(&[first, second, "10.9.0.100".parse().unwrap()])
            .unwrap();
        nodes
    });
    let both = joined();
    // The kernel has the groups, and the interface their Ethernet addresses (RFC 2464 §7).
    for wanted in [
        "ff02::1:ffaa:100",
        "ff02::1:ffbb:200",
        "33:33:ff:aa:01:00",
        "33:33:ff:bb:02:00",
    ] {
        assert!(both.contains(wanted), "{wanted}: {both}");
    }
    let nodes = lab.on("atm", move || {
        let mut nodes = nodes;
        nodes.follow(&[second]).unwrap();
        nodes
    });
    let one = joined();
    assert!(!one.contains("ff02::1:ffaa:100"), "{one}");
    assert!(one.contains("ff02::1:ffbb:200"), "{one}");

    // An interface that came back under the name knows nothing of the groups.
    let (atm, hub) = (lab.name("atm"), lab.name("hub"));
    ip(&["-n", &atm, "link", "del", "e0"]);
    ip(&[
        "link", "add", "e0", "netns", &atm, "type", "veth", "peer", "name", "atm", "netns", &hub,
    ]);
    ip(&["-n", &atm, "link", "set", "e0", "up"]);
    assert!(!joined().contains("ff02::1:ffbb:200"));
    let nodes = lab.on("atm", move || {
        let mut nodes = nodes;
        nodes.follow(&[second]).unwrap();
        nodes
    });
    assert!(joined().contains("ff02::1:ffbb:200"));
    drop(nodes);
    assert!(
        !joined().contains("ff02::1:ffbb:200"),
        "left with its owner"
    );
}

#[test]
fn more_groups_than_fit_are_named_and_the_others_joined() {
    let Some(lab) = Lab::new("more_groups_than_fit_are_named_and_the_others_joined") else {
        return;
    };
    let vips: Vec<IpAddr> = (0..257)
        .map(|number| Ipv6Addr::from_bits(0x2001_0db8 << 96 | number).into())
        .collect();
    let (_nodes, error) = lab.on("atm", move || {
        let mut nodes = SolicitedNodes::new("e0");
        let error = nodes.follow(&vips).unwrap_err();
        (nodes, error)
    });
    assert!(
        matches!(error, GroupError::TooMany { wanted: 257 }),
        "{error}"
    );
    let joined = run(
        "ip",
        &["-n", &lab.name("atm"), "maddr", "show", "dev", "e0"],
    )
    .unwrap();
    for (number, there) in [(0, true), (255, true), (256, false)] {
        let group = solicited_node(Ipv6Addr::from_bits(number));
        let line = format!("inet6 {group}");
        assert_eq!(joined.lines().any(|it| it.trim() == line), there, "{group}");
    }
}

fn vip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
