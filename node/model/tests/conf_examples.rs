//! The files that people start from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use model::conf::{Agent, Checked, Code, Config, ForwardingMethod, Host, Severity, check, print};

const TUTORIAL: &str = include_str!("data/tutorial.conf");
const TUTORIAL_EXAMPLE: &str = include_str!("../../../docs/examples/tutorial.conf");
const THREE_ATMS: &str = include_str!("../../../docs/examples/three-atms.conf");

fn valid_with_telnet_warning(name: &str, source: &str) -> (Config, Checked) {
    let checked = check(name, source);
    let problems: Vec<_> = checked
        .diagnostics
        .iter()
        .map(|d| (d.severity, d.code))
        .collect();
    assert_eq!(
        problems,
        [(Severity::Warning, Code::ServiceNotOffered)],
        "{name}"
    );
    let warning = &checked.diagnostics[0];
    assert_eq!(warning.message, "no server offers `telnet`");
    assert_eq!(&source[warning.span.clone()], "telnet");
    assert_eq!(warning.column, 11);
    assert_eq!(
        source
            .lines()
            .nth(warning.line - 1)
            .expect("the line of the warning")
            .trim_start()
            .find("Service telnet"),
        Some(0)
    );
    (checked.config.clone().expect("a valid file"), checked)
}

#[test]
fn the_tutorials_own_file_is_valid_with_one_warning() {
    assert_eq!(TUTORIAL, TUTORIAL_EXAMPLE);
    assert!(
        TUTORIAL
            .lines()
            .any(|line| line.starts_with('#') && line.contains("EndFile"))
    );
    let (config, checked) = valid_with_telnet_warning("tutorial.conf", TUTORIAL);

    let names = [
        "atm.my.org",
        "mail.my.org",
        "serv1.my.org",
        "serv2.my.org",
        "serv3.my.org",
    ];
    assert_eq!(config.host_names().into_iter().collect::<Vec<_>>(), names);
    assert_eq!(config.network_mask.unwrap().0, 24);
    assert_eq!(
        config.services[1].agent,
        Agent::User("smtpAgent".to_owned())
    );
    assert!(
        config
            .servers
            .iter()
            .all(|server| server.method == ForwardingMethod::Tunnel)
    );
    let pool = &config.server_pools[0];
    let offered: Vec<Vec<&str>> = pool
        .servers
        .iter()
        .map(|server| {
            server
                .offers
                .iter()
                .map(|offer| offer.service.as_str())
                .collect()
        })
        .collect();
    assert_eq!(
        offered,
        [["smtp", "pop-3"], ["smtp", "imap4"], ["imap4", "pop-3"]]
    );
    assert_eq!(
        [pool.check_server_frequency, pool.check_server_timeout],
        [30, 10].map(Duration::from_secs)
    );
    assert_eq!(
        [pool.check_port_frequency, pool.check_port_timeout],
        [30, 10].map(Duration::from_secs)
    );
    let atms = &config.atm_pool;
    assert_eq!(
        (
            atms.name.as_str(),
            atms.num_connections,
            atms.max_lost_heartbeats
        ),
        ("ATMs", 100_000, 3)
    );
    assert_eq!(atms.connection_timeout, Duration::from_secs(30));
    assert_eq!(atms.send_arp_delay, Duration::from_secs(20));
    assert_eq!(atms.heartbeat_delay, Duration::from_secs(1));

    let hosts: BTreeMap<String, IpAddr> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            (
                (*name).to_owned(),
                format!("10.1.0.{}", i + 1).parse().unwrap(),
            )
        })
        .collect();
    assert_eq!(config.problems(&hosts), []);
    assert_eq!(
        checked.check_resolved("tutorial.conf", TUTORIAL, &hosts),
        []
    );
    assert_eq!(check("printed", &print(&config)).config, Some(config));
}

#[test]
fn three_atms_with_addresses_need_no_names() {
    let (config, _) = valid_with_telnet_warning("three-atms.conf", THREE_ATMS);
    assert_eq!(config.host_names().len(), 0);
    assert_eq!(config.problems(&BTreeMap::new()), []);
    let address = |text: &str| Host::Address(text.parse().unwrap());
    let atms: Vec<Host> = config
        .atm_pool
        .atms
        .iter()
        .map(|atm| atm.host.clone())
        .collect();
    assert_eq!(atms, ["10.1.0.1", "10.1.0.2", "10.1.0.3"].map(address));
    let servers: Vec<Host> = config
        .servers
        .iter()
        .map(|server| server.host.clone())
        .collect();
    assert_eq!(
        servers,
        ["10.1.0.11", "10.1.0.12", "10.1.0.13"].map(address)
    );
    assert_eq!(
        config.virtual_hosts[0].host,
        Host::Name("mail.my.org".to_owned())
    );
    assert_eq!(
        config.virtual_hosts[0]
            .virtual_addresses()
            .collect::<Vec<_>>(),
        [address("10.1.0.100")]
    );
    assert_eq!(config.atm_pool.heartbeat_delay, Duration::from_secs(1));
    assert!(
        config
            .servers
            .iter()
            .all(|server| server.method == ForwardingMethod::Tunnel)
    );
}
