//! The demo: the whole promise on one screen. Mail and 100 connections through the VIP, and four ways to lose the active
//! ATM, while an observer listens whether ever two ATMs speak.
//!
//! Every line of its summary is a [`Row`] that was measured; the demo succeeds only if every row holds.

mod cluster;
mod configuration;
mod error;
mod faults;
mod interrupt;
mod letters;
mod outcome;
mod rows;
mod screen;
mod silence;
mod stage;
mod status;
mod summary;
mod takeover;
mod timeline;
mod traffic;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

pub use error::DemoError;
pub use outcome::Outcome;
pub(crate) use rows::json;
pub use rows::{Row, Rows};
pub use screen::Screen;
pub(crate) use summary::{checks_table, print};

use crate::lab::{LabError, PortKind, require_decapsulation};
use cluster::Cluster;
use interrupt::Interrupt;
use stage::Stage;

/// Result of the latest run, in the demo's directory.
pub const RESULT_FILE: &str = "demo.json";

/// Exit code of a program that Ctrl-C ended, as a shell reports it.
const EXIT_INTERRUPTED: u8 = 130;

/// One part of the demo: does something and measures it.
type Act = fn(&mut Stage<'_>) -> Result<(), DemoError>;

/// How the demo shall run.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Directory of the result (demo.json) and, when a check fails, of the logs [default: a new one for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How atmd reads and writes frames
    #[arg(long, value_enum, default_value_t = PortKind::Ring)]
    pub port: PortKind,
    /// What goes to standard output at the end; progress then goes to standard error with json
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Runs the demo to its end and tears everything down: 0 if every row held, 1 if one did not, 130 after Ctrl-C.
///
/// # Errors
/// [`DemoError::Unavailable`] where the machine cannot run it; [`DemoError::Lab`] if the hosts cannot be brought up; else what
/// keeps the result from being written. What goes wrong later is a row that failed, not an error.
pub fn run(args: &DemoArgs) -> Result<ExitCode, DemoError> {
    let begun = Instant::now();
    require_decapsulation().map_err(|error| DemoError::Unavailable(error.to_string()))?;
    let dir = directory(args)?;
    let interrupt = Interrupt::listen().map_err(LabError::io("listen for Ctrl-C"))?;
    let mut screen = Screen::new(args.output);
    let outcome = play(args, &dir, &interrupt, &mut screen)?;
    let Some(mut outcome) = outcome else {
        screen.line("interrupted; everything is torn down");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    };
    outcome.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let json = outcome.json()?;
    let file = dir.join(RESULT_FILE);
    fs::write(&file, &json).map_err(LabError::io(format!("write {}", file.display())))?;
    if args.output == Output::Json {
        print(&json);
    } else {
        print(&summary::table(&outcome));
    }
    if outcome.holds() {
        cluster::sweep(&dir);
        screen.line(&format!("result: {}", file.display()));
        return Ok(ExitCode::SUCCESS);
    }
    screen.line(&format!(
        "result: {}; logs: {}/HOST/*.log",
        file.display(),
        dir.display()
    ));
    Ok(ExitCode::FAILURE)
}

/// `None` after Ctrl-C. The lab is down when this returns.
fn play(
    args: &DemoArgs,
    dir: &std::path::Path,
    interrupt: &Interrupt,
    screen: &mut Screen,
) -> Result<Option<Outcome>, DemoError> {
    screen.step("3 ATMs, 3 servers and a client, each a network namespace");
    let cluster = match Cluster::start(args.port, dir, interrupt.clone()) {
        Err(DemoError::Interrupted) => return Ok(None),
        other => other?,
    };
    let mut stage = match Stage::set(cluster, screen) {
        Err(DemoError::Interrupted) => return Ok(None),
        other => other?,
    };
    let acts: [(&str, Act); 6] = [
        ("mail through the VIP", letters::act),
        ("100 connections through the VIP", traffic::act),
        ("kill -9 of the active ATM", faults::kill),
        ("SIGSTOP of the active ATM, then SIGCONT", faults::stop),
        (
            "the active ATM cut off from the other ATMs",
            faults::cut_peers,
        ),
        ("planned hand-over: atmctl failover", faults::failover),
    ];
    let mut broken = false;
    for (title, act) in acts {
        stage.begin(title);
        if broken {
            stage.not_reached();
            continue;
        }
        match act(&mut stage) {
            Ok(()) => {}
            Err(DemoError::Interrupted) => return Ok(None),
            Err(error) => {
                stage.failed(&error);
                broken = true;
            }
        }
    }
    Ok(Some(stage.end()))
}

fn directory(args: &DemoArgs) -> Result<PathBuf, DemoError> {
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("atm-demo-{}", std::process::id())));
    let dir = std::path::absolute(&dir).map_err(LabError::io(format!("use {}", dir.display())))?;
    fs::create_dir_all(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
    Ok(dir)
}
