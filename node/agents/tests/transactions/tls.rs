//! TLS, from the first byte and by the protocol's own request.

use std::time::Duration;

use agents::{Agent, Options, Tls, check_within};

use crate::server::{Act, Scripted, hear, say};

/// What a server hears and says before TLS by the protocol's own request, after it in either case, and at last.
fn parts(agent: Agent) -> (Vec<Act>, Vec<Act>, Vec<Act>, Vec<Act>) {
    match agent {
        Agent::Smtp => (
            vec![say("220\r\n")],
            vec![
                hear("EHLO"),
                say("250\r\n"),
                hear("STARTTLS"),
                say("220 go\r\n"),
            ],
            vec![hear("EHLO"), say("250\r\n")],
            vec![hear("QUIT"), say("221\r\n")],
        ),
        Agent::Pop => (
            vec![say("+OK\r\n")],
            vec![hear("STLS"), say("+OK\r\n")],
            vec![hear("CAPA"), say("+OK\r\n.\r\n")],
            vec![hear("QUIT"), say("+OK\r\n")],
        ),
        Agent::Imap => (
            vec![say("* OK\r\n")],
            vec![hear("a1 STARTTLS"), say("a1 OK\r\n")],
            vec![hear("a2 CAPABILITY"), say("* CAPABILITY X\r\na2 OK\r\n")],
            vec![hear("a9 LOGOUT"), say("* BYE\r\na9 OK\r\n")],
        ),
        Agent::Ftp => (
            vec![say("220\r\n")],
            vec![hear("AUTH TLS"), say("234\r\n")],
            vec![hear("FEAT"), say("211\r\n")],
            vec![hear("QUIT"), say("221\r\n")],
        ),
        Agent::Nntp => (
            vec![say("200\r\n")],
            vec![hear("STARTTLS"), say("382\r\n")],
            vec![hear("CAPABILITIES"), say("101\r\n.\r\n")],
            vec![hear("QUIT"), say("205\r\n")],
        ),
        Agent::Ldap => (
            vec![],
            vec![
                Act::HearBytes(31),
                say([
                    0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04,
                    0x00,
                ]),
            ],
            vec![
                Act::HearBytes(44),
                say([
                    0x30, 0x0c, 0x02, 0x01, 0x02, 0x65, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04,
                    0x00,
                ]),
            ],
            vec![Act::HearBytes(7)],
        ),
        Agent::Http => (
            vec![],
            vec![],
            [
                &["GET / HTTP/1.1", "Host", "", "", "", ""].map(hear)[..],
                &[say("HTTP/1.1 200 OK\r\n\r\n")],
            ]
            .concat(),
            vec![],
        ),
        Agent::Connect | Agent::Dns => (vec![], vec![], vec![], vec![]),
    }
}

async fn check(agent: Agent, acts: Vec<Act>, options: &Options) -> Result<Vec<String>, String> {
    let server = Scripted::start(acts).await;
    let limit = Duration::from_secs(10);
    let outcome = check_within(agent, &server.target, options, limit).await;
    let heard = server.heard().await;
    outcome
        .map(|()| heard)
        .map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn from_the_first_byte() {
    let options = Options {
        tls: Tls::Implicit,
        ..Options::default()
    };
    for agent in [
        Agent::Smtp,
        Agent::Pop,
        Agent::Imap,
        Agent::Ftp,
        Agent::Nntp,
        Agent::Ldap,
        Agent::Http,
        Agent::Connect,
    ] {
        let (greeting, _, transaction, goodbye) = parts(agent);
        let acts = [vec![Act::Tls], greeting, transaction, goodbye].concat();
        let heard = check(agent, acts, &options).await;
        assert!(heard.is_ok(), "{agent:?}: {heard:?}");
    }
}

#[tokio::test]
async fn by_the_protocols_own_request() {
    let options = Options {
        tls: Tls::StartTls,
        server_name: Some("mail.example".to_owned()),
        ..Options::default()
    };
    for agent in [
        Agent::Smtp,
        Agent::Pop,
        Agent::Imap,
        Agent::Ftp,
        Agent::Nntp,
        Agent::Ldap,
    ] {
        let (greeting, request, transaction, goodbye) = parts(agent);
        let acts = [greeting, request, vec![Act::Tls], transaction, goodbye].concat();
        let heard = check(agent, acts, &options).await;
        assert!(heard.is_ok(), "{agent:?}: {heard:?}");
    }
    for agent in [Agent::Http, Agent::Connect, Agent::Dns] {
        let server = Scripted::start(Vec::new()).await;
        let failure = agents::check(agent, &server.target, &options)
            .await
            .unwrap_err();
        let said = failure.to_string();
        assert!(said.contains("no request that starts TLS"), "{said}");
        assert!(said.contains("tls=implicit"), "{said}");
    }
}

#[tokio::test]
async fn a_certificate_is_checked_only_if_it_is_asked_for() {
    for (verify, server_name) in [
        (false, None),
        (false, Some("other.example")),
        (true, Some("mail.example")),
        (true, None),
    ] {
        let options = Options {
            tls: Tls::Implicit,
            verify,
            server_name: server_name.map(str::to_owned),
            ..Options::default()
        };
        match check(Agent::Connect, vec![Act::Tls], &options).await {
            Ok(_) => assert!(!verify),
            Err(sentence) => {
                assert!(verify, "{sentence}");
                assert!(
                    sentence.starts_with("TLS handshake: expected a TLS session: "),
                    "{sentence}"
                );
            }
        }
    }
}

#[tokio::test]
async fn no_tls_there() {
    let options = Options {
        tls: Tls::Implicit,
        ..Options::default()
    };
    let acts = vec![say("220 ready\r\n"), Act::HearBytes(1), Act::Close];
    let sentence = check(Agent::Smtp, acts, &options).await.unwrap_err();
    assert!(
        sentence.starts_with("TLS handshake: expected a TLS session: "),
        "{sentence}"
    );

    let server = Scripted::start(Vec::new()).await;
    let limit = Duration::from_millis(200);
    let failure = check_within(Agent::Smtp, &server.target, &options, limit)
        .await
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        "TLS handshake: expected a TLS session: it did not come within 200ms"
    );
}
