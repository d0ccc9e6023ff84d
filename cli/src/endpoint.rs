//! Where an ATM listens for operators.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host and a port, as the operator wrote them.
///
/// Invariant: `HOST:PORT` is a valid authority of a URI (RFC 3986 §3.2), and the port is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    /// `HOST:PORT`; IPv6 addresses in brackets.
    pub(crate) fn authority(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("write HOST:PORT, for example 10.0.0.1:7411")]
    NoPort,
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    #[error("{0:?} is neither a host name nor an address")]
    Host(String),
    #[error("write an IPv6 address in brackets, for example [fd00::1]:7411")]
    Brackets,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::Brackets);
        }
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::NoPort)?;
        match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => {}
            _ => return Err(EndpointError::Port(port.to_owned())),
        }
        let valid = match host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
        {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None if host.contains(':') => return Err(EndpointError::Brackets),
            None => is_host_name(host),
        };
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(EndpointError::Host(host.to_owned()))
        }
    }
}

/// Letters, digits, hyphens and dots (RFC 1123 §2.1), and the underscore that many internal names have.
fn is_host_name(host: &str) -> bool {
    /// RFC 1035 §2.3.4.
    const HOST_BYTES_MAX: usize = 253;
    !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port() {
        for text in [
            "127.0.0.1:7411",
            "atm1:1",
            "atm-1.example:65535",
            "[::1]:7411",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().authority(), text);
        }
    }

    #[test]
    fn anything_else_is_named() {
        let bad = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert_eq!(bad("atm1"), EndpointError::NoPort);
        assert_eq!(bad(""), EndpointError::NoPort);
        assert_eq!(bad("::1"), EndpointError::Brackets);
        assert_eq!(bad("fd00::1:70000"), EndpointError::Port("70000".into()));
        assert_eq!(bad("fd00:0:0:0:0:0:0:0:1:7411"), EndpointError::Brackets);
        for port in ["0", "65536", "+80", "", "http"] {
            assert_eq!(
                bad(&format!("atm1:{port}")),
                EndpointError::Port(port.into())
            );
        }
        for host in ["", "a b", "a/b", "user@host", "[::g]", "häuser"] {
            assert_eq!(bad(&format!("{host}:1")), EndpointError::Host(host.into()));
        }
    }
}
