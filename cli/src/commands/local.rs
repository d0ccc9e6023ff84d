//! `atmctl version` and `atmctl completions`: what no ATM is asked for.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Args, Format, Global};
use crate::failure::Failure;
use crate::json::Version;
use crate::output;

pub(super) fn version(global: &Global) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match global.output {
        Format::Table => output::print(&format!("atmctl {version}\n")),
        Format::Json => output::print_json(&Version { version }),
    }
}

pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "atmctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
