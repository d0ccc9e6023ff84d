//! What it costs an ATM to check 1000 servers with 4 services each every 30 s: the processor time of `atmd`, as a share of one core.
//!
//!     health_load [--servers 1000] [--frequency-s 30] [--measure-s 60]
//!
//! One ATM in a network namespace of its own; the servers are addresses of 127.0.0.0/8 there, all answered by this process: two services by
//! `connect`, one by `http`, one by `smtpAgent`, and pings by the kernel. The result is one JSON object on stdout. Needs root, or user
//! namespaces.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chaos_tests::lab::program;
use clap::Parser;
use serde_json::json;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "HEALTH_LOAD_INSIDE";

#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=5000))]
    servers: u32,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    frequency_s: u64,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    measure_s: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if env::var_os(INSIDE).is_none() {
        let error = enter();
        eprintln!("no network namespace can be had: {error}");
        return ExitCode::from(69);
    }
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Goes on as the same program inside a new network namespace. Returns only if that fails.
fn enter() -> io::Error {
    let Ok(program) = env::current_exe() else {
        return io::Error::other("this program has no path");
    };
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("-Ur");
    }
    let command = command.arg("-n").arg("--").arg(program);
    command.args(env::args_os().skip(1)).env(INSIDE, "1").exec()
}

fn measure(options: &Options) -> io::Result<()> {
    shell(
        "ip link set lo up && ip link add eth0 type veth peer name peer0 \
         && ip addr add 10.9.0.1/24 dev eth0 && ip link set eth0 up && ip link set peer0 up",
    )?;
    let answered = Arc::new(AtomicU64::new(0));
    for (port, speak) in SERVICES {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        let answered = Arc::clone(&answered);
        thread::Builder::new()
            .name(format!("port {port}"))
            .spawn(move || serve(&listener, speak, &answered))?;
    }
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("cluster.conf"), configuration(options))?;
    fs::write(dir.path().join("atmd.toml"), settings(dir.path()))?;
    let mut atmd = start(dir.path())?;
    let result = watch(options, &atmd, &answered);
    let _ = atmd.kill();
    let _ = atmd.wait();
    println!("{}", result?);
    Ok(())
}

/// Ports and what is said on them, at first and in answer to a line.
const SERVICES: [(u16, &[&str]); 4] = [
    (7001, &[]),
    (7002, &[]),
    (
        80,
        &[
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ],
    ),
    (25, &["220 ready\r\n", "250 hello\r\n", "221 bye\r\n"]),
];

fn serve(listener: &TcpListener, speak: &'static [&'static str], answered: &AtomicU64) {
    for stream in listener.incoming().flatten() {
        answered.fetch_add(1, Ordering::Relaxed);
        // The client ends the conversation, or has ended it: nothing here depends on how.
        let _ = converse(stream, speak);
    }
}

fn converse(stream: TcpStream, speak: &[&str]) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    for (turn, words) in speak.iter().enumerate() {
        if turn > 0 && reader.read_line(&mut String::new())? == 0 {
            break;
        }
        stream.write_all(words.as_bytes())?;
    }
    Ok(())
}

fn configuration(options: &Options) -> String {
    let mut text = String::from(
        "NetworkMask 255.255.255.0\nServices\n  Service one tcp:7001 connect\n  Service two tcp:7002 connect\n  \
         Service web tcp:80 http\n  Service mail tcp:25 smtpAgent\nEndServices\nServers\n",
    );
    let number = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        Ipv4Addr::new(127, 1, high, low)
    };
    for n in 1..=options.servers {
        let _ = writeln!(text, "  Server s{n} {} tunnel", number(n));
    }
    text.push_str("EndServers\nServerPool pool\n");
    for n in 1..=options.servers {
        let _ = writeln!(text, "  AddServer s{n} one/1 two/1 web/1 mail/1");
    }
    let every = options.frequency_s;
    let _ = write!(
        text,
        "  CheckServerFrequency {every}\n  CheckServerTimeout {every}\n  CheckPortFrequency {every}\n  CheckPortTimeout {every}\n\
         EndServerPool\nAtmPool atms\n  AddAtm 10.9.0.1\n  NumServers {}\nEndAtmPool\n\
         VirtualHost 10.9.0.100\n  AddAtmPool atms\n  AddServerPool pool\nEndVirtualHost\n",
        options.servers
    );
    text
}

fn settings(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "name = \"10.9.0.1\"\ninterface = \"eth0\"\ncluster_config = \"{dir}/cluster.conf\"\ndata_dir = \"{dir}/data\"\nlog = \"warn\"\n"
    )
}

fn start(dir: &Path) -> io::Result<Child> {
    let atmd = program("atmd").map_err(io::Error::other)?;
    Command::new(atmd)
        .arg("--config")
        .arg(dir.join("atmd.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

/// Lets one interval pass, in which everything is checked for the first time, and looks at the next ones.
fn watch(options: &Options, atmd: &Child, answered: &AtomicU64) -> io::Result<serde_json::Value> {
    let wanted = u64::from(options.servers) * 4;
    let by = Instant::now() + Duration::from_secs(options.frequency_s * 2 + 60);
    while answered.load(Ordering::Relaxed) < wanted {
        if Instant::now() >= by {
            let seen = answered.load(Ordering::Relaxed);
            return Err(io::Error::other(format!(
                "only {seen} of {wanted} services were asked"
            )));
        }
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!(
        "every service was asked once; measuring for {} s",
        options.measure_s
    );
    let (begun, before) = (Instant::now(), used(atmd.id())?);
    let asked = answered.load(Ordering::Relaxed);
    thread::sleep(Duration::from_secs(options.measure_s));
    let (elapsed, spent) = (begun.elapsed(), used(atmd.id())? - before);
    let asked = answered.load(Ordering::Relaxed) - asked;
    Ok(json!({
        "servers": options.servers,
        "services": wanted,
        "frequency_s": options.frequency_s,
        "measured_s": elapsed.as_secs_f64(),
        "conversations": asked,
        "processor_s": spent.as_secs_f64(),
        "share_of_a_core": spent.as_secs_f64() / elapsed.as_secs_f64(),
    }))
}

/// Processor time of a process so far, user and system (proc(5): utime and stime, in clock ticks of 10 ms).
fn used(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn shell(script: &str) -> io::Result<()> {
    let status = Command::new("sh").args(["-c", script]).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{script}: {status}")))
    }
}
