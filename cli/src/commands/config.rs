//! `atmctl config`: check, show and apply.

use std::path::Path;

use proto::v1;

use super::{CHANGE_TIMEOUT, READ_TIMEOUT};
use crate::args::{Config, Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::{Applied, Configuration, Problem};
use crate::offline;
use crate::output::{self, printable};

pub(super) async fn run(global: &Global, command: &Config) -> Result<(), Failure> {
    match command {
        Config::Check { file } => check(global, file),
        Config::Show {
            version,
            resolved,
            local,
        } => show(global, *version, *resolved, *local).await,
        Config::Apply {
            file,
            expect_version,
        } => apply(global, file, *expect_version).await,
    }
}

fn check(global: &Global, file: &Path) -> Result<(), Failure> {
    let checked = offline::check(file)?;
    match global.output {
        Format::Json => output::print_json(&checked.problems())?,
        Format::Table => {
            let drawn = checked.render(global.color.on_stdout());
            if drawn.is_empty() {
                output::print(&format!("{}: no problems\n", checked.name))?;
            } else {
                output::print(&drawn)?;
            }
        }
    }
    if checked.has_errors() {
        return Err(Failure::Invalid { file: checked.name });
    }
    Ok(())
}

async fn show(
    global: &Global,
    version: Option<u64>,
    resolved: bool,
    local: bool,
) -> Result<(), Failure> {
    let reply = client::ask(global, Effect::Reads, READ_TIMEOUT, async |mut admin| {
        let version = version.unwrap_or_default();
        let request = v1::ShowConfigRequest { version, local };
        let reply = admin.show_config(request).await?;
        Ok(reply.into_inner())
    });
    let shown = Configuration::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&shown),
        Format::Table => {
            output::say(format_args!(
                "version {}, applied by {}; versions that can be shown: {}",
                shown.version,
                printable(&shown.applied_by),
                list(&shown.versions),
            ));
            let mut text = shown.source.clone();
            if resolved {
                text.push_str(&addresses(&shown));
            }
            output::print(&text)
        }
    }
}

/// The addresses as comments, so that what is printed stays a valid configuration.
fn addresses(shown: &Configuration) -> String {
    let line_end = if shown.source.is_empty() || shown.source.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let mut text = format!("{line_end}# addresses in version {}:\n", shown.version);
    for host in &shown.hosts {
        let (name, address) = (printable(&host.name), printable(&host.address));
        text.push_str(&format!("#   {name} {address}\n"));
    }
    text
}

fn list(versions: &[u64]) -> String {
    let versions: Vec<_> = versions.iter().map(u64::to_string).collect();
    versions.join(" ")
}

async fn apply(global: &Global, file: &Path, expect_version: Option<u64>) -> Result<(), Failure> {
    let checked = offline::check(file)?;
    let color = global.color.on_stderr();
    output::say_verbatim(&checked.render(color));
    if checked.has_errors() {
        if global.output == Format::Json {
            output::print_json(&refused(checked.problems()))?;
        }
        return Err(Failure::Invalid { file: checked.name });
    }

    let request = v1::ApplyConfigRequest {
        source: checked.source.clone(),
        file_name: checked.name.clone(),
        expected_version: expect_version.unwrap_or_default(),
    };
    let reply = client::ask(
        global,
        Effect::Changes,
        CHANGE_TIMEOUT,
        async |mut admin| Ok(admin.apply_config(request.clone()).await?.into_inner()),
    );
    let reply = reply.await?;
    let problems = reply.problems.into_iter();
    let problems: Vec<_> = problems
        .map(|problem| Problem::from_cluster(problem, &checked.name))
        .collect();
    output::say_verbatim(&checked.render_further(&problems, color));
    if reply.version == 0 {
        if global.output == Format::Json {
            output::print_json(&refused(problems))?;
        }
        let file = checked.name;
        return Err(Failure::Refused(format!(
            "the cluster does not take {file}"
        )));
    }
    let applied = Applied {
        version: Some(reply.version),
        index: (!reply.unchanged).then_some(reply.index),
        unchanged: reply.unchanged,
        problems,
    };
    match global.output {
        Format::Json => output::print_json(&applied),
        Format::Table if reply.unchanged => output::print(&format!(
            "unchanged: version {} already says so\n",
            reply.version
        )),
        Format::Table => output::print(&format!(
            "version {} committed at index {}\n",
            reply.version, reply.index
        )),
    }
}

fn refused(problems: Vec<Problem>) -> Applied {
    Applied {
        version: None,
        index: None,
        unchanged: false,
        problems,
    }
}
