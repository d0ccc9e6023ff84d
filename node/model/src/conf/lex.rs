//! Lines and words of a configuration, with the bytes they stand at. Knows no keyword.
//!
//! Invariant: every word is non-empty, lies on one line and holds no blank, `#` or control character.

use std::ops::Range;

use super::code::Code;
use super::diagnostic::Finding;
use super::findings::Findings;

/// A file of 4,000 servers is a quarter of this; a bigger one is not a configuration, and it is part of a log entry.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// An `AddServer` line with a hundred services is 2,000 bytes; a longer line is not text.
pub const LINE_BYTES_MAX: usize = 4096;

/// Some editors begin a UTF-8 file with this mark; it says nothing.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A run of characters between blanks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl<'a> Word<'a> {
    pub(super) fn span(self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// Splits at the first `separator`: what stands before it and after it.
    pub(super) fn split(self, separator: char) -> Option<(Word<'a>, Word<'a>)> {
        let (before, after) = self.text.split_once(separator)?;
        let start = self.start + before.len() + separator.len_utf8();
        Some((
            Word {
                text: before,
                ..self
            },
            Word { text: after, start },
        ))
    }
}

/// From the first to the last of some words of one line.
pub(super) fn span_of(words: &[Word<'_>]) -> Option<Range<usize>> {
    Some(words.first()?.span().start..words.last()?.span().end)
}

/// A line that says something: one word or more.
pub(super) type Line<'a> = Vec<Word<'a>>;

/// The lines that are neither blank nor comment. A file that is too large has none.
pub(super) fn lines<'a>(source: &'a str, findings: &mut Findings) -> Vec<Line<'a>> {
    if source.len() > FILE_BYTES_MAX {
        let message = format!(
            "the file has {} bytes; at most {FILE_BYTES_MAX} are read",
            source.len()
        );
        findings.push(Finding::error(Code::FileTooLarge, 0..0, message));
        return Vec::new();
    }
    let mut start = 0;
    let mut lines = Vec::new();
    for raw in source.split_inclusive('\n') {
        let text = raw.strip_suffix('\n').unwrap_or(raw);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let line = line(text, start, findings);
        if !line.is_empty() {
            lines.push(line);
        }
        start += raw.len();
    }
    lines
}

fn line<'a>(text: &'a str, start: usize, findings: &mut Findings) -> Line<'a> {
    if text.len() > LINE_BYTES_MAX {
        let cut = start + text.floor_char_boundary(LINE_BYTES_MAX);
        let message = format!(
            "the line has {} bytes; at most {LINE_BYTES_MAX} are allowed",
            text.len()
        );
        findings.push(
            Finding::error(Code::LineTooLong, cut..start + text.len(), message)
                .help("a block may repeat its lines: split an `AddServer` line in two"),
        );
        return Line::new();
    }
    let (text, start) = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) if start == 0 => (rest, BYTE_ORDER_MARK.len_utf8()),
        _ => (text, start),
    };
    if let Some((at, control)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && *c != '\t')
    {
        let span = start + at..start + at + control.len_utf8();
        let message = format!("control character U+{:04X}", u32::from(control));
        findings.push(
            Finding::error(Code::ControlCharacter, span, message)
                .label("not allowed, in comments neither")
                .help("remove it; words are separated by spaces or tabs, lines by line feeds"),
        );
    }
    let said = text.split('#').next().unwrap_or_default();
    let mut words = Line::new();
    let mut from = 0;
    for piece in said.split(is_blank) {
        if !piece.is_empty() {
            words.push(Word {
                text: piece,
                start: start + from,
            });
        }
        // The blank after the piece may be a control character of two bytes (U+0085).
        from += piece.len();
        from += said
            .get(from..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
    }
    words
}

/// Control characters separate as well, so that one of them does not also spoil the word it stands in.
fn is_blank(character: char) -> bool {
    character == ' ' || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<Vec<(&str, usize)>> {
        let mut findings = Findings::default();
        let lines = lines(source, &mut findings);
        assert!(findings.is_empty(), "{source:?}");
        lines
            .iter()
            .map(|line| line.iter().map(|word| (word.text, word.start)).collect())
            .collect()
    }

    #[test]
    fn words_know_where_they_stand() {
        let cases = [
            ("", Vec::<Vec<(&str, usize)>>::new()),
            ("# only a comment\n \t \n", vec![]),
            ("a b", vec![vec![("a", 0), ("b", 2)]]),
            (
                "  a\t\tb # c\r\nd#e\n",
                vec![vec![("a", 2), ("b", 5)], vec![("d", 12)]],
            ),
            ("\u{feff}a\n", vec![vec![("a", 3)]]),
            ("ä ö\n", vec![vec![("ä", 0), ("ö", 3)]]),
        ];
        for (source, expected) in cases {
            assert_eq!(texts(source), expected, "{source:?}");
        }
    }

    #[test]
    fn bounds_and_control_characters_are_named() {
        let long = format!("a{}\nb\n", " ".repeat(LINE_BYTES_MAX));
        let huge = " ".repeat(FILE_BYTES_MAX + 1);
        let cases: &[(&str, Code, usize)] = &[
            (&long, Code::LineTooLong, 1),
            (&huge, Code::FileTooLarge, 0),
            ("a\0b\n", Code::ControlCharacter, 1),
            ("a\rb\n", Code::ControlCharacter, 1),
            ("a\u{85}b\n", Code::ControlCharacter, 1),
            ("# \u{1b}[31m\n", Code::ControlCharacter, 0),
        ];
        for (source, code, count) in cases {
            let mut findings = Findings::default();
            assert_eq!(lines(source, &mut findings).len(), *count);
            let codes: Vec<Code> = findings
                .into_sorted()
                .iter()
                .map(|finding| finding.code)
                .collect();
            assert_eq!(codes, [*code]);
        }
    }

    #[test]
    fn a_control_character_separates() {
        let mut findings = Findings::default();
        let lines = lines("a\u{85}bc\u{1}d", &mut findings);
        let words: Vec<_> = lines[0]
            .iter()
            .map(|word| (word.text, word.start))
            .collect();
        assert_eq!(words, [("a", 0), ("bc", 3), ("d", 6)]);
    }
}
