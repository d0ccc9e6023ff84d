//! A program that runs in the client for a while and tells of events, one line of JSON each.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::error::MailClusterError;
use super::packages::python;
use crate::lab::{Lab, LabError};

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A Python program in the client, and what it has told.
pub(super) struct Program<T> {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    told: Arc<Mutex<Vec<T>>>,
}

impl<T: DeserializeOwned + Clone + Send + 'static> Program<T> {
    /// Starts `text`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        lab: &Lab,
        name: &'static str,
        text: &str,
        args: &[String],
    ) -> Result<Self, MailClusterError> {
        let cannot = || LabError::io(format!("start {name} in the client"));
        let log = lab.host("client")?.log(name);
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir).map_err(cannot())?;
        }
        let log = std::fs::File::create(&log).map_err(cannot())?;
        let mut argv = vec![python(), "-u".to_owned(), "-c".to_owned(), text.to_owned()];
        argv.extend_from_slice(args);
        let mut child = lab
            .host("client")?
            .foreground(&argv)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(cannot())?;
        let input = child.stdin.take();
        let told: Arc<Mutex<Vec<T>>> = Arc::default();
        let output = child.stdout.take();
        let into = Arc::clone(&told);
        let reader = std::thread::spawn(move || {
            let lines = output.map(|output| BufReader::new(output).lines());
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    lock(&into).push(event);
                }
            }
        });
        Ok(Self {
            name,
            child,
            input,
            reader: Some(reader),
            told,
        })
    }

    /// What it has told so far.
    pub(super) fn told(&self) -> Vec<T> {
        lock(&self.told).clone()
    }

    /// Ends its input and waits until it has ended, at most for `limit`.
    ///
    /// # Errors
    /// It did not end well.
    pub(super) fn finish(mut self, limit: Duration) -> Result<Vec<T>, MailClusterError> {
        drop(self.input.take());
        let by = Instant::now() + limit;
        let status = loop {
            let waited = self.child.try_wait();
            match waited.map_err(LabError::io(format!("wait for {}", self.name)))? {
                Some(status) => break status.to_string(),
                None if Instant::now() > by => break format!("runs after {limit:?}"),
                None => std::thread::sleep(LOOK),
            }
        };
        if status != "exit status: 0" {
            return Err(MailClusterError::Client {
                command: self.name.to_owned(),
                status,
                said: format!("see client/{}.log", self.name),
            });
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ok(self.told())
    }
}

impl<T> Drop for Program<T> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is behind it is only added to.
fn lock<T>(told: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
