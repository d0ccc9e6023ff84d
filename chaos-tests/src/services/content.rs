//! Content that both ends can make for themselves: so many bytes from a seed.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Longest content, in bytes: a minute of it at the slowest rate that a test still accepts.
pub const CONTENT_BYTES_MAX: u64 = 1 << 30;

/// `length` bytes that follow from `seed`; no two stretches of a packet's size are alike, so that whatever is lost, repeated or
/// swapped changes the digest.
#[derive(Clone, Debug)]
pub struct Content {
    state: u64,
    /// The word that is being given out, and how much of it is.
    word: [u8; 8],
    given: usize,
    left: u64,
}

impl Content {
    /// Content from the beginning; more than [`CONTENT_BYTES_MAX`] bytes are cut off there.
    #[must_use]
    pub fn new(seed: u64, length: u64) -> Self {
        Self {
            // The generator stands still at 0.
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            word: [0; 8],
            given: 8,
            left: length.min(CONTENT_BYTES_MAX),
        }
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// xorshift64 (Marsaglia 2003, triple 13, 7, 17).
    fn next_word(&mut self) {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.word = self.state.to_le_bytes();
        self.given = 0;
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let mut done = 0;
        while done < length {
            if self.given == self.word.len() {
                self.next_word();
            }
            let part = (length - done).min(self.word.len() - self.given);
            buffer[done..done + part].copy_from_slice(&self.word[self.given..self.given + part]);
            self.given += part;
            done += part;
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// SHA-256 of a content, and its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub length: u64,
    hash: [u8; 32],
}

impl Digest {
    /// As it is written in an answer: the length, a blank, 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (length, hex) = text.trim().split_once(' ')?;
        let mut hash = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self {
            length: length.parse().ok()?,
            hash,
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.length)?;
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The digest of what `source` gives until its end.
///
/// # Errors
/// What `source` says.
pub fn digest_of(mut source: impl Read) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut buffer = [0; 16 << 10];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hash.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Digest {
        length,
        hash: hash.finalize().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_content_however_it_is_read() {
        let mut whole = Vec::new();
        Content::new(7, 10_001).read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), 10_001);
        let mut parts = Vec::new();
        let mut content = Content::new(7, 10_001);
        let mut buffer = [0; 1003];
        while content.left() > 0 {
            let read = content.read(&mut buffer).unwrap();
            parts.extend_from_slice(&buffer[..read]);
        }
        assert!(whole == parts);
        assert!(
            whole
                .chunks(512)
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                == 20
        );
    }

    #[test]
    fn every_difference_changes_the_digest() {
        let of = |seed, length| digest_of(Content::new(seed, length)).unwrap();
        assert_eq!(of(1, 5000), of(1, 5000));
        assert_ne!(of(1, 5000), of(2, 5000));
        assert_ne!(of(1, 5000), of(1, 4999));
        let mut swapped = Vec::new();
        Content::new(1, 5000).read_to_end(&mut swapped).unwrap();
        swapped.swap(10, 4000);
        assert_ne!(digest_of(&swapped[..]).unwrap(), of(1, 5000));
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        // RFC 6234 section 8.5: SHA-256 of "abc".
        let abc = digest_of(&b"abc"[..]).unwrap();
        let text = "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(abc.to_string(), text);
        assert_eq!(Digest::parse(text), Some(abc));
        for wrong in [
            "",
            "3",
            "3 ba",
            "x ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }
}
