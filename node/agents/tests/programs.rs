//! The programs: exit status, standard error, options.

#![expect(
    clippy::unwrap_used,
    reason = "a test tells its failure by a panic, in its helpers, too"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const PROGRAMS: [(&str, &str); 8] = [
    ("smtpAgent", env!("CARGO_BIN_EXE_smtpAgent")),
    ("popAgent", env!("CARGO_BIN_EXE_popAgent")),
    ("imapAgent", env!("CARGO_BIN_EXE_imapAgent")),
    ("ftpAgent", env!("CARGO_BIN_EXE_ftpAgent")),
    ("httpAgent", env!("CARGO_BIN_EXE_httpAgent")),
    ("nntpAgent", env!("CARGO_BIN_EXE_nntpAgent")),
    ("dnsAgent", env!("CARGO_BIN_EXE_dnsAgent")),
    ("ldapAgent", env!("CARGO_BIN_EXE_ldapAgent")),
];

fn agent(name: &str, arguments: &[&str]) -> Command {
    let (_, path) = PROGRAMS
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(name: &str, arguments: &[&str]) -> Output {
    agent(name, arguments).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// What a server says after each thing that it hears.
type Answers = &'static [&'static [u8]];

/// A server that says `greeting` to each client, and then its answers, on loopback.
fn serve(greeting: &'static [u8], answers: Answers) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut answers = answers.iter();
            let mut heard = [0; 1024];
            // The client may have gone.
            let mut said = stream.write_all(greeting);
            while said.is_ok() && stream.read(&mut heard).is_ok_and(|count| count > 0) {
                said = match answers.next() {
                    Some(answer) => stream.write_all(answer),
                    None => break,
                };
            }
        }
    });
    port
}

#[test]
fn healthy_is_0_and_silence() {
    const LDAP: &[u8] = &[
        0x30, 0x0c, 0x02, 0x01, 0x02, 0x65, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00,
    ];
    let cases: [(&str, &[u8], Answers); 7] = [
        ("smtpAgent", b"220\r\n", &[b"250\r\n", b"221\r\n"]),
        ("popAgent", b"+OK\r\n", &[b"+OK\r\n.\r\n", b"+OK\r\n"]),
        (
            "imapAgent",
            b"* OK\r\n",
            &[b"* CAPABILITY X\r\na2 OK\r\n", b"* BYE\r\na9 OK\r\n"],
        ),
        ("ftpAgent", b"220\r\n", &[b"211\r\n", b"221\r\n"]),
        ("httpAgent", b"", &[b"HTTP/1.1 200 OK\r\n\r\n"]),
        ("nntpAgent", b"200\r\n", &[b"101\r\n.\r\n", b"205\r\n"]),
        ("ldapAgent", b"", &[LDAP]),
    ];
    for (name, greeting, answers) in cases {
        let port = serve(greeting, answers).to_string();
        for arguments in [
            &["127.0.0.1", &port, "1"][..],
            &["--timeout", "30s", "127.0.0.1", &port, "1"],
            &["127.0.0.1", &port, "1", "--timeout=30s", "--plain"],
        ] {
            let output = run(name, arguments);
            assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
            assert!(
                output.stdout.is_empty() && output.stderr.is_empty(),
                "{output:?}"
            );
        }
    }
}

#[test]
fn dns_is_asked_over_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let mut message = [0; 512];
        for rcode in [0, 5] {
            let (length, client) = server.recv_from(&mut message).unwrap();
            assert!(message[..length].ends_with(b"\x07example\0\0\x01\0\x01"));
            message[2] |= 0x80;
            message[3] = rcode;
            server.send_to(&message[..length], client).unwrap();
        }
    });
    let arguments = ["127.0.0.1", &port, "2", "--query", "example"];
    let output = run("dnsAgent", &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run("dnsAgent", &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        stderr(&output),
        format!(
            "dnsAgent: 127.0.0.1 udp:{port}: query: expected an answer to the question with NOERROR or NXDOMAIN: the answer was REFUSED (RCODE 5)\n"
        )
    );
}

#[test]
fn a_failed_transaction_is_1_and_one_line() {
    let port = serve(b"554 go\x07 away\r\n", &[]).to_string();
    let output = run("smtpAgent", &["127.0.0.1", &port, "1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(
        stderr(&output),
        format!(
            "smtpAgent: 127.0.0.1 tcp:{port}: greeting: expected 220: the answer was \"554 go\\x07 away\"\n"
        )
    );
    let port = serve(b"", &[]).to_string();
    let output = run("popAgent", &["127.0.0.1", &port, "1", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        stderr(&output),
        format!(
            "popAgent: 127.0.0.1 tcp:{port}: greeting: expected +OK: it did not come within 200ms\n"
        )
    );
    let output = run("ftpAgent", &["127.0.0.1", &port, "2"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("speaks TCP only"), "{output:?}");
}

#[test]
fn options_reach_the_transaction() {
    let port = serve(b"", &[b"HTTP/1.1 401 Who?\r\n\r\n"]).to_string();
    let output = run(
        "httpAgent",
        &["127.0.0.1", &port, "1", "--expect", "200,401"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run("httpAgent", &["127.0.0.1", &port, "1", "--expect=200"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("expected a status of 200: the answer was \"HTTP/1.1 401 Who?\""),
        "{output:?}"
    );
    let port = serve(b"220\r\n", &[b"250\r\n", b"454 none\r\n"]).to_string();
    let output = run("smtpAgent", &["--starttls", "127.0.0.1", &port, "1"]);
    assert!(
        stderr(&output).contains("STARTTLS: expected 220"),
        "{output:?}"
    );
    let output = run("smtpAgent", &["--tls", "127.0.0.1", &port, "1"]);
    assert!(stderr(&output).contains("TLS handshake: "), "{output:?}");
}

#[test]
fn wrong_usage_is_2_with_a_usage_line() {
    for (name, _) in PROGRAMS {
        for arguments in [
            &[][..],
            &["127.0.0.1"],
            &["127.0.0.1", "25"],
            &["127.0.0.1", "25", "3"],
            &["127.0.0.1", "0", "1"],
            &["127.0.0.1", "65536", "1"],
            &["mail.example", "25", "1"],
            &["127.0.0.1", "25", "1", "more"],
            &["127.0.0.1", "25", "1", "--timeout", "0"],
            &["127.0.0.1", "25", "1", "--tls", "--plain"],
            &["127.0.0.1", "25", "1", "--server-name", "a b"],
            &["127.0.0.1", "25", "1", "--nonsense"],
        ] {
            let output = run(name, arguments);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{name} {arguments:?}: {output:?}"
            );
            assert!(output.stdout.is_empty(), "{output:?}");
            let said = stderr(&output);
            assert!(said.starts_with("error: "), "{said}");
            assert!(said.contains(&format!("\nUsage: {name} ")), "{said}");
        }
    }
}

#[test]
fn the_exit_status_is_told_where_nobody_reads_why() {
    // Other tests get ports of 127.0.0.1, and one that was closed there again.
    let closed = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    let failed = ["127.0.0.2", &port, "1"];
    let bad_value = ["127.0.0.1", "0", "1"];
    for (arguments, code) in [(&failed[..], 1), (&bad_value, 2), (&[], 2)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = agent("smtpAgent", arguments);
        let status = command.stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn each_agent_has_the_options_of_its_protocol() {
    for (name, _) in PROGRAMS {
        let help = String::from_utf8(run(name, &["--help"]).stdout).unwrap();
        for (option, value, owners) in [
            ("--path", "/", &["httpAgent"][..]),
            ("--expect", "200", &["httpAgent"]),
            ("--query", "a.example", &["dnsAgent"]),
        ] {
            let owns = owners.contains(&name);
            assert_eq!(help.contains(option), owns, "{name}: {help}");
            // Nobody listens on port 1: whoever has the option says so.
            let output = run(name, &["127.0.0.1", "1", "1", option, value]);
            let expected = if owns { 1 } else { 2 };
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{name} {option}: {output:?}"
            );
        }
        let starttls = !["httpAgent", "dnsAgent"].contains(&name);
        assert_eq!(help.contains("--starttls"), starttls, "{name}: {help}");
    }
}

/// A server of HTTPS whose certificate names `www.example`, and the root that leads to it, as a file.
fn serve_https(directory: &Path) -> (u16, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = directory.join("root.pem");
    fs::write(&root, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);

    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["www.example".to_owned()]).unwrap();
    let chain = vec![params.signed_by(&key, &issuer).unwrap().der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Some clients do not like the certificate.
                let Ok(mut session) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut heard = [0; 1024];
                if session.read(&mut heard).await.is_ok_and(|count| count > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\n\r\n";
                    let _closed_anyway = session.write_all(answer).await;
                    let _closed_anyway = session.shutdown().await;
                }
            }
        });
    });
    (port, root)
}

#[test]
fn a_certificate_has_to_lead_to_a_root_and_bear_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let (port, root) = serve_https(directory.path());
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, foreign) = serve_https(elsewhere.path());
    for (roots, options, refused) in [
        (
            &root,
            &["--verify", "--server-name", "www.example"][..],
            None,
        ),
        (&root, &["--server-name", "other.example"], None),
        (
            &root,
            &["--verify", "--server-name", "other.example"],
            Some("TLS handshake: expected a TLS session: invalid peer certificate"),
        ),
        (
            &root,
            &["--verify"],
            Some("TLS handshake: expected a TLS session: invalid peer certificate"),
        ),
        (
            &foreign,
            &["--verify", "--server-name", "www.example"],
            Some("TLS handshake: expected a TLS session: invalid peer certificate"),
        ),
        (
            &empty,
            &["--verify", "--server-name", "www.example"],
            Some("this host has no roots to check certificates against"),
        ),
    ] {
        let port = port.to_string();
        let arguments = [&["127.0.0.1", &port, "1", "--tls"], options].concat();
        let output = agent("httpAgent", &arguments)
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        let expected = if refused.is_some() { 1 } else { 0 };
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{options:?}: {output:?}"
        );
        let sentence = stderr(&output);
        assert!(sentence.contains(refused.unwrap_or_default()), "{sentence}");
    }
}
