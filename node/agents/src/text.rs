//! What a server said, fit for one line of a message or a log.

/// A reason fits here; what a hostile server adds does not.
const QUOTE_BYTES_MAX: usize = 200;

/// Printable ASCII: everything else is escaped, and what is longer than 200 bytes is cut.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(QUOTE_BYTES_MAX)];
    let dots = if head.len() < bytes.len() { "..." } else { "" };
    format!("\"{}{dots}\"", head.escape_ascii())
}

/// The same for a sentence of a library, which may quote what came over the network in its turn.
pub(crate) fn plain(sentence: &str) -> String {
    let mut plain: String = sentence
        .chars()
        .take(QUOTE_BYTES_MAX)
        .map(|c| {
            if c.is_ascii() && !c.is_ascii_control() {
                c
            } else {
                '?'
            }
        })
        .collect();
    if plain.len() < sentence.chars().count() {
        plain.push_str("...");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_the_line() {
        assert_eq!(quoted(b"220 hi"), r#""220 hi""#);
        assert_eq!(
            quoted(b"a\r\nroot: \x1b[31m\"\xff"),
            r#""a\r\nroot: \x1b[31m\"\xff""#
        );
        assert_eq!(quoted(&[b'x'; 201]), format!("\"{}...\"", "x".repeat(200)));
        assert_eq!(plain("bad\nname \u{2028}\u{7f}"), "bad?name ??");
        assert_eq!(plain(&"y".repeat(300)), format!("{}...", "y".repeat(200)));
    }
}
