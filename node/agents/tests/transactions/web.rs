//! HTTP.

use agents::{Agent, Options};

use crate::server::{Act, SILENCE, Scripted, healthy, hear, ill, play_all, say};

/// The head of our request.
fn request() -> [Act; 6] {
    [
        "GET / HTTP/1.1",
        "Host: 127.0.0.1:",
        "User-Agent: ",
        "Accept: */*",
        "Connection: close",
        "",
    ]
    .map(hear)
}

fn answering(answer: &str) -> Vec<Act> {
    [&request()[..], &[say(answer)]].concat()
}

#[tokio::test]
async fn http() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(129));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    play_all(
        Agent::Http,
        "",
        [
            healthy(
                "200",
                answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            ),
            healthy("301, HTTP/1.0", answering("HTTP/1.0 301 Moved\r\n\r\n")),
            healthy("no reason", answering("HTTP/1.1 204\r\n\r\n")),
            healthy(
                "early hints",
                answering("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
            ),
            healthy(
                "401 where that is expected",
                answering("HTTP/1.1 401 Who?\r\n\r\n"),
            )
            .with(|options| options.expect = "2xx,401".parse().unwrap()),
            ill(
                "not there",
                answering("HTTP/1.1 404 Not Found\r\n\r\n"),
                r#"GET: expected a status of 2xx,3xx: the answer was "HTTP/1.1 404 Not Found""#,
            ),
            ill(
                "broken",
                answering("HTTP/1.1 503 Busy\r\nRetry-After: 3\r\n\r\n"),
                r#"the answer was "HTTP/1.1 503 Busy""#,
            ),
            ill(
                "200 where another one is expected",
                answering("HTTP/1.1 200 OK\r\n\r\n"),
                r#"GET: expected a status of 3xx: the answer was "HTTP/1.1 200 OK""#,
            )
            .with(|options| options.expect = "3xx".parse().unwrap()),
            ill(
                "SMTP",
                answering("220 ready\r\n"),
                r#"the answer was "220 ready""#,
            ),
            ill(
                "HTTP/2",
                answering("HTTP/2.0 200 OK\r\n\r\n"),
                r#"the answer was "HTTP/2.0 200 OK""#,
            ),
            ill(
                "a head without an end",
                answering("HTTP/1.1 200 OK\r\nServer: x\r\n"),
                SILENCE,
            ),
            ill(
                "closed within the head",
                [answering("HTTP/1.1 200 OK\r\nServ"), vec![Act::Close]].concat(),
                r#"the server closed the connection after "HTTP/1.1 200 OK\r\nServ""#,
            ),
            ill("silence", request(), SILENCE),
            ill("many headers", answering(&many), "too many headers").flooded(),
            ill("a large head", answering(&large), "more than 65536 bytes").flooded(),
            ill(
                "endless headers of early hints",
                [&request()[..], &[Act::Flood(b"HTTP/1.1 103 E\r\n\r\n")]].concat(),
                "more than 65536 bytes",
            )
            .flooded(),
        ],
    )
    .await;
}

#[tokio::test]
async fn path_and_name_stand_in_the_request() {
    let acts = vec![
        hear("GET /health?full=1 HTTP/1.1"),
        hear("Host: www.example:"),
        hear(""),
        hear(""),
        hear(""),
        hear(""),
        say("HTTP/1.1 200 OK\r\n\r\n"),
    ];
    let server = Scripted::start(acts).await;
    let host = format!("Host: www.example:{}", server.target.port);
    let options = Options {
        path: "/health?full=1".to_owned(),
        server_name: Some("www.example".to_owned()),
        ..Options::default()
    };
    agents::check(Agent::Http, &server.target, &options)
        .await
        .unwrap();
    let heard = server.heard().await;
    assert_eq!(heard[1], host);
    assert_eq!(heard.last().unwrap(), "", "the request ends with its head");
}

#[tokio::test]
async fn nothing_is_slipped_into_a_request() {
    for (path, name) in [
        ("/ HTTP/1.1\r\nX: y", None),
        ("index.html", None),
        ("", None),
        ("/\u{e4}", None),
        ("/", Some("a\r\nX: y")),
        ("/", Some("")),
    ] {
        let server = Scripted::start(Vec::new()).await;
        let options = Options {
            path: path.to_owned(),
            server_name: name.map(str::to_owned),
            ..Options::default()
        };
        let failure = agents::check(Agent::Http, &server.target, &options)
            .await
            .unwrap_err();
        assert!(failure.to_string().contains(" is no "), "{failure}");
        assert_eq!(server.heard().await, [""; 0], "{path:?} {name:?}");
    }
}
