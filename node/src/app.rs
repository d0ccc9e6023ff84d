//! The process: which roles this host has, how they start and how all of it ends.
//!
//! Everything that can fail for a reason an operator must remove (a taken port, a missing interface, no permission, a
//! foreign directory) is opened before anything on the host is changed.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use crate::atm_role::{AtmRole, Prepared};
use crate::cluster_file::ClusterFile;
use crate::failure::{Failure, Reason};
use crate::server_node::ServerNode;
use crate::server_role;
use crate::settings::Settings;

/// Signals that end the process in order.
struct Stop {
    term: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, Reason> {
        let listen = |kind| signal(kind).map_err(Reason::Runtime);
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The running daemon.
pub struct App {
    stop: Stop,
    server: Option<ServerNode>,
    atm: Option<AtmRole>,
}

impl App {
    /// Checks both files as a start would, and changes nothing.
    pub async fn check(settings: &Settings) -> Result<(), Failure> {
        let file = ClusterFile::load(&settings.cluster_config).await?;
        let part = file.part(settings.name.as_deref());
        if part.atm.is_none() && part.server.is_none() {
            return Err(Reason::NoPart.into());
        }
        for limitation in crate::packets::limitations(&file.config) {
            println!("warning: {limitation}");
        }
        let role = |name: Option<String>, what: &str| name.map(|name| format!("{what} {name}"));
        let roles: Vec<String> = [role(part.atm, "ATM"), role(part.server, "server")]
            .into_iter()
            .flatten()
            .collect();
        println!(
            "{} is valid; this host is {}",
            settings.cluster_config.display(),
            roles.join(" and ")
        );
        Ok(())
    }

    /// Takes back what a killed daemon changed on this host as a server, and says what that was. What an ATM leaves keeps the
    /// host silent, and stays.
    pub async fn clean_up(settings: &Settings) -> Result<(), Failure> {
        let done = server_role::clean_up(&settings.data_dir).await?;
        for sentence in &done {
            println!("{sentence}");
        }
        if done.is_empty() {
            println!("nothing to take back");
        }
        Ok(())
    }

    /// Opens and starts everything this host has a part in.
    pub async fn start(settings: Settings) -> Result<Self, Failure> {
        let stop = Stop::new()?;
        let file = ClusterFile::load(&settings.cluster_config).await?;
        let part = file.part(settings.name.as_deref());
        if part.atm.is_none() && part.server.is_none() {
            return Err(Reason::NoPart.into());
        }
        let prepared = match &part.atm {
            Some(name) => Some(Prepared::open(&settings, name, file.clone()).await?),
            None => None,
        };
        crate::realtime::apply(&settings).map_err(Reason::Realtime)?;
        if part.atm.is_some() {
            crate::realtime::advise(&settings, file.config.atm_pool.heartbeat_delay);
        }
        let server = match &part.server {
            Some(name) => {
                let guard = prepared.as_ref().map(|atm| Arc::clone(&atm.packets));
                Some(ServerNode::start(&settings, &file, name, guard).await?)
            }
            None => None,
        };
        let atm = prepared.map(AtmRole::start);
        Ok(Self { stop, server, atm })
    }

    /// Runs until a signal or a failure, and ends in order.
    pub async fn run(mut self) -> Result<(), Failure> {
        let outcome = tokio::select! {
            () = self.stop.wait() => Ok(()),
            failure = ended(&mut self.atm, AtmRole::failure) => Err(failure),
            failure = ended(&mut self.server, ServerNode::failure) => {
                self.server = None;
                Err(failure)
            }
        };
        match &outcome {
            Ok(()) => info!("ending in order"),
            Err(failure) => error!(%failure, "ending"),
        }
        let guarded = match self.atm {
            Some(atm) => Some(atm.shutdown().await),
            None => None,
        };
        if let Some(server) = self.server {
            server.stop().await?;
        }
        // Last: while the server role has a VIP on this host, the kernel would answer stragglers for it. One that ended by itself has
        // left its VIPs there, and the guard stays with them until the next start (ADR-0012).
        let vips_are_left = matches!(outcome, Err(Reason::ServerEnded(_)));
        if let Some(packets) = guarded
            && !vips_are_left
        {
            packets.unguard().await;
        }
        outcome.map_err(Failure)
    }
}

/// Why a role has ended by itself; never without the role.
async fn ended<R>(role: &mut Option<R>, failure: impl AsyncFnOnce(&mut R) -> Reason) -> Reason {
    match role {
        Some(role) => failure(role).await,
        None => std::future::pending().await,
    }
}
