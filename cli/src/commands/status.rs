//! `atmctl status`: who is active, and how everything is.

use proto::v1;

use super::READ_TIMEOUT;
use super::events::time;
use crate::args::{Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::{Claimant, Role, Server, ServerService, Status};
use crate::output;
use crate::table::{Cell, Column, Table, Tone};

pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let reply = client::ask(global, Effect::Reads, READ_TIMEOUT, async |mut admin| {
        let reply = admin.status(v1::StatusRequest {}).await?;
        Ok(reply.into_inner())
    });
    let status = Status::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&status),
        Format::Table => output::print(&sections(&status, global.color.on_stdout())),
    }
}

fn sections(status: &Status, color: bool) -> String {
    let mut text = summary(status, color);
    let (atms, hosts, servers) = (atms(status), virtual_hosts(status), servers(status));
    append(&mut text, &atms, color);
    append(&mut text, &hosts, color);
    append(&mut text, &servers, color);
    append(&mut text, &down(status), color);
    append(&mut text, &orders(status), color);
    append(&mut text, &reports(status), color);
    append(&mut text, &conflicts(status), color);
    if !status.notices.is_empty() {
        text.push_str("\nNotices:\n");
        for notice in &status.notices {
            let notice = Cell::new(notice, Tone::Doubtful).paint(color);
            text.push_str(&format!("  {notice}\n"));
        }
    }
    text
}

fn append<const COLUMNS: usize>(text: &mut String, table: &Table<COLUMNS>, color: bool) {
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table.render(color));
    }
}

fn summary(status: &Status, color: bool) -> String {
    let active = match &status.active {
        Some(name) => Cell::new(name, Tone::Good),
        None => Cell::new("none", Tone::Bad),
    };
    let lease_left = match status.lease_left_ms {
        0 => Cell::new("none", Tone::Doubtful),
        left => format!("{left} ms").into(),
    };
    let full = status.connections >= status.connections_max;
    let connections = Cell::new(
        format!("{} of {}", status.connections, status.connections_max),
        if full { Tone::Bad } else { Tone::Plain },
    );
    let lines = [
        ("Active:", active),
        ("Epoch:", status.epoch.into()),
        ("Lease left:", lease_left),
        (
            "Configuration:",
            format!("version {}", status.config_version).into(),
        ),
        ("Connections:", connections),
        ("Replication debt:", status.replication_debt.into()),
        ("Answered by:", (&status.answered_by).into()),
    ];
    lines
        .iter()
        .map(|(title, value)| format!("{title:<18}{}\n", value.paint(color)))
        .collect()
}

fn atms(status: &Status) -> Table<6> {
    let mut table = Table::new([
        Column::Left("ATM"),
        Column::Left("ROLE"),
        Column::Right("APPLIED"),
        Column::Right("LAG"),
        Column::Left("REACHABLE"),
        Column::Left("ADDRESS"),
    ]);
    for atm in &status.atms {
        let (role, tone) = match atm.role {
            Role::Active => ("active", Tone::Good),
            Role::Backup => ("backup", Tone::Plain),
            Role::Claiming => ("claiming", Tone::Doubtful),
            Role::Witness => ("witness", Tone::Plain),
            Role::Unknown => ("unknown", Tone::Doubtful),
        };
        table.push([
            (&atm.name).into(),
            Cell::new(role, tone),
            atm.applied_index.into(),
            atm.lag.into(),
            match (atm.reachable, atm.suspected) {
                (true, true) => Cell::new("suspected", Tone::Bad),
                (reachable, _) => yes_or_no(reachable),
            },
            (&atm.address).into(),
        ]);
    }
    table
}

fn virtual_hosts(status: &Status) -> Table<7> {
    let mut table = Table::new([
        Column::Left("VIRTUAL HOST"),
        Column::Left("ADDRESS"),
        Column::Left("SERVICE"),
        Column::Left("PORT"),
        Column::Left("SCHEDULER"),
        Column::Left("REPLICATION"),
        Column::Right("CONNECTIONS"),
    ]);
    for host in &status.virtual_hosts {
        let addresses = host.addresses.join(",");
        for service in &host.services {
            table.push([
                (&host.name).into(),
                (&addresses).into(),
                (&service.name).into(),
                format!("{}:{}", service.protocol, service.port).into(),
                (&service.scheduler).into(),
                (&service.replication).into(),
                service.connections.into(),
            ]);
        }
        if host.services.is_empty() {
            let [a, b, c, d, e] = [ABSENT; 5].map(Cell::from);
            table.push([(&host.name).into(), (&addresses).into(), a, b, c, d, e]);
        }
    }
    table
}

fn servers(status: &Status) -> Table<7> {
    let mut table = Table::new([
        Column::Left("SERVER"),
        Column::Left("ADDRESS"),
        Column::Left("METHOD"),
        Column::Left("SERVICE"),
        Column::Left("STATE"),
        Column::Right("WEIGHT"),
        Column::Right("CONNECTIONS"),
    ]);
    for server in &status.servers {
        for service in &server.services {
            table.push([
                (&server.name).into(),
                (&server.address).into(),
                (&server.method).into(),
                (&service.name).into(),
                state(service),
                service.weight.into(),
                service.connections.into(),
            ]);
        }
        if server.services.is_empty() {
            let [a, b, c, d] = [ABSENT; 4].map(Cell::from);
            let (name, address) = ((&server.name).into(), (&server.address).into());
            table.push([name, address, (&server.method).into(), a, b, c, d]);
        }
    }
    table
}

/// Whether a service of a server takes new connections, in a word.
fn state(service: &ServerService) -> Cell {
    match (service.healthy, service.mode.as_str(), service.fallback) {
        (false, ..) => Cell::new("down", Tone::Bad),
        (true, "draining" | "draining-all", _) => Cell::new("draining", Tone::Doubtful),
        (true, "disabled", _) => Cell::new("disabled", Tone::Doubtful),
        (true, _, true) => Cell::new("fallback", Tone::Plain),
        (true, _, false) => Cell::new("up", Tone::Plain),
    }
}

/// What is down, since when and why.
fn down(status: &Status) -> Table<4> {
    let mut table = Table::new([
        Column::Left("DOWN"),
        Column::Left("SERVICE"),
        Column::Left("SINCE"),
        Column::Left("REASON"),
    ]);
    for server in &status.servers {
        for (service, down) in of_all(server, &server.down, |service| &service.down) {
            table.push([
                Cell::new(&server.name, Tone::Bad),
                service.into(),
                time(down.since_unix_ms).as_str().into(),
                (&down.reason).into(),
            ]);
        }
    }
    table
}

/// What is said of the whole server, and then of single services, with their names.
fn of_all<'s, T: 's>(
    server: &'s Server,
    whole: &'s Option<T>,
    of: impl Fn(&'s ServerService) -> &'s Option<T>,
) -> impl Iterator<Item = (&'s str, &'s T)> {
    let whole = whole.iter().map(|said| (ABSENT, said));
    let services = server.services.iter();
    whole.chain(services.filter_map(move |service| {
        let said = of(service).as_ref()?;
        Some((service.name.as_str(), said))
    }))
}

/// What operators have ordered, beside the configuration.
fn orders(status: &Status) -> Table<6> {
    let mut table = Table::new([
        Column::Left("ORDERED"),
        Column::Left("SERVICE"),
        Column::Left("MODE"),
        Column::Left("WEIGHT"),
        Column::Left("SINCE"),
        Column::Left("BY"),
    ]);
    for server in &status.servers {
        for (service, order) in of_all(server, &server.order, |service| &service.order) {
            let weight = order.weight.map(|weight| weight.to_string());
            table.push([
                Cell::new(&server.name, Tone::Doubtful),
                service.into(),
                order.mode.as_deref().unwrap_or(ABSENT).into(),
                weight.as_deref().unwrap_or(ABSENT).into(),
                time(order.at_unix_ms).as_str().into(),
                (&order.by).into(),
            ]);
        }
    }
    table
}

/// What servers say of themselves. Servers without atmd are as good as any: they say nothing.
fn reports(status: &Status) -> Table<6> {
    let mut table = Table::new([
        Column::Left("REPORT-OF"),
        Column::Left("REPORTED"),
        Column::Left("VERSION"),
        Column::Right("LOAD"),
        Column::Right("CONNECTIONS"),
        Column::Left("STATE"),
    ]);
    for server in &status.servers {
        let Some(report) = &server.report else {
            let [a, b, c, d] = [ABSENT; 4].map(Cell::from);
            table.push([(&server.name).into(), "no-report".into(), a, b, c, d]);
            continue;
        };
        let version = report.config_version;
        let state = match (report.stale, &report.error) {
            (true, _) => Cell::new("silent", Tone::Doubtful),
            (false, Some(_)) => Cell::new("failed", Tone::Bad),
            (false, None) if version == Some(status.config_version) => {
                Cell::new("in-force", Tone::Plain)
            }
            (false, None) => Cell::new("other-version", Tone::Doubtful),
        };
        table.push([
            (&server.name).into(),
            ago(report.age_ms).into(),
            version.map_or_else(|| "file".into(), Cell::from),
            report
                .load_1m
                .map_or_else(|| ABSENT.into(), |load| format!("{load:.2}").into()),
            report.connections.map_or_else(|| ABSENT.into(), Cell::from),
            state,
        ]);
    }
    table
}

fn conflicts(status: &Status) -> Table<7> {
    let mut table = Table::new([
        Column::Left("CLAIMED"),
        Column::Left("BY"),
        Column::Left("WHO"),
        Column::Left("SINCE"),
        Column::Left("LAST"),
        Column::Right("CLAIMS"),
        Column::Left("HEARD-BY"),
    ]);
    for conflict in &status.conflicts {
        let who = match (conflict.claimant, &conflict.atm) {
            (Claimant::Atm, Some(address)) => format!("atm:{address}"),
            (Claimant::Atm, None) => "atm".to_owned(),
            (Claimant::Foreign, _) => "foreign-host".to_owned(),
            (Claimant::Unknown, _) => "atm-or-foreign-host".to_owned(),
        };
        table.push([
            Cell::new(&conflict.vip, Tone::Bad),
            (&conflict.mac).into(),
            who.as_str().into(),
            ago(conflict.first_ms_ago).as_str().into(),
            ago(conflict.last_ms_ago).as_str().into(),
            conflict.claims.into(),
            (&conflict.heard_by).into(),
        ]);
    }
    table
}

/// How long ago something was, in the two largest units and one word.
fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// In place of a value that does not exist, so that every row has as many words as the header.
const ABSENT: &str = "-";

fn yes_or_no(yes: bool) -> Cell {
    if yes {
        Cell::new("yes", Tone::Plain)
    } else {
        Cell::new("no", Tone::Bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_and_no_blank() {
        let told = [999, 61_000, 3_720_000, 90_000_000].map(ago);
        assert_eq!(told, ["0s", "1m1s", "1h2m", "1d1h"]);
    }
}
