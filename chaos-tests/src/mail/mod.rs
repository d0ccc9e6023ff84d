//! Small SMTP, POP3 and IMAP servers over one shared Maildir, and the clients that talk to them.
//!
//! They stand in for real mail daemons where none are installed: several servers, each with its own name, share
//! one directory, and whichever of them a client reaches, it finds the same mails under the same numbers. Every
//! greeting and every `Received` header carries the server's name, so a client can tell who served it.
//!
//! **Not for real mail**: any password opens any existing mailbox, nothing is encrypted, and nothing is relayed.

mod address;
pub mod client;
mod date;
mod flags;
mod imap;
mod lock;
mod maildir;
mod message;
mod pop3;
mod server;
mod smtp;
mod uidlist;
pub(crate) mod wire;

pub use maildir::{MAILBOXES_MAX, MESSAGE_BYTES_MAX, MESSAGES_MAX};
pub use server::{MailError, Protocol, SESSIONS_MAX, Server, ServerArgs, serve};
pub use wire::LINE_BYTES_MAX;
