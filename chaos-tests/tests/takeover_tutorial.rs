//! The tutorial's own values take over, and its own file runs.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, Trouble};
use chaos_tests::lab::{Fault, Lab, ready};
use chaos_tests::lines::{Client, Options, Server, ServerArgs};

/// Its smtp: any service will do, and numbered lines are spoken on it here.
const SERVICE_PORT: u16 = 25;

#[test]
fn the_tutorials_heartbeats_take_over_as_well() {
    if !ready() {
        return;
    }
    // The lab's own configuration has them: 1 s, 3 lost.
    let cluster = Cluster::start_with(Lab::builder()).unwrap();
    let lines = cluster.lines(40).unwrap();
    let blow = cluster.strike(Trouble::Kill).unwrap();
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    cluster.mend(&blow).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
    println!(
        "longest silence of all connections: {:.0} ms",
        report.longest_silence.unwrap().ms()
    );
}

#[test]
fn the_tutorials_file_runs_with_its_single_atm() {
    if !ready() {
        return;
    }
    let text = include_str!("../../docs/examples/tutorial.conf");
    let cluster = Cluster::start_with(Lab::builder().conf_named("tutorial.conf", text)).unwrap();
    let (active, status) = cluster.active().unwrap();
    assert_eq!(
        (active.as_str(), status.active.as_deref()),
        ("atm1", Some("atm.my.org"))
    );
    assert_eq!(status.servers.len(), 3);

    let _servers: Vec<Server> = ["serv1", "serv2"]
        .map(|name| {
            let listen = SocketAddr::from(([0, 0, 0, 0], SERVICE_PORT));
            let args = ServerArgs {
                listen,
                name: name.to_owned(),
            };
            cluster
                .lab()
                .in_netns(name, || Server::start(args))
                .unwrap()
                .unwrap()
        })
        .into();
    let address = SocketAddr::from((cluster.vip(), SERVICE_PORT));
    let namespace = cluster.lab().host("client").unwrap().namespace().to_owned();
    let connect = move || {
        let open = || TcpStream::connect_timeout(&address, SETTLE_MAX);
        chaos_tests::lab::in_namespace(&namespace, open).map_err(std::io::Error::other)?
    };
    let lines = Client::open(Options::new(20, Duration::from_millis(20)), connect).unwrap();
    assert!(lines.wait_open(SETTLE_MAX), "{:#?}", lines.snapshot());
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let spread = lines.snapshot().servers;
    assert_eq!(spread.get("serv1"), Some(&10), "{spread:?}");
    assert_eq!(spread.get("serv2"), Some(&10), "{spread:?}");

    // A group of one is its own quorum after a crash as well, and its connections go on.
    cluster.lab().fault(Fault::Restart, "atm1").unwrap();
    let after = cluster
        .wait_for("active again", &["atm1"], SETTLE_MAX, |now| {
            now.active.is_some() && now.epoch > status.epoch
        })
        .unwrap();
    assert_eq!(after.config_version, status.config_version);
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}
