//! What a server reported last, as status shows it, and what an operator is told of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::Instant;
use model::ids::{ConfigNumber, ServerId};
use model::server::Remnant;
use model::state::Current;
use proto::v1;

use crate::clock;

/// Four reports were missed: the server has fallen silent.
const STALE_AFTER: Duration = Duration::from_secs(20);

/// A server has this long to put a version into force before anybody is told that it has not.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);

/// What is kept of the reason of a failure, in characters, and of its counters.
const ERROR_MAX: usize = 500;
const COUNTERS_MAX: usize = 32;

/// The version in force on this ATM, since when, and what connections of earlier ones still need.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) version: ConfigNumber,
    pub(super) since: Instant,
    /// The version itself: what is told of it is of one moment with the remnants.
    pub(super) current: Option<Current>,
    /// The servers that it reaches by tunnel.
    pub(super) by_tunnel: Arc<BTreeMap<ServerId, IpAddr>>,
    pub(super) remnants: Arc<BTreeMap<IpAddr, Remnant>>,
}

/// The last report of a server.
#[derive(Clone, Debug)]
pub(super) struct Told {
    at: Instant,
    report: v1::NodeReport,
}

impl Told {
    /// A report that has just come.
    pub(super) fn now(report: v1::NodeReport) -> Self {
        Self {
            at: clock::now(),
            report: bounded(report),
        }
    }

    /// Whether the server ends in order: then it is one without a daemon.
    pub(super) fn is_leaving(&self) -> bool {
        self.report.leaving
    }

    /// Whether it serves nobody by tunnel while its daemon is away, however that ends: its kernel does not unpack.
    pub(super) fn needs_daemon(&self) -> bool {
        self.report.unpacks
    }
}

/// A report without what nobody would read.
fn bounded(mut report: v1::NodeReport) -> v1::NodeReport {
    if let Some((end, _)) = report.error.char_indices().nth(ERROR_MAX) {
        report.error.truncate(end);
    }
    report.counters.truncate(COUNTERS_MAX);
    report.load_1m = report.load_1m.filter(|load| load.is_finite());
    report
}

/// For status.
pub(super) fn seen(told: &Told, now: Instant) -> v1::ServerReport {
    let (age, report) = (now.saturating_since(told.at), &told.report);
    let counters = report.counters.iter().map(|counter| v1::Counter {
        name: counter.name.clone(),
        value: counter.value,
    });
    v1::ServerReport {
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        stale: age > STALE_AFTER,
        from_file: report.config_version == 0,
        config_version: report.config_version,
        error: report.error.clone(),
        load_1m: report.load_1m,
        connections: report.connections,
        counters: counters.collect(),
    }
}

/// What an operator should know of a server. One that has fallen silent may have been ended on purpose.
pub(super) fn notice(
    name: &str,
    told: &Told,
    group: &[u8],
    in_force: &InForce,
    now: Instant,
) -> Option<String> {
    let (report, wanted) = (&told.report, in_force.version.0);
    if now.saturating_since(told.at) > STALE_AFTER {
        return None;
    }
    if !report.error.is_empty() {
        return Some(format!(
            "server {name} has not put version {wanted} into force: {}",
            report.error
        ));
    }
    if now.saturating_since(in_force.since) <= IN_FORCE_WITHIN {
        return None;
    }
    if report.config_version == 0 {
        return Some(format!(
            "server {name} does what its own file says; version {wanted} is in force"
        ));
    }
    if report.group != group {
        return Some(format!(
            "server {name} follows ATMs of another group (version {} there): stop those ATMs",
            report.config_version
        ));
    }
    (report.config_version != wanted).then(|| {
        format!(
            "server {name} does what version {} says; version {wanted} is in force",
            report.config_version
        )
    })
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;

    const GROUP: &[u8] = b"ours";

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn told(version: u64, error: &str) -> Told {
        Told {
            at: at(100),
            report: v1::NodeReport {
                group: GROUP.into(),
                config_version: version,
                error: error.into(),
                load_1m: Some(0.5),
                connections: Some(3),
                ..Default::default()
            },
        }
    }

    #[test]
    fn an_operator_is_told_of_what_lasts() {
        let strange = Told {
            report: v1::NodeReport {
                group: Bytes::from_static(b"theirs"),
                ..told(9, "").report
            },
            ..told(9, "")
        };
        for (told, since, now, expected) in [
            (told(5, ""), 90, 101, None),
            // Older, and for how long the newer one has been in force.
            (told(4, ""), 91, 101, None),
            (told(4, ""), 90, 101, Some("version 4 says; version 5")),
            (told(0, ""), 90, 101, Some("its own file")),
            (
                told(4, "no room"),
                100,
                101,
                Some("not put version 5 into force: no room"),
            ),
            (strange, 90, 101, Some("another group (version 9 there)")),
            // Fallen silent: an older version is no wonder.
            (told(4, "no room"), 90, 121, None),
        ] {
            let in_force = InForce {
                version: ConfigNumber(5),
                since: at(since),
                current: None,
                by_tunnel: Arc::default(),
                remnants: Arc::default(),
            };
            let said = notice("serv1", &told, GROUP, &in_force, at(now));
            match (said, expected) {
                (None, None) => {}
                (Some(said), Some(words)) => assert!(
                    said.starts_with("server serv1 ") && said.contains(words),
                    "{said}"
                ),
                (said, expected) => panic!("{said:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_report_is_stale_when_four_were_missed() {
        let seen_at = |seconds| seen(&told(5, ""), at(seconds));
        assert_eq!((seen_at(102).age_ms, seen_at(102).stale), (2000, false));
        assert!(!seen_at(120).stale);
        assert!(seen_at(121).stale);
        assert_eq!(seen_at(102).connections, Some(3));
    }

    #[test]
    fn reports_are_cut_to_what_is_kept() {
        let report = v1::NodeReport {
            error: "ü".repeat(ERROR_MAX + 1),
            load_1m: Some(f64::NAN),
            counters: vec![v1::NodeCounter::default(); COUNTERS_MAX + 1],
            ..Default::default()
        };
        let kept = bounded(report);
        assert_eq!(kept.error, "ü".repeat(ERROR_MAX));
        assert_eq!(kept.counters.len(), COUNTERS_MAX);
        assert_eq!(kept.load_1m, None);
    }
}
