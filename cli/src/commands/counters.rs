//! `atmctl counters`: what became of the frames, in all and of each service and server, and whatever else the ATM that
//! answers counts.

use proto::v1;

use super::READ_TIMEOUT;
use crate::args::{Counters as Filter, Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Counters;
use crate::output;
use crate::table::{Column, Table};

pub(super) async fn run(global: &Global, filter: &Filter) -> Result<(), Failure> {
    let reply = client::ask(global, Effect::Reads, READ_TIMEOUT, async |mut admin| {
        let request = v1::CountersRequest {
            service: filter.service.clone().unwrap_or_default(),
            server: filter.server.clone().unwrap_or_default(),
        };
        let reply = admin.counters(request).await?;
        Ok(reply.into_inner())
    });
    let counters = Counters::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&counters),
        Format::Table => {
            let color = global.color.on_stdout();
            let filtered = filter.service.is_some() || filter.server.is_some();
            let mut text = String::new();
            // They are about all services and servers.
            if !filtered {
                text.push_str(&in_all(&counters).render(color));
            }
            let by_service = by_service(&counters);
            if filtered || !by_service.is_empty() {
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(&by_service.render(color));
            }
            output::say(format_args!(
                "counters of {}",
                output::printable(&counters.atm)
            ));
            output::print(&text)
        }
    }
}

fn in_all(counters: &Counters) -> Table<2> {
    let mut table = Table::new([Column::Left("COUNTER"), Column::Right("VALUE")]);
    for (name, value) in &counters.counters {
        table.push([name.into(), value.into()]);
    }
    table
}

fn by_service(counters: &Counters) -> Table<5> {
    let mut table = Table::new([
        Column::Left("SERVICE"),
        Column::Left("VIP"),
        Column::Left("SERVER"),
        Column::Left("VERDICT"),
        Column::Right("VALUE"),
    ]);
    for row in &counters.by_service {
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned()).into();
        table.push([
            name(&row.service),
            name(&row.vip),
            name(&row.server),
            (&row.verdict).into(),
            row.value.into(),
        ]);
    }
    table
}
