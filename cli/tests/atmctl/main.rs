//! `atmctl` as its users see it: the built binary against an ATM that answers by script.

#[cfg(test)]
mod apply;
mod atm;
#[cfg(test)]
mod capture;
#[cfg(test)]
mod config;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod counters;
#[cfg(test)]
mod digest;
#[cfg(test)]
mod double;
#[cfg(test)]
mod events;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod local;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod reach;
#[cfg(test)]
mod run;
#[cfg(test)]
mod server;
#[cfg(test)]
mod status;
#[cfg(test)]
mod trace;
