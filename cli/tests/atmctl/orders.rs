use proto::v1;
use proto::v1::order_server_request::Action;
use serde_json::json;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::asking;

fn double(changed: bool) -> Double {
    Double::start(Script {
        ordered: v1::OrderServerReply {
            changed,
            connections: 3,
            index: 77,
        },
        ..Script::default()
    })
}

#[test]
fn each_order_is_asked_for_and_said() {
    for (arguments, action, service, weight, said) in [
        (
            &["drain", "serv1"][..],
            Action::Drain,
            "",
            None,
            "serv1 gets no new connections but those of its sticky clients; 3 connections left\n",
        ),
        (
            &["drain", "serv1", "--all", "--service", "smtp"],
            Action::DrainAll,
            "smtp",
            None,
            "smtp of serv1 gets no new connections; 3 connections left\n",
        ),
        (
            &["disable", "serv1"],
            Action::Disable,
            "",
            None,
            "serv1 gets no new connections; 3 connections left\n",
        ),
        (
            &["enable", "serv1"],
            Action::Enable,
            "",
            None,
            "serv1 gets new connections again, if it is healthy; 3 connections left\n",
        ),
        (
            &["weight", "serv1", "65535"],
            Action::Weight,
            "",
            Some(65_535),
            "serv1 has weight 65535; 3 connections left\n",
        ),
        (
            &["weight", "serv1", "default"],
            Action::Weight,
            "",
            None,
            "serv1 has the weight of the configuration; 3 connections left\n",
        ),
    ] {
        let double = double(true);
        let arguments = [&["server"], arguments].concat();
        let outcome = asking(&double, &arguments).done();
        assert_eq!(outcome.stdout, said);
        let request = v1::OrderServerRequest {
            server: "serv1".into(),
            service: service.into(),
            action: action.into(),
            weight,
        };
        assert_eq!(double.asked(), [Asked::Order(request)]);
    }
}

#[test]
fn what_was_so_already_is_said() {
    let double = double(false);
    let outcome = asking(&double, &["server", "drain", "serv1"]).done();
    assert!(
        outcome.stdout.contains(", as before;"),
        "{}",
        outcome.stdout
    );
    let json = asking(&double, &["server", "drain", "serv1", "--output", "json"]).done();
    assert_eq!(
        json.json(),
        json!({"server": "serv1", "service": null, "changed": false, "connections": 3, "index": 77})
    );
}

#[test]
fn wrong_orders() {
    for (arguments, part) in [
        (
            &["server", "weight", "serv1", "70000"][..],
            "from 0 to 65535",
        ),
        (&["server", "weight", "serv1", "-1"], "unexpected argument"),
        (&["server", "drain"], "<SERVER>"),
    ] {
        let outcome = asking(&double(true), arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    let refused = Double::start(Script::refusing(Code::NotFound, "no server banana"));
    let outcome = asking(&refused, &["server", "drain", "banana"]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.stderr.contains("no server banana"),
        "{}",
        outcome.stderr
    );
}
