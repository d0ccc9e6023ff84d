//! What may be said about a transaction besides whom it is with.

use std::fmt;
use std::str::FromStr;

use crate::agent::{Agent, Transport};

/// How a transaction is carried out. The default is what the original's programs can be told: nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether and when the connection is encrypted.
    pub tls: Tls,
    /// The name that is asked for by TLS (SNI) and HTTP (`Host`), and that a verified certificate has to bear; without it the address.
    pub server_name: Option<String>,
    /// Whether the certificate has to lead to one of the system's roots. Off: see the crate's word on certificates.
    pub verify: bool,
    /// What is asked for by HTTP: a path that begins with `/`, perhaps with a query.
    pub path: String,
    /// The statuses with which HTTP is healthy.
    pub expect: Statuses,
    /// The name whose address is asked for by DNS.
    pub query: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: Tls::None,
            server_name: None,
            verify: false,
            path: "/".to_owned(),
            expect: Statuses::default(),
            // A resolver answers for this name by itself (RFC 6761 §6.3): its upstream servers are not what is checked.
            query: "localhost".to_owned(),
        }
    }
}

impl Options {
    /// What is fit for `agent` on `port` when nobody said anything: TLS from the first byte on ports of TCP that are assigned to that.
    ///
    /// A configuration file of the original has no place for options; without this its `tcp:993 imapAgent` could never be healthy.
    #[must_use]
    pub fn usual(agent: Agent, transport: Transport, port: u16) -> Self {
        Self {
            tls: Tls::usual(agent, transport, port),
            ..Self::default()
        }
    }
}

/// Whether and when a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Tls {
    /// Not at all.
    #[default]
    None,
    /// From the first byte.
    Implicit,
    /// After the protocol's own request: SMTP STARTTLS, POP3 STLS, IMAP STARTTLS, FTP AUTH TLS, NNTP STARTTLS, LDAP StartTLS.
    StartTls,
}

impl Tls {
    /// [`Tls::Implicit`] on the port of TCP that is assigned to `agent` for it (IANA: smtps, pop3s, imaps, ftps, nntps, https, ldaps,
    /// domain-s), else none.
    #[must_use]
    pub fn usual(agent: Agent, transport: Transport, port: u16) -> Self {
        if transport == Transport::Udp {
            return Self::None;
        }
        match (agent, port) {
            (Agent::Smtp, 465)
            | (Agent::Pop, 995)
            | (Agent::Imap, 993)
            | (Agent::Ftp, 990)
            | (Agent::Nntp, 563)
            | (Agent::Http, 443)
            | (Agent::Ldap, 636)
            | (Agent::Dns, 853) => Self::Implicit,
            _ => Self::None,
        }
    }
}

/// Statuses of HTTP: classes and single ones, as in `2xx,3xx,401`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<Range>);

/// First and last status.
type Range = (u16, u16);

/// More than anybody needs; a message that lists them all is still one line.
const STATUSES_MAX: usize = 16;

impl Statuses {
    /// Whether a status is one of them.
    #[must_use]
    pub fn contain(&self, status: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for Statuses {
    /// `2xx,3xx`, as HAProxy has it.
    fn default() -> Self {
        Self(vec![(200, 299), (300, 399)])
    }
}

impl FromStr for Statuses {
    type Err = BadOption;

    fn from_str(text: &str) -> Result<Self, BadOption> {
        let statuses: Vec<_> = text
            .split(',')
            .map(|one| range(one).ok_or_else(|| BadOption::Status(one.to_owned())))
            .collect::<Result<_, _>>()?;
        if statuses.len() > STATUSES_MAX {
            return Err(BadOption::Statuses);
        }
        Ok(Self(statuses))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{}xx", first / 100)?;
            }
        }
        Ok(())
    }
}

fn range(text: &str) -> Option<Range> {
    let [class @ b'1'..=b'5', rest @ ..] = text.as_bytes() else {
        return None;
    };
    let first = u16::from(class - b'0') * 100;
    match rest {
        b"xx" | b"XX" => Some((first, first + 99)),
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            let status = first + u16::from(tens - b'0') * 10 + u16::from(ones - b'0');
            Some((status, status))
        }
        _ => None,
    }
}

/// An option that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// Not a status.
    #[error(
        "{0:?} is no status of HTTP: write three digits as in 204, or a class as in 2xx, several by commas"
    )]
    Status(String),
    /// Too many.
    #[error("more than {STATUSES_MAX} statuses: write classes as in 2xx")]
    Statuses,
    /// Not a path.
    #[error(
        "{0:?} is no path: it begins with / and has printable ASCII without blanks only; write others as %20"
    )]
    Path(String),
    /// Not a name that TLS could ask for.
    #[error("{0:?} is no name of a host")]
    ServerName(String),
    /// Not a name of DNS.
    #[error(
        "{0:?} is no name that DNS could be asked for: labels of 1 to 63 bytes, by dots, 253 at most"
    )]
    Query(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_classes_and_single_ones() {
        let statuses: Statuses = "2xx,301,4XX".parse().unwrap();
        for (status, contained) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (301, true),
            (302, false),
            (400, true),
            (499, true),
            (500, false),
        ] {
            assert_eq!(statuses.contain(status), contained, "{status}");
        }
        assert_eq!(statuses.to_string(), "2xx,301,4xx");
        assert_eq!(Statuses::default(), "2xx,3xx".parse().unwrap());
        for bad in [
            "", "2", "2x", "6xx", "0xx", "20x", "2000", "200,", "200 ,3xx", "-20",
        ] {
            assert!(
                matches!(bad.parse::<Statuses>(), Err(BadOption::Status(_))),
                "{bad:?}"
            );
        }
        let many = ["200"; 17].join(",");
        assert_eq!(many.parse::<Statuses>(), Err(BadOption::Statuses));
    }

    #[test]
    fn ports_of_tls_mean_tls_to_their_own_protocol_only() {
        use Transport::{Tcp, Udp};
        assert_eq!(Tls::usual(Agent::Imap, Tcp, 993), Tls::Implicit);
        assert_eq!(Tls::usual(Agent::Imap, Tcp, 143), Tls::None);
        assert_eq!(Tls::usual(Agent::Imap, Tcp, 465), Tls::None);
        assert_eq!(Tls::usual(Agent::Connect, Tcp, 443), Tls::None);
        assert_eq!(Tls::usual(Agent::Dns, Tcp, 853), Tls::Implicit);
        assert_eq!(Tls::usual(Agent::Dns, Udp, 853), Tls::None);
        assert_eq!(Options::usual(Agent::Http, Tcp, 443).tls, Tls::Implicit);
        assert_eq!(Options::usual(Agent::Http, Tcp, 80), Options::default());
    }
}
