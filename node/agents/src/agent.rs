//! Who is asked, and in which protocol.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// A protocol that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Agent {
    /// HTTP/1.1: `http` and `httpAgent`.
    Http,
    /// A TCP connection, and nothing said: `connect`.
    Connect,
    /// SMTP (RFC 5321): `smtpAgent`.
    Smtp,
    /// POP3 (RFC 1939): `popAgent`.
    Pop,
    /// IMAP (RFC 9051): `imapAgent`.
    Imap,
    /// FTP (RFC 959): `ftpAgent`.
    Ftp,
    /// NNTP (RFC 3977): `nntpAgent`.
    Nntp,
    /// DNS (RFC 1035): `dnsAgent`.
    Dns,
    /// LDAP (RFC 4511): `ldapAgent`.
    Ldap,
}

impl Agent {
    /// The programs by name.
    pub const PROGRAMS: [(&'static str, Self); 8] = [
        ("smtpAgent", Self::Smtp),
        ("popAgent", Self::Pop),
        ("imapAgent", Self::Imap),
        ("ftpAgent", Self::Ftp),
        ("httpAgent", Self::Http),
        ("nntpAgent", Self::Nntp),
        ("dnsAgent", Self::Dns),
        ("ldapAgent", Self::Ldap),
    ];

    /// Whom a program's name or whole path means; the directory does not matter, upper and lower case do.
    #[must_use]
    pub fn by_program(program: impl AsRef<Path>) -> Option<Self> {
        let name = program.as_ref().file_name()?;
        let mut programs = Self::PROGRAMS.into_iter();
        programs
            .find(|(program, _)| OsStr::new(program) == name)
            .map(|(_, agent)| agent)
    }

    /// The name of its program; `connect` has none.
    #[must_use]
    pub fn program(self) -> Option<&'static str> {
        let mut programs = Self::PROGRAMS.into_iter();
        programs
            .find(|(_, agent)| *agent == self)
            .map(|(program, _)| program)
    }

    /// Whether the protocol has a request that starts TLS.
    #[must_use]
    pub fn has_starttls(self) -> bool {
        match self {
            Self::Smtp | Self::Pop | Self::Imap | Self::Ftp | Self::Nntp | Self::Ldap => true,
            Self::Http | Self::Connect | Self::Dns => false,
        }
    }

    /// Whether it speaks TCP and nothing else.
    #[must_use]
    pub fn is_tcp_only(self) -> bool {
        match self {
            Self::Dns => false,
            Self::Http
            | Self::Connect
            | Self::Smtp
            | Self::Pop
            | Self::Imap
            | Self::Ftp
            | Self::Nntp
            | Self::Ldap => true,
        }
    }
}

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Socktype 1.
    Tcp,
    /// Socktype 2.
    Udp,
}

impl Transport {
    /// What stands for it on a program's command line: the kernel's SOCK_STREAM and SOCK_DGRAM.
    #[must_use]
    pub fn socktype(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
        }
    }

    /// What a program's command line says.
    #[must_use]
    pub fn by_socktype(socktype: u8) -> Option<Self> {
        match socktype {
            1 => Some(Self::Tcp),
            2 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// One service of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The server.
    pub address: IpAddr,
    /// The port of the service.
    pub port: u16,
    /// TCP or UDP.
    pub transport: Transport,
}

impl Target {
    pub(crate) fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{} {transport}:{}", self.address, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_the_name_of_its_file() {
        for (program, agent) in Agent::PROGRAMS {
            assert_eq!(Agent::by_program(program), Some(agent));
            assert_eq!(
                Agent::by_program(Path::new("/usr/local/bin").join(program)),
                Some(agent)
            );
            assert_eq!(agent.program(), Some(program));
        }
        for other in [
            "",
            "/",
            "smtpagent",
            "/usr/bin/smtpAgent2",
            "/usr/bin/smtpAgent/..",
        ] {
            assert_eq!(Agent::by_program(other), None, "{other:?}");
        }
        assert_eq!(Agent::Connect.program(), None);
    }

    #[test]
    fn socktypes_are_the_originals() {
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(
                Transport::by_socktype(transport.socktype()),
                Some(transport)
            );
        }
        assert_eq!(Transport::by_socktype(0), None);
        assert_eq!(Transport::by_socktype(3), None);
    }
}
