//! How problems look to people and to programs.

use model::conf::{Code, Severity, check, render};

const MISTAKES: &str = include_str!("data/mistakes.conf");
const RENDERED: &str = include_str!("data/mistakes.txt");

#[test]
fn mistakes_are_shown_with_their_place_and_a_way_out() {
    let checked = check("mistakes.conf", MISTAKES);
    let rendered = render(&checked.diagnostics, "mistakes.conf", MISTAKES, false);
    assert!(
        rendered == RENDERED,
        "data/mistakes.txt should be:\n{rendered}"
    );
    assert_eq!(checked.config, None);
}

#[test]
fn color_adds_nothing_but_color() {
    let checked = check("mistakes.conf", MISTAKES);
    let colored = render(&checked.diagnostics, "mistakes.conf", MISTAKES, true);
    assert!(colored.contains('\u{1b}'));
    let mut plain = String::new();
    let mut escape = false;
    for c in colored.chars() {
        match (escape, c) {
            (false, '\u{1b}') => escape = true,
            (true, 'm') => escape = false,
            (false, c) => plain.push(c),
            (true, _) => {}
        }
    }
    assert_eq!(plain, RENDERED);
}

#[test]
fn json_is_stable() {
    let checked = check(
        "a.conf",
        "AtmPool A\n  AddAtm 10.1.0.1\n  AddAtm 10.1.0.1\nEndAtmPool\n",
    );
    let expected = serde_json::json!([
        {
            "severity": "warning", "code": "no-virtual-host", "file": "a.conf", "line": 1, "column": 1,
            "span": { "start": 0, "end": 0 }, "message": "the file has no `VirtualHost` block", "label": null,
            "help": "without one there is no virtual address, and nothing is forwarded", "related": [],
        },
        {
            "severity": "error", "code": "duplicate-name", "file": "a.conf", "line": 3, "column": 10,
            "span": { "start": 37, "end": 45 }, "message": "the ATM `10.1.0.1` is added twice",
            "label": "again here", "help": "remove one of the two lines",
            "related": [
                { "line": 2, "column": 10, "span": { "start": 19, "end": 27 }, "label": "first added here" },
            ],
        },
    ]);
    assert_eq!(
        serde_json::to_value(&checked.diagnostics).unwrap(),
        expected
    );
    assert_eq!(
        checked.diagnostics[1].to_string(),
        "a.conf:3:10: error: the ATM `10.1.0.1` is added twice (remove one of the two lines)"
    );
    assert_eq!(
        (Severity::Error, Code::DuplicateName),
        (checked.diagnostics[1].severity, checked.diagnostics[1].code)
    );
}

#[test]
fn nothing_wrong_is_nothing_shown() {
    assert_eq!(render(&[], "a.conf", "x", true), "");
}
