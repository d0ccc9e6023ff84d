//! The words of an IMAP command (RFC 3501 §9): atoms, strings, literals, numbers, sets.

/// What is wrong with a command: the text of the BAD answer.
pub(super) type Fault = &'static str;

/// Ranges in one sequence set: a line of 8192 bytes holds more, but no client sends them.
const RANGES_MAX: usize = 1000;

/// Reads a command from left to right. Literals are in it as they came: `{n}`, CRLF, n bytes.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

/// Message numbers or UIDs (RFC 3501 §9, sequence-set).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set(Vec<(u32, u32)>);

/// What `*` is stored as: the largest number in use.
const STAR: u32 = u32::MAX;

impl Set {
    /// Whether `number` is meant, where `largest` is the largest in use.
    pub(super) fn has(&self, number: u32, largest: u32) -> bool {
        let real = |bound: u32| if bound == STAR { largest } else { bound };
        self.0
            .iter()
            .map(|(a, b)| (real(*a), real(*b)))
            .any(|(a, b)| (a.min(b)..=a.max(b)).contains(&number))
    }
}

impl<'a> Cursor<'a> {
    pub(super) fn new(command: &'a [u8]) -> Self {
        Self { rest: command }
    }

    /// Takes `byte` if it comes next.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(super) fn space(&mut self) -> Result<(), Fault> {
        if self.takes(b' ') {
            Ok(())
        } else {
            Err("a space is missing")
        }
    }

    pub(super) fn expect(&mut self, byte: u8, fault: Fault) -> Result<(), Fault> {
        if self.takes(byte) { Ok(()) } else { Err(fault) }
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err("too much at the end of the command")
        }
    }

    /// One or more characters of which `of` is true, as text.
    pub(super) fn word(&mut self, of: impl Fn(u8) -> bool) -> Result<&'a str, Fault> {
        let length = self
            .rest
            .iter()
            .position(|byte| !of(*byte))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        let word = std::str::from_utf8(word).map_err(|_| "a word is not ASCII")?;
        if word.is_empty() {
            Err("a word is missing")
        } else {
            Ok(word)
        }
    }

    pub(super) fn atom(&mut self) -> Result<&'a str, Fault> {
        self.word(|byte| is_atom(byte) && byte != b']')
    }

    /// An atom that is a keyword, in upper case. Brackets end it.
    pub(super) fn keyword(&mut self) -> Result<String, Fault> {
        let word = self.word(|byte| is_atom(byte) && !b"[]<>".contains(&byte))?;
        Ok(word.to_ascii_uppercase())
    }

    pub(super) fn number(&mut self) -> Result<u32, Fault> {
        self.word(|byte| byte.is_ascii_digit())?
            .parse()
            .map_err(|_| "a number is too large")
    }

    /// An atom, a quoted string or a literal.
    pub(super) fn astring(&mut self) -> Result<Vec<u8>, Fault> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            _ => Ok(self.word(is_atom)?.as_bytes().to_vec()),
        }
    }

    /// As [`Self::astring`], with the wildcards of LIST.
    pub(super) fn pattern(&mut self) -> Result<Vec<u8>, Fault> {
        match self.peek() {
            Some(b'"' | b'{') => self.astring(),
            _ => Ok(self
                .word(|byte| is_atom(byte) || b"*%".contains(&byte))?
                .as_bytes()
                .to_vec()),
        }
    }

    /// As [`Self::astring`], as text; a name that is not UTF-8 is nobody's.
    pub(super) fn text(&mut self) -> Result<String, Fault> {
        String::from_utf8(self.astring()?).map_err(|_| "a string is not UTF-8")
    }

    pub(super) fn set(&mut self) -> Result<Set, Fault> {
        let mut ranges = Vec::new();
        loop {
            let from = self.set_number()?;
            let to = if self.takes(b':') {
                self.set_number()?
            } else {
                from
            };
            ranges.push((from, to));
            if ranges.len() > RANGES_MAX {
                return Err("too many ranges in a set");
            }
            if !self.takes(b',') {
                return Ok(Set(ranges));
            }
        }
    }

    fn set_number(&mut self) -> Result<u32, Fault> {
        if self.takes(b'*') {
            return Ok(STAR);
        }
        match self.number()? {
            0 => Err("numbers start at 1"),
            number => Ok(number),
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, Fault> {
        self.expect(b'"', "a quote is missing")?;
        let mut text = Vec::new();
        let mut bytes = self.rest.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                b'\\' => match bytes.next() {
                    Some((_, escaped @ (b'"' | b'\\'))) => text.push(*escaped),
                    _ => return Err("only a quote or a backslash can be escaped"),
                },
                b'\r' | b'\n' | 0 => return Err("a line end in a quoted string"),
                byte => text.push(*byte),
            }
        }
        Err("a quoted string does not end")
    }

    fn literal(&mut self) -> Result<Vec<u8>, Fault> {
        self.expect(b'{', "a literal is missing")?;
        let length = usize::try_from(self.number()?).map_err(|_| "a literal is too long")?;
        self.takes(b'+');
        let head = self
            .rest
            .strip_prefix(b"}\r\n")
            .ok_or("a literal is malformed")?;
        let (bytes, rest) = head
            .split_at_checked(length)
            .ok_or("a literal is cut short")?;
        self.rest = rest;
        if bytes.contains(&0) {
            Err("a literal holds a NUL")
        } else {
            Ok(bytes.to_vec())
        }
    }
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\".contains(&byte)
}

/// The literal that a line announces at its end: its length, and whether the client waits to be asked for it.
pub(super) fn announced_literal(line: &[u8]) -> Option<(usize, bool)> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|byte| *byte == b'{')?;
    let digits = std::str::from_utf8(inner.get(open + 1..)?).ok()?;
    let (digits, waits) = digits
        .strip_suffix('+')
        .map_or((digits, true), |digits| (digits, false));
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A number beyond any limit is a literal as well, and a refused one.
    plain.then(|| (digits.parse().unwrap_or(usize::MAX), waits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_in_three_forms() {
        let mut cursor = Cursor::new(b"atom] \"a \\\"b\\\\\" {3}\r\n\"\r\n {2+}\r\nxy");
        assert_eq!(cursor.astring().unwrap(), b"atom]");
        cursor.space().unwrap();
        assert_eq!(cursor.astring().unwrap(), b"a \"b\\");
        cursor.space().unwrap();
        assert_eq!(cursor.astring().unwrap(), b"\"\r\n");
        cursor.space().unwrap();
        assert_eq!(cursor.astring().unwrap(), b"xy");
        cursor.end().unwrap();
    }

    #[test]
    fn malformed_strings_are_refused() {
        for bad in [
            "",
            "(",
            "\"a",
            "\"a\\b\"",
            "\"\n\"",
            "{",
            "{3",
            "{3}",
            "{3}\r\nab",
            "{x}\r\nab",
            "{99999999999}\r\n",
            "{1}\r\n\0",
        ] {
            assert!(Cursor::new(bad.as_bytes()).astring().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sets_mean_what_the_rfc_says() {
        let set = |text: &str| Cursor::new(text.as_bytes()).set();
        let chosen = |text: &str| {
            let set = set(text).unwrap();
            (1..=6)
                .filter(|number| set.has(*number, 5))
                .collect::<Vec<_>>()
        };
        assert_eq!(chosen("1,3:4"), [1, 3, 4]);
        assert_eq!(chosen("4:2"), [2, 3, 4]);
        assert_eq!(chosen("*"), [5]);
        assert_eq!(chosen("7:*"), [5, 6]);
        for bad in ["", "0", "1,", "1:", ":", "a", "4294967296"] {
            assert!(set(bad).is_err(), "{bad:?}");
        }
        assert!(set(&"1,".repeat(RANGES_MAX + 1)).is_err());
    }

    #[test]
    fn announced_literals_are_seen() {
        assert_eq!(announced_literal(b"a LOGIN {4}"), Some((4, true)));
        assert_eq!(announced_literal(b"a LOGIN {4+}"), Some((4, false)));
        assert_eq!(
            announced_literal(b"{99999999999999999999999}"),
            Some((usize::MAX, true))
        );
        for none in [b"".as_slice(), b"}", b"{}", b"{+}", b"{4} ", b"4}", b"{-4}"] {
            assert_eq!(announced_literal(none), None);
        }
    }
}
