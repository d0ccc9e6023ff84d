//! What is too large, too long or too many.

use std::fmt::Write;

use model::conf::{Code, FILE_BYTES_MAX, LINE_BYTES_MAX, Severity, check, check_bytes, render};

use crate::{BASE, Case, codes};

pub(crate) const CASES: &[Case] = &[
    // sizes
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServices 1\n",
        &[(Code::TooManyServices, "imap")],
    ),
    (
        "AtmPool ATMs\n",
        "AtmPool ATMs\nNumServers 1\n",
        &[(Code::TooManyServers, "serv2")],
    ),
    (
        "  AddAtm 10.1.0.1\n",
        "AddAtm 10.1.0.1\nAddAtm a3\nAddAtm a4\nAddAtm a5\nAddAtm a6\nAddAtm a7\nAddAtm a8\n",
        &[(Code::TooManyAtms, "10.1.0.2")],
    ),
    (
        "AddAtm 10.1.0.1",
        "AddAtm 10.1.0.1 witness",
        &[(Code::OnlyWitnesses, "AtmPool ATMs")],
    ),
];

#[test]
fn virtual_addresses_are_bounded() {
    let mut addresses = String::new();
    for i in 0..257 {
        writeln!(addresses, "  Address 10.2.{}.{}", i / 256, i % 256).unwrap();
    }
    let source = BASE.replacen("  AddAtmPool", &format!("{addresses}  AddAtmPool"), 1);
    let checked = check("many", &source);
    assert_eq!(codes(&checked), [Code::TooManyAddresses]);
    assert_eq!(&source[checked.diagnostics[0].span.clone()], "10.2.1.0");
}

#[test]
fn what_is_too_large_is_refused_by_its_size() {
    let line = format!("{BASE}# {}\n", "x".repeat(LINE_BYTES_MAX));
    assert_eq!(codes(&check("line", &line)), [Code::LineTooLong]);
    let just = format!("{BASE}#{}\n", "x".repeat(LINE_BYTES_MAX - 1));
    assert_eq!(codes(&check("line", &just)), []);
    let file = format!("{BASE}{}", "#\n".repeat(FILE_BYTES_MAX / 2));
    assert_eq!(codes(&check("file", &file))[0], Code::FileTooLarge);
    assert_eq!(
        codes(&check_bytes("file", file.as_bytes()))[0],
        Code::FileTooLarge
    );
    let fits = format!("{BASE}{}", "\n".repeat(FILE_BYTES_MAX - BASE.len()));
    assert_eq!(codes(&check_bytes("file", fits.as_bytes())), []);
}

/// What a file leaves to defaults is written out in its canonical form, which must be readable too.
#[test]
fn a_file_whose_canonical_form_is_too_large_is_refused() {
    let mut pools = String::new();
    for i in 0..9000 {
        writeln!(pools, "ServerPool p{i}\nEndServerPool").unwrap();
    }
    let checked = check("pools", &format!("{BASE}{pools}"));
    assert!(codes(&checked).contains(&Code::FileTooLarge));
    assert_eq!(checked.config, None);
}

#[test]
fn too_many_problems_are_counted_and_stay_errors() {
    let checked = check("junk", &"junk\n".repeat(100_000));
    assert_eq!(checked.diagnostics.len(), 202);
    let last = checked.diagnostics.last().unwrap();
    assert_eq!(
        (last.severity, last.code),
        (Severity::Error, Code::TooManyProblems)
    );
    assert_eq!(
        last.message,
        "99801 more errors and 0 more warnings are not shown"
    );
    assert_eq!(checked.config, None);
}

#[test]
fn source_addresses_are_few() {
    let with = |count: usize| {
        let mut servers = String::new();
        let mut added = String::new();
        for i in 0..count {
            // Each address twice: what counts is how many there are.
            let address = format!("10.4.{}.{}", i / 2 / 250, i / 2 % 250 + 1);
            let host = format!("10.3.{}.{}", i / 250, i % 250 + 1);
            writeln!(servers, "  Server s{i} {host} nat source={address}").unwrap();
            writeln!(added, "  AddServer s{i} smtp/1").unwrap();
        }
        let source = BASE
            .replacen("EndServers\n", &format!("{servers}EndServers\n"), 1)
            .replacen("  AddServer serv1", &format!("{added}  AddServer serv1"), 1);
        codes(&check("many", &source))
    };
    assert_eq!(with(512), []);
    assert_eq!(with(514), [Code::TooManyAddresses]);
    assert_eq!(with(700), [Code::TooManyAddresses]);
}

/// Work must not grow with the square of the file.
#[test]
fn hostile_files_come_to_an_end() {
    let filled = |head: &str, line: &dyn Fn(usize) -> String, tail: &str| {
        let mut source = head.to_owned();
        for i in 0.. {
            let line = line(i);
            if source.len() + line.len() + tail.len() > FILE_BYTES_MAX {
                break;
            }
            source.push_str(&line);
        }
        source + tail
    };
    let mut crossing = String::from("Services\n");
    for i in 1..8000 {
        writeln!(crossing, "Service {i} tcp:{i} none").unwrap();
    }
    crossing.push_str("EndServices\nServers\nServer s 10.1.0.1 tunnel\nEndServers\nServerPool p\n");
    for i in 1..8000 {
        writeln!(crossing, "AddServer s {i}/1").unwrap();
    }
    crossing.push_str("EndServerPool\nAtmPool a\nAddAtm 10.1.0.2\nNumServices 8000\nEndAtmPool\n");
    for i in 0..256 {
        writeln!(
            crossing,
            "VirtualHost 10.2.0.{i}\nAddAtmPool a\nAddServerPool p\nEndVirtualHost"
        )
        .unwrap();
    }
    let pool = "ServerPool p\nAddServer s a/1\nEndServerPool\nAtmPool a\nAddAtm x\nEndAtmPool\n";
    let hosts = "VirtualHost h\nAddAtmPool a\n";
    for source in [
        crossing,
        filled("", &|i| format!("ServerPol p{i}\n"), ""),
        filled("", &|_| "AtmPool\n".to_owned(), ""),
        filled(
            "ServerPool p\n",
            &|i| format!("AddServer s{i} a{i}/1\n"),
            "EndServerPool\n",
        ),
        filled(
            "ServerPool p\n",
            &|_| "AddServer s a/1\n".to_owned(),
            "EndServerPool\n",
        ),
        filled(
            "Services\n",
            &|i| format!("Service s{i} tcp:1 a{i}\n"),
            "EndServices\n",
        ),
        filled(
            "Servers\n",
            &|_| "Server s 10.1.0.1 nat\n".to_owned(),
            "EndServers\n",
        ),
        filled("AtmPool a\n", &|i| format!("AddAtm h{i}\n"), "EndAtmPool\n"),
        filled(
            pool,
            &|_| format!("{hosts}AddServerPool p\nEndVirtualHost\n"),
            "",
        ),
        filled(
            &format!("{pool}{hosts}"),
            &|i| format!("Address 10.{}.{}.1\n", i / 256 % 256, i % 256),
            "",
        ),
        filled(
            &format!("{pool}{hosts}"),
            &|_| "AddServerPool p\n".to_owned(),
            "EndVirtualHost\n",
        ),
        "a ".repeat(FILE_BYTES_MAX / 2),
        "\u{1}".repeat(FILE_BYTES_MAX),
        "\u{1}\n".repeat(FILE_BYTES_MAX / 2),
        "\u{2028}".repeat(FILE_BYTES_MAX / 3),
    ] {
        let checked = check("hostile", &source);
        assert!(
            checked.config.is_none(),
            "{}",
            source.get(..80).unwrap_or_default()
        );
        assert!(
            checked.diagnostics.len() <= 401,
            "{}",
            checked.diagnostics.len()
        );
        assert!(!render(&checked.diagnostics, "hostile", &source, false).is_empty());
    }
    let bytes = vec![0xff; FILE_BYTES_MAX];
    assert!(check_bytes("hostile", &bytes).diagnostics.len() <= 401);
}
