//! The flags of a mail: IMAP's names (RFC 3501 §2.3.2) and Maildir's letters for the same five.

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

/// Bit, Maildir letter (they are written in alphabetical order) and IMAP name.
const KNOWN: [(u8, char, &str); 5] = [
    (1, 'D', "\\Draft"),
    (2, 'F', "\\Flagged"),
    (4, 'R', "\\Answered"),
    (8, 'S', "\\Seen"),
    (16, 'T', "\\Deleted"),
];

impl Flags {
    pub(crate) const DRAFT: Self = Self(1);
    pub(crate) const FLAGGED: Self = Self(2);
    pub(crate) const ANSWERED: Self = Self(4);
    pub(crate) const SEEN: Self = Self(8);
    pub(crate) const DELETED: Self = Self(16);

    /// What follows `:2,` in a file name; letters of other programs are ignored.
    pub(crate) fn from_letters(letters: &str) -> Self {
        KNOWN
            .iter()
            .filter(|known| letters.contains(known.1))
            .fold(Self(0), |all, known| Self(all.0 | known.0))
    }

    pub(crate) fn letters(self) -> String {
        self.members().map(|known| known.1).collect()
    }

    /// The flag called `name` in IMAP, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        KNOWN
            .iter()
            .find(|known| known.2.eq_ignore_ascii_case(name))
            .map(|known| Self(known.0))
    }

    /// The IMAP names, separated by spaces.
    pub(crate) fn names(self) -> String {
        self.members()
            .map(|known| known.2)
            .collect::<Vec<_>>()
            .join(" ")
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn members(self) -> impl Iterator<Item = &'static (u8, char, &'static str)> {
        KNOWN.iter().filter(move |known| self.0 & known.0 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_names_mean_the_same() {
        let flags = Flags::from_letters("TSxa").with(Flags::ANSWERED);
        assert_eq!(flags.letters(), "RST");
        assert_eq!(flags.names(), "\\Answered \\Seen \\Deleted");
        assert_eq!(Flags::named("\\sEEN"), Some(Flags::SEEN));
        assert_eq!(Flags::named("\\Recent"), None);
        assert!(flags.has(Flags::DELETED) && !flags.without(Flags::DELETED).has(Flags::DELETED));
        assert!(!flags.has(Flags::DRAFT.with(Flags::FLAGGED)));
    }
}
