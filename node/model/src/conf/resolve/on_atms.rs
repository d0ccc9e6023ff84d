//! Servers with the address of an ATM: not every method reaches them (ADR-0012).

use std::collections::BTreeMap;

use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::places::Subject;
use super::Report;
use super::view::View;

pub(super) fn check(view: &View<'_>, report: &mut Report<'_>) {
    let atms = view.atms.iter().enumerate();
    let atms: BTreeMap<_, _> = atms.filter_map(|(i, place)| Some(((*place)?, i))).collect();
    for (i, server) in view.config.servers.iter().enumerate() {
        let place = view.servers.get(i).copied().flatten();
        let Some(atm) = place.and_then(|place| atms.get(&place)) else {
            continue;
        };
        let (subject, atm) = (Subject::ServerMethod(i), Subject::Atm(*atm));
        // Without its address: what is said here is said again, in the same words, when names have theirs.
        let name = &server.name;
        match server.method.towards_atm() {
            Some(same) if same == server.method => {}
            Some(_) => report(
                Finding::warning(
                    Code::DirectToAtm,
                    subject,
                    format!("`{name}` is an ATM, so packets reach it by `tunnel`"),
                )
                .related(atm, "this ATM")
                .help("write `tunnel`: `direct` would mix its packets with those for other servers"),
            ),
            None => report(
                Finding::error(
                    Code::NatToAtm,
                    subject,
                    format!("`{name}` is an ATM, and cannot be reached by `nat`"),
                )
                .related(atm, "this ATM")
                .help("write `tunnel`: answers of a server on the active ATM would leave with its own address"),
            ),
        }
    }
}
