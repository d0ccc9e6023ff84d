//! `atmctl digest`.

use proto::v1;
use serde_json::json;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn example() -> Double {
    Double::start(Script {
        digest: v1::DigestReply {
            atm: "atm2".into(),
            applied_index: 17,
            sha256: vec![0x0a, 0xff].into(),
        },
        ..Script::default()
    })
}

#[test]
fn as_a_line() {
    let double = example();
    let outcome = asking(&double, &["digest"]).done();
    assert_eq!(outcome.stdout, "atm2 index 17 sha256 0aff\n");
    assert_eq!(double.asked(), [Asked::Digest]);
}

#[test]
fn as_json() {
    let outcome = asking(&example(), &["digest", "--output", "json"]).done();
    assert_eq!(
        outcome.json(),
        json!({"atm": "atm2", "applied_index": 17, "sha256": "0aff"})
    );
}
