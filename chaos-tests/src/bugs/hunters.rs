//! The programs that hunt, and what they are given.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use model::planted::Bug;

use super::catch::Catch;
use crate::lab::program;
use crate::run::{self, Faults, Interrupt, Options, RunError};

/// The simulator with the feature `planted`, an example beside the programs.
const SIMULATOR: &str = "examples/hunt-planted";
/// The daemon with the feature `planted`, likewise.
const DAEMON: &str = "examples/atmd-planted";
/// The variable in which it finds the bug's name.
const VARIABLE: &str = "ATM_PLANTED";

/// Faults of one run in the lab.
const LAB_TIME: Duration = Duration::from_secs(30);
const LAB_ATMS: usize = 3;

/// A hunt that did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum HuntError {
    /// It was not built.
    #[error("{} is missing: make bugs builds it", .0.display())]
    Missing(PathBuf),
    /// It could not be run, or said nothing that can be read.
    #[error("{} failed: {what}", program.display())]
    Failed {
        /// Which.
        program: PathBuf,
        /// How.
        what: String,
    },
    /// The lab.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Where the hunters are.
#[derive(Clone, Debug)]
pub struct Hunters {
    simulator: PathBuf,
    node: PathBuf,
    daemon: PathBuf,
    reports: PathBuf,
    interrupt: Interrupt,
}

impl Hunters {
    /// Beside the running program; the simulated node library is `node`. Reports of labs go to `reports`.
    ///
    /// # Errors
    /// The running program cannot be found.
    pub fn find(node: PathBuf, reports: PathBuf, interrupt: Interrupt) -> Result<Self, HuntError> {
        let atmd = program("atmd").map_err(|error| HuntError::Failed {
            program: "atmd".into(),
            what: error.to_string(),
        })?;
        let beside = atmd.parent().unwrap_or(Path::new("."));
        Ok(Self {
            simulator: beside.join(SIMULATOR),
            daemon: beside.join(DAEMON),
            node,
            reports,
            interrupt,
        })
    }

    /// Rung 1.
    pub(super) fn simulate(&self, bug: Bug, seeds: u64) -> Result<Catch, HuntError> {
        ask(&self.simulator, &[bug.name(), &seeds.to_string()])
    }

    /// Rung 2.
    pub(super) fn simulate_node(&self, bug: Bug, seeds: u64) -> Result<Catch, HuntError> {
        ask(&self.node, &["hunt", bug.name(), &seeds.to_string()])
    }

    /// Rung 3: runs of seeds 1, 2, 3 … until one is judged to have broken a promise.
    pub(super) fn run_lab(&self, bug: Bug, runs: u64) -> Result<Catch, HuntError> {
        if !self.daemon.is_file() {
            return Err(HuntError::Missing(self.daemon.clone()));
        }
        let begun = Instant::now();
        let faults: Faults = faults_for(bug)
            .parse()
            .map_err(|error: run::UnknownFault| self.failed(&error.to_string()))?;
        let mut catch = Catch {
            bug: bug.name().to_owned(),
            rung: 3,
            found: false,
            seed: None,
            seeds: 0,
            seconds: 0.0,
            checker: None,
            what: None,
        };
        for seed in 1..=runs {
            let schedule = faults
                .schedule(seed, LAB_ATMS, run::SERVERS, LAB_TIME)
                .map_err(|error| self.failed(&error.to_string()))?;
            let environment = vec![(VARIABLE.to_owned(), bug.name().to_owned())];
            let options = Options {
                atms: LAB_ATMS,
                report: self.reports.join(format!("{bug}-{seed}")),
                daemon: Some((self.daemon.clone(), environment)),
            };
            let judgement = run::run(&options, &schedule, &self.interrupt)?;
            if self.interrupt.is_wanted() {
                return Err(HuntError::Interrupted);
            }
            catch.seeds += 1;
            catch.seconds = begun.elapsed().as_secs_f64();
            if let Some(checker) = judgement.verdicts.violated().next() {
                let verdict = judgement.verdicts.of(checker);
                catch.found = true;
                catch.seed = Some(seed);
                catch.checker = Some(checker.name().to_owned());
                catch.what = verdict.map(|verdict| verdict.summary.clone());
                break;
            }
        }
        Ok(catch)
    }

    fn failed(&self, what: &str) -> HuntError {
        HuntError::Failed {
            program: self.daemon.clone(),
            what: what.to_owned(),
        }
    }
}

/// What a bug needs in order to show itself; a fault that has nothing to do with it only takes time.
const fn faults_for(bug: Bug) -> &'static str {
    match bug {
        Bug::LogNotSynced => "power",
        Bug::LeaseOff | Bug::NoWaitOut | Bug::LateStamp | Bug::StaleRead => "network,process",
        Bug::ClaimBeforeApply
        | Bug::ConnectionNotReplicated
        | Bug::ExpiryByLocalClock
        | Bug::SnapshotMissingAnEntry
        | Bug::StaleFramesAfterPause => "process",
    }
}

/// Runs a hunter. Its last line is the catch; it ends with 0 (found) or 1 (not found).
fn ask(program: &Path, args: &[&str]) -> Result<Catch, HuntError> {
    if !program.is_file() {
        return Err(HuntError::Missing(program.to_owned()));
    }
    let failed = |what: String| HuntError::Failed {
        program: program.to_owned(),
        what,
    };
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .map_err(|error| failed(format!("{}: {error}: {line}", output.status)))
}
