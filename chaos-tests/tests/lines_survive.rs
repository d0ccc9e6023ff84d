//! The numbered lines: every fault that a relay puts into a connection is reported as what it is, and nothing else is.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::lines::{
    Churn, ChurnOptions, Client, LinesError, Options, Report, Server, ServerArgs, longest_silence,
    realtime_ns, tcp_connector,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// A loopback address on which nobody listens.
const NOBODY: ([u8; 4], u16) = ([127, 9, 9, 9], 9);
const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn server(name: &str) -> Server {
    Server::start(ServerArgs {
        listen: SocketAddr::from(LOOPBACK),
        name: name.to_owned(),
    })
    .unwrap()
}

fn client(address: SocketAddr, count: usize) -> Client {
    let client = Client::open(
        Options::new(count, Duration::from_millis(10)),
        tcp_connector(address, DEADLINE),
    )
    .unwrap();
    assert!(client.wait_open(DEADLINE), "{:?}", client.snapshot());
    client
}

/// What a relay does with a line.
#[derive(Clone, Copy)]
enum Fault {
    Pass,
    Drop,
    Repeat,
    /// Sends it after the line that follows.
    Delay,
    /// Breaks the connection off.
    Break,
    /// Lets nothing more through, for ever.
    Silence,
}

/// Passes lines between clients and `server`; `fault` decides on each.
fn relay(server: SocketAddr, fault: fn(&str) -> Fault) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(server).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || pass(from, to, fault));
            }
        }
    });
    address
}

fn pass(from: TcpStream, mut to: TcpStream, fault: fn(&str) -> Fault) {
    let mut delayed = String::new();
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { break };
        let line = line + "\n";
        let sent = match fault(line.trim_end()) {
            Fault::Pass => line + &std::mem::take(&mut delayed),
            Fault::Drop => String::new(),
            Fault::Repeat => format!("{line}{line}"),
            Fault::Delay => {
                delayed = line;
                String::new()
            }
            Fault::Break => break,
            Fault::Silence => loop {
                thread::park();
            },
        };
        if to.write_all(sent.as_bytes()).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Runs one connection through a faulty relay for a while.
fn report_of(fault: fn(&str) -> Fault) -> Report {
    let server = server("serv1");
    let client = client(relay(server.address(), fault), 1);
    thread::sleep(Duration::from_millis(300));
    client.finish(Duration::from_secs(2))
}

fn faults(report: &Report) -> [u64; 5] {
    [
        report.lost,
        report.repeated,
        report.out_of_order,
        report.foreign,
        report.malformed,
    ]
}

#[test]
fn a_hundred_connections_to_a_sound_server_are_unbroken() {
    let server = server("serv1");
    let begun_ns = realtime_ns();
    let client = client(server.address(), 100);
    thread::sleep(Duration::from_millis(500));
    let during = client.snapshot();
    assert!(during.is_unbroken(), "{during:?}");
    let events = client.events_since(begun_ns);
    assert!(events.windows(2).all(|pair| pair[0].at_ns <= pair[1].at_ns));
    let report = client.finish(DEADLINE);
    assert!(report.is_unbroken(), "{report:?}");
    assert_eq!(
        (report.alive, report.stalled, report.unacknowledged),
        (100, 0, 0)
    );
    assert_eq!(report.servers.get("serv1"), Some(&100));
    assert!(
        report.lines_sent >= 1000 && report.lines_received >= 1000,
        "{report:?}"
    );
    assert_eq!(report.lines_sent, report.lines_acknowledged);
    assert!(events.len() as u64 <= report.lines_acknowledged + report.lines_received);
    assert!(
        report.longest_silence.unwrap().ms() < 1000.0,
        "{:?}",
        report.longest_silence
    );
    serde_json::to_string(&report).unwrap();

    let by = Instant::now() + DEADLINE;
    while server.stats().connections > 0 {
        assert!(Instant::now() < by, "the server keeps closed connections");
        thread::sleep(Duration::from_millis(10));
    }
    let stats = server.stats();
    assert_eq!((stats.finished, stats.broken, stats.wrong), (100, 0, 0));
    assert_eq!(
        (stats.lines, stats.lost, stats.repeated, stats.out_of_order),
        (report.lines_sent, 0, 0, 0)
    );
}

#[test]
fn a_relay_without_faults_changes_nothing() {
    let report = report_of(|_| Fault::Pass);
    assert!(report.is_unbroken(), "{report:?}");
}

#[test]
fn a_lost_line_is_reported_in_either_direction() {
    let report = report_of(|line| {
        if line == "S c0 3" {
            Fault::Drop
        } else {
            Fault::Pass
        }
    });
    assert_eq!(faults(&report), [1, 0, 0, 0, 0], "{report:?}");
    let report = report_of(|line| {
        if line == "C c0 3" {
            Fault::Drop
        } else {
            Fault::Pass
        }
    });
    assert_eq!(faults(&report), [1, 0, 0, 0, 0], "{report:?}");
    assert!(!report.is_unbroken());
}

#[test]
fn lines_lost_at_the_very_end_are_reported() {
    // From its number 5 on, nothing numbered comes through; the goodbye does.
    fn from_five(line: &str, kind: &str) -> bool {
        line.strip_prefix(kind)
            .is_some_and(|number| number.parse::<u64>().unwrap() >= 5)
    }
    let report = report_of(|line| {
        if from_five(line, "S c0 ") {
            Fault::Drop
        } else {
            Fault::Pass
        }
    });
    assert!(
        report.lost >= 10 && report.lines_received == 5,
        "{report:?}"
    );
    let report = report_of(|line| {
        if from_five(line, "C c0 ") {
            Fault::Drop
        } else {
            Fault::Pass
        }
    });
    assert_eq!(
        (report.lines_acknowledged, report.lost),
        (5, report.lines_sent - 5),
        "{report:?}"
    );
}

#[test]
fn a_repeated_line_is_reported_in_either_direction() {
    let report = report_of(|line| {
        if line == "S c0 3" {
            Fault::Repeat
        } else {
            Fault::Pass
        }
    });
    assert_eq!(faults(&report), [0, 1, 0, 0, 0], "{report:?}");
    let report = report_of(|line| {
        if line == "C c0 3" {
            Fault::Repeat
        } else {
            Fault::Pass
        }
    });
    assert_eq!(faults(&report), [0, 1, 0, 0, 0], "{report:?}");
}

#[test]
fn lines_out_of_order_are_reported_in_either_direction() {
    // An acknowledgement that overtakes a numbered line is no fault; two of the same kind are swapped here.
    let swapped = |line: &str| match line {
        "S c0 3" => Fault::Delay,
        "S c0 4" => Fault::Pass,
        line if line.starts_with("A ") => Fault::Drop,
        _ => Fault::Pass,
    };
    let report = report_of(swapped);
    assert_eq!((report.out_of_order, report.repeated), (1, 0), "{report:?}");
    let report = report_of(|line| {
        if line == "C c0 3" {
            Fault::Delay
        } else {
            Fault::Pass
        }
    });
    assert_eq!(faults(&report), [0, 0, 1, 0, 0], "{report:?}");
}

#[test]
fn a_line_of_another_connection_and_one_of_no_kind_are_reported() {
    let server = server("serv1");
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(server);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"WELCOME odd\nS c0 0\nS c1 1\nA 99999\nnonsense\nWELCOME odd\n")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let client = client(address, 1);
    thread::sleep(Duration::from_millis(100));
    let report = client.finish(Duration::from_millis(200));
    assert_eq!(faults(&report), [0, 0, 0, 2, 2], "{report:?}");
    assert_eq!((report.unfinished, report.alive), (1, 0));
}

#[test]
fn a_broken_connection_is_a_reset() {
    let report = report_of(|line| {
        if line == "S c0 5" {
            Fault::Break
        } else {
            Fault::Pass
        }
    });
    assert_eq!((report.resets, report.alive), (1, 0), "{report:?}");
    assert!(!report.is_unbroken());
    assert!(report.per_connection[0].ended.is_some());
}

#[test]
fn a_silent_server_is_a_stall_and_not_a_loss() {
    let server = server("serv1");
    let silent = relay(server.address(), |line| {
        if line == "S c0 5" {
            Fault::Silence
        } else {
            Fault::Pass
        }
    });
    let options = Options {
        stall_max: Duration::from_millis(200),
        ..Options::new(2, Duration::from_millis(10))
    };
    let client = Client::open(options, tcp_connector(silent, DEADLINE)).unwrap();
    assert!(client.wait_open(DEADLINE));
    thread::sleep(Duration::from_millis(700));
    let report = client.snapshot();
    // The second connection, c1, goes on.
    assert_eq!(
        (report.stalled, report.stalled_now, report.alive),
        (1, 1, 2),
        "{report:?}"
    );
    assert_eq!(report.longest_stall_token.as_deref(), Some("c0"));
    assert!((300..5000).contains(&report.longest_stall_ms), "{report:?}");
    assert!(report.longest_silence.unwrap().ms() < 300.0);
    let report = client.finish(Duration::from_millis(300));
    assert_eq!(
        (report.lost, report.unfinished, report.resets, report.alive),
        (0, 1, 0, 1),
        "{report:?}"
    );
    assert!(report.unacknowledged > 0 && !report.is_unbroken());
}

#[test]
fn an_outage_of_all_connections_is_found_in_the_events() {
    static HELD: Mutex<()> = Mutex::new(());
    let server = server("serv1");
    let relayed = relay(server.address(), |_| {
        drop(HELD.lock().unwrap());
        Fault::Pass
    });
    let client = client(relayed, 10);
    thread::sleep(Duration::from_millis(200));
    let from_ns = realtime_ns();
    let held = HELD.lock().unwrap();
    thread::sleep(Duration::from_millis(400));
    drop(held);
    thread::sleep(Duration::from_millis(200));
    let silence = longest_silence(&client.events_since(from_ns), from_ns, realtime_ns());
    assert!((350.0..3000.0).contains(&silence.ms()), "{silence:?}");
    let report = client.finish(DEADLINE);
    assert!(report.is_unbroken(), "{report:?}");
    assert!(
        report.longest_silence.unwrap().ms() >= silence.ms() - 50.0,
        "{:?}",
        report.longest_silence
    );
}

#[test]
fn connections_that_cannot_be_opened_are_reported() {
    let address = SocketAddr::from(NOBODY);
    let options = Options::new(20, Duration::from_millis(10));
    let client = Client::open(options, tcp_connector(address, DEADLINE)).unwrap();
    assert!(!client.wait_open(DEADLINE));
    let report = client.finish(DEADLINE);
    assert_eq!(
        (report.opened, report.alive, report.open_failures.len()),
        (0, 0, 10),
        "{report:?}"
    );
    assert!(!report.is_unbroken());
    assert!(
        Client::open(Options::new(1_000_000, DEADLINE), || Err(io::Error::other(
            "never called"
        )))
        .is_err()
    );
}

#[test]
fn a_server_survives_what_is_none_of_its_protocol() {
    let server = server("serv1");
    let garbage: [&[u8]; 8] = [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HELLO a 0\n",
        b"HELLO a 10\nHELLO a 10\n",
        b"HELLO a 10\nC b 0\n",
        b"C a 0\n",
        &[0xff; 100_000],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // It ends, by a close or a reset.
        let end = stream.read_to_end(&mut Vec::new());
        assert!(
            end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
        );
    }
    // A client that only sends and never reads is not read without bound either.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    stream.write_all(b"HELLO a 10\n").unwrap();
    let mut sent = 0_u64;
    while stream.write_all(format!("C a {sent}\n").as_bytes()).is_ok() {
        sent += 1;
        assert!(
            sent < 20_000_000,
            "a client that never reads is read for ever"
        );
    }
    drop(stream);
    assert!(client(server.address(), 5).finish(DEADLINE).is_unbroken());
    assert!(matches!(
        Server::start(ServerArgs {
            listen: server.address(),
            name: "x".to_owned()
        }),
        Err(LinesError::Listen { .. })
    ));
    assert!(matches!(
        Server::start(ServerArgs {
            listen: server.address(),
            name: "x y".to_owned()
        }),
        Err(LinesError::Name(_))
    ));
}

/// A history kept in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn churn_writes_down_what_became_of_each_connection() {
    let server = server("serv1");
    let breaking = relay(server.address(), |line| {
        if line.starts_with("S ") && line.ends_with("7 1") {
            Fault::Break
        } else {
            Fault::Pass
        }
    });
    let refusing = SocketAddr::from(NOBODY);
    let calls = AtomicU64::new(0);
    let connector = move || {
        // Every tenth opening is refused, another tenth not answered.
        match calls.fetch_add(1, Ordering::SeqCst) % 10 {
            0 => TcpStream::connect(refusing),
            1 => Err(io::ErrorKind::TimedOut.into()),
            _ => TcpStream::connect(breaking),
        }
    };
    let history = Memory::default();
    let churn = Churn::start(ChurnOptions::new(100), connector, history.clone()).unwrap();
    thread::sleep(Duration::from_millis(1000));
    let report = churn.finish();
    assert!((50..=110).contains(&report.opens), "{report:?}");
    assert!(
        report.refused >= 3 && report.unanswered >= 3 && report.talks_ok >= 30,
        "{report:?}"
    );
    assert_eq!(
        report.opens,
        report.opened + report.refused + report.unanswered
    );
    assert_eq!(
        report.opened,
        report.talks_ok + report.talks_broken + report.talks_unanswered
    );
    assert!((1..=11).contains(&report.talks_broken), "{report:?}");
    assert!(report.open_us_min > 0 && report.open_us_min <= report.open_us_median);
    assert!(
        report.open_us_median <= report.open_us_p99 && report.open_us_p99 <= report.open_us_max
    );

    let written = String::from_utf8(history.0.lock().unwrap().clone()).unwrap();
    let records: Vec<serde_json::Value> = written
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |f: &str, kind: &str| {
        records
            .iter()
            .filter(|record| record["f"] == f && record["type"] == kind)
            .count() as u64
    };
    assert_eq!(count("open", "invoke"), report.opens);
    assert_eq!(count("open", "ok"), report.opened);
    assert_eq!(count("open", "fail"), report.refused);
    assert_eq!(count("open", "info"), report.unanswered);
    assert_eq!(count("talk", "ok"), report.talks_ok);
    assert_eq!(count("talk", "fail"), report.talks_broken);
    let talk = records
        .iter()
        .find(|record| record["f"] == "talk" && record["type"] == "ok")
        .unwrap();
    assert_eq!(talk["server"], "serv1");
}
