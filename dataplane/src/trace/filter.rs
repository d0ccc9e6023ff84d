//! Which frames a trace is about.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dataplane_core::About;
use model::ids::VirtualServiceId;

/// Which frames a trace is about: those from or to a VIP, or about a service on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFilter {
    /// The VIP.
    pub vip: IpAddr,
    /// Only frames from or to an address in it.
    pub client: Option<Prefix>,
    /// Services on the VIP. Frames about them pass also when they do not name the VIP, as replies of a server do.
    pub services: Vec<VirtualServiceId>,
    /// Only frames about one of `services`; those that were dropped before their service was known are not.
    pub only_services: bool,
}

/// Addresses whose first bits are equal.
///
/// Invariant: `length` is at most the bits of `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Before the slash.
    #[error("{0:?} is no IP address")]
    Address(String),
    /// After the slash.
    #[error("{length:?} is no prefix length from 0 to {bits}")]
    Length {
        /// What stands there.
        length: String,
        /// The bits of the address.
        bits: u8,
    },
}

impl TraceFilter {
    /// Whether a frame between these ends, about this service, is one of those.
    pub(super) fn passes(&self, ends: Option<(IpAddr, IpAddr)>, about: About) -> bool {
        let either =
            |wanted: &dyn Fn(IpAddr) -> bool| ends.is_some_and(|(a, b)| wanted(a) || wanted(b));
        let of_service = about
            .service
            .is_some_and(|service| self.services.contains(&service));
        let concerns = of_service || (!self.only_services && either(&|end| end == self.vip));
        concerns
            && self
                .client
                .is_none_or(|client| either(&|end| client.contains(end)))
    }
}

impl Prefix {
    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = (ours.to_bits() ^ theirs.to_bits()).leading_zeros();
                differing >= u32::from(self.length)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = (ours.to_bits() ^ theirs.to_bits()).leading_zeros();
                differing >= u32::from(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// `192.0.2.0/24`, or one address alone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| BadPrefix::Address(address.to_owned()))?;
        let bits = bits(address);
        let length = match length {
            None => bits,
            Some(length) => length
                .parse()
                .ok()
                .filter(|bits_wanted| *bits_wanted <= bits && !length.starts_with('+'))
                .ok_or_else(|| BadPrefix::Length {
                    length: length.to_owned(),
                    bits,
                })?,
        };
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes() {
        for (prefix, address, contains) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.99/31", "192.0.2.98", true),
            ("0.0.0.0/0", "255.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "10.0.0.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(parsed.contains(ip(address)), contains, "{prefix} {address}");
        }
        assert_eq!(
            "10.0.0.1".parse::<Prefix>().unwrap().to_string(),
            "10.0.0.1/32"
        );
    }

    #[test]
    fn anything_else_is_named() {
        for (text, error) in [
            ("", "\"\" is no IP address"),
            ("host/24", "\"host\" is no IP address"),
            ("10.0.0.1/33", "\"33\" is no prefix length from 0 to 32"),
            ("10.0.0.1/", "\"\" is no prefix length from 0 to 32"),
            ("10.0.0.1/+8", "\"+8\" is no prefix length from 0 to 32"),
            ("::1/129", "\"129\" is no prefix length from 0 to 128"),
            ("::1/8/8", "\"8/8\" is no prefix length from 0 to 128"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn frames_of_the_vip_and_of_its_services_pass() {
        let (vip, client, server) = (ip("10.0.0.100"), ip("192.0.2.7"), ip("10.0.0.11"));
        let all = TraceFilter {
            vip,
            client: None,
            services: vec![VirtualServiceId(1), VirtualServiceId(2)],
            only_services: false,
        };
        let near = TraceFilter {
            client: Some("192.0.2.0/24".parse().unwrap()),
            ..all.clone()
        };
        let web = TraceFilter {
            services: vec![VirtualServiceId(1)],
            only_services: true,
            ..all.clone()
        };
        let about = |service: u16| About {
            service: Some(VirtualServiceId(service)),
            server: None,
        };
        let none = About::default();
        for (ends, about, expected) in [
            (Some((client, vip)), none, [true, true, false]),
            (Some((client, vip)), about(1), [true, true, true]),
            (Some((client, vip)), about(2), [true, true, false]),
            (
                Some((ip("198.51.100.1"), vip)),
                about(1),
                [true, false, true],
            ),
            (Some((server, client)), about(1), [true, true, true]),
            (Some((server, client)), about(9), [false, false, false]),
            (Some((server, client)), none, [false, false, false]),
            (Some((vip, client)), none, [true, true, false]),
            (None, none, [false, false, false]),
            (None, about(1), [true, false, true]),
        ] {
            let passes = [&all, &near, &web].map(|filter| filter.passes(ends, about));
            assert_eq!(passes, expected, "{ends:?} {about:?}");
        }
    }
}
