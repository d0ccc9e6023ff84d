//! A mail as bytes: its line ends, its header and its body (RFC 5322 §2).

/// The same mail with every line ending in CRLF, as the wire wants it.
pub(crate) fn with_crlf(bytes: Vec<u8>) -> Vec<u8> {
    let bare = bare_newlines(&bytes);
    if bare == 0 {
        return bytes;
    }
    let mut whole = Vec::with_capacity(bytes.len() + bare);
    let mut before = 0;
    for byte in bytes {
        if byte == b'\n' && before != b'\r' {
            whole.push(b'\r');
        }
        whole.push(byte);
        before = byte;
    }
    whole
}

fn bare_newlines(bytes: &[u8]) -> usize {
    let first = usize::from(bytes.first() == Some(&b'\n'));
    first
        + bytes
            .windows(2)
            .filter(|pair| pair[1] == b'\n' && pair[0] != b'\r')
            .count()
}

/// Header, with the empty line that ends it, and body. A mail without an empty line is all header.
pub(crate) fn split(mail: &[u8]) -> (&[u8], &[u8]) {
    if mail.starts_with(b"\r\n") {
        return mail.split_at(2);
    }
    let end = mail
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(mail.len(), |at| at + 4);
    mail.split_at(end)
}

/// One header field: its name and the raw bytes with its folded lines and CRLF.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) raw: &'a [u8],
}

impl Field<'_> {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The unfolded value (RFC 5322 §2.2.3); not decoded further.
    pub(crate) fn value(&self) -> String {
        let value = self.raw.get(self.name.len()..).unwrap_or_default();
        let text = String::from_utf8_lossy(value);
        let text = text.trim_start_matches([' ', '\t']).trim_start_matches(':');
        text.replace("\r\n", "").trim().to_owned()
    }
}

/// The fields of a header in their order; lines that are no field are left out.
pub(crate) fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() || rest.starts_with(b"\r\n") {
                return None;
            }
            let mut end = line_end(rest);
            while matches!(rest.get(end), Some(b' ' | b'\t')) {
                end += line_end(rest.get(end..).unwrap_or_default());
            }
            let (raw, after) = rest.split_at(end);
            rest = after;
            if let Some(colon) = raw.iter().position(|byte| *byte == b':') {
                let name = raw.get(..colon).unwrap_or_default().trim_ascii_end();
                return Some(Field { name, raw });
            }
        }
    })
}

/// The unfolded value of the first field called `name`.
pub(crate) fn field(header: &[u8], name: &str) -> Option<String> {
    fields(header)
        .find(|field| field.is(name))
        .map(|field| field.value())
}

fn line_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Subject: one\r\n two\r\nno field\r\nX-A : b: c\r\n\r\nBody: x\r\n";

    #[test]
    fn header_fields_are_found_and_unfolded() {
        let (header, body) = split(MAIL);
        assert_eq!(body, b"Body: x\r\n");
        assert_eq!(field(header, "subject").as_deref(), Some("one two"));
        assert_eq!(field(header, "x-a").as_deref(), Some("b: c"));
        assert_eq!(field(header, "body"), None);
    }

    #[test]
    fn odd_mails_are_split_without_loss() {
        for mail in [
            b"".as_slice(),
            b"\r\n",
            b"\r\nbody",
            b"Subject: x",
            b"Subject: x\r\n",
            b" folded\r\n",
        ] {
            let (header, body) = split(mail);
            assert_eq!([header, body].concat(), mail);
            assert!(fields(header).count() <= 1);
        }
    }

    #[test]
    fn bare_newlines_get_their_carriage_return() {
        assert_eq!(with_crlf(b"\na\nb\r\nc\r".to_vec()), b"\r\na\r\nb\r\nc\r");
        assert_eq!(with_crlf(b"a\r\n".to_vec()), b"a\r\n");
    }
}
