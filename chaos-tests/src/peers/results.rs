//! The file of results: one JSON object a line, written as they come, so that an interrupted campaign goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::contender::Contender;
use super::error::PeersError;
use super::strike::Strike;
use super::trial::Trial;

/// Largest file that is read, in bytes: ten thousand trials stay far below.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The first line.
    Campaign(Campaign),
    /// A trial that was measured.
    Trial(Box<Trial>),
    /// A trial that was not.
    Failure(Failure),
}

/// What all trials of a file have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// Everything random comes from it.
    pub seed: u64,
    /// Kernel and processors.
    pub machine: String,
    /// Versions of the other routers, one line each.
    pub versions: Vec<String>,
}

/// A trial that proves nothing. It is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Who.
    pub contender: Contender,
    /// What; `None`: it could not even be started.
    pub strike: Option<Strike>,
    /// Which trial.
    pub number: usize,
    /// Why.
    pub reason: String,
}

/// The results so far, and the file for more.
pub struct Results {
    path: PathBuf,
    file: File,
    /// The common part.
    pub campaign: Campaign,
    /// What was measured.
    pub trials: Vec<Trial>,
    /// What was not.
    pub failures: Vec<Failure>,
}

impl Results {
    /// Goes on with the file at `path`, or begins it with `campaign`. Its seed counts, unless `seed_given` contradicts it.
    ///
    /// # Errors
    /// The file cannot be read or written, has something else in it, or another seed than the one given.
    pub fn open(path: &Path, campaign: Campaign, seed_given: bool) -> Result<Self, PeersError> {
        let entries = read(path)?;
        let fresh = entries.is_empty();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut results = Self {
            path: path.to_owned(),
            file: file.map_err(PeersError::file("write", path))?,
            campaign,
            trials: Vec::new(),
            failures: Vec::new(),
        };
        if fresh {
            results.append(&Entry::Campaign(results.campaign.clone()))?;
        }
        for entry in entries {
            match entry {
                Entry::Campaign(theirs) => {
                    if seed_given && theirs.seed != results.campaign.seed {
                        let (path, theirs) = (path.to_owned(), theirs.seed);
                        return Err(PeersError::OtherSeed { path, theirs });
                    }
                    results.campaign = theirs;
                }
                Entry::Trial(trial) => results.trials.push(*trial),
                Entry::Failure(failure) => results.failures.push(failure),
            }
        }
        Ok(results)
    }

    /// Adds a measured trial.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, trial: Trial) -> Result<(), PeersError> {
        self.append(&Entry::Trial(Box::new(trial.clone())))?;
        self.trials.push(trial);
        Ok(())
    }

    /// Adds one that was not.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fail(&mut self, failure: Failure) -> Result<(), PeersError> {
        self.append(&Entry::Failure(failure.clone()))?;
        self.failures.push(failure);
        Ok(())
    }

    /// Whether this trial was measured.
    #[must_use]
    pub fn has(&self, contender: Contender, strike: Strike, number: usize) -> bool {
        let is = |t: &&Trial| (t.contender, t.strike, t.number) == (contender, strike, number);
        self.trials.iter().any(|t| is(&t))
    }

    fn append(&mut self, entry: &Entry) -> Result<(), PeersError> {
        let cannot = || PeersError::file("write", &self.path);
        let mut line = serde_json::to_string(entry).map_err(|e| cannot()(e.into()))?;
        line.push('\n');
        // One write: an interruption leaves a whole line or a torn last one, which is overwritten by nobody and read as such.
        self.file.write_all(line.as_bytes()).map_err(cannot())
    }
}

/// A missing file is an empty one. A torn last line, left by an interruption, is cut off.
fn read(path: &Path) -> Result<Vec<Entry>, PeersError> {
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(PeersError::file("read", path))?.len(),
    };
    let bad = |line, reason: String| PeersError::Result {
        path: path.to_owned(),
        line,
        reason,
    };
    if length > FILE_BYTES_MAX {
        return Err(bad(
            1,
            format!("{length} bytes are more than {FILE_BYTES_MAX}"),
        ));
    }
    let mut text = fs::read_to_string(path).map_err(PeersError::file("read", path))?;
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        text.truncate(whole);
        let file = OpenOptions::new().write(true).open(path);
        file.and_then(|file| file.set_len(whole as u64))
            .map_err(PeersError::file("write", path))?;
    }
    let lines = (1..).zip(text.lines());
    let entries: Vec<Entry> = lines
        .map(|(n, line)| serde_json::from_str(line).map_err(|e| bad(n, e.to_string())))
        .collect::<Result<_, _>>()?;
    match entries.first() {
        None | Some(Entry::Campaign(_)) => Ok(entries),
        Some(_) => Err(bad(1, "it does not say which campaign it is".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(seed: u64) -> Campaign {
        Campaign {
            seed,
            machine: "test".to_owned(),
            versions: Vec::new(),
        }
    }

    fn trial(number: usize) -> Trial {
        Trial {
            contender: Contender::Ours50Ms,
            strike: Strike::Kill,
            number,
            victim: "atm1".to_owned(),
            outage_ms: 1.5,
            restored: true,
            relief_outage_ms: None,
            two_voices_ms: 0.0,
            two_voices_to_the_end: false,
            relief_two_voices_ms: None,
            contradictions: Some(0),
            connections: None,
            takeover: None,
        }
    }

    #[test]
    fn an_interrupted_campaign_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trials.jsonl");
        let mut results = Results::open(&path, campaign(5), false).unwrap();
        results.add(trial(0)).unwrap();
        drop(results);
        // The write of the next one was cut short.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"trial\":{\"conten").unwrap();
        let mut results = Results::open(&path, campaign(9), false).unwrap();
        assert_eq!((results.campaign.seed, results.trials.len()), (5, 1));
        assert!(results.has(Contender::Ours50Ms, Strike::Kill, 0));
        assert!(!results.has(Contender::Ours50Ms, Strike::Kill, 1));
        results.add(trial(1)).unwrap();
        drop(results);
        let results = Results::open(&path, campaign(5), true).unwrap();
        assert_eq!(results.trials, [trial(0), trial(1)]);
    }

    #[test]
    fn another_seed_and_another_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trials.jsonl");
        drop(Results::open(&path, campaign(5), true).unwrap());
        assert!(matches!(
            Results::open(&path, campaign(6), true),
            Err(PeersError::OtherSeed { theirs: 5, .. })
        ));
        fs::write(&path, "not json\n").unwrap();
        assert!(matches!(
            Results::open(&path, campaign(5), true),
            Err(PeersError::Result { line: 1, .. })
        ));
    }
}
