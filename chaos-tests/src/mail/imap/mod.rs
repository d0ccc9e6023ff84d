//! A subset of IMAP4rev1 (RFC 3501) with IDLE (RFC 2177), UNSELECT (RFC 3691) and LITERAL+ (RFC 7888).
//!
//! One mailbox, INBOX. Left out, and refused by name: MIME structure (`BODYSTRUCTURE`, `BODY[1]`), other mailboxes,
//! APPEND, COPY, keywords. Searches compare bytes without decoding (RFC 2047) and ignore ASCII case.

mod command;
mod cursor;
mod envelope;
mod fetch;
mod parse;
mod search;
mod selected;
mod session;

pub(crate) use session::session;
