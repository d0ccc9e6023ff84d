//! The Admin service: what operators and programs ask of the cluster, at any ATM.

mod convert;
mod relay;
mod service;
mod status;

pub(crate) use service::{AdminService, Cluster};
