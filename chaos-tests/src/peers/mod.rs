//! Takeover of this product beside keepalived, conntrackd and ucarp: the same lab, the same faults, the same client.
//!
//! Trials are interleaved, results are written as they come, and what is printed says what was measured for whom.

mod campaign;
mod chart;
mod contender;
mod document;
mod ear;
mod echo;
mod error;
mod outage;
mod pair;
mod results;
mod rig;
mod seeded;
mod setup;
mod strike;
mod summary;
mod talk;
mod trial;
mod two_voices;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use contender::{Contender, Kind};
pub use document::Report;
pub use error::PeersError;
pub use results::{Campaign, Entry, Failure, Results};
pub use rig::Takeover;
pub use strike::Strike;
pub use summary::{Cell, Spread, Survival, Target, cells, targets};
pub use talk::{Share, Shares};
pub use trial::Trial;

use crate::lines::realtime_ns;
use campaign::{Ending, Wanted};

/// Results in the directory of a campaign.
pub const TRIALS_FILE: &str = "trials.jsonl";

/// The summary of a campaign, beside its results.
pub const REPORT_FILE: &str = "failover.json";

/// The chart, in the directory of the campaign and in docs.
pub const CHART_FILE: &str = "failover.svg";

/// The page in docs.
pub const PAGE_FILE: &str = "FAILOVER.md";

/// Trials of one contender under one fault at most: a campaign of all of them would take two weeks.
const TRIALS_MAX: u64 = 1000;

/// What shall be measured, and where the results go.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// Trials of each contender under each fault, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=TRIALS_MAX))]
    pub trials: u64,
    /// Only these routers, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub contenders: Vec<Contender>,
    /// Only these faults, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub faults: Vec<Strike>,
    /// Where everything random comes from [default: the one of the results that are there, else the time]
    #[arg(long)]
    pub seed: Option<u64>,
    /// No trial begins later than this after the start: 30m, 2h, 90s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub time_limit: Option<Duration>,
    /// Directory of the results; trials that are there already are not repeated
    #[arg(long, value_name = "DIR", default_value = "target/bench-failover")]
    pub dir: PathBuf,
    /// Forget the results that are there
    #[arg(long)]
    pub fresh: bool,
    /// Measure nothing, only tell what is there
    #[arg(long, conflicts_with = "fresh")]
    pub report_only: bool,
    /// Write FAILOVER.md and failover.svg into this directory
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = "docs")]
    pub write_docs: Option<PathBuf>,
}

/// Measures what is missing, prints the table, writes the files. Exit code 0 if every wanted trial was measured or time was up, 1
/// if some could not be measured. Goals that were missed are printed and change nothing.
///
/// # Errors
/// Files that cannot be read or written.
pub fn run(args: &BenchArgs) -> Result<ExitCode, PeersError> {
    let path = args.dir.join(TRIALS_FILE);
    fs::create_dir_all(&args.dir).map_err(PeersError::file("create", &args.dir))?;
    if args.fresh && path.exists() {
        fs::remove_file(&path).map_err(PeersError::file("remove", &path))?;
    }
    let wanted = Wanted {
        contenders: or_all(&args.contenders, &Contender::ALL),
        strikes: or_all(&args.faults, &Strike::ALL),
        trials: usize::try_from(args.trials).unwrap_or(0),
        until: args.time_limit.map(|limit| Instant::now() + limit),
    };
    let seed = args.seed.unwrap_or_else(realtime_ns);
    let campaign = campaign::describe(seed, &wanted.contenders);
    let mut results = Results::open(&path, campaign, args.seed.is_some())?;
    println!(
        "seed {}, results in {}",
        results.campaign.seed,
        path.display()
    );
    let ending = if args.report_only {
        Ending {
            skipped: campaign::skipped(&wanted),
            ..Ending::default()
        }
    } else {
        campaign::run(&wanted, &mut results, |line| println!("{line}"))?
    };
    let report = report(&results, &ending);
    println!("\n{}", report.table());
    write_files(args, &report, &results)?;
    if ending.left > 0 {
        println!(
            "time was up: {} trials are left; the same command goes on",
            ending.left
        );
    }
    if ending.failed > 0 {
        println!("{} trials could not be measured", ending.failed);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn report(results: &Results, ending: &Ending) -> Report {
    let cells = cells(&results.trials);
    Report {
        campaign: results.campaign.clone(),
        targets: targets(&cells),
        cells,
        skipped: ending
            .skipped
            .iter()
            .filter(|(contender, _)| !results.trials.iter().any(|t| t.contender == **contender))
            .map(|(contender, reason)| (*contender, reason.clone()))
            .collect(),
        failures: results.failures.clone(),
    }
}

fn write_files(args: &BenchArgs, report: &Report, results: &Results) -> Result<(), PeersError> {
    let json = serde_json::to_string_pretty(report).unwrap_or_default();
    let chart = chart::draw(&results.trials);
    write(&args.dir.join(REPORT_FILE), &json)?;
    write(&args.dir.join(CHART_FILE), &chart)?;
    if let Some(docs) = &args.write_docs {
        write(&docs.join(CHART_FILE), &chart)?;
        write(&docs.join(PAGE_FILE), &report.page(CHART_FILE))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), PeersError> {
    fs::write(path, text).map_err(PeersError::file("write", path))?;
    println!("written: {}", path.display());
    Ok(())
}

fn or_all<T: Copy>(given: &[T], all: &[T]) -> Vec<T> {
    if given.is_empty() { all } else { given }.to_vec()
}

/// `90s`, `30m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is no time; write it as 90s, 30m or 2h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(refused)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused()),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "s", "5", "5d", "-1s", "99999999999999999999h", "5ä"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
