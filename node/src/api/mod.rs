//! The Admin service: what operators and programs ask of the cluster, at any ATM.

mod change;
mod cluster;
mod convert;
mod counters;
mod orders;
mod read;
mod relay;
mod reports;
mod servers;
mod service;
mod status;
mod trace;

pub(crate) use cluster::Cluster;
pub(crate) use orders::EventFollowers;
pub(crate) use servers::{NodesService, Servers};
pub(crate) use service::AdminService;
