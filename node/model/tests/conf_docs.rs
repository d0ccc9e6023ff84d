//! `docs/CONFIGURATION.md` is complete, and its examples are true.

use std::collections::BTreeSet;

use model::conf::{self, Agent, Code, ForwardingMethod, Replication, Scheduler, check};

const REFERENCE: &str = include_str!("../../../docs/CONFIGURATION.md");

/// The text between backticks, and its words.
fn code_words() -> BTreeSet<&'static str> {
    let spans = REFERENCE
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let headings = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    spans
        .chain(headings)
        .flat_map(|span| span.split([' ', '|', '\\', '<']))
        .collect()
}

#[test]
fn every_keyword_and_option_is_documented() {
    let words = code_words();
    let schedulers = Scheduler::NAMES.iter().map(|(name, _)| *name);
    let replications = Replication::NAMES.iter().map(|(name, _)| *name);
    let methods = ForwardingMethod::NAMES.iter().map(|(name, _)| *name);
    let agents = ["http", "connect", "none"]
        .into_iter()
        .chain(Agent::KNOWN_PROGRAMS);
    let known = conf::keywords()
        .chain(conf::options())
        .chain(schedulers)
        .chain(replications)
        .chain(methods);
    for word in known.chain(agents) {
        assert!(words.contains(word), "{word} is not documented");
    }
}

#[test]
fn every_code_is_documented_and_no_other() {
    let (_, table) = REFERENCE
        .split_once("\n## Problems\n")
        .expect("a section of problems");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let documented: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let sorted = |mut list: Vec<&'static str>| {
        list.sort_unstable();
        list
    };
    assert_eq!(sorted(documented), sorted(codes));
}

#[test]
fn bounds_and_defaults_are_those_of_the_program() {
    let seconds = |duration: std::time::Duration| duration.as_millis();
    let row = |start: &str| {
        REFERENCE
            .lines()
            .find(|line| line.starts_with(&format!("| `{start}")))
            .unwrap_or_else(|| panic!("no row of {start}"))
            .split(" | ")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let cases = [
        (
            "CheckServerFrequency",
            conf::CHECK_FREQUENCY_DEFAULT,
            conf::CHECK_FREQUENCY_MIN,
            conf::CHECK_MAX,
        ),
        (
            "CheckServerTimeout",
            conf::CHECK_TIMEOUT_DEFAULT,
            conf::CHECK_TIMEOUT_MIN,
            conf::CHECK_MAX,
        ),
        (
            "CheckPortFrequency",
            conf::CHECK_FREQUENCY_DEFAULT,
            conf::CHECK_FREQUENCY_MIN,
            conf::CHECK_MAX,
        ),
        (
            "CheckPortTimeout",
            conf::CHECK_TIMEOUT_DEFAULT,
            conf::CHECK_TIMEOUT_MIN,
            conf::CHECK_MAX,
        ),
        (
            "SendArpDelay",
            conf::SEND_ARP_DELAY_DEFAULT,
            conf::SEND_ARP_DELAY_MIN,
            conf::SEND_ARP_DELAY_MAX,
        ),
        (
            "HeartBeatDelay",
            conf::HEARTBEAT_DELAY_DEFAULT,
            conf::HEARTBEAT_DELAY_MIN,
            conf::HEARTBEAT_DELAY_MAX,
        ),
        (
            "ConnectionTimeout",
            conf::CONNECTION_TIMEOUT_DEFAULT,
            conf::CONNECTION_TIMEOUT_MIN,
            conf::CONNECTION_TIMEOUT_MAX,
        ),
        (
            "persist=",
            conf::PERSIST_DEFAULT,
            conf::PERSIST_MIN,
            conf::PERSIST_MAX,
        ),
    ];
    for (name, default, min, max) in cases {
        let row = row(name);
        let (low, high) = row[2].split_once(" to ").expect("two bounds");
        let written = [&row[1], low, high].map(|text| {
            let at = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            let unit = match &text[at..] {
                "ms" => 1,
                "" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                other => panic!("{name}: {other}"),
            };
            text[..at].parse::<u128>().expect("a number") * unit
        });
        assert_eq!(written, [default, min, max].map(seconds), "{name}");
    }
    let cases = [
        (
            "MaxLostHeartbeats",
            conf::MAX_LOST_HEARTBEATS_DEFAULT,
            conf::MAX_LOST_HEARTBEATS_MIN,
            conf::MAX_LOST_HEARTBEATS_MAX,
        ),
        (
            "NumConnections",
            conf::NUM_CONNECTIONS_DEFAULT,
            1,
            conf::NUM_CONNECTIONS_MAX,
        ),
        (
            "NumServers",
            conf::NUM_SERVERS_DEFAULT,
            1,
            conf::NUM_SERVERS_MAX,
        ),
        (
            "NumServices",
            conf::NUM_SERVICES_DEFAULT,
            1,
            conf::NUM_SERVICES_MAX,
        ),
    ];
    for (name, default, min, max) in cases {
        let row = row(name);
        assert_eq!(
            [row[1].as_str(), row[2].as_str()],
            [default.to_string(), format!("{min} to {max}")],
            "{name}"
        );
    }
    for (text, limit) in [
        ("| 1 to 64 characters |", conf::NAME_BYTES_MAX),
        ("| 4000 bytes |", conf::PATH_BYTES_MAX),
        ("lines of at most 4096 bytes", conf::LINE_BYTES_MAX),
        ("at most 1 MiB", conf::FILE_BYTES_MAX / (1 << 20)),
        ("| 7 lines |", conf::ATMS_MAX),
        (
            "| 256 virtual addresses in all |",
            conf::VIRTUAL_ADDRESSES_MAX,
        ),
        (
            "more than 65535 services of virtual",
            conf::VIRTUAL_SERVICES_MAX,
        ),
    ] {
        assert!(REFERENCE.contains(text), "{text}");
        assert!(
            text.split(|c: char| !c.is_ascii_digit())
                .any(|number| number == limit.to_string()),
            "{text}: {limit}"
        );
    }
}

/// All the examples, one after the other, are a file.
#[test]
fn the_examples_are_one_valid_file() {
    let lines = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("    "));
    let file: String = lines
        .filter(|line| !line.starts_with("atmctl "))
        .map(|line| format!("{line}\n"))
        .collect();
    let checked = check("examples", &file);
    let codes: Vec<Code> = checked.diagnostics.iter().map(|found| found.code).collect();
    // `telnet`, as in the tutorial.
    assert_eq!(
        codes,
        [Code::ServiceNotOffered],
        "{:#?}",
        checked.diagnostics
    );
    assert!(checked.config.is_some());
}
