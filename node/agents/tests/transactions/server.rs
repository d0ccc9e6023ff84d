//! A server on loopback that plays one part, once, and notes what it heard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agents::{Agent, Failure, Options, Target, Transport, check_within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a server does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Says this.
    Say(Vec<u8>),
    /// Hears a line that begins like this.
    Hear(&'static str),
    /// Hears so many bytes.
    HearBytes(usize),
    /// Goes on in TLS.
    Tls,
    /// Says this over and over, until nobody listens.
    Flood(&'static [u8]),
    /// Closes without waiting for the other side to do so.
    Close,
}

pub(crate) fn say(words: impl AsRef<[u8]>) -> Act {
    Act::Say(words.as_ref().to_vec())
}

pub(crate) fn hear(line: &'static str) -> Act {
    Act::Hear(line)
}

/// A server that plays `acts` to the first client, and what it heard, line by line, until the client closed.
pub(crate) struct Scripted {
    pub(crate) target: Target,
    heard: JoinHandle<Vec<String>>,
}

impl Scripted {
    pub(crate) async fn start(acts: Vec<Act>) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), acts).await
    }

    pub(crate) async fn start_at(address: IpAddr, acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(address, 0))
            .await
            .unwrap();
        let target = Target {
            address,
            port: listener.local_addr().unwrap().port(),
            transport: Transport::Tcp,
        };
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            play(Box::new(stream), acts).await
        });
        Self { target, heard }
    }

    /// What it heard; the part has to be over, or soon.
    pub(crate) async fn heard(self) -> Vec<String> {
        tokio::time::timeout(Duration::from_secs(10), self.heard)
            .await
            .expect("the client has closed")
            .unwrap()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn play(mut stream: Box<dyn Stream>, acts: Vec<Act>) -> Vec<String> {
    let mut heard = Vec::new();
    for act in acts {
        match act {
            Act::Say(words) => {
                stream.write_all(&words).await.unwrap();
                stream.flush().await.unwrap();
            }
            Act::Hear(expected) => {
                let line = line(&mut stream).await.unwrap_or_default();
                assert!(
                    line.starts_with(expected),
                    "expected {expected}, heard {line:?}"
                );
                heard.push(line);
            }
            Act::HearBytes(count) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).await.unwrap();
            }
            Act::Tls => match acceptor().accept(stream).await {
                Ok(session) => stream = Box::new(session),
                Err(_) => return heard,
            },
            Act::Flood(words) => {
                let many = words.repeat(1024);
                while stream.write_all(&many).await.is_ok() {}
            }
            Act::Close => {
                let _closed_anyway = stream.shutdown().await;
                return heard;
            }
        }
    }
    while let Some(line) = line(&mut stream).await {
        heard.push(line);
    }
    heard
}

/// The next line, or what there is before the end.
async fn line(stream: &mut Box<dyn Stream>) -> Option<String> {
    let mut line = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        if byte == b'\n' {
            return Some(text(&line));
        }
        line.push(byte);
    }
    (!line.is_empty()).then(|| text(&line))
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

/// With a certificate for `mail.example` that nobody has reason to believe.
fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["mail.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    acceptor_with(vec![made.cert.der().clone()], key)
}

fn acceptor_with(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A transaction with a scripted server, and what has to become of it.
pub(crate) struct Case {
    name: &'static str,
    acts: Vec<Act>,
    options: Options,
    /// How the failure's sentence goes on after the step that it begins with.
    failure: Option<&'static str>,
    last: Last,
}

/// The last line that the server hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Goodbye,
    /// This one; empty if it hears nothing.
    Line(&'static str),
    /// The kernel resets connections that are closed with bytes unread, and the goodbye may be lost with it.
    Any,
}

pub(crate) fn healthy(name: &'static str, acts: impl Into<Vec<Act>>) -> Case {
    Case {
        name,
        acts: acts.into(),
        options: Options::default(),
        failure: None,
        last: Last::Goodbye,
    }
}

pub(crate) fn ill(name: &'static str, acts: impl Into<Vec<Act>>, failure: &'static str) -> Case {
    Case {
        failure: Some(failure),
        ..healthy(name, acts)
    }
}

impl Case {
    /// There is no goodbye: this is the last line, or with nothing there is none.
    pub(crate) fn last(self, line: &'static str) -> Self {
        let last = Last::Line(line);
        Self { last, ..self }
    }

    /// The server says more than is read.
    pub(crate) fn flooded(self) -> Self {
        let last = Last::Any;
        Self { last, ..self }
    }

    pub(crate) fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.options;
        change(&mut options);
        Self { options, ..self }
    }
}

/// What a silent server is given.
const PATIENCE: Duration = Duration::from_secs(1);

/// What comes out of a transaction with a server that stays silent at some point.
pub(crate) const SILENCE: &str = "it did not come within 1s";

pub(crate) async fn play_all(agent: Agent, goodbye: &str, cases: impl IntoIterator<Item = Case>) {
    for case in cases {
        let server = Scripted::start(case.acts.clone()).await;
        let silent = case.failure.is_some_and(|why| why.contains(SILENCE));
        let limit = if silent {
            PATIENCE
        } else {
            Duration::from_secs(10)
        };
        let outcome = check_within(agent, &server.target, &case.options, limit).await;
        judge(&case, &outcome);
        let heard = server.heard().await;
        let expected = match case.last {
            Last::Goodbye => goodbye,
            Last::Line(line) => line,
            Last::Any => continue,
        };
        let last = heard.last().map_or("", String::as_str);
        assert_eq!(last, expected, "{agent:?}, {}: {heard:?}", case.name);
    }
}

fn judge(case: &Case, outcome: &Result<(), Failure>) {
    match (outcome, case.failure) {
        (Ok(()), None) => {}
        (Err(failure), Some(expected)) => {
            let sentence = failure.to_string();
            assert!(sentence.contains(expected), "{}: {sentence}", case.name);
            assert!(!sentence.contains('\n'), "{}: {sentence:?}", case.name);
        }
        (outcome, expected) => panic!("{}: {outcome:?}, not {expected:?}", case.name),
    }
}
