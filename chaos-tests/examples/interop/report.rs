//! The result, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cases::Case;
use crate::compare::{Agreement, Verdict};

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Of the kernel that is not ours, as `uname -r` says it.
    pub(crate) kernel: String,
    pub(crate) rows: Vec<Row>,
    /// Ways that our core says it lacks.
    pub(crate) lacking: Vec<&'static str>,
    /// Real servers behind a real daemon.
    pub(crate) servers: Vec<Served>,
    pub(crate) passed: bool,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) way: &'static str,
    pub(crate) case: &'static str,
    pub(crate) step: &'static str,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// An answer of a real server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) way: String,
    /// The device of its kernel that opens the tunnel.
    pub(crate) device: String,
    /// Packets that came out of it.
    pub(crate) opened: u64,
    /// What the client got, or why nothing.
    pub(crate) said: String,
    pub(crate) passed: bool,
}

impl Report {
    /// Puts verdicts to their steps. Nothing compared, or nothing served, is no pass.
    pub(crate) fn new(
        kernel: String,
        cases: &[Case],
        verdicts: Vec<Verdict>,
        lacking: Vec<&'static str>,
        servers: Vec<Served>,
    ) -> Self {
        let steps = cases
            .iter()
            .flat_map(|case| case.steps.iter().map(move |step| (case, step)));
        let rows: Vec<Row> = steps
            .zip(verdicts)
            .map(|((case, step), verdict)| Row {
                way: case.way.name,
                case: case.name,
                step: step.name,
                verdict,
            })
            .collect();
        let agree = rows
            .iter()
            .all(|row| row.verdict.agreement < Agreement::Different);
        let served = servers.iter().all(|served| served.passed);
        Self {
            kernel,
            passed: agree && served && !rows.is_empty() && !servers.is_empty(),
            rows,
            lacking,
            servers,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "Linux {}: IPVS beside us, frame by frame\n",
            self.kernel
        )?;
        let title = ["WAY", "CASE", "STEP", "IPVS", "OURS", "RESULT"];
        line(out, title)?;
        // Each rule is written once, under a number.
        let mut rules: BTreeMap<&'static str, usize> = BTreeMap::new();
        for row in &self.rows {
            let mut result = match row.verdict.agreement {
                Agreement::Same => "same".to_owned(),
                Agreement::Allowed => "same but".to_owned(),
                Agreement::Different => "DIFFERENT".to_owned(),
            };
            for finding in &row.verdict.findings {
                result += &format!(" {}", finding.field);
                if finding.agreement == Agreement::Allowed {
                    let next = rules.len() + 1;
                    let number = rules.entry(finding.why).or_insert(next);
                    result += &format!(" [{number}]");
                } else {
                    result += &format!(" ({} / {})", finding.ipvs, finding.ours);
                }
            }
            let (ipvs, ours) = (&row.verdict.ipvs, &row.verdict.ours);
            line(out, [row.way, row.case, row.step, ipvs, ours, &result])?;
        }
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|(_, number)| *number);
        for (why, number) in rules {
            writeln!(out, "\n[{number}] {why}")?;
        }
        for way in &self.lacking {
            writeln!(out, "\nleft out: {way}: our core says unsupported-method")?;
        }
        writeln!(out, "\nReal servers behind atmd\n")?;
        for served in &self.servers {
            let result = if served.passed { "ok" } else { "FAILED" };
            let (way, device, opened, said) =
                (&served.way, &served.device, served.opened, &served.said);
            writeln!(
                out,
                "{way:<12}  {device:<8}  {opened:>6} packets  {result:<6}  {said}"
            )?;
        }
        let count = |wanted| {
            let found = self
                .rows
                .iter()
                .filter(|row| row.verdict.agreement == wanted);
            found.count()
        };
        writeln!(
            out,
            "\n{} the same, {} the same but for what a rule allows, {} different; {} of {} servers answered: {}",
            count(Agreement::Same),
            count(Agreement::Allowed),
            count(Agreement::Different),
            self.servers.iter().filter(|served| served.passed).count(),
            self.servers.len(),
            if self.passed { "passed" } else { "FAILED" },
        )
    }
}

fn line(out: &mut fmt::Formatter<'_>, cells: [&str; 6]) -> fmt::Result {
    let [way, case, step, ipvs, ours, result] = cells;
    writeln!(
        out,
        "{way:<12}  {case:<18}  {step:<32}  {ipvs:<40}  {ours:<40}  {result}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::cases;
    use crate::compare::Finding;
    use crate::world::WAYS;

    fn verdict(agreement: Agreement) -> Verdict {
        let finding = Finding {
            field: "ttl",
            ipvs: "60".to_owned(),
            ours: "61".to_owned(),
            agreement,
            why: "the reason",
        };
        Verdict {
            agreement,
            ipvs: "tcp".to_owned(),
            ours: "tcp".to_owned(),
            findings: vec![finding],
        }
    }

    fn served(passed: bool) -> Served {
        Served {
            way: "tunnel 4in4".to_owned(),
            device: "tunl0".to_owned(),
            opened: 9,
            said: "200 OK".to_owned(),
            passed,
        }
    }

    #[test]
    fn it_passes_only_if_everything_that_must_agree_agrees_and_every_server_answers() {
        let cases = cases(&[&WAYS[0]]);
        let report = |agreement, served: &[Served]| {
            let verdicts = vec![verdict(agreement), verdict(Agreement::Same)];
            Report::new(
                "6.1".to_owned(),
                &cases,
                verdicts,
                vec!["nat v4"],
                served.to_vec(),
            )
        };
        assert!(report(Agreement::Allowed, &[served(true)]).passed);
        assert!(!report(Agreement::Different, &[served(true)]).passed);
        assert!(!report(Agreement::Same, &[served(true), served(false)]).passed);
        assert!(!report(Agreement::Same, &[]).passed);
        let text = report(Agreement::Allowed, &[served(true)]).to_string();
        for part in [
            "same but ttl [1]",
            "[1] the reason",
            "left out: nat v4",
            "passed",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
