//! What is said in each protocol, and what is right. Each file has one protocol's transaction, steps and goodbye.

mod dns;
mod ftp;
mod http;
mod imap;
mod ldap;
mod nntp;
mod pop;
mod reply;
mod smtp;
#[cfg(test)]
mod tests;

pub(crate) use dns::checked_name;
pub(crate) use http::checked_path;

use std::time::Duration;

use crate::agent::{Agent, Target, Transport};
use crate::connection::{Connection, Goodbye};
use crate::failure::{Failure, Progress, Seen, Step};
use crate::options::{Options, Tls};

const TRANSPORT: Step = Step::new("transport", "one that the agent speaks");

/// For those who take leave by closing.
const CLOSE: Goodbye = Goodbye {
    words: b"",
    last_line: None,
};

/// For SMTP, POP3, FTP and NNTP.
const QUIT: Goodbye = Goodbye {
    words: b"QUIT\r\n",
    last_line: Some(b""),
};

/// The whole transaction, over a connection of its own, up to the goodbye.
pub(crate) async fn converse<'p>(
    agent: Agent,
    target: &Target,
    options: &Options,
    progress: &'p Progress,
) -> Finished<'p> {
    progress.reached(&TRANSPORT);
    if target.transport == Transport::Udp {
        return Finished::alone(over_udp(agent, target, options, progress).await);
    }
    if options.tls == Tls::StartTls && !agent.has_starttls() {
        let why = "this protocol has no request that starts TLS: choose TLS from the first byte (tls=implicit, --tls)";
        return Finished::alone(Err(TRANSPORT.failed(Seen::Unable(why.to_owned()))));
    }
    let mut connection = match Connection::open(target, options, progress).await {
        Ok(connection) => connection,
        Err(failure) => return Finished::alone(Err(failure)),
    };
    let outcome = converse_over(agent, &mut connection, target, options).await;
    let goodbye = match agent {
        Agent::Http | Agent::Connect | Agent::Dns => &CLOSE,
        Agent::Smtp | Agent::Pop | Agent::Ftp | Agent::Nntp => &QUIT,
        Agent::Imap => &imap::GOODBYE,
        Agent::Ldap => &ldap::GOODBYE,
    };
    Finished {
        outcome,
        parting: Some((connection, goodbye)),
    }
}

/// A transaction of which only the goodbye is left.
pub(crate) struct Finished<'p> {
    outcome: Result<(), Failure>,
    parting: Option<(Connection<'p>, &'static Goodbye)>,
}

impl Finished<'_> {
    fn alone(outcome: Result<(), Failure>) -> Self {
        Self {
            outcome,
            parting: None,
        }
    }

    /// Takes leave, which may take `patience` and decides nothing.
    pub(crate) async fn part(self, patience: Duration) -> Result<(), Failure> {
        if let Some((connection, goodbye)) = self.parting {
            let behaved = self.outcome.is_ok();
            connection.part(goodbye, behaved, patience).await;
        }
        self.outcome
    }
}

/// The transaction up to the goodbye.
async fn converse_over(
    agent: Agent,
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    match agent {
        Agent::Http => http::converse(connection, target, options).await,
        Agent::Connect => Ok(()),
        Agent::Smtp => smtp::converse(connection, target, options).await,
        Agent::Pop => pop::converse(connection, target, options).await,
        Agent::Imap => imap::converse(connection, target, options).await,
        Agent::Ftp => ftp::converse(connection, target, options).await,
        Agent::Nntp => nntp::converse(connection, target, options).await,
        Agent::Dns => dns::over_tcp(connection, options).await,
        Agent::Ldap => ldap::converse(connection, target, options).await,
    }
}

async fn over_udp(
    agent: Agent,
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> Result<(), Failure> {
    let why = match agent {
        Agent::Dns if options.tls == Tls::None => {
            return dns::over_udp(target, options, progress).await;
        }
        Agent::Dns => "there is no TLS over UDP here: use tcp",
        Agent::Http
        | Agent::Connect
        | Agent::Smtp
        | Agent::Pop
        | Agent::Imap
        | Agent::Ftp
        | Agent::Nntp
        | Agent::Ldap => "this agent speaks TCP only, and the service is of UDP",
    };
    Err(TRANSPORT.failed(Seen::Unable(why.to_owned())))
}
