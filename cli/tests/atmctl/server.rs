//! `server setup --print`: every command, word for word, and what is refused.

use std::process::{Command, Stdio};

use crate::config::Files;
use crate::run::{Outcome, atmctl};

const CONF: &str = "\
NAT
  Gateway 192.168.7.1
EndNAT
Services
  Service http tcp:80 connect
  Service smtp tcp:25 connect
EndServices
Servers
  Server web1 10.1.0.11 tunnel
  Server web2 Web2.my.org direct
  Server mail3 192.168.7.13 nat
EndServers
ServerPool Web
  AddServer web1 http/1
EndServerPool
ServerPool Local
  AddServer web2 http/1
EndServerPool
ServerPool Mail
  AddServer mail3 smtp/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
  AddAtm 10.1.0.2
EndAtmPool
VirtualHost web
  Address 10.1.0.100
  Address 2001:db8::100
  AddAtmPool ATMs
  AddServerPool Web
EndVirtualHost
VirtualHost local
  Address 10.1.0.150
  AddAtmPool ATMs
  AddServerPool Local
EndVirtualHost
VirtualHost mail
  Address 10.1.0.200
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

const HOSTS: &str = "10.1.0.12 web2.my.org\n";

fn setup(further: &[&str]) -> Outcome {
    let files = Files::new();
    let conf = files.write("clusterserver.conf", CONF);
    let hosts = files.write("hosts", HOSTS);
    let own = [
        "server", "setup", "--print", "--conf", &conf, "--hosts", &hosts,
    ];
    atmctl(&[&own, further].concat())
}

/// Whether a shell can read it.
fn check_syntax(script: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-n", "-c", script]).stdin(Stdio::null());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
}

#[test]
fn the_commands_for_a_tunnel() {
    let printed = setup(&["--name", "web1", "--interface", "eth1"])
        .done()
        .stdout;
    check_syntax(&printed);
    assert_eq!(printed, include_str!("server/tunnel.sh"));
    let undo = setup(&["--name", "10.1.0.11", "--interface", "eth1", "--undo"]);
    let undo = undo.done().stdout;
    check_syntax(&undo);
    assert_eq!(undo, include_str!("server/tunnel-undo.sh"));
}

#[test]
fn the_commands_for_direct() {
    let printed = setup(&["--name", "web2"]).done().stdout;
    check_syntax(&printed);
    assert_eq!(printed, include_str!("server/direct.sh"));
    let undo = setup(&["--name", "web2", "--undo"]).done().stdout;
    check_syntax(&undo);
    assert_eq!(undo, include_str!("server/direct-undo.sh"));
}

#[test]
fn nat_needs_no_commands() {
    let printed = setup(&["--name", "mail3"]).done().stdout;
    assert_eq!(
        printed,
        "\
# This host becomes the server mail3 (192.168.7.13), method nat, on eth0.
#
# It is reached by nat alone, and nothing on it has to be changed.
# Answers of services that are reached by nat have to go through the Gateway; routes are yours to set:
#   ip route replace default via 192.168.7.1
"
    );
}

#[test]
fn the_json_has_the_same_commands() {
    let json = setup(&["--name", "web2", "--output", "json"]).done().json();
    assert_eq!(json["server"], "web2");
    assert_eq!(json["commands"], include_str!("server/direct.sh"));
}

#[test]
fn a_smaller_network_has_smaller_segments() {
    let printed = setup(&["--name", "web1", "--mtu", "1400"]).done().stdout;
    assert!(printed.contains("maxseg size set 1340"), "{printed}");
    assert!(
        printed.contains("ip link set atmtun0 mtu 1380"),
        "{printed}"
    );
    let outcome = setup(&["--name", "web1", "--mtu", "1279"]).failed(2);
    assert!(
        outcome.stderr.contains("1280 or more is needed"),
        "{outcome:?}"
    );
}

#[test]
fn what_cannot_be_printed_is_refused_with_the_way_out() {
    let outcome = setup(&["--name", "web9"]).failed(2);
    assert!(
        outcome
            .stderr
            .contains("--name says which one is meant: web1, web2, mail3"),
        "{outcome:?}"
    );
    let outcome = setup(&["--name", "web1", "--interface", "eth0; reboot"]).failed(2);
    assert!(
        outcome.stderr.contains("is not the name of an interface"),
        "{outcome:?}"
    );
    // It says what it does.
    let files = Files::new();
    let conf = files.write("clusterserver.conf", CONF);
    atmctl(&["server", "setup", "--conf", &conf, "--name", "web1"]).failed(2);
    // A name without an address.
    let outcome = atmctl(&[
        "server", "setup", "--print", "--conf", &conf, "--name", "web1",
    ]);
    assert!(outcome.failed(1).stderr.contains("web2.my.org"));
    // An ATM has atmd in any case.
    let both = CONF.replace("AddAtm 10.1.0.2\n", "AddAtm 10.1.0.11\n");
    let conf = files.write("both.conf", &both);
    let hosts = files.write("hosts", HOSTS);
    let outcome = atmctl(&[
        "server", "setup", "--print", "--conf", &conf, "--hosts", &hosts, "--name", "web1",
    ]);
    assert!(outcome.failed(2).stderr.contains("is ATM 10.1.0.11, too"));
}
