//! What a server that is reached by `nat` needs is not ours to change: a look, and a warning.

use std::net::IpAddr;

use tracing::{info, warn};

use super::netlink::Netlink;

/// Warns where this host's answers would not go back through `gateway`. Routes belong to the host's owner.
pub(super) async fn advise(netlink: &Netlink, gateway: IpAddr) {
    match netlink.default_gateways(gateway.is_ipv6()).await {
        Ok(found) => match warning(&found, gateway) {
            Some(warning) => warn!("{warning}"),
            None => info!(%gateway, "the default route is the Gateway of nat"),
        },
        Err(error) => {
            warn!(%error, %gateway, "cannot see whether the default route is the Gateway of nat");
        }
    }
}

/// One sentence with the way out, unless every router of the default route is `gateway`.
fn warning(found: &[IpAddr], gateway: IpAddr) -> Option<String> {
    if !found.is_empty() && found.iter().all(|router| *router == gateway) {
        return None;
    }
    let others: Vec<String> = found.iter().map(IpAddr::to_string).collect();
    let is = if others.is_empty() {
        "has no router in its default route".to_owned()
    } else {
        format!("has the default route via {}", others.join(", "))
    };
    let ip = if gateway.is_ipv6() { "ip -6" } else { "ip" };
    Some(format!(
        "services reach this server by nat, and this host {is}: answers that do not go back through the Gateway \
         {gateway} never reach the client (`{ip} route replace default via {gateway}`)"
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 7, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 7, 254));

    #[test]
    fn only_a_default_route_through_the_gateway_alone_is_good() {
        assert_eq!(warning(&[GATEWAY], GATEWAY), None);
        assert_eq!(warning(&[GATEWAY, GATEWAY], GATEWAY), None);
        for (found, words) in [
            (&[OTHER][..], "has the default route via 192.168.7.254"),
            (
                &[GATEWAY, OTHER],
                "has the default route via 192.168.7.1, 192.168.7.254",
            ),
            (&[], "has no router in its default route"),
        ] {
            let said = warning(found, GATEWAY).unwrap();
            assert!(said.contains(words), "{said}");
            assert!(
                said.contains("ip route replace default via 192.168.7.1"),
                "{said}"
            );
        }
        let gateway6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(warning(&[gateway6], gateway6), None);
        let said = warning(&[], gateway6).unwrap();
        assert!(
            said.contains("ip -6 route replace default via fd00::1"),
            "{said}"
        );
    }
}
