//! The engine between real kernels: clients with their default offloads, servers, and nothing simulated but the replicator.

mod decapsulate;
mod failures;
mod forwarding;
mod guard;
mod lab;
mod silence;
