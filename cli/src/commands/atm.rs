//! `atmctl atm`: single ATMs.

use proto::v1;

use super::CHANGE_TIMEOUT;
use crate::args::{Atm, Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Forgotten;
use crate::output;

pub(super) async fn run(global: &Global, command: &Atm) -> Result<(), Failure> {
    let Atm::Forget { name } = command;
    let reply = client::ask(
        global,
        Effect::Changes,
        CHANGE_TIMEOUT,
        async |mut admin| {
            let name = name.clone();
            let reply = admin.forget_atm(v1::ForgetAtmRequest { name }).await?;
            Ok(reply.into_inner())
        },
    );
    let done = Forgotten::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&done),
        Format::Table => {
            let name = output::printable(&done.name);
            output::print(&match &done.incarnation {
                Some(known) => format!(
                    "data directory {} of {name} is forgotten; start {name} with an empty one\n",
                    output::printable(known)
                ),
                None => format!(
                    "no data directory of {name} was known; it may start with an empty one\n"
                ),
            })
        }
    }
}
