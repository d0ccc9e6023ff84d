//! Each fault of the network is seen where it should be seen, and nowhere once it has ended. Without daemons.

use std::time::Duration;

use crate::probing::{introduce, is_cut, passes, send};
use chaos_tests::lab::{Lab, LabError, ready};
use chaos_tests::nemesis::{
    Disturbance, Fault, FaultId, NemesisError, NetworkFault, Place, Scene, Target, Undo, heal_all,
};

const MS: Duration = Duration::from_millis(1);

fn lab(atms: usize) -> Lab {
    let lab = Lab::builder()
        .atms(atms)
        .servers(1)
        .client()
        .without_daemons()
        .start()
        .unwrap();
    introduce(&lab);
    lab
}

/// Applies `fault` under `id`, and returns how it is undone.
fn begin(scene: &Scene<'_>, id: u32, fault: NetworkFault) -> Result<Undo, NemesisError> {
    let fault = Fault::Network(fault);
    let resolved = scene.resolve(&fault.strike().targets())?;
    let place = Place {
        id: FaultId(id),
        seed: 1,
        resolved: &resolved,
    };
    let mut undo = Undo::default();
    fault.strike().begin(scene, &place, &mut undo)?;
    Ok(undo)
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn cut(from: &str, to: &str, both_ways: bool) -> NetworkFault {
    NetworkFault::Cut {
        from: target(from),
        to: target(to),
        both_ways,
    }
}

/// Directions that are cut, and directions that are not, each as `from>to`.
struct Case {
    fault: NetworkFault,
    cut: &'static str,
    open: &'static str,
}

#[test]
fn cuts_of_every_shape_cut_what_they_name_and_nothing_else() {
    if !ready() {
        return;
    }
    let lab = lab(5);
    let scene = Scene::of_lab(&lab).with_active("atm2");
    let cases = [
        Case {
            fault: cut("active-minority", "backup-majority", true),
            cut: "atm1>atm3 atm3>atm1 atm2>atm5 atm5>atm2",
            open: "atm1>atm2 atm2>atm1 atm3>atm5 atm2>client client>atm2",
        },
        Case {
            fault: cut("active", "other-atms", false),
            cut: "atm2>atm1 atm2>atm5",
            open: "atm1>atm2 atm5>atm2 atm2>serv1 atm1>atm5",
        },
        Case {
            fault: cut("active", "other-atms", true),
            cut: "atm2>atm1 atm1>atm2 atm5>atm2",
            open: "atm2>client client>atm2 atm2>serv1 atm1>atm5",
        },
        Case {
            fault: cut("active", "non-atms", true),
            cut: "atm2>client client>atm2 serv1>atm2",
            open: "atm2>atm1 atm1>atm2 atm1>client client>serv1",
        },
        Case {
            fault: NetworkFault::Bridge {
                over: target("backup(2)"),
            },
            cut: "atm1>atm4 atm2>atm5 atm5>atm1",
            open: "atm1>atm2 atm4>atm5 atm3>atm1 atm3>atm5 atm5>atm3 atm1>client",
        },
        Case {
            fault: NetworkFault::Shatter,
            cut: "atm1>atm2 atm2>atm1 atm4>atm5 atm5>atm3",
            open: "atm1>client client>atm1 atm5>serv1 serv1>client",
        },
    ];
    for case in cases {
        let name = format!("{:?}", case.fault);
        let mut undo = begin(&scene, 1, case.fault).unwrap();
        for (from, to) in directions(case.cut) {
            assert!(is_cut(&lab, from, to), "{from} to {to}: {name}");
        }
        for (from, to) in directions(case.open) {
            assert!(passes(&lab, from, to), "{from} to {to}: {name}");
        }
        undo.run(&scene).unwrap();
        for (from, to) in directions(case.cut) {
            assert!(passes(&lab, from, to), "{from} to {to} after {name}");
        }
    }
    assert_eq!(lab.impaired().unwrap(), Vec::<String>::new());
}

fn directions(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(' ').map(|pair| pair.split_once('>').unwrap())
}

#[test]
fn of_two_overlapping_cuts_the_other_one_stays() {
    if !ready() {
        return;
    }
    let lab = lab(3);
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let mut one = begin(&scene, 1, cut("atm1", "atm2", true)).unwrap();
    let mut two = begin(&scene, 2, cut("atm1", "other-atms", true)).unwrap();
    one.run(&scene).unwrap();
    assert!(is_cut(&lab, "atm1", "atm2"));
    two.run(&scene).unwrap();
    assert!(passes(&lab, "atm1", "atm2"));

    // What nobody undoes is healed all the same.
    let _forgotten = begin(&scene, 3, cut("atm1", "client", true)).unwrap();
    assert_eq!(heal_all(&scene).failed, Vec::<String>::new());
    assert!(passes(&lab, "atm1", "client"));
}

#[test]
fn the_bridge_loses_and_copies_about_as_much_as_it_was_told() {
    if !ready() {
        return;
    }
    let lab = lab(3);
    let scene = Scene::of_lab(&lab).with_active("atm1");
    let disturb = |how| NetworkFault::Disturb {
        from: Target::Active,
        to: target("client"),
        how,
    };
    let quiet = send(&lab, "atm1", "client", 100, MS / 20);
    assert_eq!(quiet.len(), 100, "without a fault");

    let loss = Disturbance {
        drop_ppm: 300_000,
        ..Disturbance::default()
    };
    let mut undo = begin(&scene, 1, disturb(loss)).unwrap();
    for (from, to) in [("atm1", "client"), ("client", "atm1")] {
        let arrived = send(&lab, from, to, 1000, MS / 20).len();
        // 700 of 1000; six standard deviations are 87.
        assert!(
            (610..=790).contains(&arrived),
            "{arrived} from {from} to {to}"
        );
    }
    undo.run(&scene).unwrap();

    let copies = Disturbance {
        duplicate_ppm: 250_000,
        ..Disturbance::default()
    };
    let mut undo = begin(&scene, 2, disturb(copies)).unwrap();
    let arrived = send(&lab, "atm1", "client", 1000, MS / 20).len();
    // A copy may be copied again: 1333 on average, with a standard deviation of 21.
    assert!((1200..=1460).contains(&arrived), "{arrived}");
    undo.run(&scene).unwrap();
    assert_eq!(send(&lab, "atm1", "client", 100, MS / 20).len(), 100);

    let late = Disturbance {
        delay_us: 1000,
        ..Disturbance::default()
    };
    assert!(matches!(
        begin(&scene, 3, disturb(late)),
        Err(NemesisError::Lab(LabError::NeedsSwitch))
    ));
}
