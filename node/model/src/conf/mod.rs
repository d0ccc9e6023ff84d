//! `clusterserver.conf`: the configuration file of TurboLinux Cluster Server 6, with extensions that keep old files valid.

mod types;

pub use types::*;
