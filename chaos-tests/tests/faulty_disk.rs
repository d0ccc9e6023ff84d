//! The tools of a host's disk, on real files and processes: that each fault has its effect, and its end.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::equipment::{Class, DiskPage, Effect, Mode, Tail, control, lose_unsynced};
use chaos_tests::lab::program;

const LIMIT: Duration = Duration::from_secs(10);

/// A directory that a preloaded process works in.
struct Scene {
    dir: tempfile::TempDir,
    page: DiskPage,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["data", "beside", "undo"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let page = DiskPage::create(&dir.path().join("page")).unwrap();
        Self { dir, page }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `dd` from its stdin to a file, with these further operands, under the library.
    fn dd(&self, file: &str, operands: &[&str]) -> Child {
        Command::new("dd")
            .args([
                &format!("of={}", self.path(file).display()),
                "iflag=fullblock",
                "status=none",
            ])
            .args(operands)
            .env("LD_PRELOAD", program("libfaulty_disk.so").unwrap())
            .env(control::ENV_CONTROL, self.path("page"))
            .env(control::ENV_PREFIX, self.path("data"))
            .env(control::ENV_UNDO, self.path("undo"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Writes `text` to a file and waits for the end.
    fn write(&self, file: &str, text: &str, operands: &[&str]) -> Output {
        finish(self.dd(file, operands), text)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }
}

fn finish(mut dd: Child, text: &str) -> Output {
    // One that may not open its file ends before it reads: its exit code and what it said are the result.
    let fed = dd.stdin.take().unwrap().write_all(text.as_bytes());
    assert!(matches!(
        fed.map_err(|e| e.kind()),
        Ok(()) | Err(ErrorKind::BrokenPipe)
    ));
    dd.wait_with_output().unwrap()
}

fn fails_with(output: &Output, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(text), "{said}");
}

const SYNC: &[&str] = &["conv=fsync,notrunc"];
const DATA_SYNC: &[&str] = &["conv=fdatasync,notrunc"];
const NO_SYNC: &[&str] = &["conv=notrunc"];

#[test]
fn a_sync_is_slow_hangs_or_fails_as_long_as_it_is_said() {
    let scene = Scene::new();
    let effect = |mode| Effect::new(Class::Sync, mode);
    assert!(scene.write("data/a", "before", SYNC).status.success());
    let before = scene.page.count(Class::Sync).unwrap();
    assert_eq!((before.seen, before.struck), (1, 0));

    let slow = Effect {
        delay: Duration::from_millis(150),
        ..effect(Mode::Slow)
    };
    scene.page.set(&slow).unwrap();
    let begun = Instant::now();
    assert!(scene.write("data/a", "slow", DATA_SYNC).status.success());
    assert!(begun.elapsed() >= Duration::from_millis(150));

    scene.page.set(&effect(Mode::Hang)).unwrap();
    let mut hanging = scene.dd("data/a", SYNC);
    drop(hanging.stdin.take());
    let is_hanging = |count: chaos_tests::equipment::Count| count.hanging == 1;
    scene
        .page
        .wait(Class::Sync, "it hangs", LIMIT, is_hanging)
        .unwrap();
    assert_eq!(hanging.try_wait().unwrap(), None);
    scene.page.clear(Class::Sync).unwrap();
    assert!(hanging.wait().unwrap().success());

    scene.page.set(&effect(Mode::Fail)).unwrap();
    fails_with(&scene.write("data/a", "x", SYNC), "Input/output error");
    assert!(
        scene.write("beside/a", "x", SYNC).status.success(),
        "elsewhere"
    );
    scene
        .page
        .set(&Effect {
            name: "snapshot".into(),
            ..effect(Mode::Fail)
        })
        .unwrap();
    assert!(
        scene.write("data/a", "x", SYNC).status.success(),
        "another name"
    );
    fails_with(
        &scene.write("data/snapshot.new", "x", SYNC),
        "Input/output error",
    );
    scene.page.clear_all().unwrap();
    assert!(scene.write("data/snapshot.new", "x", SYNC).status.success());
}

#[test]
fn a_write_fails_is_torn_or_lost_and_then_all_is_well() {
    let scene = Scene::new();
    let effect = |mode| Effect::new(Class::Write, mode);
    let full = Effect {
        errno: 28,
        skip: 1,
        ..effect(Mode::Fail)
    };
    scene.page.set(&full).unwrap();
    let output = scene.write("data/full", "firstsecond", &["bs=5", "conv=notrunc"]);
    fails_with(&output, "No space left");
    assert_eq!(scene.read("data/full"), "first");

    scene.page.set(&effect(Mode::Torn)).unwrap();
    fails_with(
        &scene.write("data/torn", "12345678", NO_SYNC),
        "Input/output error",
    );
    assert_eq!(scene.read("data/torn"), "1234");

    scene.page.set(&effect(Mode::Kill)).unwrap();
    let killed = scene.write("data/killed", "12345678", NO_SYNC);
    assert_eq!(killed.status.signal(), Some(9));
    assert_eq!(scene.read("data/killed"), "1234");

    scene.page.set(&effect(Mode::Lie)).unwrap();
    assert!(scene.write("data/lost", "gone", NO_SYNC).status.success());
    assert_eq!(scene.read("data/lost"), "");

    scene
        .page
        .set(&Effect {
            times: 1,
            ..effect(Mode::Fail)
        })
        .unwrap();
    assert!(!scene.write("data/once", "x", NO_SYNC).status.success());
    assert!(scene.write("data/once", "x", NO_SYNC).status.success());
}

#[test]
fn a_read_only_disk_refuses_changes_and_then_takes_them() {
    let scene = Scene::new();
    fs::write(scene.path("data/old"), "x").unwrap();
    let read_only = Effect {
        errno: 30,
        ..Effect::new(Class::Change, Mode::Fail)
    };
    scene.page.set(&read_only).unwrap();
    fails_with(
        &scene.write("data/new", "x", NO_SYNC),
        "Read-only file system",
    );
    let rename = |to: &Path| -> ExitStatus {
        Command::new("mv")
            .args([&scene.path("data/old"), to])
            .env("LD_PRELOAD", program("libfaulty_disk.so").unwrap())
            .env(control::ENV_CONTROL, scene.path("page"))
            .env(control::ENV_PREFIX, scene.path("data"))
            .stderr(Stdio::null())
            .status()
            .unwrap()
    };
    assert!(!scene.path("data/new").exists());
    scene.page.clear(Class::Change).unwrap();
    assert!(rename(&scene.path("data/renamed")).success());
    assert!(scene.write("data/new", "x", NO_SYNC).status.success());
}

#[test]
fn a_power_cut_takes_back_what_was_not_synced_and_nothing_else() {
    let scene = Scene::new();
    let append = |file, text, sync: &str| {
        let conv = format!("conv=notrunc{sync}");
        let output = scene.write(file, text, &["oflag=append", &conv]);
        assert!(output.status.success());
    };
    append("data/log", "synced.", ",fsync");
    append("data/log", "lost.", "");
    append("data/log", "lost too.", "");
    append("data/other", "synced.", ",fdatasync");
    // In the middle of what was synced.
    let over = scene.write("data/other", "X", &["bs=1", "seek=2", "conv=notrunc"]);
    assert!(over.status.success());
    scene
        .page
        .set(&Effect::new(Class::Sync, Mode::Lie))
        .unwrap();
    append("data/lied", "the disk said it was there", ",fsync");
    assert_eq!(scene.read("data/other"), "syXced.");
    assert_eq!(scene.read("data/lied"), "the disk said it was there");

    lose_unsynced(&scene.path("undo"), &scene.path("data"), Tail::Lost).unwrap();
    assert_eq!(scene.read("data/log"), "synced.");
    assert_eq!(scene.read("data/other"), "synced.");
    assert_eq!(scene.read("data/lied"), "");

    scene.page.clear_all().unwrap();
    append("data/log", "kept.", "");
    append("data/log", "12345678", "");
    lose_unsynced(&scene.path("undo"), &scene.path("data"), Tail::Torn(250)).unwrap();
    assert_eq!(scene.read("data/log"), "synced.kept.12");
}
