//! One TCP connection of a transaction: bounded reading, TLS, and taking leave.
//!
//! Invariant: after an error of the connection there is no stream, so nothing more is said on it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Target;
use crate::failure::{Failure, Progress, Seen, Step};
use crate::options::Options;
use crate::tls;

/// The longest line: sixteen times what SMTP and POP3 allow, for IMAP's capabilities.
pub const LINE_BYTES_MAX: usize = 8192;

/// Lines of one transaction. The longest list, of an FTP server's features, has a few dozen.
pub const LINES_MAX: usize = 512;

/// Bytes of one transaction: heads of HTTP are refused from 8 to 64 KiB on by those who read them.
pub const BYTES_MAX: usize = 64 * 1024;

const CONNECT: Step = Step::new("connect", "a TCP connection");
const HANDSHAKE: Step = Step::new("TLS handshake", "a TLS session");

/// What a transaction is carried out over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(crate) struct Connection<'p> {
    stream: Option<Box<dyn Stream>>,
    /// What came and was not looked at yet.
    unread: Vec<u8>,
    received: usize,
    lines: usize,
    own_address: IpAddr,
    progress: &'p Progress,
    took_leave: bool,
}

impl<'p> Connection<'p> {
    /// Connects, and shakes hands if TLS comes first.
    pub(crate) async fn open(
        target: &Target,
        options: &Options,
        progress: &'p Progress,
    ) -> Result<Self, Failure> {
        progress.reached(&CONNECT);
        let failed = |error| CONNECT.failed(Seen::Io(error));
        let stream = TcpStream::connect(target.socket_address())
            .await
            .map_err(failed)?;
        let own_address = stream.local_addr().map_err(failed)?.ip();
        let mut connection = Self::over(Box::new(stream), own_address, progress);
        if options.tls == crate::Tls::Implicit {
            connection.encrypt(target, options).await?;
        }
        Ok(connection)
    }

    /// The same over any stream.
    pub(crate) fn over(
        stream: Box<dyn Stream>,
        own_address: IpAddr,
        progress: &'p Progress,
    ) -> Self {
        Self {
            stream: Some(stream),
            unread: Vec::new(),
            received: 0,
            lines: 0,
            own_address,
            progress,
            took_leave: false,
        }
    }

    /// Whom the server sees.
    pub(crate) fn own_address(&self) -> IpAddr {
        self.own_address
    }

    /// What came and was not taken yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Goes on in TLS. Words that are there already were said in the clear, and are not listened to.
    pub(crate) async fn encrypt(
        &mut self,
        target: &Target,
        options: &Options,
    ) -> Result<(), Failure> {
        self.progress.reached(&HANDSHAKE);
        if !self.unread.is_empty() {
            let said = crate::text::quoted(&self.unread);
            return Err(HANDSHAKE.failed(Seen::Unencrypted(said)));
        }
        let stream = self.stream.take().ok_or_else(|| gone(&HANDSHAKE))?;
        let encrypted = tls::client(stream, target, options).await;
        self.stream = Some(encrypted.map_err(|seen| HANDSHAKE.failed(seen))?);
        Ok(())
    }

    /// Says something.
    pub(crate) async fn say(&mut self, step: &Step, words: &[u8]) -> Result<(), Failure> {
        self.progress.reached(step);
        let Some(stream) = &mut self.stream else {
            return Err(gone(step));
        };
        let said = match stream.write_all(words).await {
            Ok(()) => stream.flush().await,
            Err(error) => Err(error),
        };
        said.map_err(|error| {
            self.stream = None;
            step.failed(Seen::Io(error))
        })
    }

    /// Says goodbye where the answer to it is part of the transaction.
    pub(crate) async fn say_goodbye(&mut self, step: &Step, words: &[u8]) -> Result<(), Failure> {
        self.took_leave = true;
        self.say(step, words).await
    }

    /// The next line, without its end.
    pub(crate) async fn line(&mut self, step: &Step) -> Result<Vec<u8>, Failure> {
        self.progress.reached(step);
        let mut searched = 0;
        loop {
            let end = self.unread[searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            let end = end.map(|position| searched + position);
            if end.unwrap_or(self.unread.len()) > LINE_BYTES_MAX {
                return Err(step.failed(Seen::LongLine));
            }
            if let Some(end) = end {
                self.lines += 1;
                if self.lines > LINES_MAX {
                    return Err(step.failed(Seen::ManyLines));
                }
                let mut line = self.take(end + 1);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.unread.len();
            self.more(step).await?;
        }
    }

    /// The next `count` bytes.
    pub(crate) async fn exactly(&mut self, step: &Step, count: usize) -> Result<Vec<u8>, Failure> {
        self.progress.reached(step);
        while self.unread.len() < count {
            self.more(step).await?;
        }
        Ok(self.take(count))
    }

    /// Waits for more; there is more to be seen by [`Connection::unread`] then.
    pub(crate) async fn more(&mut self, step: &Step) -> Result<(), Failure> {
        self.progress.reached(step);
        let Some(stream) = &mut self.stream else {
            return Err(gone(step));
        };
        let mut chunk = [0; 4096];
        let seen = match stream.read(&mut chunk).await {
            Ok(0) => Seen::Closed(self.unread.clone()),
            // How rustls calls an end without the goodbye of TLS.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Seen::Closed(self.unread.clone())
            }
            Err(error) => Seen::Io(error),
            Ok(count) => {
                self.received += count;
                if self.received > BYTES_MAX {
                    return Err(step.failed(Seen::ManyBytes));
                }
                self.unread.extend_from_slice(&chunk[..count]);
                return Ok(());
            }
        };
        self.stream = None;
        Err(step.failed(seen))
    }

    /// Takes the first `count` bytes of what came.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    /// Says goodbye unless that was done, and closes. Nothing that happens here is judged.
    ///
    /// An answer is waited for if the server behaved so far, and not for longer than `patience`.
    pub(crate) async fn part(mut self, goodbye: &Goodbye, behaved: bool, patience: Duration) {
        let parting = async {
            if !self.took_leave && !goodbye.words.is_empty() {
                self.say(&PARTING, goodbye.words).await?;
                if let (true, Some(last)) = (behaved, goodbye.last_line) {
                    while !self.line(&PARTING).await?.starts_with(last) {}
                }
            }
            if let Some(stream) = &mut self.stream {
                // With TLS this is its own goodbye, too.
                let _closed_anyway = stream.shutdown().await;
            }
            Ok::<_, Failure>(())
        };
        let _nothing_depends_on_it = tokio::time::timeout(patience, parting).await;
    }
}

const PARTING: Step = Step::new("goodbye", "an answer");

/// How a protocol takes leave.
pub(crate) struct Goodbye {
    pub(crate) words: &'static [u8],
    /// How the last line of its answer begins, if it has one.
    pub(crate) last_line: Option<&'static [u8]>,
}

fn gone(step: &Step) -> Failure {
    step.failed(Seen::Closed(Vec::new()))
}
