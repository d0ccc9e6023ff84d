//! LDAP and DNS.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use agents::{Agent, Options, Target, Tls, Transport, check_within};
use tokio::net::UdpSocket;

use crate::server::{Act, SILENCE, Scripted, healthy, ill, play_all, say};

/// Length of our search.
const SEARCH: Act = Act::HearBytes(44);

/// An LDAPMessage.
fn message(id: u8, tag: u8, content: &[u8]) -> Vec<u8> {
    let operation = [
        &[0x02, 0x01, id, tag, u8::try_from(content.len()).unwrap()],
        content,
    ]
    .concat();
    [&[0x30, u8::try_from(operation.len()).unwrap()], &*operation].concat()
}

/// An LDAPResult.
fn result(code: u8, diagnostics: &str) -> Vec<u8> {
    let head = [
        0x0a,
        0x01,
        code,
        0x04,
        0x00,
        0x04,
        u8::try_from(diagnostics.len()).unwrap(),
    ];
    [&head, diagnostics.as_bytes()].concat()
}

fn done(code: u8, diagnostics: &str) -> Act {
    say(message(2, 0x65, &result(code, diagnostics)))
}

/// The root DSE: an empty name and no attributes.
fn entry() -> Act {
    say(message(2, 0x64, &[0x04, 0x00, 0x30, 0x00]))
}

#[tokio::test]
async fn ldap() {
    let notice = message(0, 0x78, &result(52, "going down"));
    let whole = message(2, 0x65, &result(0, ""));
    play_all(
        Agent::Ldap,
        // Unbind, as the server's ear for lines hears it.
        "0\u{5}\u{2}\u{1}\u{3}B\0",
        [
            healthy("an entry and the end", [SEARCH, entry(), done(0, "")]),
            healthy("not for anybody", [SEARCH, done(53, "authentication required")]),
            healthy("in pieces", [SEARCH, say(&whole[..1]), say(&whole[1..5]), say(&whole[5..])]),
            ill("busy", [SEARCH, done(51, "busy")], r#"search of the root DSE: expected resultCode 0: the answer was resultCode 51 "busy""#),
            ill("going down", [SEARCH, say(&notice)], r#"the answer was resultCode 52 "going down""#),
            ill("another id", [SEARCH, say(message(7, 0x65, &result(0, "")))], "no answer of LDAP"),
            ill("SMTP", [SEARCH, say("220 ready\r\n")], r#"the answer was "220 ready\r\n", no message of LDAP"#),
            ill("no end", [SEARCH, entry()], SILENCE).last(""),
            ill("half a message", [SEARCH, say(&whole[..5])], SILENCE).last(""),
            ill("silence", [SEARCH], SILENCE).last(""),
            ill("closed", [SEARCH, say(&whole[..5]), Act::Close], r#"the server closed the connection after "0\x0c\x02\x01\x02""#).last(""),
            ill("endless entries", [SEARCH, Act::Flood(&[0x30, 0x05, 0x02, 0x01, 0x02, 0x64, 0x00])], "more than 512 lines").flooded(),
            ill("a message without end", [SEARCH, say([0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Act::Flood(b"x")], "more than 65536 bytes").flooded(),
        ],
    )
    .await;
}

/// What a server of DNS makes of a question.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The question, with this RCODE.
    Rcode(u8),
    /// One with another id first, then the right one.
    LateThenRight,
    /// With a question that nobody asked.
    OtherQuestion,
    /// Cut in the middle of the question.
    Half,
    Nothing,
}

/// The datagrams that come for a query.
fn answers(query: &[u8], answer: Answer) -> Vec<Vec<u8>> {
    let right = |rcode: u8| {
        let mut right = query.to_vec();
        right[2] |= 0x80;
        right[3] = 0x80 | rcode;
        right
    };
    match answer {
        Answer::Rcode(rcode) => vec![right(rcode)],
        Answer::LateThenRight => {
            let mut late = right(2);
            late[0] ^= 0xff;
            vec![late, right(0)]
        }
        Answer::OtherQuestion => {
            let mut other = right(0);
            other[13] ^= 0x01;
            vec![other]
        }
        Answer::Half => vec![right(0)[..query.len() - 3].to_vec()],
        Answer::Nothing => Vec::new(),
    }
}

const DNS_CASES: [(Answer, Option<&str>); 8] = [
    (Answer::Rcode(0), None),
    (Answer::Rcode(3), None),
    (Answer::Rcode(1), Some("the answer was FORMERR (RCODE 1)")),
    (Answer::Rcode(2), Some("the answer was SERVFAIL (RCODE 2)")),
    (Answer::Rcode(5), Some("the answer was REFUSED (RCODE 5)")),
    (Answer::Rcode(9), Some("the answer was RCODE 9")),
    (Answer::Half, Some("no message of DNS")),
    (Answer::Nothing, Some(SILENCE)),
];

fn limit(failure: Option<&str>) -> Duration {
    if failure == Some(SILENCE) {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(10)
    }
}

async fn over_udp(address: SocketAddr, answer: Answer, limit: Duration) -> Result<(), String> {
    let server = UdpSocket::bind(address).await.unwrap();
    let target = Target {
        address: address.ip(),
        port: server.local_addr().unwrap().port(),
        transport: Transport::Udp,
    };
    let options = Options {
        query: "a.example".to_owned(),
        ..Options::default()
    };
    let answering = async {
        let mut query = [0; 512];
        loop {
            let (length, client) = server.recv_from(&mut query).await.unwrap();
            assert!(query[..length].ends_with(b"\x01a\x07example\0\0\x01\0\x01"));
            for datagram in answers(&query[..length], answer) {
                server.send_to(&datagram, client).await.unwrap();
            }
        }
    };
    tokio::select! {
        outcome = check_within(Agent::Dns, &target, &options, limit) => outcome.map_err(|failure| failure.to_string()),
        () = answering => unreachable!("the server goes on"),
    }
}

#[tokio::test]
async fn dns_over_udp() {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    for (answer, failure) in DNS_CASES.into_iter().chain([
        (Answer::LateThenRight, None),
        (Answer::OtherQuestion, Some(SILENCE)),
    ]) {
        let outcome = over_udp(address, answer, limit(failure)).await;
        judge(answer, &outcome, failure);
    }
    let v6 = (Ipv6Addr::LOCALHOST, 0).into();
    over_udp(v6, Answer::Rcode(0), Duration::from_secs(10))
        .await
        .unwrap();
}

fn judge(answer: Answer, outcome: &Result<(), String>, failure: Option<&str>) {
    match (outcome, failure) {
        (Ok(()), None) => {}
        (Err(sentence), Some(expected)) => {
            assert!(sentence.contains(expected), "{answer:?}: {sentence}");
        }
        (outcome, expected) => panic!("{answer:?}: {outcome:?}, not {expected:?}"),
    }
}

#[tokio::test]
async fn a_lost_question_is_asked_again() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = Target {
        address: Ipv4Addr::LOCALHOST.into(),
        port: server.local_addr().unwrap().port(),
        transport: Transport::Udp,
    };
    let options = Options::default();
    let answering = async {
        let mut first = [0; 512];
        let mut second = [0; 512];
        let (length, _) = server.recv_from(&mut first).await.unwrap();
        let (_, client) = server.recv_from(&mut second).await.unwrap();
        assert_eq!(first, second);
        for datagram in answers(&second[..length], Answer::Rcode(0)) {
            server.send_to(&datagram, client).await.unwrap();
        }
    };
    let (outcome, ()) = tokio::join!(agents::check(Agent::Dns, &target, &options), answering);
    outcome.unwrap();
}

#[tokio::test]
async fn a_closed_udp_port_is_known_at_once() {
    // Other tests get ports of 127.0.0.1, and one that was closed there again.
    let address = Ipv4Addr::new(127, 0, 0, 2);
    let socket = UdpSocket::bind((address, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let target = Target {
        address: address.into(),
        port,
        transport: Transport::Udp,
    };
    let failure = agents::check(Agent::Dns, &target, &Options::default())
        .await
        .unwrap_err();
    assert!(
        failure
            .to_string()
            .ends_with("Connection refused (os error 111)"),
        "{failure}"
    );
    let options = Options {
        tls: Tls::Implicit,
        ..Options::default()
    };
    let failure = agents::check(Agent::Dns, &target, &options)
        .await
        .unwrap_err();
    assert!(failure.to_string().contains("use tcp"), "{failure}");
}

/// A message over TCP has its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

#[tokio::test]
async fn dns_over_tcp() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let stray = (Answer::OtherQuestion, Some("to another question"));
    for (answer, failure) in DNS_CASES.into_iter().chain([stray]) {
        let server = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let target = Target {
            address: Ipv4Addr::LOCALHOST.into(),
            port: server.local_addr().unwrap().port(),
            transport: Transport::Tcp,
        };
        let answering = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            for message in answers(&query, answer) {
                stream.write_all(&framed(&message)).await.unwrap();
            }
            assert!(stream.read_u8().await.is_err(), "one question");
        };
        let options = Options::default();
        let transaction = check_within(Agent::Dns, &target, &options, limit(failure));
        let (outcome, ()) = tokio::join!(transaction, answering);
        judge(
            answer,
            &outcome.map_err(|failure| failure.to_string()),
            failure,
        );
    }
}

#[tokio::test]
async fn dns_over_tcp_with_half_a_length() {
    play_all(
        Agent::Dns,
        "",
        [
            ill(
                "half a length",
                [say([0x00]), Act::Close],
                r#"the server closed the connection after "\x00""#,
            )
            .flooded(),
            ill(
                "half a message",
                [say([0x00, 0x20, 0x01]), Act::Close],
                r#"after "\x01""#,
            )
            .flooded(),
        ],
    )
    .await;
}

#[tokio::test]
async fn start_tls_is_refused_before_the_search() {
    // StartTLS is 31 bytes long.
    let refusal = message(1, 0x78, &result(2, "no TLS"));
    let server = Scripted::start(vec![Act::HearBytes(31), say(&refusal)]).await;
    let options = Options {
        tls: Tls::StartTls,
        ..Options::default()
    };
    let failure = agents::check(Agent::Ldap, &server.target, &options)
        .await
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        r#"StartTLS: expected resultCode 0: the answer was resultCode 2 "no TLS""#
    );
    server.heard().await;
}
