//! The report of a run: a folder that a person opens before the logs.
//!
//! ```text
//! history.jsonl   what happened; schedule.json: what was to happen; verdicts.json: what the checkers say
//! index.html      all of it in pictures; needs nothing else, not even the network
//! *.svg           each picture by itself
//! logs/           copies of the logs
//! ```

mod page;
mod pictures;
pub mod plot;

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::checkers::{Rules, Verdicts};
use crate::history::{History, HistoryError};
use pictures::Picture;

/// Bytes of each log that are copied, the last ones: the daemon writes some MB an hour.
pub const LOG_BYTES_MAX: u64 = 64 << 20;

/// Logs copied at most: ten hosts with some files each.
pub const LOGS_MAX: usize = 100;

/// A run that is over.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What it was, in a line.
    pub title: &'a str,
    /// What a reader should know first, by name: seed, rung, version, how to run it again.
    pub facts: &'a [(&'a str, String)],
    /// What happened.
    pub history: &'a History,
    /// The faults that were planned.
    pub schedule: &'a serde_json::Value,
    /// What the checkers say.
    pub verdicts: &'a Verdicts,
    /// The rules by which they say it.
    pub rules: &'a Rules,
    /// Logs to be copied. Those with the same file name are kept apart by their directory's name.
    pub logs: &'a [PathBuf],
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The history cannot be written.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Writes the report into `dir`, which is made if need be, and returns the path of its `index.html`. A `history.jsonl` that is there
/// already is the one that the run recorded, and stays.
///
/// # Errors
/// A file cannot be written. A log that cannot be copied is named in the page instead.
pub fn write(dir: &Path, run: &Run<'_>) -> Result<PathBuf, ReportError> {
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Io { what, path, source }
    };
    fs::create_dir_all(dir).map_err(io("cannot make", dir))?;
    let history = dir.join("history.jsonl");
    if !history.exists() {
        let file = File::create(&history).map_err(io("cannot create", &history))?;
        run.history.write_to(io::BufWriter::new(file))?;
    }
    let save = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text)
            .map_err(io("cannot write", &path))
            .map(|()| path)
    };
    let verdicts = serde_json::to_string_pretty(run.verdicts);
    save(
        "verdicts.json",
        &verdicts.unwrap_or_else(|error| error.to_string()),
    )?;
    save("schedule.json", &format!("{:#}\n", run.schedule))?;
    let pictures = pictures::draw(run.history, run.rules);
    for Picture { name, svg, .. } in &pictures {
        save(&format!("{name}.svg"), svg)?;
    }
    let logs =
        copy_logs(&dir.join("logs"), run.logs).map_err(io("cannot make", &dir.join("logs")))?;
    save("index.html", &page::page(run, &pictures, &logs))
}

/// A log in the report, or why it is not.
struct Log {
    name: String,
    /// Its size, and whether only its end was copied.
    copied: io::Result<(u64, bool)>,
}

fn copy_logs(dir: &Path, logs: &[PathBuf]) -> io::Result<Vec<Log>> {
    if logs.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(dir)?;
    let mut copied: Vec<Log> = Vec::new();
    for path in logs.iter().take(LOGS_MAX) {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let name = part(path.file_name());
        let host = part(path.parent().and_then(Path::file_name));
        let mut name = if host.is_empty() {
            name
        } else {
            format!("{host}-{name}")
        };
        while copied.iter().any(|other| other.name == name) {
            name.insert(0, '_');
        }
        let outcome = copy_end(path, &dir.join(&name));
        copied.push(Log {
            name,
            copied: outcome,
        });
    }
    Ok(copied)
}

/// Copies the last [`LOG_BYTES_MAX`] of a file.
fn copy_end(from: &Path, to: &Path) -> io::Result<(u64, bool)> {
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    let cut = length.saturating_sub(LOG_BYTES_MAX);
    source.seek(SeekFrom::Start(cut))?;
    // The file may grow meanwhile.
    let copied = io::copy(&mut source.take(LOG_BYTES_MAX), &mut File::create(to)?)?;
    Ok((copied, cut > 0))
}

#[cfg(test)]
mod tests;
