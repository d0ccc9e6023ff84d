//! Plans and names of servers as those of `proto/atm/node.proto`, in both directions.

use std::net::IpAddr;

use model::ids::ConfigNumber;
use model::server::{Method, Names, NodePlan, ServerPart, VIPS_MAX};
use proto::v1;
use v1::node_part::Method as Wire;

/// Host names of a report that are looked at: a host has its whole one and the short one.
const HOST_NAMES_MAX: usize = 4;

/// Addresses of a report that are looked at: more than one host has interfaces and VIPs.
const ADDRESSES_MAX: usize = 4096;

/// ATMs of a plan that are looked at: as many as a configuration may have.
const ATMS_MAX: usize = model::conf::ATMS_MAX;

/// A message that cannot be what its sender meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// An address that is none.
    #[error("{field}: {text:?} is no IP address")]
    Address {
        /// Where it stands.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// A method of another version of atmd.
    #[error("part.method: {0} is none that this version knows")]
    Method(i32),
    /// More than there can be.
    #[error("{field}: {count} are more than the {max} there can be")]
    Many {
        /// Which list.
        field: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
}

/// By what a host may be called, for a report.
pub(crate) fn names_to(names: &Names) -> v1::NodeNames {
    v1::NodeNames {
        given: names.given.clone().unwrap_or_default(),
        host_names: names.host_names.clone(),
        addresses: names.addresses.iter().map(IpAddr::to_string).collect(),
    }
}

/// The same from a report.
pub(crate) fn names_from(names: v1::NodeNames) -> Result<Names, Malformed> {
    at_most("names.host_names", names.host_names.len(), HOST_NAMES_MAX)?;
    Ok(Names {
        given: Some(names.given).filter(|given| !given.is_empty()),
        host_names: names.host_names,
        addresses: addresses("names.addresses", &names.addresses, ADDRESSES_MAX)?,
    })
}

/// A plan, to a server.
pub(crate) fn plan_to(plan: &NodePlan) -> v1::NodePlan {
    let atm = |(name, address): &(String, IpAddr)| v1::NodeAtm {
        name: name.clone(),
        address: address.to_string(),
    };
    v1::NodePlan {
        group: plan.group.clone().into(),
        config_version: plan.version.0,
        part: plan.part.as_ref().map(part_to),
        atms: plan.atms.iter().map(atm).collect(),
    }
}

fn part_to(part: &ServerPart) -> v1::NodePart {
    let method = match part.method {
        Method::Tunnel => Wire::Tunnel,
        Method::Direct => Wire::Direct,
        Method::Nat => Wire::Nat,
    };
    let gateway = part.nat_gateway.map(|gateway| gateway.to_string());
    v1::NodePart {
        name: part.name.clone(),
        address: part.address.to_string(),
        method: method.into(),
        vips: part.vips.iter().map(IpAddr::to_string).collect(),
        nat_gateway: gateway.unwrap_or_default(),
    }
}

/// A plan, as an ATM sent it.
pub(crate) fn plan_from(plan: v1::NodePlan) -> Result<NodePlan, Malformed> {
    at_most("atms", plan.atms.len(), ATMS_MAX)?;
    let atms = plan.atms.into_iter().map(|atm| {
        let address = address("atms.address", &atm.address)?;
        Ok((atm.name, address))
    });
    Ok(NodePlan {
        group: plan.group.to_vec(),
        version: ConfigNumber(plan.config_version),
        part: plan.part.map(part_from).transpose()?,
        atms: atms.collect::<Result<_, Malformed>>()?,
    })
}

fn part_from(part: v1::NodePart) -> Result<ServerPart, Malformed> {
    let method = match Wire::try_from(part.method) {
        Ok(Wire::Tunnel) => Method::Tunnel,
        Ok(Wire::Direct) => Method::Direct,
        Ok(Wire::Nat) => Method::Nat,
        Ok(Wire::Unknown) | Err(_) => return Err(Malformed::Method(part.method)),
    };
    let gateway = Some(part.nat_gateway).filter(|gateway| !gateway.is_empty());
    let gateway = gateway.map(|text| address("part.nat_gateway", &text));
    Ok(ServerPart {
        name: part.name,
        address: address("part.address", &part.address)?,
        vips: addresses("part.vips", &part.vips, VIPS_MAX)?,
        method,
        nat_gateway: gateway.transpose()?,
    })
}

fn addresses(field: &'static str, texts: &[String], max: usize) -> Result<Vec<IpAddr>, Malformed> {
    at_most(field, texts.len(), max)?;
    texts.iter().map(|text| address(field, text)).collect()
}

fn address(field: &'static str, text: &str) -> Result<IpAddr, Malformed> {
    text.parse().map_err(|_| Malformed::Address {
        field,
        text: text.to_owned(),
    })
}

fn at_most(field: &'static str, count: usize, max: usize) -> Result<(), Malformed> {
    if count > max {
        return Err(Malformed::Many { field, count, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> NodePlan {
        NodePlan {
            group: vec![1, 2, 3],
            version: ConfigNumber(7),
            part: Some(ServerPart {
                name: "serv1".to_owned(),
                address: "2001:db8::11".parse().unwrap(),
                vips: vec![
                    "10.1.0.100".parse().unwrap(),
                    "2001:db8::100".parse().unwrap(),
                ],
                method: Method::Direct,
                nat_gateway: "192.168.7.1".parse().ok(),
            }),
            atms: vec![("atm1".to_owned(), "10.1.0.1".parse().unwrap())],
        }
    }

    #[test]
    fn a_plan_and_names_arrive_as_they_were_sent() {
        let without = NodePlan {
            part: None,
            ..plan()
        };
        for plan in [plan(), without] {
            assert_eq!(plan_from(plan_to(&plan)), Ok(plan));
        }
        for given in [None, Some("serv1".to_owned())] {
            let names = Names {
                given,
                host_names: vec!["serv1.example".to_owned(), "serv1".to_owned()],
                addresses: vec!["10.1.0.11".parse().unwrap()],
            };
            assert_eq!(names_from(names_to(&names)), Ok(names));
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let mut wrong = plan_to(&plan());
        wrong.part.as_mut().unwrap().method = 9;
        assert_eq!(plan_from(wrong), Err(Malformed::Method(9)));
        let mut wrong = plan_to(&plan());
        wrong.part.as_mut().unwrap().vips[0] = "10.1.0".to_owned();
        let error = plan_from(wrong).unwrap_err().to_string();
        assert_eq!(error, "part.vips: \"10.1.0\" is no IP address");
        let mut wrong = plan_to(&plan());
        wrong.atms = vec![wrong.atms[0].clone(); 8];
        assert!(matches!(
            plan_from(wrong),
            Err(Malformed::Many { count: 8, .. })
        ));
    }
}
