//! A stub resolver (RFC 1035), as much of it as a test needs: one question in a datagram, and the strings of the answer.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A question that is not answered within this time is asked again, as resolvers do.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Longest answer without EDNS, in bytes (RFC 1035 section 4.2.1), and room for what does not keep to it.
const ANSWER_BYTES_MAX: usize = 4096;

/// Type TXT and class IN (RFC 1035 sections 3.2.2 and 3.2.4).
const TXT: u16 = 16;
const IN: u16 = 1;

/// Records of one answer: more do not fit into it.
const RECORDS_MAX: u16 = 300;

/// Asks `server` for the TXT record of `name` from a fresh port, and again until there is an answer; its first string.
///
/// # Errors
/// No socket, no answer within `limit`, or one that is none.
pub fn ask_txt(server: SocketAddr, name: &str, id: u16, limit: Duration) -> Result<String, String> {
    let question = question(name, id).ok_or_else(|| format!("{name:?} is no name of DNS"))?;
    let cannot = |error: io::Error| format!("cannot ask {server}: {error}");
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).map_err(cannot)?;
    socket.connect(server).map_err(cannot)?;
    socket.set_read_timeout(Some(AGAIN_AFTER)).map_err(cannot)?;
    let by = Instant::now() + limit;
    let mut last = String::from("nothing");
    let mut buffer = [0; ANSWER_BYTES_MAX];
    while Instant::now() < by {
        let sent = socket.send(&question);
        match socket.recv(&mut buffer) {
            Ok(length) if buffer.starts_with(&id.to_be_bytes()) => {
                return first_string(&buffer[..length]).map_err(str::to_owned);
            }
            Ok(_) => last = "an answer to another question".to_owned(),
            Err(error) => last = sent.err().unwrap_or(error).to_string(),
        }
    }
    Err(format!(
        "{name} was not answered by {server} within {limit:?}; last: {last}"
    ))
}

/// A query with one question; `None` if `name` cannot be one.
fn question(name: &str, id: u16) -> Option<Vec<u8>> {
    // Flags: recursion desired. One question, nothing else.
    let mut bytes = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([TXT, IN].map(u16::to_be_bytes).concat());
    // RFC 1035 section 2.3.4: a name has at most 255 bytes.
    (bytes.len() <= 12 + 255 + 4).then_some(bytes)
}

/// The first string of the first TXT record of an answer.
fn first_string(message: &[u8]) -> Result<String, &'static str> {
    const SHORT: &str = "the answer ends in the middle of something";
    let mut at = Reader { message, at: 0 };
    let mut header = [0; 6];
    for field in &mut header {
        *field = at.number().ok_or(SHORT)?;
    }
    let [_, flags, questions, answers, _, _] = header;
    if flags & 0x8000 == 0 {
        return Err("a question instead of an answer");
    }
    if flags & 0x000f != 0 {
        return Err("the server answers with an error code");
    }
    for _ in 0..questions.min(RECORDS_MAX) {
        at.skip_name().ok_or(SHORT)?;
        at.bytes(4).ok_or(SHORT)?;
    }
    for _ in 0..answers.min(RECORDS_MAX) {
        at.skip_name().ok_or(SHORT)?;
        let (kind, class) = (at.number().ok_or(SHORT)?, at.number().ok_or(SHORT)?);
        at.bytes(4).ok_or(SHORT)?;
        let length = at.number().ok_or(SHORT)?;
        let data = at.bytes(length.into()).ok_or(SHORT)?;
        if (kind, class) == (TXT, IN) {
            let (length, rest) = data.split_first().ok_or(SHORT)?;
            let string = rest.get(..usize::from(*length)).ok_or(SHORT)?;
            return Ok(String::from_utf8_lossy(string).into_owned());
        }
    }
    Err("the answer has no TXT record")
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u16> {
        self.bytes(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Passes over a name: labels up to an empty one, or up to a pointer (RFC 1035 section 4.1.4), which is not followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            let length = *self.bytes(1)?.first()?;
            match length {
                0 => return Some(()),
                1..=63 => self.bytes(length.into()).map(drop)?,
                0xc0..=0xff => return self.bytes(1).map(drop),
                64..=0xbf => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer to `id.my.org TXT` with the string `serv1`, its name as a pointer.
    fn answer() -> Vec<u8> {
        let mut bytes = question("id.my.org", 7).unwrap();
        bytes[2] = 0x85;
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 6, 5]);
        bytes.extend(b"serv1");
        bytes
    }

    #[test]
    fn a_question_is_laid_out_as_rfc_1035_says() {
        let bytes = question("id.my.org", 0x1234).unwrap();
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02id\x02my\x03org\x00\x00\x10\x00\x01";
        assert_eq!(bytes, expected);
        let long = [
            String::new(),
            "a..b".to_owned(),
            "x".repeat(64),
            vec!["y".repeat(63); 5].join("."),
        ];
        for wrong in long {
            assert_eq!(question(&wrong, 1), None, "{wrong}");
        }
    }

    #[test]
    fn the_string_is_found_behind_a_pointer() {
        assert_eq!(first_string(&answer()).unwrap(), "serv1");
    }

    #[test]
    fn what_is_no_answer_is_said_to_be_none() {
        let whole = answer();
        for length in 0..whole.len() {
            assert!(first_string(&whole[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(
            first_string(&question("id.my.org", 7).unwrap()),
            Err("a question instead of an answer")
        );
        let mut refused = answer();
        refused[3] |= 5;
        assert_eq!(
            first_string(&refused),
            Err("the server answers with an error code")
        );
        let mut other = answer();
        let kind = other.len() - 15;
        other[kind] = 1;
        assert_eq!(first_string(&other), Err("the answer has no TXT record"));
    }

    #[test]
    fn nobody_answers_in_time() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let late = ask_txt(
            silent.local_addr().unwrap(),
            "id.my.org",
            1,
            Duration::from_millis(100),
        );
        assert!(late.unwrap_err().contains("was not answered"));
    }
}
