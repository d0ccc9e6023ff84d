//! The last word that was followed, kept on disk: a server that starts while it reaches no ATM goes on with it, as an ATM goes
//! on with the version that was in force when it last ran.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use model::server::NodePlan;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// 1024 VIPs have some 40 kB.
const BYTES_MAX: u64 = 1 << 20;

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    format: u32,
    /// What the host was called: a directory that was copied from another host is none of ours.
    host: String,
    plan: NodePlan,
}

/// Where the last word lies.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    path: PathBuf,
    host: String,
}

impl Memory {
    /// In `directory`, of the host that is called `host`.
    pub(super) fn new(directory: &Path, host: String) -> Self {
        Self {
            path: directory.join("server-plan.json"),
            host,
        }
    }

    /// The last word. What cannot be used is told in the log and counts as none: the file is there.
    pub(super) fn recall(&self) -> Option<NodePlan> {
        let unusable = |why: &str| {
            let path = self.path.display();
            warn!(%path, "the last plan of this server cannot be used, so that its file counts: {why}");
        };
        let mut bytes = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                unusable(&error.to_string());
                return None;
            }
            Ok(_) if bytes.len() as u64 > BYTES_MAX => {
                unusable("longer than 1 MiB");
                return None;
            }
            Ok(_) => {}
        }
        match serde_json::from_slice::<Remembered>(&bytes) {
            Ok(found) if found.format != FORMAT => {
                unusable(&format!(
                    "it has format {}, and this version knows {FORMAT}",
                    found.format
                ));
                None
            }
            Ok(found) if found.host != self.host => {
                unusable(&format!(
                    "it is that of {}, and this host is {}",
                    found.host, self.host
                ));
                None
            }
            Ok(found) => Some(found.plan),
            Err(error) => {
                unusable(&error.to_string());
                None
            }
        }
    }

    /// Keeps a word for the next start. A crash leaves the one of before or this one.
    pub(super) async fn keep(&self, plan: NodePlan) {
        let path = self.path.clone();
        let remembered = Remembered {
            format: FORMAT,
            host: self.host.clone(),
            plan,
        };
        let stored = tokio::task::spawn_blocking(move || store(&path, &remembered)).await;
        if let Err(error) = stored.map_err(io::Error::other).flatten() {
            warn!(path = %self.path.display(), %error, "the plan in force is not kept for the next start");
        }
    }
}

fn store(path: &Path, remembered: &Remembered) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(remembered)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use model::ids::ConfigNumber;

    use super::*;

    fn plan() -> NodePlan {
        NodePlan {
            group: vec![7; 16],
            version: ConfigNumber(12),
            part: None,
            atms: vec![("atm1".to_owned(), "10.1.0.1".parse().unwrap())],
        }
    }

    #[tokio::test]
    async fn what_was_kept_is_recalled_by_the_same_host_only() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let memory = Memory::new(&state, "serv1".to_owned());
        assert_eq!(memory.recall(), None);
        memory.keep(plan()).await;
        assert_eq!(memory.recall(), Some(plan()));
        assert_eq!(Memory::new(&state, "serv2".to_owned()).recall(), None);
    }

    #[tokio::test]
    async fn what_is_damaged_counts_as_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::new(directory.path(), "serv1".to_owned());
        memory.keep(plan()).await;
        let good = fs::read_to_string(&memory.path).unwrap();
        for bad in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"format\": 1", "\"format\": 2"),
            " ".repeat(2 << 20),
        ] {
            fs::write(&memory.path, bad).unwrap();
            assert_eq!(memory.recall(), None);
        }
    }
}
