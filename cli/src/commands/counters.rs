//! `atmctl counters`: what became of the frames, and whatever else the ATM that answers counts.

use proto::v1;

use super::READ_TIMEOUT;
use crate::args::{Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Counters;
use crate::output;
use crate::table::{Column, Table};

pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let reply = client::ask(global, Effect::Reads, READ_TIMEOUT, async |mut admin| {
        let reply = admin.counters(v1::CountersRequest {}).await?;
        Ok(reply.into_inner())
    });
    let counters = Counters::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&counters),
        Format::Table => {
            let mut table = Table::new([Column::Left("COUNTER"), Column::Right("VALUE")]);
            for (name, value) in &counters.counters {
                table.push([name.into(), value.into()]);
            }
            output::say(format_args!(
                "counters of {}",
                output::printable(&counters.atm)
            ));
            output::print(&table.render(global.color.on_stdout()))
        }
    }
}
