//! Words as values: names, paths, numbers, durations, addresses, masks. Each is proven here once, bounds included.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::code::Code;
use super::types::{Host, PrefixLength};

/// Names appear in tables, metrics and log lines; longer ones fit none of them.
pub const NAME_BYTES_MAX: usize = 64;
/// Just under `PATH_MAX` of Linux, so that the line the path stands on fits into its limit.
pub const PATH_BYTES_MAX: usize = 4000;

/// Why a word is not the value it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) help: String,
}

impl Complaint {
    pub(super) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: help.into(),
        }
    }
}

/// A name of a service, server, pool or agent.
pub(super) fn name(word: &str) -> Result<String, Complaint> {
    let complaint = |message| Complaint::new(Code::BadName, message, NAME_HELP);
    if word.len() > NAME_BYTES_MAX {
        return Err(complaint(format!(
            "a name has at most {NAME_BYTES_MAX} characters, this one has {}",
            word.len()
        )));
    }
    if let Some(bad) = word
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || NAME_PUNCTUATION.contains(*c)))
    {
        return Err(complaint(format!(
            "`{word}` is not a name: `{bad}` is not allowed in names"
        )));
    }
    if !word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return Err(complaint(format!(
            "`{word}` is not a name: it must begin with a letter, a digit or `_`"
        )));
    }
    Ok(word.to_owned())
}

const NAME_PUNCTUATION: &str = "_-.+";
const NAME_HELP: &str = "names are made of ASCII letters, digits, `_`, `-`, `.` and `+`";

/// The path of a program.
pub(super) fn path(word: &str) -> Result<String, Complaint> {
    if !word.starts_with('/') || word.ends_with('/') {
        let message = format!("`{word}` is not the path of a program");
        return Err(Complaint::new(
            Code::BadPath,
            message,
            "give the whole path, for instance `/usr/bin/smtpAgent`",
        ));
    }
    if word.len() > PATH_BYTES_MAX {
        let message = format!("the path has {} bytes", word.len());
        return Err(Complaint::new(
            Code::BadPath,
            message,
            format!("a path has at most {PATH_BYTES_MAX} bytes"),
        ));
    }
    Ok(word.to_owned())
}

/// A whole number within bounds.
pub(super) fn number(
    what: &str,
    word: &str,
    bounds: RangeInclusive<u32>,
) -> Result<u32, Complaint> {
    digits(word)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| bounds.contains(n))
        .ok_or_else(|| {
            let (low, high) = (bounds.start(), bounds.end());
            let help = format!("a whole number from {low} to {high}");
            Complaint::new(
                Code::BadNumber,
                format!("`{word}` is not a valid value of `{what}`"),
                help,
            )
        })
}

/// A weight.
pub(super) fn weight(word: &str) -> Result<u16, Complaint> {
    digits(word).and_then(|n| u16::try_from(n).ok()).ok_or_else(|| {
        let help = "a whole number from 0 to 65535; the higher, the more connections, and 0 takes no new ones";
        Complaint::new(Code::BadWeight, format!("`{word}` is not a weight"), help)
    })
}

/// A port.
pub(super) fn port(word: &str) -> Result<u16, Complaint> {
    digits(word)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| {
            Complaint::new(
                Code::BadPort,
                format!("`{word}` is not a port"),
                "a whole number from 1 to 65535",
            )
        })
}

/// Decimal digits and nothing else: no sign, no blank.
fn digits(word: &str) -> Option<u64> {
    // 20 digits hold every u64; a longer word could only be padded with zeros.
    let plain = !word.is_empty() && word.len() <= 20 && word.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| word.parse().ok()).flatten()
}

/// A duration within bounds. A bare number is seconds.
pub(super) fn duration(
    what: &str,
    word: &str,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, Complaint> {
    let complaint = |message: String| {
        let (low, high) = (
            print_duration(*bounds.start()),
            print_duration(*bounds.end()),
        );
        let help = format!(
            "from `{low}` to `{high}`: a whole number with `ms`, `s`, `m` or `h`; a bare number is seconds"
        );
        Complaint::new(Code::BadDuration, message, help)
    };
    let unit_at = word
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(word.len());
    let (number, unit) = word.split_at(unit_at);
    let milliseconds = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(complaint(format!("`{word}` is not a duration"))),
    };
    if number.is_empty() {
        return Err(complaint(format!("`{word}` is not a duration")));
    }
    // A number too large for u64 is out of bounds as well.
    let value = digits(number)
        .and_then(|n| n.checked_mul(milliseconds))
        .map_or(Duration::MAX, Duration::from_millis);
    if value.is_zero() {
        return Err(complaint(format!("`{what}` cannot be zero")));
    }
    if !bounds.contains(&value) {
        let which = if value < *bounds.start() {
            "short"
        } else {
            "long"
        };
        return Err(complaint(format!("`{word}` is too {which} for `{what}`")));
    }
    Ok(value)
}

/// The shortest exact form; of two as short, the original's bare seconds. Parts of a millisecond cannot be written.
pub(super) fn print_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    [("", 1_000), ("m", 60_000), ("h", 3_600_000), ("ms", 1)]
        .into_iter()
        .filter(|(_, unit)| milliseconds.is_multiple_of(*unit))
        .map(|(name, unit)| format!("{}{name}", milliseconds / unit))
        .min_by_key(String::len)
        .unwrap_or_default()
}

/// An address that one host can have.
pub(super) fn address(word: &str) -> Result<IpAddr, Complaint> {
    let address = word.parse().map_err(|_| {
        let help = "four numbers from 0 to 255 as in `10.1.0.100`, or IPv6 as in `2001:db8::1`";
        Complaint::new(
            Code::BadAddress,
            format!("`{word}` is not an IP address"),
            help,
        )
    })?;
    unicast(address)
}

pub(super) fn unicast(address: IpAddr) -> Result<IpAddr, Complaint> {
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        "an IPv4 address in IPv6 form"
    } else {
        return Ok(address);
    };
    Err(Complaint::new(
        Code::BadAddress,
        format!("`{address}` is {kind}"),
        "give the unicast address of one host",
    ))
}

/// An address that may be virtual.
pub(super) fn virtual_address(address: IpAddr) -> Result<IpAddr, Complaint> {
    if address.is_loopback() {
        let message = format!("`{address}` is a loopback address");
        return Err(Complaint::new(
            Code::BadAddress,
            message,
            "clients must be able to reach a virtual address",
        ));
    }
    Ok(address)
}

/// An address that packets to a server may come from, or that it has as its gateway.
pub(super) fn source_address(word: &str) -> Result<IpAddr, Complaint> {
    let address = address(word)?;
    if address.is_loopback() {
        let message = format!("`{address}` is a loopback address");
        let help = "servers send their answers there; give an address that is nobody else's";
        return Err(Complaint::new(Code::BadAddress, message, help));
    }
    Ok(address)
}

/// An address or a name (RFC 1123 §2.1; `_` is let through, since resolvers do).
pub(super) fn host(word: &str) -> Result<Host, Complaint> {
    let unrooted = word.strip_suffix('.').unwrap_or(word);
    if word.contains(':') || looks_like_ipv4(unrooted) {
        return address(unrooted).map(Host::Address);
    }
    let complaint = |message| {
        let help =
            "an IP address, or a host name of letters, digits, `-` and dots as in `serv1.my.org`";
        Complaint::new(Code::BadHost, message, help)
    };
    let name = unrooted.to_ascii_lowercase();
    if name.len() > HOST_BYTES_MAX {
        let message = format!(
            "the host name has {} characters; at most {HOST_BYTES_MAX} are allowed",
            name.len()
        );
        return Err(complaint(message));
    }
    for label in name.split('.') {
        let plain = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if label.is_empty()
            || label.len() > LABEL_BYTES_MAX
            || !plain
            || label.starts_with('-')
            || label.ends_with('-')
        {
            return Err(complaint(format!(
                "`{word}` is neither a host name nor an address"
            )));
        }
    }
    Ok(Host::Name(name))
}

/// RFC 1035 §2.3.4: 255 octets on the wire are 253 characters in text.
const HOST_BYTES_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// No top-level domain is a number (RFC 1123 §2.1), so `10.1.0.300` is a mistyped address and not a name.
fn looks_like_ipv4(word: &str) -> bool {
    word.rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
}

/// `255.255.255.0`, `/24` or `24`.
pub(super) fn mask(word: &str) -> Result<PrefixLength, Complaint> {
    let complaint = |message| {
        let help = "a mask as in `255.255.255.0`, or a prefix length from 0 to 32 as in `/24`";
        Complaint::new(Code::BadMask, message, help)
    };
    if let Ok(dotted) = word.parse::<Ipv4Addr>() {
        let bits = dotted.to_bits();
        let ones = bits.leading_ones();
        return match u8::try_from(ones) {
            Ok(length) if ones == bits.count_ones() => Ok(PrefixLength(length)),
            _ => Err(complaint(format!(
                "`{word}` is not a mask: its one bits are not all at the front"
            ))),
        };
    }
    digits(word.strip_prefix('/').unwrap_or(word))
        .and_then(|length| u8::try_from(length).ok())
        .filter(|length| *length <= 32)
        .map(PrefixLength)
        .ok_or_else(|| complaint(format!("`{word}` is not a network mask")))
}

/// The length of an IPv6 prefix, `/64` or `64`.
pub(super) fn prefix6(word: &str) -> Result<u8, Complaint> {
    digits(word.strip_prefix('/').unwrap_or(word))
        .and_then(|length| u8::try_from(length).ok())
        .filter(|length| *length <= 128)
        .ok_or_else(|| {
            let help = "a prefix length from 0 to 128 as in `/64`: IPv6 has no other masks";
            let message = format!("`{word}` is not the prefix length of an IPv6 network");
            Complaint::new(Code::BadMask, message, help)
        })
}

/// How much of a client's address is sticky.
pub(super) fn client_mask(word: &str) -> Result<u8, Complaint> {
    let length = match word.parse::<Ipv4Addr>() {
        Ok(_) => mask(word).ok().map(|mask| mask.0),
        Err(_) => digits(word.strip_prefix('/').unwrap_or(word))
            .and_then(|length| u8::try_from(length).ok()),
    };
    length.filter(|length| (1..=128).contains(length)).ok_or_else(|| {
        let help = "a prefix length from 1 to 128 as in `mask=24`; of an IPv4 address at most 32 bits count";
        Complaint::new(Code::BadOptionValue, format!("`{word}` is not a valid value of `mask=`"), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn durations() {
        let bounds = Duration::from_millis(10)..=HOUR;
        let parse =
            |word: &str| duration("X", word, bounds.clone()).map_err(|complaint| complaint.message);
        for (word, milliseconds) in [
            ("1", 1_000),
            ("30s", 30_000),
            ("250ms", 250),
            ("5M", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse(word),
                Ok(Duration::from_millis(milliseconds)),
                "{word}"
            );
        }
        for (word, message) in [
            ("0", "`X` cannot be zero"),
            ("0ms", "`X` cannot be zero"),
            ("9ms", "`9ms` is too short for `X`"),
            ("61m", "`61m` is too long for `X`"),
            (
                "99999999999999999999999h",
                "`99999999999999999999999h` is too long for `X`",
            ),
            ("1.5s", "`1.5s` is not a duration"),
            ("-1", "`-1` is not a duration"),
            ("ms", "`ms` is not a duration"),
            ("1d", "`1d` is not a duration"),
        ] {
            assert_eq!(parse(word), Err(message.to_owned()), "{word}");
        }
    }

    #[test]
    fn durations_are_printed_short_and_exact() {
        for (milliseconds, text) in [
            (1, "1ms"),
            (1_000, "1"),
            (1_500, "1500ms"),
            (60_000, "60"),
            (300_000, "5m"),
            (3_600_000, "1h"),
            (90_000, "90"),
        ] {
            assert_eq!(print_duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn masks() {
        for (word, length) in [
            ("255.255.255.0", 24),
            ("/24", 24),
            ("24", 24),
            ("0.0.0.0", 0),
            ("32", 32),
        ] {
            assert_eq!(mask(word), Ok(PrefixLength(length)), "{word}");
        }
        for word in ["255.0.255.0", "33", "/", "", "0x18", "24/", "::"] {
            assert_eq!(mask(word).unwrap_err().code, Code::BadMask, "{word}");
        }
        for (word, length) in [
            ("24", Some(24)),
            ("/64", Some(64)),
            ("255.255.0.0", Some(16)),
            ("0", None),
            ("129", None),
        ] {
            assert_eq!(client_mask(word).ok(), length, "{word}");
        }
    }

    #[test]
    fn hosts() {
        for (word, expected) in [
            ("Serv1.My.Org", "serv1.my.org"),
            ("a.", "a"),
            ("10.1.0.1", "10.1.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(host(word).unwrap().to_string(), expected, "{word}");
        }
        for (word, code) in [
            ("10.1.0.300", Code::BadAddress),
            ("10.1.0", Code::BadAddress),
            ("0.0.0.0", Code::BadAddress),
            ("224.0.0.1", Code::BadAddress),
            ("255.255.255.255", Code::BadAddress),
            ("::ffff:10.1.0.1", Code::BadAddress),
            ("2001:db8::g", Code::BadAddress),
            ("a..b", Code::BadHost),
            (".", Code::BadHost),
            ("10.1.0.300.", Code::BadAddress),
            ("-a", Code::BadHost),
            ("sérv", Code::BadHost),
            ("10.1.0.0/24", Code::BadHost),
        ] {
            assert_eq!(host(word).unwrap_err().code, code, "{word}");
        }
        assert!(host(&format!("{}.org", "a".repeat(64))).is_err());
    }

    #[test]
    fn numbers_have_no_sign_and_no_room_to_overflow() {
        for word in [
            "",
            "+1",
            "-1",
            "1 ",
            "0",
            "65536",
            "99999999999999999999",
            "000000000000000000001",
        ] {
            assert!(port(word).is_err(), "{word}");
        }
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(weight("0"), Ok(0));
        assert_eq!(number("N", "4", 2..=4), Ok(4));
        assert_eq!(
            number("N", "5", 2..=4).unwrap_err().help,
            "a whole number from 2 to 4"
        );
    }

    #[test]
    fn names() {
        for word in ["smtp", "pop-3", "_x", "A.b+c"] {
            assert!(name(word).is_ok(), "{word}");
        }
        for word in ["a/b", "k=v", "-x", "ö", "", &"a".repeat(65)] {
            assert_eq!(name(word).unwrap_err().code, Code::BadName, "{word}");
        }
    }
}
