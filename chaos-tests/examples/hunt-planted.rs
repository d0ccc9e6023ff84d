//! Hunts a planted bug in the simulator: `hunt-planted BUG SEEDS`; prints a line of JSON, ends with 1 if it was not found.
//!
//! An example, since it exists only with the feature `planted`, and is never installed.

use std::env;
use std::process::ExitCode;

use chaos_tests::bugs::Catch;
use chaos_tests::sim;
use model::planted::Bug;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let wanted = match &args[..] {
        [bug, seeds] => bug.parse::<Bug>().ok().zip(seeds.parse::<u64>().ok()),
        _ => None,
    };
    let Some((bug, seeds)) = wanted else {
        let names = Bug::ALL.map(Bug::name).join(", ");
        eprintln!("usage: hunt-planted BUG SEEDS\nBUG is one of {names}");
        return ExitCode::from(2);
    };
    let begun = std::time::Instant::now();
    let found = sim::hunt(bug, 1..=seeds);
    let catch = Catch {
        bug: bug.name().to_owned(),
        rung: 1,
        found: found.is_some(),
        seed: found.as_ref().map(|found| found.seed),
        seeds: found.as_ref().map_or(seeds, |found| found.seeds),
        seconds: begun.elapsed().as_secs_f64(),
        checker: found
            .as_ref()
            .map(|found| found.violation.name().to_owned()),
        what: found.as_ref().map(|found| found.violation.to_string()),
    };
    match serde_json::to_string(&catch) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    }
    if catch.found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
