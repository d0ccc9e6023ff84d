use proto::v1;
use serde_json::json;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn example() -> Double {
    Double::start(Script {
        failover: v1::FailoverReply {
            from: "atm1".into(),
            to: "atm2".into(),
            epoch: 8,
            elapsed_ms: 123,
        },
        ..Script::default()
    })
}

#[test]
fn the_sentence() {
    let double = example();
    let outcome = asking(&double, &["failover"]).done();
    assert_eq!(
        outcome.stdout,
        "atm1 handed over to atm2 in 123 ms (epoch 8)\n"
    );
    assert_eq!(
        double.asked(),
        [Asked::Failover(v1::FailoverRequest { to: String::new() })]
    );
}

#[test]
fn the_json() {
    let double = example();
    let outcome = asking(&double, &["failover", "--to", "atm2", "--output", "json"]).done();
    let expected = json!({"from": "atm1", "to": "atm2", "epoch": 8, "elapsed_ms": 123});
    assert_eq!(outcome.json(), expected);
    assert_eq!(
        double.asked(),
        [Asked::Failover(v1::FailoverRequest { to: "atm2".into() })]
    );
}

#[test]
fn a_refusal() {
    let message = "no ATM named atm9 in version 3 (did you mean atm2?)";
    for code in [
        Code::FailedPrecondition,
        Code::NotFound,
        Code::InvalidArgument,
        Code::Aborted,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::ResourceExhausted,
        Code::Internal,
    ] {
        let double = Double::start(Script::refusing(code, message));
        let outcome = asking(&double, &["failover", "--to", "atm9"]).failed(1);
        assert_eq!(
            outcome.stderr,
            format!("error: refused: {message}\n"),
            "{code:?}"
        );
    }
}

#[test]
fn without_a_leader_nothing_is_asked_again() {
    let other = example();
    let double = Double::start(Script::refusing(Code::Unavailable, "no leader"));
    let endpoints = format!("{},{}", double.address, other.address);
    let outcome = crate::run::atmctl(&["--endpoint", &endpoints, "failover"]).failed(69);
    assert_eq!(
        outcome.stderr,
        format!(
            "error: cannot reach {}: no leader; it may have been done all the same \
             (`atmctl status` and `atmctl config show` tell)\n",
            double.address
        )
    );
    assert_eq!(other.asked(), []);
}
