//! `interop`: a kernel that is not ours, beside us and behind us.
//!
//! Boots user-mode-linux. In it, kernel IPVS forwards the frames that the offline core forwards here, and what both send is compared
//! field by field; then `atmd` forwards to servers whose kernel opens the tunnels, and a client must get its answer.
//! Exit code 0: everything that must agree agrees, and every server answered; 1: not so; 69: a package is missing.

mod cases;
mod compare;
mod director;
mod guest;
mod ours;
mod packet;
mod report;
mod servers;
mod traffic;
mod uml;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use compare::compare;
use report::Report;
use traffic::Traffic;

/// EX_UNAVAILABLE of sysexits(3).
const UNAVAILABLE: u8 = 69;

#[derive(Parser)]
#[command(name = "interop", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Action>,
    /// Keeps captures, logs and the result in this directory
    #[arg(
        long,
        value_name = "DIR",
        default_value = "target/interop",
        global = true
    )]
    dir: PathBuf,
    /// The form of the result
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Subcommand)]
enum Action {
    /// The part that runs in the guest
    #[command(hide = true)]
    Guest,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Action::Guest) => guest::main(&arguments.dir).map(|()| true),
        None => {
            let missing = uml::missing();
            if !missing.is_empty() {
                eprintln!("skipped: not installed: {}", missing.join(", "));
                return ExitCode::from(UNAVAILABLE);
            }
            whole(&arguments.dir, arguments.output)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn whole(dir: &Path, output: Output) -> Result<bool, String> {
    let dir = std::path::absolute(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let said = |error: std::io::Error| format!("{}: {error}", dir.display());
    // An earlier run's answers must not be taken for this one's.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(said(error)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(&dir).map_err(said)?;
    let (had, lacking) = ours::ways()?;
    let cases = cases::cases(&had);
    let steps: Vec<&cases::Step> = cases.iter().flat_map(|case| &case.steps).collect();
    let sent: Vec<_> = steps.iter().map(|step| step.frames.clone()).collect();
    let ours = ours::answers(&cases)?;
    Traffic::new(&sent)
        .write(&dir.join("sent.json"))
        .map_err(said)?;
    Traffic::new(&ours)
        .write(&dir.join("ours.json"))
        .map_err(said)?;
    let program = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
    uml::run(&dir, &program)?;
    let answers = Traffic::read(&dir.join("ipvs.json")).and_then(|ipvs| ipvs.frames());
    let ipvs = answers.map_err(said)?;
    if ipvs.len() != steps.len() {
        return Err(format!(
            "{} steps were sent and {} answered",
            steps.len(),
            ipvs.len()
        ));
    }
    let pairs = ipvs.iter().zip(&ours);
    let verdicts = steps
        .iter()
        .zip(pairs)
        .map(|(step, (ipvs, ours))| compare(step, ipvs, ours));
    let guest = guest::Found::read(&dir)?;
    let lacking = lacking.iter().map(|way| way.name).collect();
    let report = Report::new(
        guest.kernel,
        &cases,
        verdicts.collect(),
        lacking,
        guest.servers,
    );
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    fs::write(dir.join("interop.json"), &json).map_err(said)?;
    match output {
        Output::Table => print!("{report}"),
        Output::Json => println!("{json}"),
    }
    Ok(report.passed)
}
