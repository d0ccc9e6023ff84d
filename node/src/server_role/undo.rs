//! Takes back what a journal lists, also when only part of it was ever done.

use model::server::nft::TABLE;

use super::journal::{Journal, JournalFile};
use super::netlink::Netlink;
use super::{LOOPBACK, ServerRoleError, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, nft, sysctl};

/// What became of the list: one sentence for each thing taken back, one for each thing that stayed.
#[derive(Debug, Default)]
pub(super) struct Undone {
    pub(super) done: Vec<String>,
    pub(super) failures: Vec<String>,
}

/// Takes everything back in the order that lets this host never speak for a VIP on the way: addresses, tunnel, table,
/// settings. What is not there any more is no failure; a failure does not keep the rest from being taken back.
pub(super) async fn undo(journal: &Journal, file: &JournalFile) -> Undone {
    let mut undone = Undone::default();
    match Netlink::connect() {
        Ok(netlink) => undone.links(journal, &netlink).await,
        Err(error) => undone.failures.push(error.to_string()),
    }
    if journal.table {
        undone.note(remove_table(file).await, || {
            format!("nft table {TABLE} removed")
        });
    }
    // Backwards: `all` gets its reverse path filter back before any interface loses the one it was lent.
    for setting in journal.sysctls.iter().rev() {
        undone.note(sysctl::restore(setting), || {
            format!(
                "{} set back to {}",
                setting.path().display(),
                setting.before
            )
        });
    }
    undone
}

async fn remove_table(file: &JournalFile) -> Result<bool, ServerRoleError> {
    let present = nft::present().await?;
    if present {
        nft::remove(file.share()?).await?;
    }
    Ok(present)
}

impl Undone {
    async fn links(&mut self, journal: &Journal, netlink: &Netlink) {
        let links = match netlink.links().await {
            Ok(links) => links,
            Err(error) => return self.failures.push(error.to_string()),
        };
        if let Some(loopback) = links.iter().find(|link| link.name == LOOPBACK) {
            for vip in &journal.addresses {
                let removed = netlink.remove_vip(loopback.index, *vip).await;
                self.note(removed, || format!("VIP {vip} taken off {LOOPBACK}"));
            }
        }
        for (made, name) in [
            (journal.tunnel, TUNNEL_DEVICE),
            (journal.tunnel_6in4, TUNNEL_DEVICE_6IN4),
        ] {
            if made && links.iter().any(|link| link.name == name) {
                let removed = netlink.remove_link(name).await;
                self.note(removed, || format!("link {name} removed"));
            }
        }
        if journal.raised_loopback {
            let down = netlink.set_down(LOOPBACK).await.map(|()| true);
            self.note(down, || format!("link {LOOPBACK} set down"));
        }
    }

    fn note(&mut self, outcome: Result<bool, ServerRoleError>, sentence: impl FnOnce() -> String) {
        match outcome {
            Ok(true) => self.done.push(sentence()),
            Ok(false) => {}
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}
