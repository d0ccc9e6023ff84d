//! This library on a simulated network (turmoil), disk and clock, for the deterministic tests. Exists with `--cfg atm_sim` only.
//!
//! Everything but sockets, threads, fsync, clocks and randomness is the real node. One thread runs all hosts; whose code
//! runs is told by tokio's runtime, of which each life of a host has its own ([`Host::live`]).

mod client;
pub(crate) mod disk;
mod host;
pub(crate) mod net;

use std::future::Future;
use std::sync::Arc;

use dataplane_core::Limits;
use openraft_rt::deterministic_rng::DeterministicRng;
use tokio::sync::mpsc;

pub use client::{CallError, Client, ConfigRead};
pub use disk::{Disk, Fault};
pub use host::{Clock, Host, Probe, Role};

use crate::atm_role::AtmRole;
use crate::cluster_file::ClusterFile;
use crate::raft::{Machine, Raft};
use crate::settings::Settings;

/// openraft's runtime: tokio, with random numbers from a seed.
pub(crate) type Runtime = DeterministicRng<openraft_rt_tokio::TokioRuntime>;

/// How often the engine looks, as it does after each frame on a real host.
const ENGINE_STEP: std::time::Duration = std::time::Duration::from_millis(1);

/// Runs what starts tasks of openraft; their random numbers come from the host's seed.
pub(crate) async fn seeded<F: Future>(future: F) -> F::Output {
    Runtime::scope(host::here().random(), future).await
}

/// The random name of a new data directory.
pub(crate) fn incarnation() -> String {
    let here = host::here();
    format!("{:016x}-{:016x}", here.random(), here.random())
}

/// The engine of the host whose code runs, driven by a task.
pub(crate) fn start_engine(
    limits: Limits,
    cell: Arc<dataplane::LeaseCell>,
) -> Result<(dataplane::Handle, mpsc::Receiver<dataplane::Event>), dataplane::StartError> {
    let here = host::here();
    here.probe_with(|probe| probe.cell = Some(Arc::clone(&cell)));
    let (handle, events, mut driver) =
        dataplane::simulation::start(here.interface.clone(), limits, &here.cable, cell)?;
    tokio::spawn(async move {
        while driver.step() {
            tokio::time::sleep(ENGINE_STEP).await;
        }
    });
    Ok((handle, events))
}

/// Consensus has started on the host whose code runs.
pub(crate) fn takes_part(raft: &Raft, machine: &Machine) {
    host::here().probe_with(|probe| {
        probe.raft = Some(raft.clone());
        probe.machine = Some(machine.clone());
    });
}

/// The state of the host whose code runs is at this index.
pub(crate) fn applied(index: u64, state: &model::state::State) {
    host::here().note_applied(index, state);
}

/// One life of an ATM, from its start until it fails. A crash drops the future.
pub async fn run(host: Arc<Host>) -> Result<(), String> {
    host.live();
    let settings = Settings {
        name: Some(host.name.clone()),
        interface: "sim0".into(),
        cluster_config: host.directory.join("clusterserver.conf"),
        data_dir: host.directory.join("data"),
        ..Settings::simulated()
    };
    let (file, _) = ClusterFile::parse("simulated.conf", host.configuration.clone())
        .await
        .map_err(|error| error.to_string())?;
    let prepared = crate::atm_role::Prepared::open(&settings, &host.name, file)
        .await
        .map_err(|reason| reason.to_string())?;
    let mut atm = AtmRole::start(prepared);
    Err(atm.failure().await.to_string())
}
