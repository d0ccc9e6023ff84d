//! Small programs that clients and servers of a test are made of: HTTP with content that is checked by its digest, UDP echo,
//! DNS queries.
//!
//! Each server says its name in every answer, so a client can tell who served it. Mail is in [`crate::mail`], connections that
//! stay in [`crate::lines`]. **Not for real use**: nothing is encrypted, and whoever asks is served.

mod content;
pub mod dns;
mod echo;
mod http;
mod listener;

pub use content::{CONTENT_BYTES_MAX, Content, Digest, digest_of};
pub use echo::{ECHO_BYTES_MAX, EchoServer, Flow};
pub use http::{HttpError, HttpServer, Response, get, put};
