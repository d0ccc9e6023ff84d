//! Plays the blocks of a tutorial on the machines of a lab.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use chaos_tests::lab::{Lab, program};
use chaos_tests::mail_cluster::Storage;

use super::document::{Block, Kind, is_as_expected};
use super::machines::hosts;

/// Between two attempts of what is tried until it holds.
const LOOK: Duration = Duration::from_millis(200);

/// Ends a file in a script.
const END: &str = "END-OF-FILE";

/// Plays one tutorial.
pub(crate) struct Player<'a> {
    lab: &'a Lab,
    part: Option<&'a str>,
    /// The host on which `host=active` was last run.
    killed: Option<String>,
    ran: usize,
    on: usize,
    told: String,
}

impl<'a> Player<'a> {
    pub(crate) fn new(lab: &'a Lab, part: Option<&'a str>) -> Self {
        Self {
            lab,
            part,
            killed: None,
            ran: 0,
            on: 0,
            told: String::new(),
        }
    }

    /// What was run, and what was not as it is written.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} blocks run, {} times in all\n{}",
            self.ran, self.on, self.told
        )
    }

    /// Does what `block` says and looks at what comes of it.
    pub(crate) fn play(&mut self, block: &Block) {
        let part = block.tags.get("part").map(String::as_str);
        if block.kind == Kind::Show || (part.is_some() && part != self.part) {
            return;
        }
        if let Some(reason) = self.cannot(block) {
            let _ = writeln!(self.told, "skipped: line {}: {reason}", block.line);
            return;
        }
        self.ran += 1;
        for host in self.hosts_of(block) {
            self.on += 1;
            match &block.kind {
                Kind::File(path) => self.put(block, &host, path),
                Kind::Run if block.has("scp") => self.copy(block, &host),
                Kind::Run => self.run(block, &host),
                Kind::Show => {}
            }
        }
    }

    /// Why a block cannot be run here, not even in another form.
    fn cannot(&self, block: &Block) -> Option<String> {
        if block.has("nfs") && Storage::here() == Storage::Directory {
            return Some("NFS; the mailboxes are a directory of this machine".to_owned());
        }
        if block.has("build") {
            // Its result is what this test was built with.
            program("atmd").unwrap();
            return Some("cargo build; the programs are those of this build".to_owned());
        }
        if block.has("apt") && !apt_has_lists() {
            return Some("apt has no lists of packages; apt-get update gets them".to_owned());
        }
        let needed = block.tags.get("program")?;
        program(needed)
            .is_err()
            .then(|| format!("{needed} is not built"))
    }

    fn hosts_of(&mut self, block: &Block) -> Vec<String> {
        let mut found = Vec::new();
        for host in &block.hosts {
            match host.as_str() {
                "all" => found.extend(hosts(self.lab)),
                "active" => {
                    let active = self.active();
                    self.killed = Some(active.clone());
                    found.push(active);
                }
                "killed" => found.extend(self.killed.clone()),
                name => found.push(name.to_owned()),
            }
        }
        assert!(!found.is_empty(), "line {}: no host", block.line);
        found
    }

    /// The host of the active ATM.
    fn active(&self) -> String {
        let output = self.shell("atm1", "atmctl --output json status");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let name = status["active"].as_str().unwrap();
        name.split('.').next().unwrap().to_owned()
    }

    fn put(&self, block: &Block, host: &str, path: &str) {
        if let Some(same) = block.tags.get("same") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            let text = std::fs::read_to_string(root.join(same)).unwrap();
            assert_eq!(block.text, text, "line {}: not as {same}", block.line);
        }
        let script = format!(
            "mkdir -p \"$(dirname {path})\"\ncat > {path} <<'{END}'\n{}{END}\n",
            block.text
        );
        let output = self.shell(host, &script);
        assert!(output.status.success(), "line {}: {output:?}", block.line);
    }

    /// `scp HOST:PATH... DIRECTORY/`, without ssh.
    fn copy(&self, block: &Block, to: &str) {
        for line in block.text.lines() {
            let mut words = line.split_ascii_whitespace();
            assert_eq!(words.next(), Some("scp"), "line {}: {line}", block.line);
            let words: Vec<&str> = words.collect();
            let (dir, files) = words.split_last().unwrap();
            for file in files {
                let (from, path) = file.split_once(':').unwrap();
                let output = self.shell(from, &format!("cat {path}"));
                assert!(output.status.success(), "{file}: {output:?}");
                let text = String::from_utf8(output.stdout).unwrap();
                let name = path.rsplit('/').next().unwrap();
                let script = format!("cat > {dir}{name} <<'{END}'\n{text}{END}\n");
                let output = self.shell(to, &script);
                assert!(output.status.success(), "{file}: {output:?}");
            }
        }
    }

    fn run(&mut self, block: &Block, host: &str) {
        let mut text = block.text.clone();
        if block.has("apt") {
            // Whether apt knows all of them and could install them.
            text = text.replace("apt-get install", "apt-get install --simulate --quiet");
        }
        if let Some(dir) = block.tags.get("dir") {
            text = format!("cd {dir}\n{text}");
        }
        let exit: i32 = block
            .tags
            .get("exit")
            .map_or(0, |exit| exit.parse().unwrap());
        let patience: u64 = block.tags.get("retry").map_or(0, |s| s.parse().unwrap());
        let by = Instant::now() + Duration::from_secs(patience);
        loop {
            let output = self.shell(host, &text);
            let wrong = if output.status.code() == Some(exit) {
                unlike(block, &output)
            } else {
                Some(format!("{} instead of {exit}", output.status))
            };
            let Some(wrong) = wrong else {
                return;
            };
            assert!(
                Instant::now() < by,
                "line {} on {host}: {wrong}\n{text}\nsaid:\n{}{}",
                block.line,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            std::thread::sleep(LOOK);
        }
    }

    /// As a reader types it there, but for the first mistake, which ends it.
    fn shell(&self, host: &str, text: &str) -> Output {
        let host = self.lab.host(host).unwrap();
        host.exec(["sh", "-e", "-c", &format!("cd /root\n{text}")])
            .unwrap()
    }
}

/// Whether apt on this machine knows any package that is not installed.
fn apt_has_lists() -> bool {
    let lists = std::fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten();
    let names = lists.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.into_iter().any(|name| name.contains("_Packages"))
}

/// What is wrong with the output of a block.
fn unlike(block: &Block, output: &Output) -> Option<String> {
    let (words, expected) = block.expected.as_ref()?;
    let any_order = words.iter().any(|word| word == "any-order");
    is_as_expected(
        &String::from_utf8_lossy(&output.stdout),
        expected,
        any_order,
    )
    .err()
}
