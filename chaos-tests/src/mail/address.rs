//! Which mailbox an address or a login name means.
//!
//! Invariant: a [`MailboxName`] is one harmless path component.

/// Longest name of a mailbox: the longest local part of RFC 5321 §4.5.3.1.1.
const NAME_BYTES_MAX: usize = 64;

/// The name of a mailbox and of its directory: `[a-z0-9._-]+`, not starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MailboxName(String);

impl MailboxName {
    /// Takes a login name or local part; upper case means the same mailbox.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        let harmless =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        (fits && !name.starts_with('.') && name.bytes().all(harmless)).then_some(Self(name))
    }

    /// Takes what clients log in with: the bare name, or the whole address.
    pub(crate) fn parse_login(text: &str, domains: &[String]) -> Option<Self> {
        match text.rsplit_once('@') {
            None => Self::parse(text),
            Some((local, domain)) if is_ours(domain, domains) => Self::parse(local),
            Some(_) => None,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why mail to an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not `local@domain`.
    Syntax,
    /// Not one of our domains: this server relays nothing.
    Domain,
    /// The local part cannot name a mailbox.
    Mailbox,
}

/// The mailbox of the recipient `address` (without angle brackets).
pub(crate) fn recipient(address: &str, domains: &[String]) -> Result<MailboxName, Refusal> {
    // The one name that must work without a domain (RFC 5321 §4.5.1).
    if address.eq_ignore_ascii_case("postmaster") {
        return MailboxName::parse(address).ok_or(Refusal::Mailbox);
    }
    let (local, domain) = address.rsplit_once('@').ok_or(Refusal::Syntax)?;
    if !is_ours(domain, domains) {
        return Err(Refusal::Domain);
    }
    MailboxName::parse(local).ok_or(Refusal::Mailbox)
}

fn is_ours(domain: &str, domains: &[String]) -> bool {
    domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_checked_strictly() {
        let domains = ["mail.my.org".to_owned(), "my.org".to_owned()];
        let of = |address: &str| recipient(address, &domains).map(|name| name.as_str().to_owned());
        assert_eq!(of("Somebody@Mail.My.Org"), Ok("somebody".to_owned()));
        assert_eq!(of("a.b-c_9@my.org"), Ok("a.b-c_9".to_owned()));
        assert_eq!(of("Postmaster"), Ok("postmaster".to_owned()));
        assert_eq!(of("somebody"), Err(Refusal::Syntax));
        assert_eq!(of("somebody@example.org"), Err(Refusal::Domain));
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "../etc",
            "a/b",
            "a\0",
            "a b",
            "ä",
            "a@b",
            &"x".repeat(65),
        ] {
            assert_eq!(
                of(&format!("{bad}@my.org")),
                Err(Refusal::Mailbox),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_login_is_the_name_or_the_address() {
        let domains = ["my.org".to_owned()];
        assert!(MailboxName::parse_login("somebody", &domains).is_some());
        assert!(MailboxName::parse_login("somebody@my.org", &domains).is_some());
        assert!(MailboxName::parse_login("somebody@other.org", &domains).is_none());
    }
}
