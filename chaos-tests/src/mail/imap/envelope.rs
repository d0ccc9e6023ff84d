//! The ENVELOPE of a mail (RFC 3501 §7.4.2): its main header fields as one parenthesised list.

use super::super::message::field;

/// Addresses of one field in an answer; the rest is left out.
const ADDRESSES_MAX: usize = 100;

/// Renders the envelope of a mail with this header.
pub(super) fn render(header: &[u8]) -> Vec<u8> {
    let text = |name: &str| nstring(field(header, name).as_deref());
    let addresses = |name: &str| {
        field(header, name)
            .map(|value| addresses(&value))
            .filter(|list| !list.is_empty())
    };
    let list = |found: Option<Vec<Address>>| match found {
        None => b"NIL".to_vec(),
        Some(all) => [
            b"(".as_slice(),
            &all.iter().map(Address::render).collect::<Vec<_>>().concat(),
            b")",
        ]
        .concat(),
    };
    let from = addresses("From");
    let parts = [
        text("Date"),
        text("Subject"),
        list(from.clone()),
        // Sender and Reply-To default to From.
        list(addresses("Sender").or_else(|| from.clone())),
        list(addresses("Reply-To").or(from)),
        list(addresses("To")),
        list(addresses("Cc")),
        list(addresses("Bcc")),
        text("In-Reply-To"),
        text("Message-ID"),
    ];
    [b"(".as_slice(), &parts.join(b" ".as_slice()), b")"].concat()
}

/// A string as IMAP writes it: quoted if it can be, else a literal; `NIL` for none.
pub(super) fn nstring(text: Option<&str>) -> Vec<u8> {
    let Some(text) = text else {
        return b"NIL".to_vec();
    };
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes();
    }
    // A literal may hold anything but NUL.
    let bytes = text.replace('\0', "");
    [
        format!("{{{}}}\r\n", bytes.len()).as_bytes(),
        bytes.as_bytes(),
    ]
    .concat()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    name: Option<String>,
    mailbox: String,
    host: Option<String>,
}

impl Address {
    fn render(&self) -> Vec<u8> {
        let parts = [
            nstring(self.name.as_deref()),
            b"NIL".to_vec(),
            nstring(Some(&self.mailbox)),
            nstring(self.host.as_deref()),
        ];
        [b"(".as_slice(), &parts.join(b" ".as_slice()), b")"].concat()
    }
}

/// The addresses of a field (RFC 5322 §3.4), read generously. Groups are read as their members.
fn addresses(value: &str) -> Vec<Address> {
    let mut all = Vec::new();
    let mut one = Pending::default();
    let (mut quoted, mut depth) = (false, 0_u32);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted || depth > 0 => one.push(chars.next().unwrap_or('\\'), depth),
            '"' if depth == 0 => quoted = !quoted,
            _ if quoted => one.push(c, depth),
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => one.push(c, depth),
            '<' => one.in_angle = true,
            '>' => one.in_angle = false,
            ':' | ';' | ',' if !one.in_angle => {
                let done = std::mem::take(&mut one);
                // What stands before a colon is the name of a group.
                all.extend(done.address().filter(|_| c != ':'));
            }
            _ => one.push(c, depth),
        }
        if all.len() >= ADDRESSES_MAX {
            return all;
        }
    }
    all.extend(one.address());
    all
}

#[derive(Default)]
struct Pending {
    words: String,
    angle: String,
    comment: String,
    in_angle: bool,
}

impl Pending {
    fn push(&mut self, c: char, depth: u32) {
        if depth > 0 {
            self.comment.push(c);
        } else if self.in_angle {
            self.angle.push(c);
        } else {
            self.words.push(c);
        }
    }

    fn address(self) -> Option<Address> {
        let (spec, name) = if self.angle.is_empty() {
            (&self.words, &self.comment)
        } else {
            (&self.angle, &self.words)
        };
        let spec = spec.trim();
        if spec.is_empty() {
            return None;
        }
        let (mailbox, host) = spec
            .rsplit_once('@')
            .map_or((spec, None), |(local, host)| (local, Some(host.to_owned())));
        let name = Some(name.trim())
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        Some(Address {
            name,
            mailbox: mailbox.to_owned(),
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_their_usual_forms() {
        let all = addresses("a@b, \"X, \\\"Y\\\"\" <c@d> , e@f (Z), group: g@h; i");
        let all: Vec<_> = all
            .iter()
            .map(|one| {
                (
                    one.name.as_deref(),
                    one.mailbox.as_str(),
                    one.host.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            all,
            [
                (None, "a", Some("b")),
                (Some("X, \"Y\""), "c", Some("d")),
                (Some("Z"), "e", Some("f")),
                (None, "g", Some("h")),
                (None, "i", None),
            ]
        );
    }

    #[test]
    fn an_envelope_has_ten_parts() {
        let header = b"From: a@b\r\nSubject: \"x\" \xc3\xa4\r\nMessage-ID: <1@b>\r\n\r\n";
        let text = String::from_utf8(render(header)).unwrap();
        assert_eq!(
            text,
            "(NIL {6}\r\n\"x\" \u{e4} ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL \"<1@b>\")"
        );
    }
}
