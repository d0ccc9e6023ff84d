//! The pieces of a mail that FETCH hands out (RFC 3501 §7.4.2).

use super::super::date;
use super::super::message::{fields, split};
use super::command::{Item, Part, Section};
use super::envelope;
use super::selected::Row;

/// Whether an item needs the mail's text.
pub(super) fn needs_text(item: &Item) -> bool {
    matches!(item, Item::Envelope | Item::Section(_))
}

/// Whether an item sets `\Seen`.
pub(super) fn sets_seen(item: &Item) -> bool {
    matches!(item, Item::Section(section) if !section.peek)
}

/// One `* n FETCH (...)` answer. `text` is the whole mail if [`needs_text`] of any item, `size` its size in bytes.
pub(super) fn render(number: usize, row: &Row, items: &[Item], text: &[u8], size: u64) -> Vec<u8> {
    let mut answer = format!("* {number} FETCH (").into_bytes();
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            answer.push(b' ');
        }
        match item {
            Item::Flags => answer.extend(format!("FLAGS ({})", row.flag_names()).into_bytes()),
            Item::Uid => answer.extend(format!("UID {}", row.entry.uid).into_bytes()),
            Item::InternalDate => {
                answer.extend(
                    format!("INTERNALDATE {}", date::imap(row.entry.seconds())).into_bytes(),
                );
            }
            Item::Size => answer.extend(format!("RFC822.SIZE {size}").into_bytes()),
            Item::Envelope => {
                answer.extend_from_slice(b"ENVELOPE ");
                answer.extend(envelope::render(split(text).0));
            }
            Item::Section(section) => {
                let piece = cut(section, text);
                answer.extend(format!("{} {{{}}}\r\n", section.label, piece.len()).into_bytes());
                answer.extend(piece);
            }
        }
    }
    answer.extend_from_slice(b")\r\n");
    answer
}

fn cut(section: &Section, mail: &[u8]) -> Vec<u8> {
    let (header, body) = split(mail);
    let whole = match &section.part {
        Part::Whole => mail.to_vec(),
        Part::Header => header.to_vec(),
        Part::Text => body.to_vec(),
        Part::Fields { names, except } => {
            let named =
                |field: &super::super::message::Field<'_>| names.iter().any(|name| field.is(name));
            let mut chosen: Vec<u8> = fields(header)
                .filter(|field| named(field) != *except)
                .flat_map(|field| field.raw.to_vec())
                .collect();
            // The empty line belongs to the answer (RFC 3501 §6.4.5).
            chosen.extend_from_slice(b"\r\n");
            chosen
        }
    };
    // A NUL may not stand in a literal (RFC 3501 §9, CHAR8).
    let mut whole = whole;
    for byte in whole.iter_mut().filter(|byte| **byte == 0) {
        *byte = 0x80;
    }
    match section.partial {
        None => whole,
        Some((from, count)) => whole
            .into_iter()
            .skip(from as usize)
            .take(count as usize)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"To: a\r\nSubject: b\r\n c\r\n\r\nbo\0dy\r\n";

    fn of(part: Part, partial: Option<(u32, u32)>) -> Vec<u8> {
        cut(
            &Section {
                label: String::new(),
                part,
                peek: true,
                partial,
            },
            MAIL,
        )
    }

    #[test]
    fn sections_are_cut_where_the_rfc_says() {
        let fields = |except| Part::Fields {
            names: vec!["SUBJECT".to_owned()],
            except,
        };
        assert_eq!(of(Part::Whole, None).len(), MAIL.len());
        assert_eq!(of(Part::Header, None), b"To: a\r\nSubject: b\r\n c\r\n\r\n");
        assert_eq!(of(Part::Text, None), b"bo\x80dy\r\n");
        assert_eq!(of(fields(false), None), b"Subject: b\r\n c\r\n\r\n");
        assert_eq!(of(fields(true), None), b"To: a\r\n\r\n");
        assert_eq!(of(Part::Whole, Some((4, 3))), b"a\r\n");
        assert_eq!(of(Part::Whole, Some((u32::MAX, u32::MAX))), b"");
    }
}
