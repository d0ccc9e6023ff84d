//! Each fault of hosts and processes is seen, and gone when it has ended; and the nemesis undoes everything whatever happens.
//! Without daemons: a process that does nothing stands in for atmd.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::probing::{introduce, is_cut, passes, passes_of, send};
use chaos_tests::cluster::wait_until;
use chaos_tests::lab::{ATMD, Condition, Lab, Link, ROGUE_NAME, format_mac, ready};
use chaos_tests::nemesis::{
    Edge, Fault, FaultId, HostFault, NetworkFault, Place, ProcessFault, Report, Scene, Schedule,
    Stop, Target, Undo, monotonic_ns, run,
};

const SOON: Duration = Duration::from_secs(5);

/// Three ATMs whose daemon is a sleep.
fn lab() -> Lab {
    let lab = Lab::builder()
        .atms(3)
        .servers(1)
        .client()
        .rogue()
        .without_daemons()
        .start()
        .unwrap();
    for host in lab.hosts().iter().filter(|host| host.is_atm()) {
        host.spawn(ATMD, ["sleep", "3600"], &[]).unwrap();
    }
    lab
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// Applies `fault`, looks, undoes it.
fn during(scene: &Scene<'_>, fault: Fault, look: impl FnOnce()) {
    let resolved = scene.resolve(&fault.strike().targets()).unwrap();
    let place = Place {
        id: FaultId(1),
        seed: 1,
        resolved: &resolved,
    };
    let mut undo = Undo::default();
    fault.strike().begin(scene, &place, &mut undo).unwrap();
    look();
    undo.run(scene).unwrap();
    assert!(undo.is_empty());
}

fn condition(lab: &Lab, host: &str) -> Condition {
    lab.condition(host, ATMD).unwrap()
}

fn pid(lab: &Lab, host: &str) -> u32 {
    lab.record().process(host, ATMD).unwrap().identity.pid
}

/// A signal has its effect a moment after it was sent.
fn becomes(lab: &Lab, host: &str, wanted: Condition) {
    let what = format!("atmd on {host} {wanted:?}");
    wait_until(&what, SOON, || {
        let condition = condition(lab, host);
        (condition == wanted)
            .then_some(())
            .ok_or(format!("{condition:?}"))
    })
    .unwrap();
}

#[test]
fn daemons_are_killed_stopped_and_started_again() {
    if !ready() {
        return;
    }
    let lab = lab();
    let scene = Scene::of_lab(&lab).with_active("atm2");
    let active = || Target::Active;
    for fault in [
        ProcessFault::Kill { target: active() },
        ProcessFault::Terminate { target: active() },
    ] {
        let before = pid(&lab, "atm2");
        during(&scene, Fault::Process(fault), || {
            assert_eq!(condition(&lab, "atm2"), Condition::Dead);
            assert_eq!(condition(&lab, "atm1"), Condition::Running);
        });
        assert_eq!(condition(&lab, "atm2"), Condition::Running);
        assert_ne!(pid(&lab, "atm2"), before);
    }
    let before = pid(&lab, "atm2");
    let stop = ProcessFault::Stop { target: active() };
    during(&scene, Fault::Process(stop), || {
        becomes(&lab, "atm2", Condition::Stopped);
    });
    becomes(&lab, "atm2", Condition::Running);
    assert_eq!(pid(&lab, "atm2"), before);

    let before = ["atm1", "atm2", "atm3"].map(|host| pid(&lab, host));
    let target = Target::AllAtms;
    during(
        &scene,
        Fault::Process(ProcessFault::Restart { target }),
        || {
            for (host, before) in ["atm1", "atm2", "atm3"].into_iter().zip(before) {
                assert_eq!(condition(&lab, host), Condition::Running);
                assert_ne!(pid(&lab, host), before);
            }
        },
    );
}

#[test]
fn links_go_down_hosts_crash_and_large_packets_vanish() {
    if !ready() {
        return;
    }
    let lab = lab();
    introduce(&lab);
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let link = |host: usize| lab.status().unwrap().hosts[host].link;
    let active = || Target::Active;

    during(
        &scene,
        Fault::Host(HostFault::LinkDown { target: active() }),
        || {
            assert_eq!(link(0), Link::Down);
            let carrier = ["cat", "/sys/class/net/eth0/carrier"];
            let seen = lab.host("atm1").unwrap().exec(carrier).unwrap();
            assert_eq!(seen.stdout, b"0\n");
            assert!(is_cut(&lab, "client", "atm1"));
        },
    );
    assert_eq!(link(0), Link::Up);
    introduce(&lab);
    assert!(passes(&lab, "client", "atm1") && passes(&lab, "atm1", "atm2"));

    during(
        &scene,
        Fault::Host(HostFault::SilentCut {
            target: target("server(1)"),
        }),
        || {
            assert!(is_cut(&lab, "serv1", "client") && is_cut(&lab, "atm2", "serv1"));
            assert!(passes(&lab, "atm2", "client"));
        },
    );
    assert!(passes(&lab, "serv1", "client"));

    during(
        &scene,
        Fault::Host(HostFault::Crash { target: active() }),
        || {
            assert_eq!(condition(&lab, "atm1"), Condition::Dead);
            assert!(is_cut(&lab, "atm1", "client") && is_cut(&lab, "atm2", "atm1"));
        },
    );
    assert_eq!(condition(&lab, "atm1"), Condition::Running);
    assert!(passes(&lab, "atm1", "client"));

    let large = || passes_of(&lab, "atm1", "client", 1_000);
    assert!(large());
    let mtu = HostFault::SmallMtu {
        target: active(),
        bytes: 576,
    };
    during(&scene, Fault::Host(mtu), || {
        assert!(!large(), "1000 bytes passed");
        assert!(passes(&lab, "atm1", "client"), "small ones pass");
    });
    assert!(large());
}

/// Where the client believes the first VIP to be.
fn neighbour(lab: &Lab) -> String {
    let vip = lab.vips()[0].to_string();
    let client = lab.host("client").unwrap();
    let shown = client.exec(["ip", "neigh", "show", &vip]).unwrap();
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[test]
fn a_rogue_and_a_false_memory_mislead_the_client_until_they_end() {
    if !ready() {
        return;
    }
    let lab = lab();
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let vip = lab.vips()[0].to_string();
    let client = lab.host("client").unwrap();
    let rogue = format_mac(lab.host(ROGUE_NAME).unwrap().mac());
    // The client has an entry that an announcement may change: those who know nothing learn nothing.
    let know = [
        "ip",
        "neigh",
        "replace",
        &vip,
        "lladdr",
        "02:00:00:00:00:99",
        "dev",
        "eth0",
        "nud",
        "stale",
    ];
    client.exec(know).unwrap();
    let announces = HostFault::Rogue {
        announce_every_ms: 20,
        answers: false,
    };
    during(&scene, Fault::Host(announces), || {
        // Linux takes no change within a second of the last one (locktime).
        wait_until("the client believes the rogue", SOON, || {
            let seen = neighbour(&lab);
            seen.contains(&rogue).then_some(()).ok_or(seen)
        })
        .unwrap();
    });
    assert!(!neighbour(&lab).contains(&rogue), "{}", neighbour(&lab));

    let answers = HostFault::Rogue {
        announce_every_ms: 1_000,
        answers: true,
    };
    let ask =
        format!("ip neigh flush dev eth0; exec 3<>/dev/udp/{vip}/9; echo hello >&3; sleep 0.1");
    during(&scene, Fault::Host(answers), || {
        wait_until("the rogue's answer", SOON, || {
            client.exec(["bash", "-c", &ask]).unwrap();
            let seen = neighbour(&lab);
            seen.contains(&rogue).then_some(()).ok_or(seen)
        })
        .unwrap();
    });
    let held = lab
        .host(ROGUE_NAME)
        .unwrap()
        .exec(["ip", "-4", "addr", "show", "dev", "eth0"])
        .unwrap();
    let held = String::from_utf8_lossy(&held.stdout).into_owned();
    assert!(!held.contains(&vip), "{held}");
    assert!(!neighbour(&lab).contains(&rogue));

    let stale = HostFault::StaleNeighbour {
        on: target("client"),
        at: target("backup(1)"),
        stuck: true,
    };
    let wrong = format_mac(lab.host("atm2").unwrap().mac());
    during(&scene, Fault::Host(stale), || {
        assert!(neighbour(&lab).contains(&wrong), "{}", neighbour(&lab));
    });
    assert!(!neighbour(&lab).contains(&wrong));
}

fn cut() -> Fault {
    Fault::Network(NetworkFault::Cut {
        from: Target::Active,
        to: Target::OtherAtms,
        both_ways: true,
    })
}

fn kill(text: &str) -> Fault {
    Fault::Process(ProcessFault::Kill {
        target: target(text),
    })
}

#[test]
fn a_schedule_happens_in_its_order_and_is_told_as_it_happened() {
    if !ready() {
        return;
    }
    let lab = lab();
    introduce(&lab);
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let mut schedule = Schedule::new(1, 1_500);
    schedule.add(100, 600, cut());
    schedule.add(300, 900, kill("backup(1)"));
    schedule.add(400, 500, kill("backup(9)"));
    // Two that keep the same daemon down: the end of one does not start it.
    schedule.add(500, 1_200, kill("atm2"));
    let reports = Mutex::new(Vec::<Report>::new());
    let seen = Mutex::new(Vec::new());
    let note = |report: Report| {
        let down = condition(&lab, "atm2") == Condition::Dead;
        seen.lock().unwrap().push((report.id.0, report.edge, down));
        reports.lock().unwrap().push(report);
    };
    let begun = monotonic_ns();
    let outcome = run(&schedule, &scene, &Stop::new(), &note);
    assert_eq!(
        (outcome.struck, outcome.missed.len()),
        (3, 1),
        "{outcome:?}"
    );
    assert_eq!(outcome.unmended, []);
    assert_eq!(outcome.healed.restarted, Vec::<String>::new());
    use Edge::{Begin, End};
    let order: Vec<_> = seen.into_inner().unwrap();
    assert_eq!(
        order,
        [
            (0, Begin, false),
            (1, Begin, true),
            (2, Begin, true),
            (2, End, true),
            (3, Begin, true),
            (0, End, true),
            (1, End, true),
            (3, End, false),
        ]
    );
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports[0].resolved[0].hosts, ["atm1"]);
    assert_eq!(reports[0].resolved[1].hosts, ["atm2", "atm3"]);
    for report in reports.iter().filter(|report| report.id.0 != 2) {
        let planned = begun + report.planned_ms * 1_000_000;
        assert!(report.t_ns >= planned && report.done_ns >= report.t_ns);
        assert_eq!(report.error, None);
    }
    let missed = reports.iter().find(|report| report.id.0 == 2).unwrap();
    assert!(missed.error.as_ref().unwrap().contains("backup(9)"));
    assert!(passes(&lab, "atm1", "atm2"));
    assert_eq!(send(&lab, "atm1", "atm2", 20, Duration::ZERO).len(), 20);
}

#[test]
fn a_run_that_is_stopped_or_panics_leaves_nothing_broken() {
    if !ready() {
        return;
    }
    let lab = lab();
    introduce(&lab);
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let mut schedule = Schedule::new(1, 60_000);
    schedule.add(0, 60_000, cut());
    schedule.add(10, 60_000, kill("atm3"));
    schedule.add(50_000, 60_000, kill("atm2"));

    let begun = Instant::now();
    let stop = Stop::new();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            becomes(&lab, "atm3", Condition::Dead);
            stop.stop();
        });
        run(&schedule, &scene, &stop, &|_| {})
    });
    assert_eq!((outcome.struck, outcome.unmended.len()), (2, 0));
    assert_eq!(condition(&lab, "atm3"), Condition::Running);
    assert!(passes(&lab, "atm1", "atm2"));

    let panics = |report: Report| {
        assert!(report.id.0 != 1, "planned");
    };
    let ran = catch_unwind(AssertUnwindSafe(|| {
        run(&schedule, &scene, &Stop::new(), &panics)
    }));
    assert!(ran.is_err());
    assert_eq!(condition(&lab, "atm3"), Condition::Running);
    assert!(passes(&lab, "atm1", "atm2"));
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "nobody waited for the end"
    );
}
