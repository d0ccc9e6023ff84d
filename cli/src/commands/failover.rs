//! `atmctl failover`: the planned hand-over.

use proto::v1;

use super::CHANGE_TIMEOUT;
use crate::args::{Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Failover;
use crate::output;

pub(super) async fn run(global: &Global, to: Option<&str>) -> Result<(), Failure> {
    let reply = client::ask(
        global,
        Effect::Changes,
        CHANGE_TIMEOUT,
        async |mut admin| {
            let to = to.unwrap_or_default().to_owned();
            let reply = admin.failover(v1::FailoverRequest { to }).await?;
            Ok(reply.into_inner())
        },
    );
    let done = Failover::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&done),
        Format::Table => {
            let (from, to) = (output::printable(&done.from), output::printable(&done.to));
            output::print(&format!(
                "{from} handed over to {to} in {} ms (epoch {})\n",
                done.elapsed_ms, done.epoch
            ))
        }
    }
}
