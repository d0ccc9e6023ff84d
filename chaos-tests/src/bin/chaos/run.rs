//! `chaos run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos_tests::lines::realtime_ns;
use chaos_tests::run::{Faults, Interrupt, Options, SERVERS, run};

use super::output::{self, Output};
use super::privileges;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long there are faults: 30s, 10m, 8h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    time: Duration,
    /// Everything is drawn from it [default: one that nobody had]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Families or names of faults with commas between them, or `mixed`
    #[arg(long, value_name = "FAULTS", default_value = "mixed")]
    faults: Faults,
    /// Number of ATMs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    atms: u8,
    /// Directory of the report [default: target/chaos/run-SEED]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The form of the result
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Runs it.
pub(crate) fn main(args: &Args) -> ExitCode {
    if let Err(code) = privileges::settle() {
        return code;
    }
    let seed = args.seed.unwrap_or_else(realtime_ns);
    eprintln!("seed {seed}");
    let atms = usize::from(args.atms);
    let schedule = match args.faults.schedule(seed, atms, SERVERS, args.time) {
        Ok(schedule) => schedule,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            eprintln!("error: cannot listen for Ctrl-C: {error}");
            return ExitCode::FAILURE;
        }
    };
    let usual = || PathBuf::from(format!("target/chaos/run-{seed}"));
    let options = Options {
        atms,
        report: args.report.clone().unwrap_or_else(usual),
        daemon: None,
    };
    eprintln!(
        "{} faults in {} s; the report will be in {}",
        schedule.faults().len(),
        args.time.as_secs(),
        options.report.display()
    );
    output::end(run(&options, &schedule, &interrupt), args.output)
}

/// Reads `30s`, `10m`, `8h`.
fn time(text: &str) -> Result<Duration, String> {
    /// A week: no machine is left alone with it for longer.
    const SECONDS_MAX: u64 = 7 * 24 * 3600;
    let wrong = || format!("{text:?} is no time: 30s, 10m or 8h");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(seconds)
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("8h"), Ok(Duration::from_secs(8 * 3600)));
        for text in ["", "s", "10", "0s", "-1s", "1d", "9999999h", "ä"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
