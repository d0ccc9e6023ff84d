//! LDAP: the root DSE without a bind, unbind (RFC 4511, RFC 4512 §5.1), perhaps StartTLS before (RFC 4511 §4.14).
//!
//! Of BER (X.690) only what LDAP allows: one-byte tags and definite lengths (RFC 4511 §5.1).

use super::CLOSE;
use crate::agent::Target;
use crate::connection::{Connection, Goodbye, LINES_MAX};
use crate::failure::{Failure, Seen, Step};
use crate::options::{Options, Tls};
use crate::text::quoted;

/// Unbind has no answer (RFC 4511 §4.3).
pub(super) const GOODBYE: Goodbye = Goodbye {
    // SEQUENCE { messageID 3, [APPLICATION 2] NULL }
    words: &[0x30, 0x05, 0x02, 0x01, 0x03, 0x42, 0x00],
    ..CLOSE
};

const START_TLS: Step = Step::new("StartTLS", "resultCode 0");
const ROOT_DSE: Step = Step::new("search of the root DSE", "resultCode 0");

const START_TLS_OID: &[u8] = b"1.3.6.1.4.1.1466.20037";

const SUCCESS: u32 = 0;
/// strongerAuthRequired, confidentialityRequired, inappropriateAuthentication, insufficientAccessRights, unwillingToPerform: the directory
/// works, and does not want to be asked by nobody in particular. OpenLDAP's word for that is the last one (`require authc`).
const NOT_FOR_ANYBODY: [u32; 5] = [8, 13, 48, 50, 53];

// Tags.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    if options.tls == Tls::StartTls {
        let oid = tlv(0x80, &[START_TLS_OID]);
        let request = request(1, EXTENDED_REQUEST, &[&oid]);
        let outcome = ask(connection, &START_TLS, &request, (1, EXTENDED_RESPONSE)).await?;
        if outcome.code != SUCCESS {
            return Err(outcome.failed(&START_TLS));
        }
        connection.encrypt(target, options).await?;
    }
    let outcome = ask(connection, &ROOT_DSE, &root_dse(), (2, SEARCH_DONE)).await?;
    if outcome.code == SUCCESS || NOT_FOR_ANYBODY.contains(&outcome.code) {
        Ok(())
    } else {
        Err(outcome.failed(&ROOT_DSE))
    }
}

/// Says `request` and reads up to the answer with this message id and tag.
async fn ask(
    connection: &mut Connection<'_>,
    step: &Step,
    request: &[u8],
    awaited: (u32, u8),
) -> Result<Outcome, Failure> {
    connection.say(step, request).await?;
    for _ in 0..LINES_MAX {
        let bytes = receive(connection, step).await?;
        let unexpected = || {
            step.failed(Seen::Answer(format!(
                "{}, no answer of LDAP",
                quoted(&bytes)
            )))
        };
        let message = message(&bytes).ok_or_else(unexpected)?;
        match (message.id, message.operation) {
            // Notice of disconnection (RFC 4511 §4.4.1).
            (0, EXTENDED_RESPONSE) => {
                let outcome = outcome(message.content).ok_or_else(unexpected)?;
                return Err(outcome.failed(step));
            }
            got if got == awaited => return outcome(message.content).ok_or_else(unexpected),
            (id, SEARCH_ENTRY | SEARCH_REFERENCE) if id == awaited.0 => {}
            _ => return Err(unexpected()),
        }
    }
    Err(step.failed(Seen::ManyLines))
}

/// Reads one message whole. That it fits into the bytes of a transaction is seen to by the connection.
async fn receive(connection: &mut Connection<'_>, step: &Step) -> Result<Vec<u8>, Failure> {
    loop {
        match measure(connection.unread()) {
            Measured::Whole(length) => return connection.exactly(step, length).await,
            Measured::Unfinished => connection.more(step).await?,
            Measured::Foreign => {
                let said = quoted(connection.unread());
                return Err(step.failed(Seen::Answer(format!("{said}, no message of LDAP"))));
            }
        }
    }
}

enum Measured {
    /// So long is the message, whether it is there or not.
    Whole(usize),
    Unfinished,
    Foreign,
}

/// The length of the message that begins here.
fn measure(bytes: &[u8]) -> Measured {
    match bytes {
        [] | [SEQUENCE] => Measured::Unfinished,
        [SEQUENCE, short @ ..=0x7f, ..] => Measured::Whole(2 + usize::from(*short)),
        [SEQUENCE, 0x81..=0x84, ..] => {
            let count = usize::from(bytes[1] & 0x7f);
            match bytes.get(2..2 + count) {
                Some(length) => Measured::Whole((2 + count).saturating_add(number(length))),
                None => Measured::Unfinished,
            }
        }
        _ => Measured::Foreign,
    }
}

/// Big-endian; at most four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    id: u32,
    operation: u8,
    content: &'a [u8],
}

fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let (message, _) = element(bytes, SEQUENCE)?;
    let (id, rest) = element(message, INTEGER)?;
    let operation = *rest.first()?;
    let (content, _) = element(rest, operation)?;
    let id = unsigned(id)?;
    Some(Message {
        id,
        operation,
        content,
    })
}

/// LDAPResult (RFC 4511 §4.1.9), as far as it is read.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: u32,
    diagnostics: Vec<u8>,
}

impl Outcome {
    fn failed(&self, step: &Step) -> Failure {
        let diagnostics = quoted(&self.diagnostics);
        step.failed(Seen::Answer(format!(
            "resultCode {} {diagnostics}",
            self.code
        )))
    }
}

fn outcome(content: &[u8]) -> Option<Outcome> {
    let (code, rest) = element(content, ENUMERATED)?;
    let (_matched_dn, rest) = element(rest, OCTET_STRING)?;
    let (diagnostics, _) = element(rest, OCTET_STRING)?;
    Some(Outcome {
        code: unsigned(code)?,
        diagnostics: diagnostics.to_vec(),
    })
}

/// The content of the element that begins here, if it has this tag and is whole, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        ..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (number(length), rest)
        }
        _ => return None,
    };
    let parts = rest.split_at_checked(length)?;
    (first == tag).then_some(parts)
}

/// INTEGER and ENUMERATED, which LDAP has no negative ones of.
fn unsigned(content: &[u8]) -> Option<u32> {
    match content {
        [..=0x7f] | [..=0x7f, _] | [..=0x7f, _, _] | [..=0x7f, _, _, _] => {
            u32::try_from(number(content)).ok()
        }
        _ => None,
    }
}

/// baseObject "", scope baseObject, derefAliases never, no limits, types and values, (objectClass=*), no attributes (RFC 4511 §4.5.1).
fn root_dse() -> Vec<u8> {
    let zero = |tag| [tag, 0x01, 0x00];
    let filter = tlv(0x87, &[b"objectClass"]);
    let no_attributes = tlv(SEQUENCE, &[&tlv(OCTET_STRING, &[b"1.1"])]);
    let (enumerated, integer, no) = (zero(ENUMERATED), zero(INTEGER), zero(0x01));
    let fields: [&[u8]; 8] = [
        &[OCTET_STRING, 0x00],
        &enumerated,
        &enumerated,
        &integer,
        &integer,
        &no,
        &filter,
        &no_attributes,
    ];
    request(2, SEARCH_REQUEST, &fields)
}

fn request(id: u8, tag: u8, fields: &[&[u8]]) -> Vec<u8> {
    tlv(SEQUENCE, &[&tlv(INTEGER, &[&[id]]), &tlv(tag, fields)])
}

/// Our requests are short: the length has one byte.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length =
        u8::try_from(content.len()).expect("requests have a constant form, far below 128 bytes");
    debug_assert!(length < 0x80);
    [&[tag, length], &*content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_is_what_the_rfc_spells_out() {
        let search = [
            0x30, 0x2a, 0x02, 0x01, 0x02, 0x63, 0x25, 0x04, 0x00, 0x0a, 0x01, 0x00, 0x0a, 0x01,
            0x00, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00, 0x01, 0x01, 0x00, 0x87, 0x0b, b'o', b'b',
            b'j', b'e', b'c', b't', b'C', b'l', b'a', b's', b's', 0x30, 0x05, 0x04, 0x03, b'1',
            b'.', b'1',
        ];
        assert_eq!(root_dse()[..], search[..]);
    }

    #[test]
    fn results_are_read_in_both_forms_of_length() {
        let short = [
            0x30, 0x0c, 0x02, 0x01, 0x02, 0x65, 0x07, 0x0a, 0x01, 0x33, 0x04, 0x00, 0x04, 0x00,
        ];
        // Active Directory pads its lengths.
        let long = [
            0x30, 0x84, 0x00, 0x00, 0x00, 0x10, 0x02, 0x01, 0x02, 0x65, 0x84, 0x00, 0x00, 0x00,
            0x07, 0x0a, 0x01, 0x33, 0x04, 0x00, 0x04, 0x00,
        ];
        for bytes in [&short[..], &long[..]] {
            let Measured::Whole(length) = measure(bytes) else {
                panic!("{bytes:?}");
            };
            assert_eq!(length, bytes.len());
            let message = message(bytes).unwrap();
            assert_eq!((message.id, message.operation), (2, SEARCH_DONE));
            let outcome = outcome(message.content).unwrap();
            assert_eq!((outcome.code, &*outcome.diagnostics), (51, &b""[..]));
            for cut in 0..bytes.len() {
                assert_eq!(super::message(&bytes[..cut]), None, "{cut}");
            }
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(message) = message(bytes) {
                assert!(message.content.len() < bytes.len());
                let _any = outcome(message.content);
            }
            let _any = measure(bytes);
        });
    }
}
