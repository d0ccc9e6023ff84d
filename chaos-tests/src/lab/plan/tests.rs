use super::*;
use crate::lab::read_configuration;

/// Lays out a file with these ATMs, servers and virtual host.
fn plan(atms: &[&str], servers: &[&str], virtual_host: &str) -> Result<Plan, PlanError> {
    let mut text = String::from("Services\n Service smtp tcp:25 connect\nEndServices\nServers\n");
    for (n, host) in servers.iter().enumerate() {
        text += &format!(" Server s{n} {host} tunnel\n");
    }
    text += "EndServers\nServerPool mail\n";
    for n in 0..servers.len() {
        text += &format!(" AddServer s{n} smtp/1\n");
    }
    text += "EndServerPool\nAtmPool ATMs\n";
    for host in atms {
        text += &format!(" AddAtm {host}\n");
    }
    text += &format!(
        "EndAtmPool\nVirtualHost {virtual_host}\n AddAtmPool ATMs\n AddServerPool mail\nEndVirtualHost\n"
    );
    Plan::new(&read_configuration("test", &text)?, true)
}

/// Hosts as `name address role`.
fn hosts(plan: &Plan) -> Vec<String> {
    let role = |h: &HostPlan| match (h.atm, h.server) {
        (true, true) => "atm+server",
        (true, false) => "atm",
        (false, true) => "server",
        (false, false) => "client",
    };
    plan.hosts
        .iter()
        .map(|h| format!("{} {} {}", h.name, h.address, role(h)))
        .collect()
}

#[test]
fn names_get_the_addresses_of_the_scheme() {
    let plan = plan(
        &["a.my.org", "b.my.org"],
        &["s.my.org", "t.my.org"],
        "mail.my.org",
    )
    .unwrap();
    assert_eq!(
        hosts(&plan),
        [
            "atm1 10.1.0.1 atm",
            "atm2 10.1.0.2 atm",
            "serv1 10.1.0.11 server",
            "serv2 10.1.0.12 server",
            "client 10.1.0.200 client"
        ]
    );
    assert_eq!(plan.vips, [Ipv4Addr::new(10, 1, 0, 100)]);
    assert_eq!(plan.hosts[0].written.as_deref(), Some("a.my.org"));
    let file = plan.hosts_file();
    for line in [
        "10.1.0.1 atm1",
        "10.1.0.1 a.my.org",
        "10.1.0.12 t.my.org",
        "10.1.0.100 mail.my.org",
    ] {
        assert!(file.lines().any(|l| l == line), "{line} in {file}");
    }
}

#[test]
fn addresses_of_the_file_are_kept_and_not_given_to_names() {
    let plan = plan(
        &["192.168.7.11", "b.my.org"],
        &["s.my.org", "192.168.7.2"],
        "192.168.7.1",
    )
    .unwrap();
    assert_eq!(
        hosts(&plan),
        [
            "atm1 192.168.7.11 atm",
            "atm2 192.168.7.3 atm",
            "serv1 192.168.7.12 server",
            "serv2 192.168.7.2 server",
            "client 192.168.7.200 client"
        ]
    );
}

#[test]
fn a_host_may_be_both() {
    let plan = plan(
        &["a.my.org", "10.1.0.5"],
        &["10.1.0.5", "a.my.org", "c.my.org"],
        "mail.my.org",
    )
    .unwrap();
    assert_eq!(
        hosts(&plan),
        [
            "atm1 10.1.0.1 atm+server",
            "atm2 10.1.0.5 atm+server",
            "serv3 10.1.0.11 server",
            "client 10.1.0.200 client"
        ]
    );
}

/// Lays out one ATM and these servers, with these surroundings; `nat`: lines of a NAT block.
fn laid_out(
    servers: &[(&str, &str)],
    vips: &str,
    nat: &str,
    around: &Surroundings,
) -> Result<Plan, PlanError> {
    let mut text =
        format!("NAT\n{nat}EndNAT\nServices\n Service smtp tcp:25 connect\nEndServices\nServers\n");
    for (n, (host, method)) in servers.iter().enumerate() {
        text += &format!(" Server s{n} {host} {method}\n");
    }
    text += "EndServers\nServerPool mail\n";
    for n in 0..servers.len() {
        text += &format!(" AddServer s{n} smtp/1\n");
    }
    text += &format!(
        "EndServerPool\nAtmPool ATMs\n AddAtm 10.1.0.1\nEndAtmPool\nVirtualHost mail.my.org\n{vips} AddAtmPool ATMs\n \
         AddServerPool mail\nEndVirtualHost\n"
    );
    Plan::within(&read_configuration("test", &text)?, around)
}

/// Routes of the host `name` as `to via`.
fn routes(plan: &Plan, name: &str) -> Vec<String> {
    let host = plan.hosts.iter().find(|host| host.name == name).unwrap();
    let route = |route: &Route| match route.to {
        Some(network) => format!("{} via {}", network.prefixes()[0], route.via),
        None => format!("default via {}", route.via),
    };
    host.place.routes.iter().map(route).collect()
}

const VIP: &str = " Address 10.1.0.100\n";

#[test]
fn an_ipv6_address_of_the_file_is_that_of_its_ipv4_twin() {
    let vips = " Address fd00:10:1::100\n";
    let plan = laid_out(
        &[("fd00:10:1::11", "tunnel")],
        vips,
        "",
        &Surroundings::default(),
    )
    .unwrap();
    assert_eq!(hosts(&plan)[1], "serv1 10.1.0.11 server");
    assert_eq!(plan.hosts[1].written.as_deref(), Some("fd00:10:1::11"));
    assert!(plan.vips.is_empty());
    assert_eq!(
        plan.virtual_addresses,
        ["fd00:10:1::100".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn nat_servers_have_the_gateway_and_atms_a_foot_in_their_subnet() {
    let nat = " Subnet 192.168.7.0/24\n Gateway 192.168.7.1\n";
    let servers = [("192.168.7.11", "nat"), ("10.1.0.12", "tunnel")];
    let around = Surroundings {
        client: true,
        ..Surroundings::default()
    };
    let plan = laid_out(&servers, VIP, nat, &around).unwrap();
    assert_eq!(routes(&plan, "serv1"), ["default via 192.168.7.1"]);
    assert_eq!(plan.hosts[1].place.segment, Segment::Cluster);
    assert_eq!(
        plan.hosts[0].place.further,
        [Ipv4Addr::new(192, 168, 7, 240)]
    );
    assert_eq!(routes(&plan, "serv2"), [""; 0]);
    let taken = laid_out(&[("192.168.7.240", "nat")], VIP, nat, &around);
    assert!(
        matches!(taken, Err(PlanError::SharedAddress { .. })),
        "{taken:?}"
    );
}

#[test]
fn routers_stand_between_clients_cluster_and_servers() {
    let servers = [("10.5.0.11", "tunnel"), ("10.1.0.12", "tunnel")];
    let around = Surroundings {
        client: true,
        client_router: Some(Router {
            path_mtu: Some(1400),
        }),
        server_router: Some(Router::default()),
    };
    let plan = laid_out(&servers, VIP, "", &around).unwrap();
    let names: Vec<_> = plan
        .hosts
        .iter()
        .map(|h| (h.name.as_str(), h.address.to_string()))
        .collect();
    let expected = [
        ("atm1", "10.1.0.1"),
        ("serv1", "10.5.0.11"),
        ("serv2", "10.1.0.12"),
        ("client", "10.2.0.200"),
        ("router", "10.1.0.254"),
        ("srouter", "10.1.0.253"),
    ];
    assert_eq!(
        names,
        expected.map(|(name, address)| (name, address.to_owned()))
    );
    let of_cluster = ["default via 10.1.0.254", "10.5.0.0/24 via 10.1.0.253"];
    for (host, expected) in [
        ("atm1", &of_cluster[..]),
        ("serv2", &of_cluster[..]),
        ("serv1", &["default via 10.5.0.254"]),
        ("client", &["default via 10.2.0.254"]),
        ("router", &["10.5.0.0/24 via 10.1.0.253"]),
        ("srouter", &["default via 10.1.0.254"]),
    ] {
        assert_eq!(routes(&plan, host), expected, "{host}");
    }
    let router = &plan.hosts[4].place;
    assert_eq!(
        router.second,
        Some((Segment::Clients, Ipv4Addr::new(10, 2, 0, 254)))
    );
    assert_eq!(router.path_mtu, Some(1400));
    let segments: Vec<_> = plan.hosts.iter().map(|h| h.place.segment).collect();
    let (cluster, beyond) = (Segment::Cluster, Segment::Servers);
    assert_eq!(
        segments,
        [cluster, beyond, cluster, Segment::Clients, cluster, cluster]
    );

    // Without a router before the clients everything else is beyond the one before the servers.
    let around = Surroundings {
        client_router: None,
        ..around
    };
    let plan = laid_out(&servers, VIP, "", &around).unwrap();
    assert_eq!(routes(&plan, "atm1"), ["default via 10.1.0.253"]);
    assert_eq!(routes(&plan, "srouter"), [""; 0]);
    for mtu in [1279, 1501] {
        let around = Surroundings {
            client_router: Some(Router {
                path_mtu: Some(mtu),
            }),
            ..around
        };
        assert_eq!(
            laid_out(&servers, VIP, "", &around),
            Err(PlanError::PathMtu(mtu))
        );
    }
}

#[test]
fn what_cannot_be_laid_out_is_refused_by_name() {
    let (one, other) = (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1));
    assert_eq!(
        plan(&["10.1.0.1"], &["10.2.0.1"], "mail.my.org"),
        Err(PlanError::TwoNetworks {
            address: one,
            other
        })
    );
    assert_eq!(
        plan(&["10.1.0.1"], &["fd00::1"], "mail.my.org"),
        Err(PlanError::Ipv6Host("fd00::1".to_owned()))
    );
    let invalid = plan(&["a.my.org"], &[], "mail.my.org\n AddAtmPool nothing");
    assert!(
        matches!(&invalid, Err(PlanError::Invalid(text)) if text.contains("nothing")),
        "{invalid:?}"
    );
}

#[test]
fn quotes_and_backslashes_stay_inside_their_value() {
    let text = atmd_toml(
        "10.1.0.1",
        Ipv4Addr::new(10, 1, 0, 1),
        "/tmp/a \"b\" \\c",
        PortKind::Pnet,
    );
    assert!(
        text.contains(r#"data_dir = "/tmp/a \"b\" \\c/data""#),
        "{text}"
    );
    assert!(
        text.contains("port = \"pnet\"\npeer_listen = \"10.1.0.1:7410\"\n"),
        "{text}"
    );
}

#[test]
fn further_hosts_get_free_addresses_and_names() {
    let mut plan = plan(&["10.1.0.1"], &["10.1.0.31"], "10.1.0.100").unwrap();
    plan.add_further("store").unwrap();
    plan.add_name("store", "store.my.org").unwrap();
    let added = plan.hosts.last().unwrap();
    assert_eq!(
        (added.name.as_str(), added.address.to_string().as_str()),
        ("store", "10.1.0.32")
    );
    assert!(!added.atm && !added.server && added.written.is_none());
    let file = plan.hosts_file();
    for line in ["10.1.0.32 store", "10.1.0.32 store.my.org"] {
        assert!(file.lines().any(|l| l == line), "{file}");
    }
    assert_eq!(
        plan.add_further("atm1"),
        Err(PlanError::SharedName("atm1".to_owned()))
    );
    assert_eq!(
        plan.add_name("nobody", "x.my.org"),
        Err(PlanError::NoHost("nobody".to_owned()))
    );
}
