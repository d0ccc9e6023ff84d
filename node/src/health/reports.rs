//! Reports on their way from one ATM to another.

use std::time::Duration;

use model::health::judge::Report;
use model::ids::{ConfigNumber, NodeId, ServerId};
use prost::bytes::Bytes;
use proto::v1;

use super::scripts::Word;

/// A report as it arrived.
pub(crate) struct Arrived {
    /// Whose it is.
    pub(crate) from: NodeId,
    /// Of which the numbers of servers are.
    pub(crate) version: ConfigNumber,
    /// What its checks say.
    pub(crate) reports: Vec<Report>,
    /// What it says of scripts.
    pub(crate) scripts: Vec<Word>,
}

/// What is sent to `target`.
pub(super) fn to_wire(
    (group, target, from): (Bytes, u64, u64),
    version: ConfigNumber,
    reports: Vec<Report>,
    scripts: Vec<Word>,
) -> v1::HealthReport {
    let observations = reports.into_iter().map(|report| {
        let (server, service) = report.subject;
        v1::HealthObservation {
            server: server.0.into(),
            service,
            up: report.up,
            age_ms: u64::try_from(report.age.as_millis()).unwrap_or(u64::MAX),
            reason: report.reason,
        }
    });
    let scripts = scripts.into_iter().map(|word| v1::ScriptWord {
        run: word.run,
        ended: word.ended,
    });
    v1::HealthReport {
        group,
        target,
        from,
        config_version: version.0,
        observations: observations.collect(),
        scripts: scripts.collect(),
    }
}

/// What has arrived. Numbers that no server can have are left out: nobody would ask for them.
pub(crate) fn from_wire(report: v1::HealthReport) -> Arrived {
    let observations = report.observations.into_iter();
    let reports = observations.filter_map(|observation| {
        let server = ServerId(u16::try_from(observation.server).ok()?);
        Some(Report {
            subject: (server, observation.service),
            up: observation.up,
            age: Duration::from_millis(observation.age_ms),
            reason: observation.reason,
        })
    });
    let scripts = report.scripts.into_iter().map(|word| Word {
        run: word.run,
        ended: word.ended,
    });
    Arrived {
        from: NodeId(report.from),
        version: ConfigNumber(report.config_version),
        reports: reports.collect(),
        scripts: scripts.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        let report = Report {
            subject: (ServerId(7), "web".to_owned()),
            up: false,
            age: Duration::from_millis(1_500),
            reason: "refused".to_owned(),
        };
        let word = Word {
            run: 3,
            ended: Some("exit status 0".to_owned()),
        };
        let mut wire = to_wire(
            (Bytes::new(), 1, 2),
            ConfigNumber(9),
            vec![report.clone()],
            vec![word.clone()],
        );
        wire.observations.push(v1::HealthObservation {
            server: 70_000,
            ..Default::default()
        });
        let arrived = from_wire(wire);
        assert_eq!(
            (arrived.from, arrived.version),
            (NodeId(2), ConfigNumber(9))
        );
        assert_eq!(
            (arrived.reports, arrived.scripts),
            (vec![report], vec![word])
        );
    }
}
