//! The text that carries the values of the register and of the set through `config apply`: comment lines below a
//! configuration that stays the same. Pure.
//!
//! Every change is made from the text that was read, on the condition that its version is still in force. So one change
//! never loses another's values, and one that comes late is refused.

use std::collections::BTreeSet;

/// Begins each line that carries values.
const MARK: &str = "# chaos ";

/// The values of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The configuration itself, without the lines that carry values.
    base: String,
    /// The register of this time: keys grow, so that histories stay short.
    pub register: Register,
    /// The part of the set of this time.
    pub part: Part,
}

/// The register of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// Its number.
    pub key: u64,
    /// Its value; each value is written once.
    pub value: u64,
}

/// The part of the set that is in the text. When it grows long it is sealed: the next part, empty, takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: u64,
    /// The version that the part before it was sealed from. It tells which of several attempts it was.
    pub since: u64,
    /// What was added.
    pub elements: BTreeSet<u64>,
}

/// A line that begins as one that carries values, and does not go on as one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no values in {0:?}")]
pub struct NoValues(String);

impl Document {
    /// `base` with an untouched register and an empty set.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            register: Register::default(),
            part: Part::default(),
        }
    }

    /// Reads a text that [`Self::render`] wrote; one without values has those of [`Self::new`].
    ///
    /// # Errors
    /// [`NoValues`]: somebody else wrote it, or it was torn.
    pub fn parse(text: &str) -> Result<Self, NoValues> {
        let mut document = Self::new("");
        for line in text.split_inclusive('\n') {
            let Some(values) = line.strip_prefix(MARK) else {
                document.base.push_str(line);
                continue;
            };
            let wrong = || NoValues(line.to_owned());
            let mut words = values.split_ascii_whitespace();
            let kind = words.next().ok_or_else(wrong)?;
            let mut numbers = words.map(|word| word.parse::<u64>().map_err(|_| wrong()));
            let number = numbers.next().ok_or_else(wrong)??;
            let value = numbers.next().ok_or_else(wrong)??;
            match kind {
                "register" => document.register = Register { key: number, value },
                "set" => {
                    document.part = Part {
                        number,
                        since: value,
                        elements: numbers.by_ref().collect::<Result<_, _>>()?,
                    };
                }
                _ => return Err(wrong()),
            }
            if numbers.next().is_some() {
                return Err(wrong());
            }
        }
        Ok(document)
    }

    /// The text to apply.
    #[must_use]
    pub fn render(&self) -> String {
        let Register { key, value } = self.register;
        let Part {
            number,
            since,
            elements,
        } = &self.part;
        let elements: Vec<_> = elements.iter().map(u64::to_string).collect();
        let end = if self.base.is_empty() || self.base.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        format!(
            "{}{end}{MARK}register {key} {value}\n{MARK}set {number} {since} {}\n",
            self.base,
            elements.join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "# a comment\nAtmPool {\n}\n";

    #[test]
    fn what_is_written_is_read_again() {
        let mut document = Document::new(BASE);
        assert_eq!(Document::parse(BASE).unwrap(), document);
        document.register = Register { key: 3, value: 17 };
        (document.part.number, document.part.since) = (2, 40);
        assert_eq!(Document::parse(&document.render()).unwrap(), document);
        document.part.elements = [5, 1, u64::MAX].into();
        let text = document.render();
        assert_eq!(Document::parse(&text).unwrap(), document);
        assert!(text.starts_with(BASE), "{text}");
    }

    #[test]
    fn torn_lines_are_told() {
        for text in [
            "# chaos ",
            "# chaos register",
            "# chaos register 1",
            "# chaos register 1 x",
            "# chaos register 1 2 3",
            "# chaos set",
            "# chaos set 1",
            "# chaos set 1 2 x",
            "# chaos bag 1 2",
        ] {
            assert_eq!(
                Document::parse(text),
                Err(NoValues(text.to_owned())),
                "{text}"
            );
        }
    }
}
