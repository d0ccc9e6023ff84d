//! Every problem that a file can have: its code, and the very text it is found at.

mod addresses;
mod bounds;
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use model::conf::{Checked, Code, Diagnostic, Severity, check, check_bytes, print};

/// Valid, without a warning. Each case replaces one piece of it.
const BASE: &str = "\
NetworkMask 255.255.255.0
NAT
  Subnet 10.1.0.0 255.255.255.0
  Gateway 10.1.0.254
EndNAT
UserCheck mine
  Check /usr/bin/mine
EndUserCheck
Services
  Service smtp tcp:25 mine
  Service imap tcp:143 imapAgent
EndServices
Servers
  Server serv1 10.1.0.11 tunnel
  Server serv2 10.1.0.12 nat noping
EndServers
ServerPool Mail
  AddServer serv1 smtp/1
  AddServer serv2 smtp/2 imap/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
  AddAtm 10.1.0.2 witness
EndAtmPool
VirtualHost 10.1.0.100
  AddAtmPool ATMs
  AddServerPool Mail
EndVirtualHost
";

#[test]
fn the_base_has_no_problem() {
    let checked = check("base", BASE);
    assert_eq!(checked.diagnostics, []);
    assert!(checked.config.is_some());
}

/// What is replaced by what, and what is then found where.
type Case = (&'static str, &'static str, &'static [(Code, &'static str)]);

fn cases() -> impl Iterator<Item = &'static Case> {
    let groups = [cases::CASES, bounds::CASES, addresses::CASES];
    groups.into_iter().flatten()
}

#[test]
fn every_problem_is_found_where_it_is() {
    let mut wrong = String::new();
    for (from, to, expected) in cases() {
        assert!(BASE.contains(from), "{from:?}");
        let source = BASE.replacen(from, to, 1);
        let checked = check("case", &source);
        let found: Vec<_> = checked
            .diagnostics
            .iter()
            .map(|found| (found.code, &source[found.span.clone()]))
            .collect();
        if found != *expected {
            writeln!(
                wrong,
                "{from:?} -> {to:?}: {found:?}, expected {expected:?}"
            )
            .unwrap();
        }
        for diagnostic in &checked.diagnostics {
            positions_agree(diagnostic, &source);
        }
        config_iff_no_error(&checked);
    }
    assert_eq!(wrong, "");
}

fn positions_agree(diagnostic: &Diagnostic, source: &str) {
    let places = std::iter::once((diagnostic.line, diagnostic.column, &diagnostic.span)).chain(
        diagnostic
            .related
            .iter()
            .map(|other| (other.line, other.column, &other.span)),
    );
    for (line, column, span) in places {
        let before = &source[..span.start];
        assert_eq!(line, before.matches('\n').count() + 1);
        assert_eq!(
            column,
            before.chars().rev().take_while(|c| *c != '\n').count() + 1
        );
        assert!(!source[span.clone()].contains('\n'), "{diagnostic:?}");
    }
}

fn config_iff_no_error(checked: &Checked) {
    let errors = checked
        .diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error);
    assert_eq!(
        checked.config.is_none(),
        errors,
        "{:#?}",
        checked.diagnostics
    );
}

#[test]
fn every_code_has_a_case() {
    let in_cases: BTreeSet<Code> = cases()
        .flat_map(|(_, _, expected)| expected.iter().map(|(code, _)| *code))
        .collect();
    // These have a test of their own.
    let elsewhere = BTreeSet::from([
        Code::FileTooLarge,
        Code::LineTooLong,
        Code::InvalidUtf8,
        Code::ControlCharacter,
        Code::TooManyProblems,
        Code::TooManyAddresses,
        Code::NoAtmPool,
        Code::NoVirtualHost,
        Code::UnresolvedHost,
    ]);
    let all: BTreeSet<Code> = Code::ALL.iter().copied().collect();
    assert_eq!(
        all.difference(&in_cases).copied().collect::<BTreeSet<_>>(),
        elsewhere
    );
}

fn codes(checked: &Checked) -> Vec<Code> {
    checked.diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    for source in ["", "\n\n", "# nothing\n"] {
        assert_eq!(
            codes(&check("empty", source)),
            [Code::NoAtmPool, Code::NoVirtualHost]
        );
    }
}

/// A file of the original may have such a service: it stays a valid one.
#[test]
fn a_user_check_takes_the_place_of_an_agent_of_ours() {
    let source = |check: &str| {
        let udp = BASE.replacen("tcp:143 imapAgent", "udp:143 imapAgent", 1);
        udp.replacen("EndUserCheck\n", &format!("EndUserCheck\n{check}"), 1)
    };
    let ours = check("ours", &source(""));
    assert_eq!(codes(&ours), [Code::TcpOnlyAgent]);
    assert!(ours.config.is_some());
    let theirs = source("UserCheck imapAgent\n  Check /opt/imapAgent\nEndUserCheck\n");
    assert_eq!(codes(&check("theirs", &theirs)), []);
}

#[test]
fn suggestions_and_related_places_are_given() {
    let help = |from: &str, to: &str| {
        let checked = check("case", &BASE.replacen(from, to, 1));
        let found = checked
            .diagnostics
            .into_iter()
            .find(|found| found.severity == Severity::Error);
        found.and_then(|found| found.help).unwrap_or_default()
    };
    for (from, to, expected) in [
        ("NetworkMask", "NetworkMsk", "did you mean `NetworkMask`?"),
        (
            "AddServer serv1",
            "AddServr serv1",
            "did you mean `AddServer`?",
        ),
        (
            "tcp:25 mine",
            "tcp:25 SMTPagent",
            "did you mean `smtpAgent`?",
        ),
        ("tcp:25 mine", "tcp:25 mine stiky", "did you mean `sticky`?"),
        (
            "tcp:25 mine",
            "tcp:25 mine sheduler=wlc",
            "did you mean `scheduler=`?",
        ),
        (
            "tcp:25 mine",
            "tcp:25 mine scheduler=wcl",
            "did you mean `wlc`?",
        ),
        ("serv1 smtp/1", "serv1 smpt/1", "did you mean `smtp`?"),
        (
            "AddServer serv1",
            "AddServer serv9",
            "did you mean `serv1`?",
        ),
        (
            "AddServerPool Mail",
            "AddServerPool mail",
            "did you mean `Mail`?",
        ),
        (
            "10.1.0.11 tunnel",
            "10.1.0.11 tunel",
            "did you mean `tunnel`?",
        ),
        (
            "AtmPool ATMs\n",
            "AtmPool ATMs\nNumServices 1\n",
            "write `NumServices 2` in the `AtmPool` block",
        ),
    ] {
        assert_eq!(help(from, to), expected, "{to}");
    }

    let source = BASE.replacen("EndServers\n", "EndServices\n", 1);
    let checked = check("case", &source);
    let related = &checked.diagnostics[0].related[0];
    assert_eq!(
        (&source[related.span.clone()], related.line),
        ("Servers", 13)
    );
}

#[test]
fn bytes_that_are_no_text_are_found_where_they_are() {
    let latin1 = [BASE.as_bytes(), b"# M\xfcller \xe4\n"].concat();
    let checked = check_bytes("latin1", &latin1);
    let found: Vec<_> = checked
        .diagnostics
        .iter()
        .map(|found| (found.code, found.line, found.column))
        .collect();
    assert_eq!(
        found,
        [(Code::InvalidUtf8, 29, 4), (Code::InvalidUtf8, 29, 10)]
    );
    assert_eq!(checked.config, None);
    let shown = String::from_utf8_lossy(&latin1);
    assert_eq!(&shown[checked.diagnostics[1].span.clone()], "\u{fffd}");
    assert_eq!(check_bytes("utf8", BASE.as_bytes()), check("utf8", BASE));
    assert_eq!(
        codes(&check_bytes("nul", &[BASE.as_bytes(), b"#\0\n"].concat())),
        [Code::ControlCharacter]
    );
}

#[test]
fn a_long_offer_is_printed_on_several_lines_and_read_as_one() {
    let (mut services, mut offers) = (String::new(), String::new());
    for i in 0..100 {
        let name = format!("{}{i}", "a-service-with-a-long-name-".repeat(2));
        writeln!(services, "  Service {name} tcp:{} none", 1000 + i).unwrap();
        writeln!(offers, "  AddServer serv1 {name}/{i}").unwrap();
    }
    let source = BASE
        .replacen("EndServices\n", &format!("{services}EndServices\n"), 1)
        .replacen(
            "  AddServer serv2",
            &format!("{offers}  AddServer serv2"),
            1,
        )
        .replacen("AtmPool ATMs\n", "AtmPool ATMs\n  NumServices 102\n", 1);
    let config = check("long", &source).config.unwrap();
    assert_eq!(config.server_pools[0].servers[0].offers.len(), 101);
    let text = print(&config);
    assert_eq!(text.matches("AddServer serv1").count(), 2);
    assert_eq!(check("printed", &text).config, Some(config));
}

#[test]
fn a_configuration_put_together_badly_is_not_taken_for_sound() {
    let mut config = check("base", BASE).config.unwrap();
    config.atm_pool.atms.clear();
    config.virtual_hosts[0].host = config.servers[0].host.clone();
    let found = config.check_resolved(&BTreeMap::new());
    let found: Vec<Code> = found.iter().map(|found| found.code).collect();
    assert_eq!(found, [Code::MissingDirective, Code::AddressConflict]);
}
