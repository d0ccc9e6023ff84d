use proto::v1;
use serde_json::json;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn example() -> Double {
    let counter = |name: &str, value| v1::Counter {
        name: name.into(),
        value,
    };
    Double::start(Script {
        counters: v1::CountersReply {
            atm: "atm1".into(),
            counters: vec![
                counter("transmit", 18_446_744_073_709_551_615),
                counter("drop_lease_expired", 7),
            ],
        },
        ..Script::default()
    })
}

#[test]
fn the_table() {
    let double = example();
    let outcome = asking(&double, &["counters"]).done();
    assert_eq!(
        outcome.stdout,
        "\
COUNTER                            VALUE
drop_lease_expired                     7
transmit            18446744073709551615
"
    );
    assert_eq!(outcome.stderr, "counters of atm1\n");
    assert_eq!(double.asked(), [Asked::Counters]);
}

#[test]
fn the_json() {
    let outcome = asking(&example(), &["counters", "--output", "json"]).done();
    let counters = json!({"drop_lease_expired": 7, "transmit": u64::MAX});
    assert_eq!(outcome.json(), json!({"atm": "atm1", "counters": counters}));
}
