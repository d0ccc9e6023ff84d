//! A server that is reached by `nat`: nothing of the host changes, and a wrong default route is told.

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use node::server_role::{Method, Plan, Unpacking, start};

use super::lab::{CLIENT, CLIENT6, Lab, VIP};
use super::plan;

/// Where a test's log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What starting and stopping such a role says, while the host must stay as it is.
fn said(lab: &Lab, gateway: IpAddr) -> String {
    let before = lab.snapshot();
    let log = Log::default();
    let writer = log.clone();
    lab.run("server", async || {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut role = start(Plan {
            method: Method::Nat,
            vips: vec![],
            nat_gateway: Some(gateway),
            ..plan(lab)
        })
        .await
        .unwrap();
        assert_eq!(role.unpacking(), Unpacking::None);
        lab.assert_is(&before, "in the role");
        role.update(vec![VIP], vec![]).await.unwrap();
        lab.assert_is(&before, "with a VIP that is not for this host");
        role.stop().await.unwrap();
    });
    lab.assert_is(&before, "at the end");
    let text = log.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_nat_server_keeps_its_host_as_it_is_and_warns_of_another_default_route() {
    let Some(lab) = Lab::build() else { return };
    let none = said(&lab, CLIENT);
    assert!(
        none.contains("WARN") && none.contains("has no router in its default route"),
        "{none}"
    );
    lab.show("ip", &["route", "add", "default", "via", "10.77.0.99"]);
    let other = said(&lab, CLIENT);
    assert!(
        other.contains("has the default route via 10.77.0.99")
            && other.contains("ip route replace default via 10.77.0.50"),
        "{other}"
    );
    // Of two default routes that of the lower metric counts.
    lab.show("ip", &["route", "del", "default"]);
    lab.show(
        "ip",
        &[
            "route",
            "add",
            "default",
            "via",
            "10.77.0.99",
            "metric",
            "9",
        ],
    );
    lab.show(
        "ip",
        &[
            "route",
            "add",
            "default",
            "via",
            "10.77.0.50",
            "metric",
            "5",
        ],
    );
    let good = said(&lab, CLIENT);
    assert!(!good.contains("WARN"), "{good}");
    assert!(good.contains("the default route is the Gateway"), "{good}");

    // The default route of IPv6 is another.
    let none = said(&lab, CLIENT6);
    assert!(
        none.contains("has no router in its default route")
            && none.contains("ip -6 route replace default via 2001:db8:77::50"),
        "{none}"
    );
    lab.show(
        "ip",
        &["-6", "route", "add", "default", "via", "2001:db8:77::50"],
    );
    let good = said(&lab, CLIENT6);
    assert!(!good.contains("WARN"), "{good}");
    assert!(good.contains("the default route is the Gateway"), "{good}");
}
