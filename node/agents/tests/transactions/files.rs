//! FTP and NNTP, and a bare connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agents::{Agent, Options, Target, Transport, check_within};
use tokio::net::TcpListener;

use crate::server::{Act, SILENCE, Scripted, healthy, hear, ill, play_all, say};

#[tokio::test]
async fn ftp() {
    play_all(
        Agent::Ftp,
        "QUIT",
        [
            healthy(
                "features, and a greeting with free lines",
                [
                    say("220-Welcome\r\n230 is not the end\r\n  nor is this\r\n220 ready\r\n"),
                    hear("FEAT"),
                    say("211-Features:\r\n MDTM\r\n211 End\r\n"),
                    hear("QUIT"),
                    say("221 bye\r\n"),
                ],
            ),
            healthy(
                "no FEAT",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("500 what?\r\n"),
                    hear("NOOP"),
                    say("200 zzz\r\n"),
                    hear("QUIT"),
                    say("221\r\n"),
                ],
            ),
            healthy(
                "nothing without a login",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("530 log in\r\n"),
                    hear("NOOP"),
                    say("530 log in\r\n"),
                    hear("QUIT"),
                    say("221\r\n"),
                ],
            ),
            ill(
                "not yet",
                [say("120 ready in 5 minutes\r\n")],
                r#"greeting: expected 220: the answer was "120 ready in 5 minutes""#,
            ),
            ill(
                "full",
                [say("421 too many users\r\n")],
                r#"the answer was "421 too many users""#,
            ),
            ill(
                "neither of both",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("502 no\r\n"),
                    hear("NOOP"),
                    say("421 shutting down\r\n"),
                ],
                r#"NOOP: expected 200 or 530: the answer was "421 shutting down""#,
            ),
            ill(
                "features without an end",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("211-Features:\r\n MDTM\r\n"),
                ],
                SILENCE,
            )
            .last("FEAT"),
            ill(
                "closed within the features",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("211-Features:\r\n"),
                    Act::Close,
                ],
                "FEAT: expected 211: the server closed the connection",
            )
            .last("FEAT"),
            ill(
                "endless features",
                [
                    say("220\r\n"),
                    hear("FEAT"),
                    say("211-\r\n"),
                    Act::Flood(b" A\r\n"),
                ],
                "more than 512 lines",
            )
            .flooded(),
            ill("silence", [], SILENCE).last(""),
        ],
    )
    .await;
}

#[tokio::test]
async fn nntp() {
    play_all(
        Agent::Nntp,
        "QUIT",
        [
            healthy(
                "capabilities",
                [
                    say("200 posting allowed\r\n"),
                    hear("CAPABILITIES"),
                    say("101 list:\r\nVERSION 2\r\nREADER\r\n.\r\n"),
                    hear("QUIT"),
                    say("205 bye\r\n"),
                ],
            ),
            healthy(
                "no posting, no capabilities",
                [
                    say("201 no posting\r\n"),
                    hear("CAPABILITIES"),
                    say("500 what?\r\n"),
                    hear("QUIT"),
                    say("205 bye\r\n"),
                ],
            ),
            ill(
                "no capabilities and no goodbye",
                [
                    say("200\r\n"),
                    hear("CAPABILITIES"),
                    say("500\r\n"),
                    hear("QUIT"),
                    say("503 broken\r\n"),
                ],
                r#"QUIT: expected 205: the answer was "503 broken""#,
            ),
            ill(
                "not now",
                [say("400 out of space\r\n")],
                r#"greeting: expected 200 or 201: the answer was "400 out of space""#,
            ),
            ill(
                "not you",
                [say("502 no permission\r\n")],
                r#"the answer was "502 no permission""#,
            ),
            ill(
                "a list without an end",
                [
                    say("200\r\n"),
                    hear("CAPABILITIES"),
                    say("101\r\nVERSION 2\r\n"),
                ],
                SILENCE,
            )
            .last("CAPABILITIES"),
            ill(
                "closed",
                [say("200\r\n"), hear("CAPABILITIES"), Act::Close],
                "the server closed the connection",
            )
            .last("CAPABILITIES"),
            ill(
                "an endless line",
                [Act::Flood(b"200 ")],
                "a line of more than 8192 bytes",
            )
            .flooded(),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_connection_is_enough_for_connect() {
    play_all(
        Agent::Connect,
        "",
        [
            healthy("silence", []),
            healthy("anything", [say("554 no\r\n")]).flooded(),
        ],
    )
    .await;
}

#[tokio::test]
async fn nobody_there() {
    // Other tests get ports of 127.0.0.1, and one that was closed there again.
    let address = Ipv4Addr::new(127, 0, 0, 2);
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let target = Target {
        address: address.into(),
        port: listener.local_addr().unwrap().port(),
        transport: Transport::Tcp,
    };
    drop(listener);
    for agent in [Agent::Connect, Agent::Smtp, Agent::Ldap, Agent::Http] {
        let failure = check_within(agent, &target, &Options::default(), Duration::from_secs(10))
            .await
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "connect: expected a TCP connection: Connection refused (os error 111)"
        );
    }
}

#[tokio::test]
async fn ipv6() {
    let acts = vec![
        say("220\r\n"),
        hear("EHLO [IPv6:::1]"),
        say("250\r\n"),
        hear("QUIT"),
        say("221\r\n"),
    ];
    let server = Scripted::start_at(IpAddr::V6(Ipv6Addr::LOCALHOST), acts).await;
    agents::check(Agent::Smtp, &server.target, &Options::default())
        .await
        .unwrap();
    assert_eq!(server.heard().await, ["EHLO [IPv6:::1]", "QUIT"]);
}

#[tokio::test]
async fn protocols_of_tcp_say_so() {
    for agent in [
        Agent::Http,
        Agent::Connect,
        Agent::Smtp,
        Agent::Pop,
        Agent::Imap,
        Agent::Ftp,
        Agent::Nntp,
        Agent::Ldap,
    ] {
        let target = Target {
            address: Ipv6Addr::LOCALHOST.into(),
            port: 9,
            transport: Transport::Udp,
        };
        let failure = agents::check(agent, &target, &Options::default())
            .await
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "transport: expected one that the agent speaks: this agent speaks TCP only, and the service is of UDP"
        );
    }
}

/// What the caller's limit does: nothing is left open.
#[tokio::test]
async fn a_transaction_that_is_dropped_closes_its_connection() {
    let server = Scripted::start(vec![say("220\r\n"), hear("EHLO")]).await;
    let options = Options::default();
    let transaction = agents::check(Agent::Smtp, &server.target, &options);
    let dropped = tokio::time::timeout(Duration::from_secs(1), transaction).await;
    assert!(dropped.is_err(), "{dropped:?}");
    assert_eq!(server.heard().await, ["EHLO [127.0.0.1]"]);
}
