//! The engine between real kernels: clients with their default offloads, servers, and nothing simulated but the replicator.

#[cfg(test)]
mod decapsulate;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod multicast;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod vlan;
