//! SMTP, POP3, IMAP.

use std::time::Duration;

use agents::{Agent, Options, Tls, check_within};

use crate::server::{Act, Case, SILENCE, Scripted, healthy, hear, ill, play_all, say};

#[tokio::test]
async fn smtp() {
    let long = format!("220 {}", "x".repeat(9000));
    play_all(
        Agent::Smtp,
        "QUIT",
        [
            healthy(
                "answers over several lines",
                [
                    say("220-mx.example ESMTP\r\n220 ready\r\n"),
                    hear("EHLO [127.0.0.1]"),
                    say("250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
                    hear("QUIT"),
                    say("221 bye\r\n"),
                ],
            ),
            healthy(
                "an answer that comes in pieces, with bare line feeds",
                [
                    say("22"),
                    say("0 ready\n"),
                    hear("EHLO"),
                    say("250-a"),
                    say("\n25"),
                    say("0\n"),
                    hear("QUIT"),
                    say("221\n"),
                ],
            ),
            healthy(
                "no answer to the goodbye decides nothing",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("250\r\n"),
                    hear("QUIT"),
                    Act::Close,
                ],
            ),
            ill(
                "too busy",
                [say("421 4.3.2 too busy\r\n")],
                r#"greeting: expected 220: the answer was "421 4.3.2 too busy""#,
            ),
            ill(
                "no service",
                [say("554-no\r\n554 SMTP service\r\n")],
                r#"greeting: expected 220: the answer was "554-no""#,
            ),
            ill(
                "another protocol",
                [say("+OK POP3 \x1b[2J\r\n")],
                r#"greeting: expected 220: the answer was "+OK POP3 \x1b[2J""#,
            ),
            ill(
                "refused after the greeting",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("550 5.7.1 who are you\r\n"),
                ],
                r#"EHLO: expected 250: the answer was "550 5.7.1 who are you""#,
            ),
            ill(
                "the code changes within an answer",
                [say("220\r\n"), hear("EHLO"), say("250-a\r\n550 b\r\n")],
                r#"EHLO: expected 250: the answer was "550 b""#,
            ),
            ill(
                "silence",
                [],
                "greeting: expected 220: it did not come within 1s",
            )
            .last(""),
            ill(
                "half an answer and silence",
                [say("220\r\n"), hear("EHLO"), say("250-mx\r\n25")],
                SILENCE,
            )
            .last("EHLO [127.0.0.1]"),
            ill(
                "closed at once",
                [Act::Close],
                "greeting: expected 220: the server closed the connection",
            )
            .last(""),
            ill(
                "closed within an answer",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("250-a\r\n250"),
                    Act::Close,
                ],
                r#"EHLO: expected 250: the server closed the connection after "250""#,
            )
            .last("EHLO [127.0.0.1]"),
            ill(
                "a long line",
                [say(&long)],
                "a line of more than 8192 bytes",
            )
            .flooded(),
            ill(
                "an endless line",
                [Act::Flood(b"220 x")],
                "a line of more than 8192 bytes",
            )
            .flooded(),
            ill(
                "endless lines",
                [Act::Flood(b"220-x\r\n")],
                "more than 512 lines",
            )
            .flooded(),
            ill(
                "endless long lines",
                [say("220 ready\r\n"), hear("EHLO"), Act::Flood(b"250-")],
                "a line of more than 8192 bytes",
            )
            .flooded(),
        ],
    )
    .await;
}

#[tokio::test]
async fn pop() {
    play_all(
        Agent::Pop,
        "QUIT",
        [
            healthy(
                "capabilities",
                [
                    say("+OK ready <1@x>\r\n"),
                    hear("CAPA"),
                    say("+OK\r\nTOP\r\nUIDL\r\n.\r\n"),
                    hear("QUIT"),
                    say("+OK\r\n"),
                ],
            ),
            healthy(
                "no CAPA",
                [
                    say("+OK\r\n"),
                    hear("CAPA"),
                    say("-ERR unknown command\r\n"),
                    hear("QUIT"),
                    say("+OK bye\r\n"),
                ],
            ),
            ill(
                "no CAPA and no goodbye",
                [
                    say("+OK\r\n"),
                    hear("CAPA"),
                    say("-ERR\r\n"),
                    hear("QUIT"),
                    say("-ERR out of memory\r\n"),
                ],
                r#"QUIT: expected +OK: the answer was "-ERR out of memory""#,
            ),
            ill(
                "refused",
                [say("-ERR [SYS/TEMP] full\r\n")],
                r#"greeting: expected +OK: the answer was "-ERR [SYS/TEMP] full""#,
            ),
            ill(
                "another word",
                [say("+OKAY\r\n")],
                r#"the answer was "+OKAY""#,
            ),
            ill(
                "a list without an end",
                [say("+OK\r\n"), hear("CAPA"), say("+OK\r\nTOP\r\n")],
                "CAPA: expected +OK and a list that ends: it did not come within 1s",
            )
            .last("CAPA"),
            ill(
                "closed within the list",
                [
                    say("+OK\r\n"),
                    hear("CAPA"),
                    say("+OK\r\nTOP\r\nUI"),
                    Act::Close,
                ],
                r#"the server closed the connection after "UI""#,
            )
            .last("CAPA"),
            ill("silence", [], SILENCE).last(""),
        ],
    )
    .await;
}

#[tokio::test]
async fn imap() {
    play_all(
        Agent::Imap,
        "a9 LOGOUT",
        [
            healthy(
                "capabilities",
                [
                    say("* OK [CAPABILITY IMAP4rev1] ready\r\n"),
                    hear("a2 CAPABILITY"),
                    say("* CAPABILITY IMAP4rev1 IDLE\r\na2 OK done\r\n"),
                    hear("a9 LOGOUT"),
                    say("* BYE\r\na9 OK\r\n"),
                ],
            ),
            healthy(
                "already authenticated, lower case, something else between",
                [
                    say("* preauth hello\r\n"),
                    hear("a2 CAPABILITY"),
                    say("* 3 EXISTS\r\n* capability imap4rev1\r\na2 ok\r\n"),
                    hear("a9 LOGOUT"),
                    say("* BYE\r\na9 OK\r\n"),
                ],
            ),
            ill(
                "turned away",
                [say("* BYE too many connections\r\n")],
                r#"greeting: expected * OK or * PREAUTH: the answer was "* BYE too many connections""#,
            ),
            ill(
                "refused",
                [say("* OK\r\n"), hear("a2"), say("a2 NO not today\r\n")],
                r#"CAPABILITY: expected a list of capabilities and OK: the answer was "a2 NO not today""#,
            ),
            ill(
                "ends in the middle",
                [say("* OK\r\n"), hear("a2"), say("* CAPABILITY X\r\n* BYE shutting down\r\n")],
                r#"the answer was "* BYE shutting down""#,
            ),
            ill(
                "another tag",
                [say("* OK\r\n"), hear("a2"), say("* CAPABILITY X\r\na1 OK\r\n")],
                SILENCE,
            )
            .last("a2 CAPABILITY"),
            ill(
                "OK without a list",
                [say("* OK\r\n"), hear("a2"), say("a2 OK\r\n")],
                r#"the answer was "a2 OK""#,
            ),
            ill("SMTP", [say("220 ready\r\n")], r#"the answer was "220 ready""#),
        ],
    )
    .await;
}

#[tokio::test]
async fn starttls_without_tls_behind_it() {
    let starttls = |case: Case| case.with(|options| options.tls = Tls::StartTls);
    play_all(
        Agent::Smtp,
        "QUIT",
        [
            ill(
                "no TLS here",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("250\r\n"),
                    hear("STARTTLS"),
                    say("454 not available\r\n"),
                ],
                r#"STARTTLS: expected 220: the answer was "454 not available""#,
            ),
            ill(
                "words slipped in between",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("250\r\n"),
                    hear("STARTTLS"),
                    say("220 go\r\n250 slipped in\r\n"),
                ],
                r#"TLS handshake: expected a TLS session: the server went on in the clear: "250 slipped in\r\n""#,
            ),
            ill(
                "no TLS after all",
                [
                    say("220\r\n"),
                    hear("EHLO"),
                    say("250\r\n"),
                    hear("STARTTLS"),
                    say("220 go\r\n"),
                    Act::HearBytes(1),
                    say("500 what?\r\n"),
                    Act::Close,
                ],
                "TLS handshake: expected a TLS session: ",
            )
            .last("STARTTLS"),
        ]
        .map(starttls),
    )
    .await;
}

/// However short the limit is: when the goodbye is said, everything is known.
#[tokio::test]
async fn silence_after_the_goodbye_decides_nothing() {
    let acts = vec![say("220\r\n"), hear("EHLO"), say("250\r\n")];
    let server = Scripted::start(acts).await;
    let limit = Duration::from_secs(1);
    check_within(Agent::Smtp, &server.target, &Options::default(), limit)
        .await
        .unwrap();
    assert_eq!(server.heard().await, ["EHLO [127.0.0.1]", "QUIT"]);
}
