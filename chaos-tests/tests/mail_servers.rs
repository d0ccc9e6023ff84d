//! The mail servers as their clients see them: our own, Python's smtplib, poplib and imaplib, and curl.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chaos_tests::lab::skipped;
use chaos_tests::mail::client::{self, ClientError, Mail};
use chaos_tests::mail::{MailError, Protocol, Server, ServerArgs};

const DEADLINE: Duration = Duration::from_secs(20);

fn start(maildir: &Path, name: &str) -> Server {
    Server::start(args(maildir, name)).unwrap()
}

fn args(maildir: &Path, name: &str) -> ServerArgs {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    ServerArgs {
        maildir: maildir.to_owned(),
        name: name.to_owned(),
        smtp: any,
        pop3: any,
        imap: any,
        domain: vec!["mail.my.org".to_owned(), "my.org".to_owned()],
    }
}

fn connect(server: &Server, protocol: Protocol) -> TcpStream {
    TcpStream::connect(server.address(protocol).unwrap()).unwrap()
}

fn send(server: &Server, subject: &str, body: &str) -> Result<client::Sent, ClientError> {
    let mail = Mail {
        from: "me@my.org",
        to: "somebody@mail.my.org",
        subject,
        body,
    };
    client::send(connect(server, Protocol::Smtp), DEADLINE, &mail)
}

/// Speaks `script` to the server and returns everything it said until it closed.
fn converse(server: &Server, protocol: Protocol, script: &[u8]) -> String {
    let mut stream = connect(server, protocol);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(script).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_mail_sent_to_one_server_is_read_from_two_others() {
    let maildir = tempfile::tempdir().unwrap();
    let [one, two, three] = ["serv1", "serv2", "serv3"].map(|name| start(maildir.path(), name));
    let sent = send(&one, "greetings", "one\n.\n..dots\nlast").unwrap();
    assert_eq!(sent.server, "serv1");

    let by_pop3 = client::fetch_by_pop3(
        connect(&two, Protocol::Pop3),
        DEADLINE,
        "somebody",
        "greetings",
    );
    let by_pop3 = by_pop3.unwrap().unwrap();
    assert_eq!(
        (by_pop3.server.as_str(), by_pop3.received_by.as_deref()),
        ("serv2", Some("serv1"))
    );
    assert_eq!(by_pop3.body, b"one\r\n.\r\n..dots\r\nlast\r\n");

    let by_imap = client::fetch_by_imap(
        connect(&three, Protocol::Imap),
        DEADLINE,
        "somebody",
        "greetings",
    );
    let by_imap = by_imap.unwrap().unwrap();
    assert_eq!(
        (by_imap.server.as_str(), &by_imap.body),
        ("serv3", &by_pop3.body)
    );

    let none = client::fetch_by_imap(
        connect(&one, Protocol::Imap),
        DEADLINE,
        "somebody",
        "greeting",
    )
    .unwrap();
    assert_eq!(none, None);
    let nobody = client::fetch_by_pop3(
        connect(&one, Protocol::Pop3),
        DEADLINE,
        "nobody",
        "greetings",
    );
    assert!(
        matches!(nobody, Err(ClientError::Refused { .. })),
        "{nobody:?}"
    );
}

#[test]
fn a_silent_server_ends_at_the_clients_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let begun = Instant::now();
    let outcome = client::fetch_by_pop3(stream, Duration::from_millis(100), "somebody", "x");
    assert!(
        matches!(outcome, Err(ClientError::Broken { deadline: true, .. })),
        "{outcome:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_cannot_start_is_named() {
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    let taken = ServerArgs {
        smtp: server.address(Protocol::Smtp),
        ..args(maildir.path(), "serv2")
    };
    assert!(matches!(
        Server::start(taken),
        Err(MailError::Listen {
            protocol: Protocol::Smtp,
            ..
        })
    ));
    assert!(matches!(
        Server::start(args(maildir.path(), "a/b")),
        Err(MailError::Name(_))
    ));
    assert!(matches!(
        Server::start(args(&maildir.path().join("none"), "a")),
        Err(MailError::Maildir { .. })
    ));
    let nothing = ServerArgs {
        smtp: None,
        pop3: None,
        imap: None,
        ..args(maildir.path(), "a")
    };
    assert!(matches!(Server::start(nothing), Err(MailError::NoProtocol)));
}

#[test]
fn smtp_refuses_by_name_and_stays_in_step() {
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    let script = "DATA\r\nMAIL FROM:<a@b>\r\nEHLO me\r\nMAIL FROM:<a@b> SIZE=99999999\r\nMAIL FROM:<a@b> BODY=8BITMIME\r\n\
        RCPT TO:<x@other.org>\r\nRCPT TO:<../x@my.org>\r\nRCPT TO:<one@my.org>\r\nRCPT TO:<Two@my.org>\r\nVRFY one\r\n\
        DATA\r\nbare\n.\nstill the mail\r\n.\r\nNOOP\r\nRSET\r\nFOO\r\nQUIT\r\n";
    let answer = converse(&server, Protocol::Smtp, script.as_bytes());
    let codes: Vec<&str> = answer
        .lines()
        .filter(|line| line.get(3..4) == Some(" "))
        .filter_map(|line| line.get(..3))
        .collect();
    let expected = [
        "220", "503", "503", "250", "552", "250", "550", "550", "250", "250", "252", "354", "250",
        "250", "250", "500", "221",
    ];
    assert_eq!(codes, expected, "{answer}");
    for user in ["one", "two"] {
        let found =
            client::fetch_by_pop3(connect(&server, Protocol::Pop3), DEADLINE, user, "").unwrap();
        assert_eq!(found, None);
        let new: Vec<_> = std::fs::read_dir(maildir.path().join(user).join("new"))
            .unwrap()
            .collect();
        assert_eq!(new.len(), 1);
        let mail = std::fs::read(new[0].as_ref().unwrap().path()).unwrap();
        assert!(
            mail.ends_with(b"bare\r\n.\r\nstill the mail\r\n"),
            "{}",
            String::from_utf8_lossy(&mail)
        );
    }
}

#[test]
fn a_mail_that_is_too_large_is_refused_and_leaves_nothing() {
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    let body = "x".repeat(998) + "\r\n";
    let refused = send(&server, "large", &body.repeat(26 * 1024 + 800));
    let Err(ClientError::Refused { answer, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert!(answer.starts_with("552 "), "{answer}");
    let long = send(&server, "long line", &"x".repeat(9000));
    let Err(ClientError::Refused { answer, .. }) = long else {
        panic!("{long:?}")
    };
    assert!(answer.starts_with("554 "), "{answer}");
    let mailbox = maildir.path().join("somebody");
    for sub in ["new", "tmp"] {
        assert_eq!(
            std::fs::read_dir(mailbox.join(sub)).unwrap().count(),
            0,
            "{sub}"
        );
    }
}

#[test]
fn sessions_beyond_the_limit_are_refused_by_name() {
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    let mut held = Vec::new();
    for _ in 0..chaos_tests::mail::SESSIONS_MAX {
        let mut stream = connect(&server, Protocol::Smtp);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        held.push(stream);
    }
    assert!(converse(&server, Protocol::Smtp, b"").starts_with("421 serv1 too many sessions"));
    drop(held);
    let deadline = Instant::now() + DEADLINE;
    while send(&server, "again", "x").is_err() {
        assert!(Instant::now() < deadline, "ended sessions still count");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.stop();
}

#[test]
fn imap_of_two_sessions_tells_each_of_the_others_changes() {
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    for subject in ["a", "b", "c"] {
        send(&server, subject, "body").unwrap();
    }
    let script = "1 LOGIN {8}\r\nsomebody {1}\r\nx\r\n2 SELECT INBOX\r\n3 STORE 1:2 +FLAGS (\\Deleted)\r\n4 FETCH 2 (UID FLAGS)\r\n\
        5 UID SEARCH NOT DELETED\r\n6 EXPUNGE\r\n7 FETCH 1 BODY[TEXT]\r\n8 STATUS INBOX (MESSAGES UNSEEN UIDNEXT)\r\n\
        9 APPEND INBOX (x)\r\n10 FETCH 1 BODY[1]\r\n11 SELECT Other\r\n12 LIST \"\" %\r\n13 LOGOUT\r\n";
    let answer = converse(&server, Protocol::Imap, script.as_bytes());
    for expected in [
        "2 OK [READ-WRITE]",
        "* 3 EXISTS",
        "* 2 FETCH (UID 2 FLAGS (\\Deleted \\Recent))",
        "* SEARCH 3\r\n5 OK",
        "* 2 EXPUNGE\r\n* 1 EXPUNGE\r\n6 OK",
        "* 1 FETCH (BODY[TEXT] {6}\r\nbody\r\n FLAGS (\\Seen \\Recent))",
        "(MESSAGES 1 UNSEEN 0 UIDNEXT 4)",
        "9 NO",
        "10 BAD",
        "11 NO",
        "* LIST () \"/\" INBOX",
        "13 OK",
    ] {
        assert!(
            answer.contains(expected),
            "{expected:?} is not in:\n{answer}"
        );
    }
}

#[test]
fn idle_tells_of_a_mail_that_came_through_another_server() {
    let maildir = tempfile::tempdir().unwrap();
    let [one, two] = ["serv1", "serv2"].map(|name| start(maildir.path(), name));
    send(&one, "first", "x").unwrap();
    let mut stream = connect(&one, Protocol::Imap);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"1 LOGIN somebody x\r\n2 EXAMINE INBOX\r\n3 IDLE\r\n")
        .unwrap();
    let mut seen = String::new();
    let mut until = |wanted: &str, stream: &mut TcpStream| {
        let mut chunk = [0; 1024];
        while !seen.contains(wanted) {
            let got = stream.read(&mut chunk).unwrap();
            assert!(got > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..got]));
        }
    };
    until("+ idling", &mut stream);
    send(&two, "second", "x").unwrap();
    until("* 2 EXISTS", &mut stream);
    stream.write_all(b"DONE\r\n4 LOGOUT\r\n").unwrap();
    until("4 OK", &mut stream);
}

#[test]
fn pythons_own_clients_are_served() {
    if Command::new("python3").arg("--version").output().is_err() {
        skipped("python3 is not installed");
        return;
    }
    let maildir = tempfile::tempdir().unwrap();
    let [one, two] = ["serv1", "serv2"].map(|name| start(maildir.path(), name));
    let port = |server: &Server, protocol| server.address(protocol).unwrap().port().to_string();
    let python = Command::new("python3")
        .args(["-c", include_str!("mail_clients.py")])
        .args([
            port(&one, Protocol::Smtp),
            port(&one, Protocol::Pop3),
            port(&two, Protocol::Imap),
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&python.stderr);
    assert!(
        python.status.success(),
        "{}{errors}",
        String::from_utf8_lossy(&python.stdout)
    );
}

#[test]
fn curl_is_served() {
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("curl is not installed");
        return;
    }
    let maildir = tempfile::tempdir().unwrap();
    let server = start(maildir.path(), "serv1");
    let mail = maildir.path().join("mail.txt");
    std::fs::write(&mail, "Subject: by curl\n\ntext\n").unwrap();
    let curl = |protocol: Protocol, path: &str, options: &[&str]| {
        let url = format!("{protocol}://{}/{path}", server.address(protocol).unwrap());
        let run = Command::new("curl")
            .args(["-sS", "--max-time", "20", &url])
            .args(options)
            .output()
            .unwrap();
        assert!(
            run.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    let file = mail.to_str().unwrap();
    curl(
        Protocol::Smtp,
        "me",
        &[
            "--mail-from",
            "me@my.org",
            "--mail-rcpt",
            "somebody@my.org",
            "-T",
            file,
        ],
    );
    assert!(curl(Protocol::Pop3, "1", &["-u", "somebody:x"]).contains("by curl"));
    assert!(curl(Protocol::Imap, "INBOX;UID=1", &["-u", "somebody:x"]).contains("text"));
    assert!(
        curl(
            Protocol::Imap,
            "INBOX?SUBJECT%20curl",
            &["-u", "somebody:x"]
        )
        .contains("SEARCH 1")
    );
    std::fs::remove_file(mail).unwrap();
}
