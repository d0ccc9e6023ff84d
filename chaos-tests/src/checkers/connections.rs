//! P2 and P8: a connection whose client got its SYN-ACK keeps its server, in the table of every ATM that has applied its record, and
//! its bytes flow until its client closes it.
//!
//! A client does not know at which index its connection stands in the log. It is bounded from above by the tables themselves:
//! a listing behind a barrier that began after the SYN-ACK includes it, and a listing that shows it does. From the least of these indices
//! on every listing must show it. Until then, an ATM may lag.

use std::collections::BTreeMap;

use super::verdict::{Checker, Findings, Verdict, seconds};
use crate::history::{Event, Flow, Link, Listing, Op, Operation, Outcome as Done};

/// One connection, from its SYN-ACK to its close.
struct Connection<'a> {
    link: Link,
    process: u64,
    server: Option<&'a str>,
    open_ns: u64,
    /// From here on nothing is demanded: its client closes it, or opens another one from the same port.
    until_ns: u64,
    /// Whether no earlier connection had the same ends, so that nothing else can stand in a table for it.
    first: bool,
    /// An index at which it is certainly in the log.
    index: Option<u64>,
}

/// A listing that an ATM answered.
struct Table<'a> {
    listing: &'a Listing,
    servers: BTreeMap<&'a Link, &'a str>,
    call_ns: u64,
    return_ns: u64,
}

/// Judges every connection among `events`, of which `operations` are.
pub(super) fn check(events: &[Event], operations: &[Operation<'_>]) -> Verdict {
    let mut connections = opened(operations);
    let tables = listed(operations);
    let flows = events.iter().filter_map(|event| {
        if let Op::ConnectionFlow(flow) = &event.op {
            Some((event.t_ns, flow.as_ref()))
        } else {
            None
        }
    });
    let flows: Vec<_> = flows.collect();
    if connections.is_empty() && tables.is_empty() && flows.is_empty() {
        return Verdict::nothing(Checker::Connections);
    }
    let mut findings = Findings::default();
    let killed = struck(events);
    let mut by_link: BTreeMap<Link, Vec<usize>> = BTreeMap::new();
    for (at, connection) in connections.iter().enumerate() {
        by_link.entry(connection.link).or_default().push(at);
    }
    let mut excused = 0_u64;
    for &(t_ns, flow) in &flows {
        let excuse = killed
            .iter()
            .any(|(at, target)| *target == flow.server && *at <= t_ns);
        if excuse && !flow.alive {
            excused += 1;
            continue;
        }
        // The latest of those with these ends; they were opened in this order.
        let same = by_link.get(&flow.connection).map_or(&[][..], Vec::as_slice);
        let opened = |at: &&usize| {
            connections
                .get(**at)
                .is_some_and(|connection| connection.open_ns <= t_ns)
        };
        let at = same.iter().rfind(opened).copied();
        let connection = at.and_then(|at| connections.get_mut(at));
        judge_flow(t_ns, flow, connection, &mut findings);
    }
    let (mut shown, mut compared) = (0_u64, 0_u64);
    for connection in &mut connections {
        bound_index(connection, &tables);
        let mut seen = 0_u64;
        for table in &tables {
            if lives_through(connection, table) && judge_table(connection, table, &mut findings) {
                seen += 1;
            }
        }
        compared += seen;
        shown += u64::from(seen > 0);
    }
    same_index(&tables, &mut findings);
    let summary = format!(
        "{} connections acknowledged, {shown} of them certain in some of {} tables ({compared} comparisons), {} reports of bytes, {excused} excused: their server was struck",
        connections.len(),
        tables.len(),
        flows.len()
    );
    findings.verdict(Checker::Connections, summary)
}

/// Every acknowledged connection.
fn opened<'a>(operations: &[Operation<'a>]) -> Vec<Connection<'a>> {
    let mut connections: Vec<Connection<'a>> = Vec::new();
    // For each pair of ends the connection that has them, as an index.
    let mut latest: BTreeMap<Link, usize> = BTreeMap::new();
    let mut ordered: Vec<_> = operations.iter().collect();
    // By what is known when: an opening when its port is, a closing when it begins.
    ordered.sort_by_key(|operation| match operation.outcome {
        Done::Ok {
            return_ns,
            result: Op::ConnectionOpen { .. },
        } => return_ns,
        Done::Ok { .. } | Done::Fail | Done::Unknown => operation.call_ns,
    });
    for operation in ordered {
        if let Op::ConnectionClose { connection } = operation.invoked {
            if let Some(open) = latest
                .get(connection)
                .and_then(|at| connections.get_mut(*at))
            {
                open.until_ns = open.until_ns.min(operation.call_ns);
            }
        } else if let Done::Ok {
            return_ns,
            result:
                Op::ConnectionOpen {
                    connection: Some(link),
                    server,
                },
        } = operation.outcome
        {
            let before = latest.insert(*link, connections.len());
            if let Some(before) = before.and_then(|at| connections.get_mut(at)) {
                before.until_ns = before.until_ns.min(operation.call_ns);
            }
            connections.push(Connection {
                link: *link,
                process: operation.process,
                server: server.as_deref(),
                open_ns: return_ns,
                until_ns: u64::MAX,
                first: before.is_none(),
                index: None,
            });
        }
    }
    connections
}

/// Every listing that was answered.
fn listed<'a>(operations: &[Operation<'a>]) -> Vec<Table<'a>> {
    let tables = operations.iter().filter_map(|operation| {
        let Done::Ok {
            return_ns,
            result: Op::ConnectionListing(listing),
        } = operation.outcome
        else {
            return None;
        };
        let servers = listing
            .connections
            .iter()
            .map(|(link, server)| (link, server.as_str()));
        Some(Table {
            listing,
            servers: servers.collect(),
            call_ns: operation.call_ns,
            return_ns,
        })
    });
    tables.collect()
}

/// When which host was struck by a fault: a connection does not survive the loss of its server.
fn struck(events: &[Event]) -> Vec<(u64, &str)> {
    let faults = events.iter().filter_map(|event| {
        if let Op::FaultStart(fault) = &event.op {
            Some((event.t_ns, fault.target.as_str()))
        } else {
            None
        }
    });
    faults.collect()
}

fn judge_flow<'a>(
    t_ns: u64,
    flow: &'a Flow,
    connection: Option<&mut Connection<'a>>,
    findings: &mut Findings,
) {
    let client = flow.connection.client;
    let report = || {
        (
            t_ns,
            format!(
                "{client} at {}: {} lines sent, {} acknowledged, {} received",
                flow.server, flow.sent, flow.acknowledged, flow.received
            ),
        )
    };
    let mut wrongs = Vec::new();
    let mut moments = vec![report()];
    if let Some(connection) = connection {
        let server = *connection.server.get_or_insert(&flow.server);
        if server != flow.server {
            wrongs.push(format!(
                "it was opened to {server}, and {} answers",
                flow.server
            ));
        }
        moments.push(opening(connection));
    }
    if !flow.alive {
        let how = flow.ended.as_deref().unwrap_or("no reason was given");
        wrongs.push(format!("it broke: {how}"));
    }
    for (count, what) in [
        (flow.lost, "lost"),
        (flow.repeated, "repeated"),
        (flow.out_of_order, "out of order"),
        (flow.foreign, "of another connection"),
    ] {
        if count > 0 {
            wrongs.push(format!("{count} lines {what}"));
        }
    }
    if !wrongs.is_empty() {
        findings.add(
            format!("connection of {client}: {}", wrongs.join("; ")),
            moments,
        );
    }
}

fn lives_through(connection: &Connection<'_>, table: &Table<'_>) -> bool {
    connection.open_ns < table.call_ns && table.return_ns < connection.until_ns
}

/// Finds the least index known to be at or behind the connection's record.
fn bound_index(connection: &mut Connection<'_>, tables: &[Table<'_>]) {
    let proofs = tables.iter().filter(|table| {
        let shown = table.servers.get(&connection.link).copied();
        lives_through(connection, table)
            && (table.listing.barrier
                || connection.first
                    && shown.is_some()
                    && (connection.server.is_none() || shown == connection.server))
    });
    connection.index = proofs.map(|table| latest_index(table.listing)).min();
}

fn latest_index(listing: &Listing) -> u64 {
    listing
        .applied_max
        .unwrap_or(listing.applied)
        .max(listing.applied)
}

/// Whether `table` had to show the connection, of which it is judged then.
fn judge_table<'a>(
    connection: &mut Connection<'a>,
    table: &Table<'a>,
    findings: &mut Findings,
) -> bool {
    let Listing {
        atm,
        applied,
        barrier,
        ..
    } = table.listing;
    let shown = table.servers.get(&connection.link).copied();
    let certain = *barrier || connection.index.is_some_and(|index| *applied >= index);
    // The entry of an earlier connection with the same ends may still stand there.
    let only_its_own = connection.first && shown.is_some();
    if !certain && !only_its_own {
        return false;
    }
    let client = connection.link.client;
    let listing = (
        table.call_ns,
        format!(
            "{atm} lists {} connections at index {applied}",
            table.servers.len()
        ),
    );
    let Some(shown) = shown else {
        findings.add(
            format!("connection of {client}, acknowledged at {}, is not in the table of {atm} at index {applied}", seconds(connection.open_ns)),
            [opening(connection), listing],
        );
        return true;
    };
    let server = *connection.server.get_or_insert(shown);
    if server != shown {
        findings.add(
            format!("connection of {client} belongs to {server}; the table of {atm} at index {applied} says {shown}"),
            [opening(connection), listing],
        );
    }
    true
}

fn opening(connection: &Connection<'_>) -> (u64, String) {
    let Connection {
        process,
        link,
        server,
        ..
    } = connection;
    let server = server.map_or(String::new(), |server| format!(", answered by {server}"));
    (
        connection.open_ns,
        format!(
            "process {process}: connection of {} acknowledged{server}",
            link.client
        ),
    )
}

/// P4 for tables: those of the same exact index are the same.
fn same_index(tables: &[Table<'_>], findings: &mut Findings) {
    let mut first: BTreeMap<u64, &Table<'_>> = BTreeMap::new();
    for table in tables {
        let Listing { atm, applied, .. } = table.listing;
        if latest_index(table.listing) != *applied {
            continue;
        }
        let other = *first.entry(*applied).or_insert(table);
        if other.servers != table.servers {
            let differs = |link: &&&Link| other.servers.get(**link) != table.servers.get(**link);
            let example = other
                .servers
                .keys()
                .chain(table.servers.keys())
                .find(differs);
            let example = example.map_or(String::new(), |link| format!(", as by {}", link.client));
            findings.add(
                format!(
                    "the tables of {} and {atm} at index {applied} differ{example}",
                    other.listing.atm
                ),
                [other, table].map(|table| {
                    let Listing { atm, .. } = table.listing;
                    (
                        table.call_ns,
                        format!("{atm} lists {} connections", table.servers.len()),
                    )
                }),
            );
        }
    }
}

#[cfg(test)]
mod tests;
