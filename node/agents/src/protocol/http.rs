//! HTTP/1.1: one GET, of whose answer status line and headers are read (RFC 9112).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Seen, Step};
use crate::options::{BadOption, Options, Tls};

/// Servers send a dozen or two; [`crate::BYTES_MAX`] bounds their length.
const HEADERS_MAX: usize = 128;

/// The path if it can stand in a request line.
pub(crate) fn checked_path(path: &str) -> Result<&str, BadOption> {
    if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(path)
    } else {
        Err(BadOption::Path(path.to_owned()))
    }
}

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    let get = Step {
        name: "GET",
        expected: Cow::Owned(format!("a status of {}", options.expect)),
    };
    let request =
        request(target, options).map_err(|error| get.failed(Seen::Unable(error.to_string())))?;
    connection.say(&get, request.as_bytes()).await?;
    loop {
        match head(connection.unread()) {
            Ok(None) => connection.more(&get).await?,
            // What comes before the answer: continue, early hints (RFC 9110 §15.2).
            Ok(Some((length, 100 | 102..=199))) => drop(connection.take(length)),
            Ok(Some((_, status))) if options.expect.contain(status) => return Ok(()),
            Ok(Some(_)) | Err(httparse::Error::Version | httparse::Error::Status) => {
                return Err(get.answered(first_line(connection.unread())));
            }
            Err(error) => {
                return Err(get.failed(Seen::Answer(format!(
                    "{} and no head of HTTP/1.1 ({error})",
                    crate::text::quoted(first_line(connection.unread()))
                ))));
            }
        }
    }
}

fn request(target: &Target, options: &Options) -> Result<String, BadOption> {
    let path = checked_path(&options.path)?;
    let host = match (&options.server_name, target.address) {
        (Some(name), _) => {
            crate::tls::server_name(name)?;
            name.clone()
        }
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    let port = match (options.tls, target.port) {
        (Tls::None, 80) | (Tls::Implicit | Tls::StartTls, 443) => String::new(),
        (_, port) => format!(":{port}"),
    };
    Ok(format!(
        "GET {path} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: httpAgent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ))
}

/// Length and status of a head, once it is there whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u16)>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes)?;
    Ok(match (parsed, response.code) {
        (httparse::Status::Complete(length), Some(code)) => Some((length, code)),
        _ => None,
    })
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    line.strip_suffix(b"\r").unwrap_or(line)
}
