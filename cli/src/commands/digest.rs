//! `atmctl digest`: what the ATM that answers has applied, in 32 bytes.

use proto::v1;

use super::READ_TIMEOUT;
use crate::args::{Format, Global};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Digest;
use crate::output::{self, printable};

pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let reply = client::ask(global, Effect::Reads, READ_TIMEOUT, async |mut admin| {
        Ok(admin.digest(v1::DigestRequest {}).await?.into_inner())
    });
    let digest = Digest::from(reply.await?);
    match global.output {
        Format::Json => output::print_json(&digest),
        Format::Table => output::print(&format!(
            "{} index {} sha256 {}\n",
            printable(&digest.atm),
            digest.applied_index,
            digest.sha256
        )),
    }
}
