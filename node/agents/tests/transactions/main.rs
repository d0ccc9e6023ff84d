//! Each agent against a server that plays a part: right, wrong, silent, half, endless, gone; and that it took leave.

#![expect(
    clippy::unwrap_used,
    reason = "a test tells its failure by a panic, in its helpers, too"
)]

mod directory;
mod files;
mod mail;
mod server;
mod tls;
mod web;
