//! Contracts between processes, generated from `atm/*.proto`. Nothing is written by hand here; conversions to and
//! from the node's types live in `node/src/api` and `node/src/raft/codec.rs`.

/// Version 1 of every contract.
pub mod v1 {
    tonic::include_proto!("atm.v1");
}
