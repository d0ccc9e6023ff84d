//! Runs `Up` and `Down` scripts while this ATM is active.
//!
//! The log is told before a script starts and when it has ended. What this process began it remembers until the log has its end, and
//! tells a successor that asks by its reports: so a hand-over in the middle of a script starts it no second time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use agents::program::{self, Limits};
use model::Instant;
use model::health::ScriptRun;
use model::health::judge::GRACE;
use model::ids::{Epoch, NodeId};
use tokio::task::{self, JoinSet};
use tracing::{info, warn};

use super::transaction::agent_target;

/// A script may restart a service, and wait for it.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Scripts that run at once: each may start something large.
const RUNNING_MAX: usize = 8;

/// What an ATM says of a run that it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its number.
    pub(crate) run: u64,
    /// How it ended; `None`: it is running.
    pub(crate) ended: Option<String>,
}

/// The scripts of this process.
#[derive(Default)]
pub(super) struct Scripts {
    tasks: JoinSet<String>,
    /// The runs of the tasks.
    running: BTreeMap<task::Id, u64>,
    /// Runs that this process began; with their ends, once they have one.
    mine: BTreeMap<u64, Option<String>>,
    /// What other ATMs said in this tenure.
    others: BTreeMap<NodeId, BTreeMap<u64, Option<String>>>,
}

/// What the log is to be told next of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It begins here.
    Begin,
    /// It has ended like this.
    End(String),
}

/// This ATM, in its tenure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub(super) me: NodeId,
    pub(super) epoch: Epoch,
    /// When the tenure began here.
    pub(super) since: Instant,
}

impl Scripts {
    /// A tenure of this ATM begins: what others said before does not count.
    pub(super) fn begin_tenure(&mut self) {
        self.others.clear();
    }

    /// What another ATM says of the runs that it began.
    pub(super) fn hear(&mut self, from: NodeId, words: Vec<Word>) {
        let words = words.into_iter().map(|word| (word.run, word.ended));
        self.others.insert(from, words.collect());
    }

    /// What this ATM says of the runs that it began.
    pub(super) fn words(&self) -> Vec<Word> {
        let words = self.mine.iter().map(|(run, ended)| Word {
            run: *run,
            ended: ended.clone(),
        });
        words.collect()
    }

    /// The log has the end of what it has no more.
    pub(super) fn forget_all_but(&mut self, live: &BTreeSet<u64>) {
        self.mine
            .retain(|run, ended| ended.is_none() || live.contains(run));
    }

    /// What is to be told of the runs of the log, at most [`RUNNING_MAX`] of which run at once and those of one service one after the
    /// other.
    pub(super) fn next(
        &mut self,
        runs: &BTreeMap<u64, ScriptRun>,
        here: Here,
        now: Instant,
    ) -> Vec<(u64, Next)> {
        self.forget_all_but(&runs.keys().copied().collect());
        let mut busy = BTreeSet::new();
        let mut found = Vec::new();
        let mut running = self.mine.values().filter(|ended| ended.is_none()).count();
        for (number, run) in runs {
            if !busy.insert((run.server.as_str(), run.service.as_str())) {
                continue;
            }
            match self.fate(*number, run, here, now) {
                Some(Next::Begin) if running >= RUNNING_MAX => {}
                Some(Next::Begin) => {
                    running += 1;
                    found.push((*number, Next::Begin));
                }
                Some(end @ Next::End(_)) => found.push((*number, end)),
                None => {}
            }
        }
        found
    }

    fn fate(&self, number: u64, run: &ScriptRun, here: Here, now: Instant) -> Option<Next> {
        let told = |ended: &Option<String>| ended.clone().map(Next::End);
        if let Some(mine) = self.mine.get(&number) {
            return told(mine);
        }
        let Some(begun) = run.begun else {
            return Some(Next::Begin);
        };
        if begun.node == here.me {
            // Begun by this ATM, and it does not remember: it was restarted, or its start was not committed when it looked.
            return Some(Next::Begin);
        }
        match self.others.get(&begun.node) {
            Some(words) => match words.get(&number) {
                Some(word) => told(word),
                // Restarted since, or it never got so far.
                None => Some(Next::Begin),
            },
            None => (now >= here.since + GRACE).then_some(Next::Begin),
        }
    }

    /// Starts a run, whose begin the log has.
    pub(super) fn start(&mut self, number: u64, run: &ScriptRun) {
        if self.mine.contains_key(&number) {
            return;
        }
        let run = run.clone();
        self.spawn(number, async move {
            let target = agent_target(run.address, run.port, run.protocol);
            let limits = Limits::within(TIME_MAX);
            let ended = program::run(Path::new(&run.program), &target, &limits).await;
            let (program, server, service) = (&run.program, &run.server, &run.service);
            if ended.is_healthy() {
                info!(program, server, service, up = run.up, %ended, "script ended");
            } else {
                warn!(program, server, service, up = run.up, %ended, "script failed");
            }
            ended.to_string()
        });
    }

    fn spawn(&mut self, number: u64, script: impl Future<Output = String> + Send + 'static) {
        self.mine.insert(number, None);
        let id = self.tasks.spawn(script).id();
        self.running.insert(id, number);
    }

    /// Returns when a script has ended.
    pub(super) async fn ended(&mut self) {
        let (id, how) = match self.tasks.join_next_with_id().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => {
                warn!(%error, "a script's task failed");
                (error.id(), format!("nobody knows: {error}"))
            }
            None => std::future::pending().await,
        };
        if let Some(number) = self.running.remove(&id) {
            self.mine.insert(number, Some(how));
        }
    }
}

#[cfg(test)]
mod tests {
    use model::conf::Protocol;
    use model::health::Begun;

    use super::*;

    const HERE: Here = Here {
        me: NodeId(1),
        epoch: Epoch(5),
        since: Instant::from_nanos(1_000_000_000),
    };

    fn run(service: &str, begun: Option<(u64, u64)>) -> ScriptRun {
        ScriptRun {
            program: "/bin/true".to_owned(),
            up: false,
            server: "s1".to_owned(),
            service: service.to_owned(),
            address: "192.0.2.1".parse().unwrap(),
            port: 25,
            protocol: Protocol::Tcp,
            begun: begun.map(|(epoch, node)| Begun {
                epoch: Epoch(epoch),
                node: NodeId(node),
            }),
        }
    }

    fn next(scripts: &mut Scripts, runs: &[(u64, ScriptRun)], after: u64) -> Vec<(u64, Next)> {
        let runs = runs.iter().cloned().collect();
        scripts.next(&runs, HERE, HERE.since + Duration::from_secs(after))
    }

    #[test]
    fn what_nobody_began_is_begun_one_after_the_other() {
        let mut scripts = Scripts::default();
        let runs = [
            (1, run("a", None)),
            (2, run("a", None)),
            (3, run("b", None)),
        ];
        let found = next(&mut scripts, &runs, 0);
        assert_eq!(found, [(1, Next::Begin), (3, Next::Begin)]);
        scripts.mine.insert(1, None);
        scripts.mine.insert(3, Some("exit status 0".to_owned()));
        let found = next(&mut scripts, &runs, 0);
        assert_eq!(found, [(3, Next::End("exit status 0".to_owned()))]);
        scripts.mine.insert(1, Some("exit status 1".to_owned()));
        let found = next(&mut scripts, &runs[1..2], 0);
        assert_eq!(found, [(2, Next::Begin)], "the first has ended");
        assert_eq!(scripts.words(), [], "the log has the ends of both");
    }

    #[tokio::test]
    async fn one_whose_task_fails_has_ended_too() {
        let mut scripts = Scripts::default();
        let runs = [(1, run("a", Some((5, 1)))), (2, run("a", None))];
        scripts.spawn(1, async { panic!("on purpose") });
        assert_eq!(next(&mut scripts, &runs, 0), [], "it runs");
        scripts.ended().await;
        let told = next(&mut scripts, &runs, 0);
        assert!(
            matches!(&told[..], [(1, Next::End(how))] if how.starts_with("nobody knows: ")),
            "{told:?}"
        );
    }

    #[test]
    fn only_so_many_run_at_once() {
        let mut scripts = Scripts::default();
        let runs: Vec<_> = (0..20).map(|n| (n, run(&n.to_string(), None))).collect();
        assert_eq!(next(&mut scripts, &runs, 0).len(), RUNNING_MAX);
        scripts.mine.extend((0..6).map(|n| (n, None)));
        assert_eq!(next(&mut scripts, &runs, 0).len(), RUNNING_MAX - 6);
    }

    #[test]
    fn who_began_a_run_is_asked_what_became_of_it() {
        let begun = [(7, run("a", Some((4, 2))))];
        let word = |ended: Option<&str>| {
            vec![Word {
                run: 7,
                ended: ended.map(str::to_owned),
            }]
        };
        for (what, words, after, expected) in [
            ("it says nothing yet", None, 1, None),
            ("it cannot be asked", None, 6, Some(Next::Begin)),
            ("it runs there", Some(word(None)), 60, None),
            (
                "it ended there",
                Some(word(Some("exit status 3"))),
                1,
                Some(Next::End("exit status 3".to_owned())),
            ),
            ("it was restarted", Some(vec![]), 1, Some(Next::Begin)),
        ] {
            let mut scripts = Scripts::default();
            if let Some(words) = words {
                scripts.hear(NodeId(2), words);
            }
            let found = next(&mut scripts, &begun, after);
            assert_eq!(
                found.into_iter().next().map(|(_, next)| next),
                expected,
                "{what}"
            );
        }
    }
}
