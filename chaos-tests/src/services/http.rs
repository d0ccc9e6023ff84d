//! HTTP/1.1 (RFC 9112), as much of it as a test needs: one request a connection, bodies with a length.
//!
//! | request | answer |
//! |---|---|
//! | `GET /name` | the server's name |
//! | `GET /content/<seed>/<bytes>` | that content |
//! | `PUT /content` | length and digest of the body that came |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::content::{CONTENT_BYTES_MAX, Content, Digest, digest_of};
use super::listener::Listener;

/// A connection on which nothing moves for so long is given up: longer than a takeover and the back-off of TCP after it.
const PROGRESS_MAX: Duration = Duration::from_secs(10);

/// Longest line of a head, in bytes, and most lines of one: RFC 9112 section 3 asks for 8000, and nobody here sends as many.
const LINE_BYTES_MAX: u64 = 8000;
const HEAD_LINES_MAX: usize = 64;

/// Longest body that a [`Response`] keeps, in bytes: names and digests.
const KEPT_BYTES_MAX: u64 = 4096;

/// A running HTTP server. Dropping it closes every connection.
#[derive(Debug)]
pub struct HttpServer(Listener);

impl HttpServer {
    /// Listens on `address`; `name` is told in every answer.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(address: SocketAddr, name: &str) -> io::Result<Self> {
        let server = name.to_owned();
        let session = move |stream: TcpStream| {
            // The client sees a broken connection, and says so.
            let _ = serve(&stream, &server);
        };
        Listener::start("http", address, session).map(Self)
    }

    /// Where it listens: the real port, also if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection broke, or nothing moved for 10 seconds.
    #[error("{during}: {source}")]
    Broken {
        /// What was being done.
        during: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The other side speaks something else.
    #[error("not an answer of the protocol: {0:?}")]
    Protocol(String),
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Who answered.
    pub server: String,
    /// The beginning of the body.
    pub text: String,
    /// Of the whole body.
    pub digest: Digest,
}

/// Asks for `path`.
///
/// # Errors
/// See [`HttpError`].
pub fn get(stream: &TcpStream, path: &str) -> Result<Response, HttpError> {
    say(stream, &format!("GET {path} HTTP/1.1\r\nHost: vip\r\n\r\n"))?;
    answer(stream)
}

/// Sends `content` to `path`.
///
/// # Errors
/// See [`HttpError`].
pub fn put(stream: &TcpStream, path: &str, mut content: Content) -> Result<Response, HttpError> {
    let length = content.left();
    say(
        stream,
        &format!("PUT {path} HTTP/1.1\r\nHost: vip\r\nContent-Length: {length}\r\n\r\n"),
    )?;
    let mut to = stream;
    io::copy(&mut content, &mut to).map_err(broken("sending the body"))?;
    answer(stream)
}

fn broken(during: &'static str) -> impl FnOnce(io::Error) -> HttpError {
    move |source| HttpError::Broken { during, source }
}

fn say(stream: &TcpStream, head: &str) -> Result<(), HttpError> {
    patient(stream).map_err(broken("setting time limits"))?;
    let mut to = stream;
    to.write_all(head.as_bytes())
        .map_err(broken("sending the request"))
}

fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PROGRESS_MAX))?;
    stream.set_write_timeout(Some(PROGRESS_MAX))
}

fn answer(stream: &TcpStream) -> Result<Response, HttpError> {
    let mut from = BufReader::new(stream);
    let head = Head::read(&mut from).map_err(broken("reading the head of the answer"))?;
    let mut words = head.first.splitn(3, ' ');
    match (words.next(), words.next()) {
        (Some("HTTP/1.1"), Some("200")) => {}
        (Some("HTTP/1.1"), Some(_)) => return Err(HttpError::Refused(head.first)),
        _ => return Err(HttpError::Protocol(head.first)),
    }
    let mut kept = Vec::new();
    let body = from.take(head.length);
    let digest = digest_of(Keeping {
        from: body,
        kept: &mut kept,
    })
    .map_err(broken("reading the body"))?;
    if digest.length != head.length {
        let missing = head.length - digest.length;
        let source = io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{missing} bytes are missing"),
        );
        return Err(broken("reading the body")(source));
    }
    Ok(Response {
        server: head.server.unwrap_or_default(),
        text: String::from_utf8_lossy(&kept).into_owned(),
        digest,
    })
}

fn serve(stream: &TcpStream, name: &str) -> io::Result<()> {
    patient(stream)?;
    let mut from = BufReader::new(stream);
    let head = Head::read(&mut from)?;
    let words: Vec<&str> = head.first.split(' ').collect();
    match words[..] {
        ["GET", "/name", _] => reply(stream, name, "200 OK", name.len() as u64, name.as_bytes()),
        ["GET", path, _] => match content_of(path) {
            Some(content) => reply(stream, name, "200 OK", content.left(), content),
            None => reply(stream, name, "404 Not Found", 0, io::empty()),
        },
        ["PUT", "/content", _] if head.length <= CONTENT_BYTES_MAX => {
            let digest = digest_of(from.take(head.length))?.to_string();
            reply(
                stream,
                name,
                "200 OK",
                digest.len() as u64,
                digest.as_bytes(),
            )
        }
        _ => reply(stream, name, "400 Bad Request", 0, io::empty()),
    }
}

fn content_of(path: &str) -> Option<Content> {
    let (seed, length) = path.strip_prefix("/content/")?.split_once('/')?;
    let length = length
        .parse()
        .ok()
        .filter(|length| *length <= CONTENT_BYTES_MAX)?;
    Some(Content::new(seed.parse().ok()?, length))
}

fn reply(
    mut to: &TcpStream,
    name: &str,
    status: &str,
    length: u64,
    mut body: impl Read,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: {name}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes())?;
    io::copy(&mut body, &mut to).map(drop)
}

/// The part of a message before its body.
struct Head {
    first: String,
    length: u64,
    server: Option<String>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let first = line(from)?;
        let mut head = Self {
            first,
            length: 0,
            server: None,
        };
        for _ in 0..HEAD_LINES_MAX {
            let line = line(from)?;
            if line.is_empty() {
                return Ok(head);
            }
            let Some((field, value)) = line.split_once(':') else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, line));
            };
            let value = value.trim();
            if field.eq_ignore_ascii_case("content-length") {
                let length = value.parse();
                head.length =
                    length.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line.clone()))?;
            } else if field.eq_ignore_ascii_case("server") {
                head.server = Some(value.to_owned());
            }
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a head without end",
        ))
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a line without end",
        ));
    }
    Ok(line.trim_end().to_owned())
}

/// Passes on what it reads, and keeps the beginning.
struct Keeping<'a, R> {
    from: R,
    kept: &'a mut Vec<u8>,
}

impl<R: Read> Read for Keeping<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let room = usize::try_from(KEPT_BYTES_MAX)
            .unwrap_or(0)
            .saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&buffer[..read.min(room)]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> HttpServer {
        HttpServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), "serv1").unwrap()
    }

    fn open(server: &HttpServer) -> TcpStream {
        TcpStream::connect(server.address()).unwrap()
    }

    #[test]
    fn content_comes_and_goes_unchanged() {
        let server = server();
        let name = get(&open(&server), "/name").unwrap();
        assert_eq!(
            (name.server.as_str(), name.text.as_str()),
            ("serv1", "serv1")
        );
        let expected = digest_of(Content::new(5, 300_000)).unwrap();
        let down = get(&open(&server), "/content/5/300000").unwrap();
        assert_eq!(down.digest, expected);
        let up = put(&open(&server), "/content", Content::new(5, 300_000)).unwrap();
        assert_eq!(Digest::parse(&up.text), Some(expected));
    }

    #[test]
    fn what_nobody_serves_is_refused() {
        let server = server();
        for path in ["/", "/content/5", "/content/x/1", "/content/1/99999999999"] {
            let refused = get(&open(&server), path);
            assert!(
                matches!(&refused, Err(HttpError::Refused(line)) if line.contains("404")),
                "{path}: {refused:?}"
            );
        }
        let refused = put(&open(&server), "/elsewhere", Content::new(1, 10));
        assert!(
            matches!(&refused, Err(HttpError::Refused(line)) if line.contains("400")),
            "{refused:?}"
        );
    }

    #[test]
    fn a_body_that_ends_early_is_no_answer() {
        let short = |stream: TcpStream| {
            let _ = Head::read(&mut BufReader::new(&stream));
            let mut to = &stream;
            let _ = to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        };
        let listener =
            Listener::start("short", SocketAddr::from(([127, 0, 0, 1], 0)), short).unwrap();
        let broken = get(&TcpStream::connect(listener.address()).unwrap(), "/name").unwrap_err();
        assert!(
            broken.to_string().contains("5 bytes are missing"),
            "{broken}"
        );
    }

    #[test]
    fn a_server_that_is_dropped_closes_its_connections() {
        let server = server();
        let waiting = open(&server);
        waiting.set_read_timeout(Some(PROGRESS_MAX)).unwrap();
        drop(server);
        let mut from = &waiting;
        assert!(matches!(from.read(&mut [0]), Ok(0) | Err(_)));
    }
}
