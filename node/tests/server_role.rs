//! The server role on real hosts: network namespaces, the kernel's TCP, kills.
//!
//! Each test builds its own hosts and prints `skipped:` with the reason where that is impossible.

#![expect(
    clippy::unwrap_used,
    reason = "a test tells its failure by a panic, in its helpers, too"
)]

#[path = "server_role/encapsulator.rs"]
mod encapsulator;
#[path = "server_role/kills.rs"]
mod kills;
#[path = "server_role/lab.rs"]
mod lab;
#[path = "server_role/nat.rs"]
mod nat;
#[path = "server_role/silence.rs"]
mod silence;
#[path = "server_role/tunnel.rs"]
mod tunnel;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use node::server_role::{Method, Plan, ServerRole, ServerRoleError, Unpacking, clean_up, start};

use lab::{CLIENT, Lab, SERVER, SERVER6, STANDING_VIP, STANDING_VIP6, VIP, VIP2, VIP6};

fn plan(lab: &Lab) -> Plan {
    plan_in(lab.state.path().join("state"))
}

fn plan_in(state_dir: PathBuf) -> Plan {
    Plan {
        interface: "eth0".to_owned(),
        address: SERVER,
        vips: vec![VIP, STANDING_VIP, VIP6, STANDING_VIP6],
        method: Method::Tunnel,
        atms: vec![CLIENT],
        nat_gateway: None,
        state_dir,
    }
}

/// Starts the role, or prints why this machine has no tunnel.
async fn start_or_skip(plan: Plan) -> Option<ServerRole> {
    match start(plan).await {
        Ok(role) => Some(role),
        Err(ServerRoleError::NoTun { source }) => {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: no tunnel devices in this kernel and no TUN ({source})"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn start_sets_everything_up_and_stop_puts_the_host_back() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    lab.run("server", async || {
        let Some(mut role) = start_or_skip(plan(&lab)).await else {
            return;
        };
        let addresses = lab.show("ip", &["-o", "addr", "show", "dev", "lo"]);
        assert!(
            addresses.contains(&format!("{VIP}/32")) && addresses.contains(&format!("{VIP6}/128")),
            "{addresses}"
        );
        for interface in ["all", "eth0"] {
            assert_eq!(lab.setting(interface, "arp_ignore"), "1", "{interface}");
            assert_eq!(lab.setting(interface, "arp_announce"), "2", "{interface}");
        }
        // The larger of `all` and the device rules: off for the tunnel, as strict as before elsewhere.
        for (interface, value) in [
            ("all", "0"),
            ("atmtun0", "0"),
            ("eth0", "2"),
            ("lo", "1"),
            ("default", "1"),
        ] {
            assert_eq!(lab.setting(interface, "rp_filter"), value, "{interface}");
        }
        let link = lab.show("ip", &["link", "show", "atmtun0"]);
        assert!(link.contains("mtu 1480") && link.contains("UP"), "{link}");
        let table = lab.show("nft", &["list", "table", "inet", "atm_server"]);
        assert!(
            table.contains("set 1440") && table.contains(&VIP.to_string()),
            "{table}"
        );
        assert!(
            table.contains("set 1420") && table.contains(&VIP6.to_string()),
            "{table}"
        );

        role.update(vec![VIP2, STANDING_VIP, STANDING_VIP6], vec![CLIENT])
            .await
            .unwrap();
        let addresses = lab.show("ip", &["-o", "addr", "show", "dev", "lo"]);
        assert!(
            addresses.contains(&format!("{VIP2}/32")) && !addresses.contains(&format!("{VIP}/32")),
            "{addresses}"
        );
        assert!(
            !addresses.contains(&VIP6.to_string())
                && addresses.contains(&STANDING_VIP6.to_string()),
            "{addresses}"
        );
        let table = lab.show("nft", &["list", "table", "inet", "atm_server"]);
        assert!(
            table.contains(&VIP2.to_string()) && !table.contains(&VIP.to_string()),
            "{table}"
        );

        let busy = clean_up(&plan(&lab).state_dir).await.unwrap_err();
        assert!(matches!(busy, ServerRoleError::Busy(_)), "{busy}");
        role.stop().await.unwrap();
        assert_eq!(
            clean_up(&plan(&lab).state_dir).await.unwrap(),
            Vec::<String>::new()
        );
    });
    lab.assert_is(&before, "at the end");
    let left: Vec<_> = std::fs::read_dir(lab.state.path().join("state"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["server-role.lock"], "no journal stays behind");
}

#[test]
fn a_direct_server_has_its_vips_and_its_silence_and_nothing_else() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    lab.run("server", async || {
        let role = start(Plan {
            method: Method::Direct,
            ..plan(&lab)
        })
        .await
        .unwrap();
        assert_eq!(role.unpacking(), Unpacking::None);
        let addresses = lab.show("ip", &["-o", "addr", "show", "dev", "lo"]);
        assert!(
            addresses.contains(&format!("{VIP}/32")) && addresses.contains(&format!("{VIP6}/128")),
            "{addresses}"
        );
        assert_eq!(lab.setting("all", "arp_ignore"), "1");
        assert_eq!(lab.setting("all", "rp_filter"), "1");
        assert!(!lab.show("ip", &["link"]).contains("atmtun0"));
        assert!(!lab.show("nft", &["list", "tables"]).contains("atm_server"));
        role.stop().await.unwrap();
    });
    lab.assert_is(&before, "at the end");
}

#[test]
fn what_start_refuses_it_leaves_untouched() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let refusal = |plan: Plan| lab.run("server", async || start(plan).await.unwrap_err());
    let cases = [
        (
            Plan {
                interface: "eth7".to_owned(),
                ..plan(&lab)
            },
            "no interface named eth7",
            78,
        ),
        (
            Plan {
                vips: vec![VIP, SERVER],
                ..plan(&lab)
            },
            "10.77.0.11 is an address of this host's interface eth0",
            78,
        ),
        (
            Plan {
                vips: vec![VIP6, SERVER6],
                ..plan(&lab)
            },
            "2001:db8:77::11 is an address of this host's interface eth0",
            78,
        ),
        (
            Plan {
                vips: vec!["fe80::100".parse().unwrap()],
                ..plan(&lab)
            },
            "fe80::100 cannot be a VIP",
            78,
        ),
        (
            Plan {
                vips: vec![IpAddr::V4(Ipv4Addr::BROADCAST)],
                ..plan(&lab)
            },
            "255.255.255.255 cannot be a VIP",
            78,
        ),
        (
            Plan {
                vips: vec![VIP; 1025],
                ..plan(&lab)
            },
            "1025 VIPs",
            78,
        ),
    ];
    for (plan, words, code) in cases {
        let error = refusal(plan);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
        lab.assert_is(&before, words);
    }
    lab.show("nft", &["add", "table", "inet", "atm_server"]);
    let error = refusal(plan(&lab));
    assert!(
        error
            .to_string()
            .contains("nft delete table inet atm_server"),
        "{error}"
    );
    lab.show("nft", &["delete", "table", "inet", "atm_server"]);
    lab.assert_is(&before, "with a table in the way");
    // So small that the kernel takes IPv6 off the interface, and then too small for any tunnel.
    lab.show("ip", &["link", "set", "eth0", "mtu", "1279"]);
    let before = lab.snapshot();
    let error = refusal(plan(&lab));
    assert!(
        error
            .to_string()
            .contains("the VIP 2001:db8:77::100 is IPv6, which this host has not on eth0"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 78, "{error}");
    lab.assert_is(&before, "without IPv6");
    lab.show("ip", &["link", "set", "eth0", "mtu", "100"]);
    let before = lab.snapshot();
    let error = refusal(Plan {
        vips: vec![VIP],
        ..plan(&lab)
    });
    assert!(error.to_string().contains("the MTU 100 of eth0"), "{error}");
    lab.assert_is(&before, "with a small MTU");
}

#[test]
fn without_the_capability_the_refusal_names_it() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let error = lab.run("server", async || {
        // Capabilities belong to the thread, and this one ends with the call.
        let mut held = rustix::thread::capabilities(None).unwrap();
        held.effective
            .remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, held).unwrap();
        start(plan(&lab)).await.unwrap_err()
    });
    assert!(
        matches!(error, ServerRoleError::NoPermission("CAP_NET_ADMIN")),
        "{error}"
    );
    assert_eq!(error.exit_code(), 77);
    lab.assert_is(&before, "at the end");
}

#[test]
fn a_damaged_journal_stops_the_start_and_names_the_file() {
    let Some(lab) = Lab::build() else { return };
    let before = lab.snapshot();
    let directory = plan(&lab).state_dir;
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("server-role.json"), "{\"version\":1,").unwrap();
    lab.run("server", async || {
        for error in [
            start(plan(&lab)).await.unwrap_err(),
            clean_up(&directory).await.unwrap_err(),
        ] {
            assert!(
                error.to_string().contains("server-role.json is damaged"),
                "{error}"
            );
            assert!(error.to_string().contains("delete the file"), "{error}");
            assert_eq!(error.exit_code(), 78);
        }
    });
    lab.assert_is(&before, "at the end");
}
