//! Faults of processor, memory and clocks: each has its effect on a real process, and its end.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use chaos_tests::cluster::{Cluster, SETTLE_MAX, fast_configuration, wait_until};
use chaos_tests::equipment::{
    ClockPage, Controller, Equipment, EquipmentError, Group, clock_control, clock_page, set_idle,
};
use chaos_tests::lab::{ATMD, Lab, program, ready, skipped};
use chaos_tests::nemesis::{ClockFault, Fault, FaultId, Place, ResourceFault, Scene, Target, Undo};

const LIMIT: Duration = Duration::from_secs(10);

/// A process that is killed when it is dropped.
struct Running(Child);

impl Running {
    fn start(script: &str) -> Self {
        let mut child = Command::new("sh");
        child.args(["-c", script]);
        Self(child.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Processor time it has had, in ticks.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Scheduling policy of its first thread (sched_setscheduler(2)).
    fn policy(&self) -> u32 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_whitespace().nth(38).unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The group, or a line that says why there is none.
fn group(controller: Controller, name: &str, of: &Running) -> Option<Group> {
    match Group::of(controller, &format!("test-{name}"), of.0.id()) {
        Ok(group) => Some(group),
        Err(error @ EquipmentError::Unavailable { .. }) => {
            skipped(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

const BUSY: &str = "while :; do :; done";

#[test]
fn a_frozen_process_stands_still_and_goes_on() {
    let busy = Running::start(BUSY);
    let Some(group) = group(Controller::Freezer, "freeze", &busy) else {
        return;
    };
    group.freeze().unwrap();
    let frozen = busy.ticks();
    sleep(Duration::from_millis(100));
    assert_eq!(busy.ticks(), frozen);
    drop(group);
    wait_until("it runs again", LIMIT, || {
        let ticks = busy.ticks();
        (ticks > frozen).then_some(()).ok_or(format!("{ticks}"))
    })
    .unwrap();
}

#[test]
fn a_limited_process_is_throttled_until_it_is_let_go() {
    let busy = Running::start(BUSY);
    let Some(group) = group(Controller::Cpu, "cpu", &busy) else {
        return;
    };
    group.limit_cpu(50).unwrap();
    wait_until("it is throttled", LIMIT, || {
        let times = group.throttled().unwrap();
        (times > 2).then_some(()).ok_or(format!("{times} times"))
    })
    .unwrap();
    let pid = busy.0.id().to_string();
    let cgroup = || fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup().contains("atm-lab-test-cpu"));
    drop(group);
    assert!(!cgroup().contains("atm-lab-test-cpu"), "{}", cgroup());
}

#[test]
fn a_process_that_takes_more_memory_than_it_may_is_killed() {
    let mut hungry = Running::start("sleep 0.2; a=x; while :; do a=$a$a; done");
    let Some(group) = group(Controller::Memory, "memory", &hungry) else {
        return;
    };
    group.limit_memory(4 << 20).unwrap();
    wait_until("it meets the limit", LIMIT, || {
        let times = group.memory_refusals().unwrap();
        let ended = hungry.0.try_wait().unwrap().is_some();
        (times > 0 && ended)
            .then_some(())
            .ok_or(format!("{times} times, ended: {ended}"))
    })
    .unwrap();
}

#[test]
fn an_idle_process_is_as_it_was_afterwards() {
    let busy = Running::start(BUSY);
    match set_idle(busy.0.id(), true) {
        Err(error) if error.is_unavailable() => {
            skipped(error);
            return;
        }
        done => done.unwrap(),
    }
    // SCHED_IDLE, and SCHED_OTHER.
    assert_eq!(busy.policy(), 5);
    set_idle(busy.0.id(), false).unwrap();
    assert_eq!(busy.policy(), 0);
}

/// CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_REALTIME of a process of the library, and of this one, in ns.
fn clocks(page: &std::path::Path) -> [i128; 3] {
    // `sleep` is not asked: `cat /proc/uptime` and `date` do not read these clocks. This program does, and is run anew.
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_a_process_reads",
            "--nocapture",
            "--ignored",
        ])
        .env("LD_PRELOAD", program("libfaulty_clock.so").unwrap())
        .env(clock_control::ENV_CONTROL, page)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.split_once("ahead: ")).unwrap();
    let mut ahead = line.1.split(' ').map(|n| n.parse().unwrap());
    [(); 3].map(|()| ahead.next().unwrap())
}

/// Run by [`clocks`]: how far each clock is ahead of the machine's, which the kernel shows in /proc.
#[test]
#[ignore = "run by the test of the clocks, under the library"]
fn what_a_process_reads() {
    use rustix::time::{ClockId, clock_gettime};
    let now = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let machine = Duration::from_secs_f64(seconds).as_nanos();
    let machine = i128::try_from(machine).unwrap();
    let wall = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let wall = i128::try_from(wall.as_nanos()).unwrap() - now(ClockId::Realtime);
    println!(
        "ahead: {} {} {wall}",
        now(ClockId::Monotonic) - machine,
        now(ClockId::Boottime) - machine
    );
}

#[test]
fn a_process_sees_clocks_that_jump_step_and_run_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clock");
    let page = ClockPage::create(&path).unwrap();
    let near = |ahead: i128, seconds: i128| (ahead - seconds * 1_000_000_000).abs() < 500_000_000;
    let [monotonic, boottime, wall] = clocks(&path);
    if page.replaces_all().unwrap() != Some(true) {
        skipped("clocks of its own for a process: the kernel's vDSO cannot be changed");
        return;
    }
    assert!(near(boottime, 0) && near(wall, 0), "{boottime} {wall}");

    page.suspend(Duration::from_secs(100)).unwrap();
    page.step_wall(-3_600_000).unwrap();
    let [unmoved, boottime, wall] = clocks(&path);
    assert!(near(unmoved - monotonic, 0), "{unmoved}");
    assert!(near(boottime, 100), "{boottime}");
    assert!(near(wall, 100 - 3600), "{wall}");
    assert!(page.faked().unwrap() > 0);

    // 10 % of a second and more: far above what a loaded machine makes of reading two clocks.
    page.set_rate(100_000).unwrap();
    sleep(Duration::from_millis(3_000));
    page.set_rate(0).unwrap();
    let [_, faster, _] = clocks(&path);
    let gained = faster - boottime;
    assert!(gained > 200_000_000, "{gained}");
    page.set_rate(-100_000).unwrap();
    sleep(Duration::from_millis(3_000));
    page.set_rate(0).unwrap();
    let [_, slower, _] = clocks(&path);
    assert!(slower < faster - 200_000_000, "{slower} {faster}");
}

fn begin(scene: &Scene<'_>, number: u32, fault: &Fault) -> (Vec<String>, Undo) {
    let strike = fault.strike();
    let resolved = scene.resolve(&strike.targets()).unwrap();
    let place = Place {
        id: FaultId(number),
        seed: 7,
        resolved: &resolved,
    };
    let mut undo = Undo::default();
    if let Err(error) = strike.begin(scene, &place, &mut undo) {
        let _ = undo.run(scene);
        panic!("{fault}: {error}");
    }
    (place.hosts(0).to_vec(), undo)
}

#[test]
fn wrong_clocks_and_pauses_break_no_connection() {
    if !ready() {
        return;
    }
    let equipment = Equipment {
        faulty_clock: true,
        ..Equipment::default()
    };
    let builder = Lab::builder().conf(fast_configuration(3, 3).unwrap());
    let cluster =
        Cluster::start_equipped(builder, &program(ATMD).unwrap(), &[], &equipment).unwrap();
    let (active, _) = cluster.active().unwrap();
    let page = clock_page(cluster.lab(), &active).unwrap();
    if page.replaces_all().unwrap() != Some(true) {
        skipped("the vDSO cannot be changed");
        return;
    }
    let scene = Scene::of(&cluster);
    let lines = cluster.lines(20).unwrap();
    let target = || Target::Active;
    let (before, status) = cluster.active().unwrap();
    for (number, fault) in (0..).zip([
        Fault::Clock(ClockFault::Wall {
            target: target(),
            ms: 3_600_000,
        }),
        Fault::Clock(ClockFault::Wall {
            target: target(),
            ms: -3_600_000,
        }),
    ]) {
        let (_, mut undo) = begin(&scene, number, &fault);
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
        undo.run(&scene).unwrap();
    }
    let (after, now) = cluster.active().unwrap();
    assert_eq!(
        (after, now.epoch),
        (before, status.epoch),
        "a wall clock that steps is nobody's business"
    );
    for (number, fault) in (10..).zip([
        Fault::Clock(ClockFault::Rate {
            target: target(),
            millionths: 50_000,
        }),
        Fault::Clock(ClockFault::Rate {
            target: target(),
            millionths: -50_000,
        }),
        Fault::Clock(ClockFault::Suspend {
            target: target(),
            ms: 5_000,
        }),
        Fault::Resource(ResourceFault::Starve { target: target() }),
    ]) {
        let (_, mut undo) = begin(&scene, number, &fault);
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
        undo.run(&scene).unwrap();
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    }
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}
