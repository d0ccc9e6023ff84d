//! The process: which roles this host has, how they start and how all of it ends.
//!
//! Everything that can fail for a reason an operator must remove (a taken port, a missing interface, no permission, a
//! foreign directory) is opened before anything on the host is changed.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::atm_role::{AtmRole, Prepared};
use crate::cluster_file::ClusterFile;
use crate::failure::{Failure, Reason};
use crate::server_plan;
use crate::server_role::{self, Method, ServerRole};
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
    server: Option<ServerRole>,
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
            Some(name) => Some(start_server_role(&settings, &file, name, prepared.as_ref()).await?),
            None => None,
        };
        let atm = prepared.map(AtmRole::start);
        Ok(Self { stop, server, atm })
    }

    /// Runs until a signal or a failure, and ends in order.
    pub async fn run(mut self) -> Result<(), Failure> {
        let outcome = match &mut self.atm {
            None => {
                self.stop.wait().await;
                Ok(())
            }
            Some(atm) => tokio::select! {
                () = self.stop.wait() => Ok(()),
                failure = atm.failure() => Err(failure),
            },
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
        // Last: while the server role has a VIP on this host, the kernel would answer stragglers for it.
        if let Some(packets) = guarded {
            packets.unguard().await;
        }
        outcome.map_err(Failure)
    }
}

async fn start_server_role(
    settings: &Settings,
    file: &ClusterFile,
    name: &str,
    atm: Option<&Prepared>,
) -> Result<ServerRole, Reason> {
    let plan = server_plan::plan(settings, file, name)
        .await
        .ok_or(Reason::NoPart)?;
    if let Some(atm) = atm {
        atm.packets.guard_served(&plan.vips).await;
        if plan.method != Method::Tunnel {
            warn!(
                server = name, address = %plan.address,
                "this host is an ATM, and AtmPool does not have the address of its server: while this ATM is active nothing reaches \
                 its server (write the ATM's address in the Server line, or tunnel)"
            );
        }
    }
    let role = server_role::start(plan).await?;
    info!(server = name, "server role started");
    Ok(role)
}
