use proto::v1;
use serde_json::json;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn example(incarnation: &str) -> Double {
    Double::start(Script {
        forgotten: v1::ForgetAtmReply {
            name: "atm2".into(),
            incarnation: incarnation.into(),
        },
        ..Script::default()
    })
}

#[test]
fn the_sentence() {
    let double = example("f00");
    let outcome = asking(&double, &["atm", "forget", "atm2"]).done();
    assert_eq!(
        outcome.stdout,
        "data directory f00 of atm2 is forgotten; start atm2 with an empty one\n"
    );
    let name = "atm2".into();
    assert_eq!(
        double.asked(),
        [Asked::Forget(v1::ForgetAtmRequest { name })]
    );
}

#[test]
fn the_json() {
    let outcome = asking(&example(""), &["atm", "forget", "atm2", "--output", "json"]).done();
    assert_eq!(outcome.json(), json!({"name": "atm2", "incarnation": null}));
}

#[test]
fn a_refusal() {
    let double = Double::start(Script::refusing(
        Code::FailedPrecondition,
        "atm2 takes part",
    ));
    let outcome = asking(&double, &["atm", "forget", "atm2"]).failed(1);
    assert!(
        outcome.stderr.contains("refused: atm2 takes part"),
        "{}",
        outcome.stderr
    );
}
