//! `atmctl connections`: entries of the connection table.

use proto::v1;
use tonic::Status;

use super::READ_TIMEOUT;
use crate::args::{CONNECTIONS_MAX, Connections as Filter, Format, Global};
use crate::client::{self, Admin, Effect};
use crate::failure::Failure;
use crate::json::{Connection, Connections};
use crate::output;
use crate::table::{Column, Table};

pub(super) async fn run(global: &Global, filter: &Filter) -> Result<(), Failure> {
    let found = client::ask(global, Effect::Reads, READ_TIMEOUT, async |admin| {
        collect(admin, filter).await
    });
    let found = found.await?;
    match global.output {
        Format::Json => output::print_json(&found),
        Format::Table => {
            output::print(&table(&found).render(global.color.on_stdout()))?;
            let shown = found.connections.len();
            output::say(format_args!("{shown} shown, {} in all", found.total));
            Ok(())
        }
    }
}

async fn collect(mut admin: Admin, filter: &Filter) -> Result<Connections, Status> {
    let request = v1::ListConnectionsRequest {
        service: filter.service.clone().unwrap_or_default(),
        server: filter.server.clone().unwrap_or_default(),
        limit: filter.limit.unwrap_or_default(),
    };
    let limit = filter.limit.unwrap_or(CONNECTIONS_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Connections {
        total: 0,
        connections: Vec::new(),
    };
    let mut lists = admin.list_connections(request).await?.into_inner();
    while let Some(list) = lists.message().await? {
        found.total = list.total;
        let room = limit - found.connections.len();
        found.connections.extend(
            list.connections
                .into_iter()
                .take(room)
                .map(Connection::from),
        );
        if found.connections.len() == limit {
            break;
        }
    }
    Ok(found)
}

fn table(found: &Connections) -> Table<5> {
    let header = ["PROTOCOL", "CLIENT", "VIP", "SERVICE", "SERVER"];
    let mut table = Table::new(header.map(Column::Left));
    for connection in &found.connections {
        table.push([
            (&connection.protocol).into(),
            (&connection.client).into(),
            (&connection.vip).into(),
            (&connection.service).into(),
            (&connection.server).into(),
        ]);
    }
    table
}
