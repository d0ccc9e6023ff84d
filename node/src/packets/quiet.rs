//! This host's kernel is silent about the VIPs, and hears who asks for them: the guard in its packet filter and the groups of its
//! interface, kept as they were put in place whatever anybody does to them.

use std::net::IpAddr;
use std::time::Duration;

use dataplane::{Guard, Guarded, SolicitedNodes};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::filter_watch::{Family, FilterWatch, changed, listing};

/// Before a guard that could not be put back is tried again.
const MEND_AGAIN: Duration = Duration::from_secs(1);

/// The guard on one interface, and the groups.
pub(super) struct Quiet {
    interface: String,
    guard: Option<Guard>,
    /// VIPs that the server role has on this host, or is about to.
    served: Vec<IpAddr>,
    /// What the guard was last told.
    wanted: Option<Guarded>,
    /// What is in force of it: the guard's table as it was listed when it had been put in place.
    in_force: Option<(Guarded, Option<String>)>,
    /// It could not be changed the last time, which was said.
    failing: bool,
    groups: SolicitedNodes,
    /// The last word about the groups, so that it is not repeated.
    groups_told: Option<String>,
}

impl Quiet {
    /// Nothing is guarded yet.
    pub(super) fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            guard: None,
            served: Vec::new(),
            wanted: None,
            in_force: None,
            failing: false,
            groups: SolicitedNodes::new(interface),
            groups_told: None,
        }
    }

    /// Guards these VIPs of the server role with all that is guarded.
    pub(super) async fn serve(&mut self, vips: &[IpAddr]) {
        self.served = vips.to_vec();
        let guarded = self.wanted.clone().unwrap_or_default();
        self.keep(guarded).await;
    }

    /// Keeps the kernel silent about these and the served VIPs, and has it hear who asks for them. Without nft, or without a group,
    /// the dataplane works; the log says what is missing.
    pub(super) async fn keep(&mut self, mut guarded: Guarded) {
        // A simulated host has no kernel that could answer.
        if cfg!(atm_sim) {
            return;
        }
        for vip in &self.served {
            if !guarded.vips.contains(vip) {
                guarded.vips.push(*vip);
            }
        }
        self.follow_groups(&guarded.vips);
        // The host's addresses matter to the rules about servers behind NAT alone.
        if guarded.nat_servers.is_empty() {
            guarded.own.clear();
        }
        self.wanted = Some(guarded.clone());
        if let Some((in_force, _)) = &self.in_force
            && *in_force == guarded
        {
            return;
        }
        self.put(guarded).await;
    }

    fn follow_groups(&mut self, vips: &[IpAddr]) {
        let told = self.groups.follow(vips).err();
        let told = told.map(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        });
        if let Some(error) = told.as_ref().filter(|_| told != self.groups_told) {
            warn!(
                error,
                "neighbour solicitations for IPv6 VIPs may not arrive"
            );
        }
        self.groups_told = told;
    }

    /// Puts the guard in place.
    async fn put(&mut self, guarded: Guarded) {
        let (guard, interface, told) =
            (self.guard.clone(), self.interface.clone(), guarded.clone());
        // nft may wait for somebody else's transaction, and has thousands of rules to read on some hosts.
        let keep = async || {
            let kept = tokio::task::spawn_blocking(move || match guard {
                Some(guard) => guard.update(&told).map(|()| guard),
                None => Guard::install(&interface, &told),
            });
            let kept = kept.await.map_err(|panicked| panicked.to_string())?;
            kept.map_err(|error| format!("{error:#}"))
        };
        let error = match changed((Family::Netdev, &self.table()), keep).await {
            Ok((guard, listed)) => {
                self.guard = Some(guard);
                self.in_force = Some((guarded, listed));
                if std::mem::take(&mut self.failing) {
                    info!("the kernel is kept from answering for the VIP again");
                }
                return;
            }
            Err(error) => error,
        };
        self.in_force = None;
        if !std::mem::replace(&mut self.failing, true) {
            warn!(error, "the kernel is not kept from answering for the VIP");
        }
    }

    /// Puts the guard back whenever somebody takes it out of the packet filter, until `stop`.
    pub(super) async fn watch(quiet: &Mutex<Self>, stop: CancellationToken) {
        // A simulated host has none.
        if cfg!(atm_sim) {
            return;
        }
        let table = quiet.lock().await.table();
        let mut watch = FilterWatch::new(Family::Netdev, &table);
        // What happened before this is seen now.
        let mut whole = quiet.lock().await.mend().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = watch.touched() => {}
                () = tokio::time::sleep(MEND_AGAIN), if !whole => {}
            }
            whole = quiet.lock().await.mend().await;
        }
    }

    /// Puts the guard back if it is not as it was put in place. Whether it is now.
    async fn mend(&mut self) -> bool {
        let Some(wanted) = self.wanted.clone() else {
            return true;
        };
        if self.guard.is_none() {
            // Taken away in order, or nft is missing, which was said.
            return true;
        }
        if let Some((_, listed)) = &self.in_force {
            if listed.is_some() && *listed == listing(Family::Netdev, &self.table()).await {
                return true;
            }
            warn!(
                "somebody changed the guard of the VIPs in the packet filter (nft flush ruleset?): it is being put back"
            );
        }
        self.put(wanted).await;
        matches!(&self.in_force, Some((_, Some(_listed))))
    }

    fn table(&self) -> String {
        Guard::table(&self.interface)
    }

    /// Takes the guard away: for an orderly end only, a kernel that nobody guards might answer for the VIP.
    pub(super) fn end(&mut self) {
        if let Some(guard) = self.guard.take()
            && let Err(error) = guard.remove()
        {
            warn!(%error, "the guard of the VIP stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::routing::tests::{Host, block_on};

    #[test]
    fn a_guard_that_somebody_took_is_put_back() {
        let Some(host) = Host::new("a_guard_that_somebody_took_is_put_back") else {
            return;
        };
        host.on(|| {
            block_on(async {
                let quiet = Arc::new(Mutex::new(Quiet::new("e0")));
                let guarded = Guarded {
                    vips: vec!["10.9.0.100".parse().unwrap()],
                    ..Guarded::default()
                };
                quiet.lock().await.keep(guarded).await;
                let stop = CancellationToken::new();
                let watching = tokio::spawn({
                    let (quiet, stop) = (Arc::clone(&quiet), stop.clone());
                    async move { Quiet::watch(&quiet, stop).await }
                });
                let nft = async |arguments: &[&str]| {
                    let mut nft = tokio::process::Command::new("nft");
                    let said = nft.args(arguments).output().await.unwrap();
                    String::from_utf8(said.stdout).unwrap()
                };
                let is_there = async || nft(&["list", "ruleset"]).await.contains("10.9.0.100");
                assert!(is_there().await);
                let vips = "ip daddr 10.9.0.99 counter drop";
                let older = format!(
                    "flush ruleset; table netdev atm_guard_e0 {{ chain in {{ type filter hook ingress device \"e0\" priority -500; {vips}; }}; }}"
                );
                let changes = ["flush ruleset", &older, "flush chain netdev atm_guard_e0 in"];
                // Over and over: each falls into the middle of the last repair at another place.
                for change in changes.repeat(10) {
                    nft(&[change]).await;
                    let end = Instant::now() + Duration::from_secs(20);
                    while !is_there().await {
                        assert!(Instant::now() < end, "nobody put it back after {change}");
                    }
                }
                stop.cancel();
                watching.await.unwrap();
                quiet.lock().await.end();
                assert!(!is_there().await, "an orderly end takes it away");
            });
        });
    }
}
