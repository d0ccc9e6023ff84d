//! `chaos sim`: runs seeds, replays schedules, and says how to repeat what it found.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::judge::Tally;
use super::run::{Outcome, Story, run};
use super::schedule::Schedule;
use super::shrink::shrink;

/// Lines of the story that are shown before a violation.
const STORY_SHOWN: usize = 60;

/// Simulates ATMs, servers, clients, network and disks from a seed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The seed of the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Several seeds, as FIRST..LAST, both included.
    #[arg(long, value_parser = parse_range, conflicts_with_all = ["seed", "schedule"])]
    seeds: Option<RangeInclusive<u64>>,
    /// Events with faults; after them everything heals and must come to work again.
    #[arg(long, default_value_t = 5000)]
    steps: u64,
    /// Replays this schedule (JSON, as a violation prints it).
    #[arg(long, conflicts_with = "seed")]
    schedule: Option<PathBuf>,
    /// Tells everything that happens.
    #[arg(long)]
    trace: bool,
    /// Prints a violation as it was found, without looking for a smaller schedule.
    #[arg(long)]
    no_shrink: bool,
    /// Writes the shrunk schedule of a violation here.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text
        .split_once("..")
        .ok_or_else(|| format!("{text} is not FIRST..LAST"))?;
    let number = |text: &str| {
        text.trim_start_matches('=')
            .parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("{first} comes after {last}"));
    }
    Ok(first..=last)
}

impl Args {
    /// Runs what was asked for; 0: nothing was broken.
    pub fn run(&self) -> ExitCode {
        match self.try_run() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        }
    }

    fn try_run(&self) -> Result<bool, String> {
        let story = if self.trace {
            Story::Printed
        } else {
            Story::Untold
        };
        if let Some(path) = &self.schedule {
            let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| at(&error))?;
            let schedule: Schedule = serde_json::from_str(&text).map_err(|error| at(&error))?;
            println!(
                "seed {}, {} steps, {} faults",
                schedule.seed,
                schedule.steps,
                schedule.faults.len()
            );
            return self.one(&schedule, story);
        }
        match &self.seeds {
            None => {
                println!("seed {}", self.seed);
                self.one(&Schedule::of(self.seed, self.steps), story)
            }
            Some(seeds) => self.many(seeds.clone(), story),
        }
    }

    fn one(&self, schedule: &Schedule, story: Story) -> Result<bool, String> {
        let outcome = run(schedule, story);
        println!("{}", summary(&outcome));
        self.found(schedule, &outcome)
    }

    fn many(&self, seeds: RangeInclusive<u64>, story: Story) -> Result<bool, String> {
        println!("seeds {}..{}", seeds.start(), seeds.end());
        let began = Instant::now();
        let mut sum = Tally::default();
        let mut steps = 0;
        for seed in seeds {
            let schedule = Schedule::of(seed, self.steps);
            let outcome = run(&schedule, story);
            if outcome.violation.is_some() {
                println!("seed {seed}: {}", summary(&outcome));
                return self.found(&schedule, &outcome);
            }
            sum.add(&outcome.tally);
            steps += outcome.steps;
        }
        println!(
            "{steps} steps in {:.1} s: {}; nothing was broken",
            began.elapsed().as_secs_f64(),
            words(&sum)
        );
        Ok(true)
    }

    /// Says what was broken, when, by which schedule, and how to see it again.
    fn found(&self, schedule: &Schedule, outcome: &Outcome) -> Result<bool, String> {
        let Some(violation) = &outcome.violation else {
            return Ok(true);
        };
        println!("{}: {violation}", violation.name());
        println!("at {} ms, step {}", outcome.time_ms, outcome.steps);
        println!(
            "again: chaos sim --seed {} --steps {}",
            schedule.seed, schedule.steps
        );
        let small = if self.no_shrink {
            schedule.clone()
        } else {
            shrink(schedule).0
        };
        let told = run(&small, Story::Kept);
        for line in told
            .story
            .iter()
            .skip(told.story.len().saturating_sub(STORY_SHOWN))
        {
            println!("{line}");
        }
        let json = serde_json::to_string_pretty(&small).map_err(|error| error.to_string())?;
        println!(
            "{} faults of {} are left:",
            small.faults.len(),
            schedule.faults.len()
        );
        match &self.out {
            None => println!("{json}"),
            Some(path) => {
                std::fs::write(path, json)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                println!("again: chaos sim --schedule {}", path.display());
            }
        }
        Ok(false)
    }
}

fn summary(outcome: &Outcome) -> String {
    format!(
        "{} steps, {} ms: {}; digest {}",
        outcome.steps,
        outcome.time_ms,
        words(&outcome.tally),
        outcome.digest
    )
}

fn words(tally: &Tally) -> String {
    format!(
        "{} faults, {} tenures, {} connections, {} packets forwarded, {} passed on, {} entries applied",
        tally.faults,
        tally.tenures,
        tally.connections,
        tally.forwarded,
        tally.relayed,
        tally.applied
    )
}
