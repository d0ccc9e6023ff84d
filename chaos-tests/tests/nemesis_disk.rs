//! Faults of disks and power in a running cluster: what one ATM suffers the others make up for, and nothing that was
//! acknowledged is lost.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;

use chaos_tests::cluster::{Applied, Cluster, SETTLE_MAX, Status, fast_configuration, wait_until};
use chaos_tests::equipment::{Class, Disk, DiskKind, Equipment, disk_page};
use chaos_tests::lab::{ATMD, Condition, Lab, program, ready};
use chaos_tests::nemesis::{DiskFault, Fault, FaultId, Place, PowerFault, Scene, Target, Undo};

/// A cluster whose ATMs have disks that can fail.
fn cluster(equipment: &Equipment) -> Cluster {
    let builder = Lab::builder().conf(fast_configuration(3, 3).unwrap());
    Cluster::start_equipped(builder, &program(ATMD).unwrap(), &[], equipment).unwrap()
}

/// Begins a fault; returns whom it struck, and its end.
fn begin(scene: &Scene<'_>, number: u32, fault: Fault) -> (Vec<String>, Undo) {
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

/// Whether a power cut can lose what was not synced, or why this test proves nothing here.
fn wait_until_whole(cluster: &Cluster) -> Status {
    let atms = cluster.atms();
    let hosts: Vec<&str> = atms.iter().map(String::as_str).collect();
    let what = "an active ATM and backups that caught up";
    let whole = |status: &Status| status.active.is_some() && status.all_caught_up();
    cluster.wait_for(what, &hosts, SETTLE_MAX, whole).unwrap()
}

/// Applies one more version of the configuration and returns its number.
fn apply(cluster: &Cluster, host: &str, note: &str) -> u64 {
    let file = cluster.lab().dir().join("next.conf");
    let text = format!("# {note}\n{}", fast_configuration(3, 3).unwrap());
    fs::write(&file, text).unwrap();
    let answer = cluster
        .atmctl(host, &["config", "apply", file.to_str().unwrap()])
        .unwrap();
    let applied: Applied = answer.json().unwrap();
    applied.version.unwrap()
}

fn others<'a>(all: &'a [String], but: &str) -> Vec<&'a str> {
    let others = all.iter().filter(|host| *host != but);
    others.map(String::as_str).collect()
}

#[test]
fn an_active_atm_whose_disk_hangs_falls_silent_and_another_takes_over() {
    if !ready() {
        return;
    }
    let cluster = cluster(&Equipment::for_disk_faults());
    let scene = Scene::of(&cluster);
    let lines = cluster.lines(20).unwrap();
    let atms = cluster.atms();
    let (active, before) = cluster.active().unwrap();

    // Slow, but patient enough: nobody is deposed for it.
    let slow = DiskFault::SlowSync {
        target: Target::Active,
        ms: 20,
        jitter_ms: 20,
    };
    let (_, mut undo) = begin(&scene, 1, Fault::Disk(slow));
    let version = apply(&cluster, &active, "through a slow disk");
    let struck = disk_page(cluster.lab(), &active).unwrap();
    assert!(struck.count(Class::Sync).unwrap().struck > 0);
    undo.run(&scene).unwrap();

    let hang = DiskFault::HangSync {
        target: Target::Active,
    };
    let (active, before) = match cluster.active().unwrap() {
        (host, status) if host == active => (host, before.epoch.max(status.epoch)),
        (host, status) => (host, status.epoch),
    };
    let (struck, mut undo) = begin(&scene, 2, Fault::Disk(hang));
    assert_eq!(struck, std::slice::from_ref(&active));
    // A connection that opens has something written.
    let churn = cluster.churn(20, 3).unwrap();
    let name = cluster.name_of(&active).unwrap();
    let survivors = others(&atms, &active);
    cluster
        .wait_for("another active ATM", &survivors, SETTLE_MAX, |status| {
            status.epoch > before && status.active.as_ref().is_some_and(|now| *now != name)
        })
        .unwrap();
    let hanging = disk_page(cluster.lab(), &active)
        .unwrap()
        .count(Class::Sync)
        .unwrap();
    assert!(hanging.hanging > 0, "{hanging:?}");
    cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();

    undo.run(&scene).unwrap();
    let whole = wait_until_whole(&cluster);
    assert_eq!(whole.config_version, version);
    let log = cluster.log(&active).unwrap();
    assert!(log.contains("the disk has stalled"), "{log}");
    drop(churn);
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

#[test]
fn a_backup_whose_disk_is_full_says_so_and_comes_back() {
    if !ready() {
        return;
    }
    let cluster = cluster(&Equipment {
        disk: DiskKind::Memory { mib: 80 },
        faulty_disk: true,
        ..Equipment::default()
    });
    let scene = Scene::of(&cluster);
    let lines = cluster.lines(20).unwrap();
    let (active, before) = cluster.active().unwrap();
    for (number, fault, said) in [
        (
            1,
            DiskFault::Full {
                target: Target::Backup(1),
                left_kib: 0,
            },
            "No space left on device",
        ),
        (
            2,
            DiskFault::FailSync {
                target: Target::Backup(1),
            },
            "Input/output error",
        ),
        (
            3,
            DiskFault::ReadOnly {
                target: Target::Backup(1),
            },
            "Read-only file system",
        ),
    ] {
        let (struck, mut undo) = begin(&scene, number, Fault::Disk(fault));
        let struck = &struck[0];
        // The others are a majority: the change is committed all the same.
        let version = apply(&cluster, &active, &format!("version of fault {number}"));
        wait_until("it says what is wrong with its disk", SETTLE_MAX, || {
            let log = cluster.log(struck).unwrap();
            let written = log.contains(said);
            written.then_some(()).ok_or(log)
        })
        .unwrap();
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
        undo.run(&scene).unwrap();
        let whole = wait_until_whole(&cluster);
        assert_eq!(whole.config_version, version);
        assert_eq!(
            (whole.active, whole.epoch),
            (before.active.clone(), before.epoch),
            "a backup's disk deposed nobody"
        );
    }
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

#[test]
fn a_power_cut_of_one_or_of_all_loses_nothing_that_was_acknowledged() {
    if !ready() {
        return;
    }
    let equipment = Equipment::for_disk_faults();
    let _ = writeln!(std::io::stderr(), "power cuts of {:?}", equipment.disk);
    let cluster = cluster(&equipment);
    let scene = Scene::of(&cluster);
    let lines = cluster.lines(30).unwrap();
    let mut epoch = 0;
    for (number, fault) in [
        PowerFault::Cut {
            target: Target::Active,
        },
        PowerFault::Torn {
            target: Target::Active,
            keep: 500,
        },
        PowerFault::Cut {
            target: Target::AllAtms,
        },
    ]
    .into_iter()
    .enumerate()
    {
        let (active, _) = cluster.active().unwrap();
        let version = apply(&cluster, &active, &format!("before cut {number}"));
        let known = cluster.connections(&active).unwrap();
        // Something is always being written.
        let churn = cluster.churn(50, 2).unwrap();
        let number = u32::try_from(number).unwrap();
        let (struck, mut undo) = begin(&scene, number, Fault::Power(fault));
        for host in &struck {
            let condition = cluster.lab().condition(host, ATMD).unwrap();
            assert_eq!(condition, Condition::Dead, "{host}");
        }
        drop(churn);
        undo.run(&scene).unwrap();
        let whole = wait_until_whole(&cluster);
        assert_eq!(whole.config_version, version);
        assert!(whole.epoch > epoch, "{whole:?}");
        epoch = whole.epoch;
        for atm in cluster.atms() {
            let now = cluster.connections(&atm).unwrap();
            for (client, server) in &known {
                // The short connections come and go; those with lines stay.
                if let Some(present) = now.get(client) {
                    assert_eq!(present, server, "{client} on {atm}");
                }
            }
        }
        cluster.wait_until_all_flow(&lines, SETTLE_MAX).unwrap();
    }
    let report = lines.finish(SETTLE_MAX);
    assert!(report.is_unbroken(), "{report:#?}");
}

#[test]
fn what_was_not_synced_is_gone_after_a_power_cut_and_what_was_is_there() {
    if !ready() {
        return;
    }
    for equipment in [
        Equipment::for_disk_faults(),
        Equipment {
            disk: DiskKind::Directory,
            faulty_disk: true,
            keep_unsynced: true,
            faulty_clock: false,
        },
    ] {
        let cluster = cluster(&equipment);
        let host = cluster.others(&cluster.active().unwrap().0).remove(0);
        let disk = Disk::at(cluster.lab(), &host).unwrap();
        cluster.lab().kill(&host, ATMD).unwrap();
        if equipment.disk != DiskKind::Directory {
            let data = disk.data().unwrap();
            write(&data.join("synced"), "here", true);
            write(&data.join("unsynced"), "gone", false);
        }
        disk.cut_power(chaos_tests::equipment::Tail::Lost).unwrap();
        if equipment.disk != DiskKind::Directory {
            let data = disk.data().unwrap();
            assert_eq!(fs::read_to_string(data.join("synced")).unwrap(), "here");
            let gone = fs::read_to_string(data.join("unsynced")).unwrap_or_default();
            assert_eq!(gone, "");
        }
        cluster.lab().restart(&host, ATMD).unwrap();
        wait_until_whole(&cluster);
    }
}

fn write(path: &Path, text: &str, sync: bool) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    if sync {
        file.sync_all().unwrap();
        fs::File::open(path.parent().unwrap())
            .unwrap()
            .sync_all()
            .unwrap();
    }
}
