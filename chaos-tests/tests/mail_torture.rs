//! What must not happen to mail: loss beside an expunger, half mails after a kill, a panic or a hang on hostile input.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::mail::client::{self, Mail};
use chaos_tests::mail::{Protocol, Server, ServerArgs, serve};

const DEADLINE: Duration = Duration::from_secs(20);
const SENDERS: usize = 8;
const MAILS_EACH: usize = 25;

fn args(maildir: &Path, name: &str) -> ServerArgs {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let domain = vec!["my.org".to_owned()];
    ServerArgs {
        maildir: maildir.to_owned(),
        name: name.to_owned(),
        smtp: any,
        pop3: any,
        imap: any,
        domain,
    }
}

fn connect(server: &Server, protocol: Protocol) -> TcpStream {
    let stream = TcpStream::connect(server.address(protocol).unwrap()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn send(address: SocketAddr, subject: &str) -> bool {
    let Ok(stream) = TcpStream::connect(address) else {
        return false;
    };
    let mail = Mail {
        from: "me@my.org",
        to: "somebody@my.org",
        subject,
        body: "text\n",
    };
    client::send(stream, DEADLINE, &mail).is_ok()
}

/// A very small IMAP client that keeps what it reads.
struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl Imap {
    fn open(server: &Server) -> Self {
        let mut imap = Self {
            stream: BufReader::new(connect(server, Protocol::Imap)),
            tag: 0,
        };
        imap.line();
        imap.run("LOGIN somebody x");
        imap.run("SELECT INBOX");
        imap
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(
            self.stream.read_line(&mut line).unwrap() > 0,
            "the server closed"
        );
        line
    }

    fn run(&mut self, command: &str) -> Vec<String> {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        self.stream
            .get_mut()
            .write_all(format!("{tag}{command}\r\n").as_bytes())
            .unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if let Some(done) = line.strip_prefix(&tag) {
                assert!(done.starts_with("OK"), "{command}: {done}");
                return lines;
            }
            lines.push(line);
        }
    }

    /// UID and subject of every mail this session knows.
    fn subjects(&mut self) -> BTreeMap<u32, String> {
        let mut found = BTreeMap::new();
        let mut uid = 0;
        for line in self.run("UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]") {
            if let Some((_, rest)) = line.split_once("FETCH (UID ") {
                uid = rest.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(subject) = line.strip_prefix("Subject: ") {
                assert!(found.insert(uid, subject.trim().to_owned()).is_none());
            }
        }
        found
    }
}

#[test]
fn eight_senders_beside_an_expunger_lose_nothing() {
    let maildir = tempfile::tempdir().unwrap();
    let servers =
        ["serv1", "serv2", "serv3"].map(|name| Server::start(args(maildir.path(), name)).unwrap());
    let smtp = |at: usize| servers[at % servers.len()].address(Protocol::Smtp).unwrap();
    assert!(send(smtp(0), "the first"));
    let sending = AtomicBool::new(true);
    let (mut seen, read) = thread::scope(|scope| {
        let expunger = scope.spawn(|| {
            let mut read: BTreeMap<u32, String> = BTreeMap::new();
            let mut imap = Imap::open(&servers[2]);
            while sending.load(Ordering::SeqCst) {
                imap.run("NOOP");
                let found = imap.subjects();
                // Every second mail goes; the others stay and keep their numbers.
                for (uid, subject) in found {
                    if let Some(before) = read.insert(uid, subject.clone()) {
                        assert_eq!(before, subject, "UID {uid} changed its mail");
                    } else if uid % 2 == 0 {
                        imap.run(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"));
                    }
                }
                imap.run("EXPUNGE");
            }
            read
        });
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                scope.spawn(move || {
                    for number in 0..MAILS_EACH {
                        assert!(send(smtp(sender), &format!("{sender}-{number}")));
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        sending.store(false, Ordering::SeqCst);
        let read = expunger.join().unwrap();
        (Imap::open(&servers[0]).subjects(), read)
    });
    for (uid, subject) in read {
        let still = seen.insert(uid, subject.clone());
        assert!(
            still.is_none_or(|still| still == subject),
            "UID {uid} changed its mail"
        );
    }
    let mut expected: BTreeSet<String> = (0..SENDERS)
        .flat_map(|sender| (0..MAILS_EACH).map(move |number| format!("{sender}-{number}")))
        .collect();
    expected.insert("the first".to_owned());
    assert_eq!(seen.len(), expected.len(), "a mail has two numbers");
    assert_eq!(seen.into_values().collect::<BTreeSet<_>>(), expected);
}

const CHILD_MAILDIR: &str = "MAIL_TORTURE_CHILD_MAILDIR";

/// The server process of the test below, which runs this very program once more; by itself it has nothing to do.
#[test]
fn child_that_serves_until_it_is_killed() {
    if let Some(maildir) = std::env::var_os(CHILD_MAILDIR) {
        serve(args(Path::new(&maildir), "killed")).unwrap();
    }
}

/// A server in a process of its own, and where it takes mail.
fn spawn_server(maildir: &Path) -> (std::process::Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "child_that_serves_until_it_is_killed",
            "--nocapture",
        ])
        .env(CHILD_MAILDIR, maildir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test runner prints its own words before, without a line end.
    let address = lines
        .find_map(|line| {
            Some(
                line.unwrap()
                    .split_once("listening smtp ")?
                    .1
                    .parse()
                    .unwrap(),
            )
        })
        .unwrap();
    (child, address)
}

#[test]
fn a_server_killed_while_it_takes_mail_leaves_whole_mails_only() {
    let maildir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..5 {
        let (mut child, address) = spawn_server(maildir.path());
        // One client in the middle of its mail...
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<somebody@my.org>\r\nDATA\r\nSubject: half\r\n\r\n").unwrap();
        half.write_all(&b"never finished\r\n".repeat(10_000))
            .unwrap();
        // ...and others at any point of theirs.
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            let killed = &killed;
            let senders: Vec<_> = (0..4)
                .map(|sender| {
                    scope.spawn(move || {
                        let subjects = (0..).map(|number| format!("{round}-{sender}-{number}"));
                        let taken = subjects.take_while(|subject| {
                            !killed.load(Ordering::SeqCst) && send(address, subject)
                        });
                        taken.collect::<Vec<_>>()
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(100));
            child.kill().unwrap();
            child.wait().unwrap();
            killed.store(true, Ordering::SeqCst);
            for sender in senders {
                acknowledged.extend(sender.join().unwrap());
            }
        });
        let new = maildir.path().join("somebody/new");
        for file in std::fs::read_dir(new).unwrap() {
            let mail = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(mail.ends_with("\r\n\r\ntext\r\n"), "a half mail:\n{mail}");
        }
    }
    assert!(
        acknowledged.len() >= 20,
        "only {} mails got through",
        acknowledged.len()
    );
    let server = Server::start(args(maildir.path(), "after")).unwrap();
    let stored: BTreeSet<_> = Imap::open(&server).subjects().into_values().collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[test]
fn a_lock_left_by_a_killed_server_delays_the_others_only_for_seconds() {
    let maildir = tempfile::tempdir().unwrap();
    let server = Server::start(args(maildir.path(), "serv1")).unwrap();
    assert!(send(server.address(Protocol::Smtp).unwrap(), "x"));
    std::fs::write(
        maildir.path().join("somebody/uidlist.lock"),
        "left by a dead server",
    )
    .unwrap();
    let begun = Instant::now();
    assert_eq!(Imap::open(&server).subjects().len(), 1);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
}

/// A small generator with a fixed seed: a failing input is found again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }
}

/// Pieces of all three protocols, whole and broken.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\0",
    b"\xff\xfe",
    b"{",
    b"}",
    b"{3}\r\n",
    b"{3+}\r\nabc",
    b"{70000}\r\n",
    b"{99999999999999999999+}\r\n",
    b"(",
    b")",
    b"((((((((",
    b"\"",
    b"\\",
    b"*",
    b"%",
    b"[",
    b"]",
    b"<0.4294967295>",
    b".",
    b"\r\n.\r\n",
    b"a LOGIN somebody x\r\n",
    b"b SELECT INBOX\r\n",
    b"c FETCH 1:* ",
    b"BODY[HEADER.FIELDS (A)]",
    b"ENVELOPE",
    b"d SEARCH ",
    b"NOT ",
    b"OR ",
    b"TEXT x",
    b"1:*",
    b"4294967295",
    b"e STORE 1 FLAGS (\\Deleted)\r\n",
    b"f EXPUNGE\r\n",
    b"g IDLE\r\n",
    b"DONE\r\n",
    b"EHLO me\r\n",
    b"MAIL FROM:<>\r\n",
    b"RCPT TO:<",
    b"somebody@my.org>\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
    b"USER somebody\r\nPASS x\r\n",
    b"RETR 1\r\n",
    b"TOP 1 99999999999999999999\r\n",
    b"LIST 0\r\n",
    b"DELE 1\r\n",
    b"UIDL\r\n",
];

#[test]
fn hostile_input_neither_panics_nor_hangs() {
    let maildir = tempfile::tempdir().unwrap();
    let server = Server::start(args(maildir.path(), "serv1")).unwrap();
    assert!(send(server.address(Protocol::Smtp).unwrap(), "x"));
    let mut dice = Dice(1);
    for round in 0..150 {
        for protocol in [Protocol::Smtp, Protocol::Pop3, Protocol::Imap] {
            let mut input = Vec::new();
            for _ in 0..dice.roll(40) {
                match dice.roll(8) {
                    0 => input.extend(
                        (0..dice.roll(300))
                            .map(|_| u8::try_from(dice.roll(256)).unwrap())
                            .collect::<Vec<_>>(),
                    ),
                    1 if round % 10 == 0 => input.extend(b"x".repeat(dice.roll(40_000))),
                    _ => input.extend_from_slice(PIECES[dice.roll(PIECES.len())]),
                }
            }
            let mut stream = connect(&server, protocol);
            // The server may have closed already, e.g. after too many errors.
            let _ = stream.write_all(&input);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer) {
                Ok(_) => {}
                Err(error) => assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionReset,
                    "round {round}, {protocol}: {error}"
                ),
            }
            // A thread that panicked closes without an answer to its last command, but never without a greeting.
            assert!(
                !answer.is_empty() || round > 0,
                "round {round}, {protocol}: no greeting"
            );
        }
    }
    // A line without end is given up, not stored.
    let mut stream = connect(&server, Protocol::Imap);
    let chunk = [b'x'; 65_536];
    let begun = Instant::now();
    while stream.write_all(&chunk).is_ok() {
        assert!(
            begun.elapsed() < DEADLINE,
            "an endless line is read for ever"
        );
    }
    assert!(send(server.address(Protocol::Smtp).unwrap(), "still there"));
    assert_eq!(server.panicked_sessions(), 0);
}
