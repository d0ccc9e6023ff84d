use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use proto::v1;
use proto::v1::trace_reply::Event;
use serde_json::{Value, json};
use tonic::Code;

use crate::double::{Asked, Double, Script};
use crate::run::{asking, atmctl, command};

const AT: u64 = 1_700_000_000_123_456_789;

fn segment() -> v1::TracedFrame {
    v1::TracedFrame {
        at_unix_ns: AT,
        summary: "192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN] len 0".into(),
        length: 74,
        source: "192.0.2.7".into(),
        destination: "10.0.0.100".into(),
        source_port: 40000,
        destination_port: 80,
        protocol: "tcp".into(),
        flags: "SYN".into(),
        verdict: "transmit".into(),
        service: "web".into(),
        server: "serv1".into(),
        why: "sent to the server of its connection".into(),
    }
}

fn question() -> v1::TracedFrame {
    v1::TracedFrame {
        at_unix_ns: AT + 1_000_000,
        summary: "arp who-has 10.0.0.100 tell 10.0.0.1".into(),
        length: 42,
        source: "10.0.0.1".into(),
        destination: "10.0.0.100".into(),
        protocol: "arp".into(),
        verdict: "answered".into(),
        why: "a request to the VIP itself was answered".into(),
        ..v1::TracedFrame::default()
    }
}

fn example() -> Script {
    Script {
        traced: vec![
            Event::Begun("atm1".into()),
            Event::Frame(Box::new(segment())),
            Event::Missed(12),
            Event::Frame(Box::new(question())),
        ],
        ..Script::default()
    }
}

#[test]
fn one_line_for_each_decision() {
    let double = Double::start(example());
    let arguments = ["trace", "--vip", "10.0.0.100", "--count", "2"];
    let outcome = asking(&double, &arguments).done();
    assert_eq!(
        outcome.stdout,
        "\
TIME             WHAT                                                      VERDICT               SERVICE       SERVER        WHY
22:13:20.123456  192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN] len 0           transmit              web           serv1         sent to the server of its connection
-                12 decisions are not told: they came too fast
22:13:20.124456  arp who-has 10.0.0.100 tell 10.0.0.1                      answered              -             -             a request to the VIP itself was answered
"
    );
    assert_eq!(outcome.stderr, "decisions of atm1; Ctrl-C ends\n");
    let request = v1::TraceRequest {
        vip: "10.0.0.100".into(),
        ..v1::TraceRequest::default()
    };
    assert_eq!(double.asked(), [Asked::Trace(request)]);
}

#[test]
fn one_object_for_each_decision() {
    let double = Double::start(example());
    let arguments = [
        "trace",
        "--vip",
        "10.0.0.100",
        "--count",
        "2",
        "--output",
        "json",
    ];
    let outcome = asking(&double, &arguments).done();
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            json!({
                "at_unix_ns": AT, "summary": "192.0.2.7:40000 > 10.0.0.100:80 tcp [SYN] len 0", "length": 74,
                "source": "192.0.2.7", "source_port": 40000, "destination": "10.0.0.100", "destination_port": 80,
                "protocol": "tcp", "flags": "SYN", "verdict": "transmit", "service": "web", "server": "serv1",
                "why": "sent to the server of its connection",
            }),
            json!({"missed": 12}),
            json!({
                "at_unix_ns": AT + 1_000_000, "summary": "arp who-has 10.0.0.100 tell 10.0.0.1", "length": 42,
                "source": "10.0.0.1", "source_port": null, "destination": "10.0.0.100", "destination_port": null,
                "protocol": "arp", "flags": null, "verdict": "answered", "service": null, "server": null,
                "why": "a request to the VIP itself was answered",
            }),
        ]
    );
}

#[test]
fn filters_are_passed_on() {
    let double = Double::start(example());
    let arguments = [
        "trace",
        "--vip",
        "2001:db8::100",
        "--client",
        "2001:db8:1::/48",
        "--service",
        "web",
        "--local",
        "--count",
        "1",
    ];
    asking(&double, &arguments).done();
    let request = v1::TraceRequest {
        vip: "2001:db8::100".into(),
        client: "2001:db8:1::/48".into(),
        service: "web".into(),
        local: true,
    };
    assert_eq!(double.asked(), [Asked::Trace(request)]);
    assert_eq!(double.deadlines(), [None]);
}

#[test]
fn what_is_no_address_or_prefix_is_wrong_usage() {
    for (option, text, why) in [
        ("--vip", "www", "invalid IP address syntax"),
        (
            "--client",
            "10.0.0.0/33",
            "\"33\" is no prefix length from 0 to 32",
        ),
        ("--client", "www", "\"www\" is no IP address"),
        ("--count", "0", "0 is not in 1.."),
    ] {
        let vip: &[&str] = match option {
            "--vip" => &["trace"],
            _ => &["trace", "--vip", "10.0.0.100"],
        };
        let outcome = atmctl(&[vip, &[option, text]].concat()).failed(2);
        assert!(outcome.stderr.contains(why), "{outcome:?}");
    }
    let outcome = atmctl(&["trace"]).failed(2);
    assert!(outcome.stderr.contains("--vip"), "{outcome:?}");
}

#[test]
fn one_trace_too_many_is_refused() {
    let why = "this ATM has 4 traces already: end one of them";
    let double = Double::start(Script::refusing(Code::ResourceExhausted, why));
    let outcome = asking(&double, &["trace", "--vip", "10.0.0.100"]).failed(1);
    assert_eq!(outcome.stderr, format!("error: refused: {why}\n"));
}

#[test]
fn only_the_beginning_has_a_deadline() {
    let silent = Double::start(Script {
        silent: true,
        ..Script::default()
    });
    let arguments = ["trace", "--vip", "10.0.0.100", "--timeout", "0.3"];
    let outcome = asking(&silent, &arguments).failed(69);
    assert!(
        outcome.stderr.contains("no answer within 300ms"),
        "{outcome:?}"
    );

    let endless = Double::start(example());
    let mut child = following(&endless, &arguments);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..4 {
        lines.next().unwrap().unwrap();
    }
    thread::sleep(Duration::from_millis(600));
    assert_eq!(child.try_wait().unwrap(), None);
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none());
}

#[test]
fn an_atm_that_stops_ends_the_trace_with_an_error() {
    let why = "this ATM is shutting down";
    let double = Double::start(Script {
        trace_end: Some((Code::Unavailable, why.into())),
        ..example()
    });
    let outcome = asking(&double, &["trace", "--vip", "10.0.0.100"]);
    assert_eq!(outcome.code, 69, "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 4, "{outcome:?}");
    assert!(outcome.stderr.contains(why), "{outcome:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let double = Double::start(Script {
        traced: [Event::Begun("atm1".into())]
            .into_iter()
            .chain(std::iter::repeat_n(
                Event::Frame(Box::new(segment())),
                10_000,
            ))
            .collect(),
        ..Script::default()
    });
    for format in ["table", "json"] {
        let arguments = ["trace", "--vip", "10.0.0.100", "--output", format];
        let mut child = following(&double, &arguments);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{format}");
    }
}

fn following(double: &Double, arguments: &[&str]) -> std::process::Child {
    let endpoint = double.address.to_string();
    command(&[&["--endpoint", &endpoint], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What Ctrl-C sends.
fn interrupt(process: u32) {
    let sent = Command::new("kill")
        .args(["-INT", &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}
