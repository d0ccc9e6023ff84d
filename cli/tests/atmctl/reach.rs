//! Endpoints that answer, refuse, stay silent or speak something else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use proto::v1;
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::{asking, atmctl, command, outcome};

/// An address on which nobody listens: other tests get ports of 127.0.0.1, and one that was closed there again.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    listener.local_addr().unwrap()
}

const ASKING: &[&[&str]] = &[
    &["status"],
    &["connections"],
    &["failover"],
    &["config", "show"],
    &["counters"],
];

#[test]
fn nobody_there() {
    let endpoint = nobody().to_string();
    for arguments in ASKING {
        let outcome = atmctl(&[&["--endpoint", &endpoint], *arguments].concat()).failed(69);
        assert_eq!(
            outcome.stderr,
            format!(
                "error: cannot reach {endpoint}: Connection refused (os error 111) \
                 (is atmd running there? --endpoint names another ATM)\n"
            )
        );
    }
}

#[test]
fn a_host_that_does_not_exist() {
    let start = Instant::now();
    let outcome = atmctl(&["status", "--endpoint", "no-such-host.invalid:7411"]).failed(69);
    assert!(
        outcome
            .stderr
            .starts_with("error: cannot reach no-such-host.invalid:7411: ")
    );
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_atm_that_never_answers_meets_the_deadline() {
    let double = Double::start(Script {
        silent: true,
        ..Script::default()
    });
    for arguments in ASKING {
        let start = Instant::now();
        let outcome = asking(&double, &[*arguments, &["--timeout", "0.4"]].concat()).failed(69);
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(390), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
        assert!(
            outcome.stderr.contains("no answer within 400ms"),
            "{outcome:?}"
        );
        let may_have_been_done = outcome.stderr.contains("may have been done");
        assert_eq!(
            may_have_been_done,
            *arguments == ["failover"],
            "{outcome:?}"
        );
    }
}

#[test]
fn a_port_that_accepts_and_says_nothing_meets_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let start = Instant::now();
    let outcome = atmctl(&["status", "--endpoint", &endpoint, "--timeout", "0.4"]).failed(69);
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(outcome.stderr.contains("cannot reach"), "{outcome:?}");
}

#[test]
fn a_port_that_speaks_something_else_is_no_atm() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"220 mail ESMTP\r\n",
        b"",
    ];
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 24];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(answer).unwrap();
        });
        let outcome = atmctl(&["status", "--endpoint", &endpoint]).failed(69);
        assert!(
            outcome
                .stderr
                .starts_with(&format!("error: cannot reach {endpoint}: ")),
            "{outcome:?}"
        );
        thread.join().unwrap();
    }
}

#[test]
fn a_web_server_is_no_atm() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 24]).unwrap();
        // RFC 9113 §4.1: length (3 bytes), type, flags, stream (4 bytes). The request is a HEADERS frame, type 1.
        let mut header = [0; 9];
        while header[3] != 1 {
            stream.read_exact(&mut header).unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            stream.read_exact(&mut vec![0; length as usize]).unwrap();
        }
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // END_STREAM and END_HEADERS, stream 1, and the indexed field `:status: 404` (RFC 7541 appendix A).
        let not_found = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x8d];
        stream.write_all(&settings).unwrap();
        stream.write_all(&not_found).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let outcome = atmctl(&["status", "--endpoint", &endpoint]).failed(69);
    assert!(
        outcome.stderr.contains("it does not speak gRPC"),
        "{outcome:?}"
    );
    thread.join().unwrap();
}

#[test]
fn every_call_carries_its_deadline() {
    let double = Double::start(Script::default());
    for arguments in ASKING {
        asking(&double, arguments);
        asking(&double, &[*arguments, &["--timeout", "2"]].concat());
    }
    let seconds = |expected: u64| Some(format!("{}u", expected * 1_000_000));
    let expected: Vec<_> = [5, 5, 15, 5, 5]
        .into_iter()
        .flat_map(|default| [seconds(default), seconds(2)])
        .collect();
    assert_eq!(double.deadlines(), expected);
}

#[test]
fn endpoints_are_tried_in_order_until_one_answers() {
    let (gone, leaderless) = (
        nobody(),
        Double::start(Script::refusing(Code::Unavailable, "no leader")),
    );
    let (answering, further) = (
        Double::start(Script::default()),
        Double::start(Script::default()),
    );
    let endpoints =
        [gone, leaderless.address, answering.address, further.address].map(|at| at.to_string());
    let [gone, no_leader, answers, _] = &endpoints;
    let expected = format!(
        "no answer from {gone}: Connection refused (os error 111); trying {no_leader}\n\
         no answer from {no_leader}: no leader; trying {answers}\n"
    );

    let mut arguments = vec!["status"];
    for endpoint in &endpoints {
        arguments.extend(["--endpoint", endpoint]);
    }
    assert_eq!(atmctl(&arguments).done().stderr, expected);

    let output = command(&["status"])
        .env("ATMCTL_ENDPOINT", endpoints.join(","))
        .output();
    assert_eq!(outcome(output.unwrap()).done().stderr, expected);

    assert_eq!(leaderless.asked(), [Asked::Status, Asked::Status]);
    assert_eq!(answering.asked(), [Asked::Status, Asked::Status]);
    assert_eq!(further.asked(), []);
}

#[test]
fn a_refusal_is_an_answer() {
    let refusing = Double::start(Script::refusing(Code::NotFound, "no service named x"));
    let further = Double::start(Script::default());
    let endpoints = format!("{},{}", refusing.address, further.address);
    let outcome = atmctl(&["connections", "--service", "x", "--endpoint", &endpoints]).failed(1);
    assert_eq!(outcome.stderr, "error: refused: no service named x\n");
    assert_eq!(further.asked(), []);
}

#[test]
fn a_change_goes_to_the_next_endpoint_only_if_nobody_heard_it() {
    let answering = Double::start(Script::default());
    let endpoints = format!("{},{}", nobody(), answering.address);
    atmctl(&["failover", "--endpoint", &endpoints]).done();
    assert_eq!(
        answering.asked(),
        [Asked::Failover(v1::FailoverRequest::default())]
    );

    let silent = Double::start(Script {
        silent: true,
        ..Script::default()
    });
    let endpoints = format!("{},{}", silent.address, answering.address);
    atmctl(&["failover", "--timeout", "0.3", "--endpoint", &endpoints]).failed(69);
    assert_eq!(silent.asked().len(), 1);
    assert_eq!(answering.asked().len(), 1);
}

#[test]
fn no_leader_anywhere() {
    let double = Double::start(Script::refusing(Code::Unavailable, "no leader"));
    let outcome = asking(&double, &["status"]).failed(69);
    assert_eq!(
        outcome.stderr,
        format!(
            "error: cannot reach the cluster through {}: no leader (--endpoint names another ATM)\n",
            double.address
        )
    );
}

#[test]
fn a_foreign_message_cannot_steer_the_terminal() {
    let double = Double::start(Script::refusing(Code::NotFound, "\x1b[2Jgone\nerror: fine"));
    let outcome = asking(&double, &["status"]).failed(1);
    assert_eq!(
        outcome.stderr,
        "error: refused: \u{fffd}[2Jgone\u{fffd}error: fine\n"
    );
}

#[test]
fn an_atm_that_does_not_know_the_command() {
    let double = Double::start(Script::refusing(Code::Unimplemented, ""));
    let outcome = asking(&double, &["status"]).failed(1);
    assert!(
        outcome
            .stderr
            .starts_with("error: refused: that ATM does not know this command")
    );
}
