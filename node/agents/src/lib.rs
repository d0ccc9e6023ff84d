//! Application Stability Agents: one real transaction with a service tells whether it works.
//!
//! [`check`] carries out the transaction of an [`Agent`] with a [`Target`]; [`program::run`] has any other program do it, as the
//! original did: `<program> <ip> <port> <socktype>`. [`command_line`] is what the programs `smtpAgent` and so on consist of.
//!
//! A transaction goes as far as a server answers anybody: greeting, capabilities, goodbye. It never logs in, writes
//! nothing, and takes leave as the protocol wants it. Everything a server sends is bounded ([`LINE_BYTES_MAX`],
//! [`LINES_MAX`], [`BYTES_MAX`]) and escaped where it is quoted.
//!
//! Knows nothing of the workspace's other crates: no configuration, no state, no cluster. `protocol/` says what is said and what is right,
//! `connection.rs` has the bytes, `tls.rs` the sessions, and no other file opens a socket but `protocol/dns.rs` for UDP.
//!
//! # Certificates
//!
//! Unless [`Options::verify`] asks for it, certificates are not checked: an agent says whether the service works, and
//! a certificate that has run out, or names the virtual address and not the server, would take all servers out of rotation at
//! once, which helps no client. TLS 1.2 and 1.3 are spoken; a server with older versions only has failed.
//!
//! # Foreign code
//!
//! | crate | licence | why |
//! |---|---|---|
//! | `tokio-rustls` 0.26 with `rustls` 0.23, provider `ring` | MIT or Apache-2.0 (`ring`: Apache-2.0 and ISC) | TLS nobody should write; `ring` builds in a fraction of the time of aws-lc |
//! | `rustls-native-certs` 0.8 | Apache-2.0, ISC or MIT | finds the system's roots where OpenSSL would |
//! | `httparse` 1 | MIT or Apache-2.0 | the parser of hyper, in the workspace already |
//! | `simple-dns` 0.13 | MIT | one dependency, which the workspace has; `hickory-proto` would bring some thirty for one question |
//! | `getrandom` 0.4 | MIT or Apache-2.0 | the id of a DNS query, in the workspace already |
//!
//! LDAP is spoken by hand: three requests of constant form, and of the answers the result. `ldap3_proto` is under the MPL.

mod agent;
pub mod command_line;
mod connection;
mod failure;
mod options;
pub mod program;
mod protocol;
mod text;
mod tls;

use std::time::{Duration, Instant};

pub use agent::{Agent, Target, Transport};
pub use connection::{BYTES_MAX, LINE_BYTES_MAX, LINES_MAX};
pub use failure::{Failure, Seen, Step};
pub use options::{BadOption, Options, Statuses, Tls};

use failure::Progress;

/// How long the answer to a goodbye is waited for. It decides nothing; without it the server would be told that its last words
/// arrived nowhere, and would log that.
const GOODBYE: Duration = Duration::from_secs(1);

/// Carries out the transaction of `agent` with `target`.
///
/// Has no time limit: the caller bounds it, or takes [`check_within`], which a server that does not answer the goodbye cannot
/// fail. Dropping the future closes the socket.
///
/// # Errors
///
/// Says at which step the service did something else than expected, and what.
pub async fn check(agent: Agent, target: &Target, options: &Options) -> Result<(), Failure> {
    let progress = Progress::default();
    let finished = protocol::converse(agent, target, options, &progress).await;
    finished.part(GOODBYE).await
}

/// As [`check`]; after `limit` it has failed at the step it had come to, which a caller's own limit could not name.
///
/// # Errors
///
/// As [`check`], and [`Seen::Nothing`] after `limit`.
pub async fn check_within(
    agent: Agent,
    target: &Target,
    options: &Options,
    limit: Duration,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let progress = Progress::default();
    let transaction = protocol::converse(agent, target, options, &progress);
    match tokio::time::timeout(limit, transaction).await {
        Ok(finished) => {
            let left = limit.saturating_sub(begin.elapsed());
            finished.part(left.min(GOODBYE)).await
        }
        Err(_elapsed) => Err(progress.step().failed(Seen::Nothing(limit))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many checks run as tasks of a runtime with several threads.
    #[test]
    fn a_check_may_wander_between_threads() {
        fn wanders<F: Future + Send>(_: F) {}
        let target = Target {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 1,
            transport: Transport::Tcp,
        };
        let options = Options::default();
        let limits = program::Limits::within(GOODBYE);
        wanders(check(Agent::Smtp, &target, &options));
        wanders(check_within(Agent::Dns, &target, &options, GOODBYE));
        wanders(program::run(std::path::Path::new("/"), &target, &limits));
    }
}
