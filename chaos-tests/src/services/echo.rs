//! Datagrams that come back with the name of the server: what a flow of UDP needs to be followed.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

/// Longest datagram, in bytes: several fragments of an ordinary Ethernet frame.
pub const ECHO_BYTES_MAX: usize = 8192;

/// How soon a server notices that it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// A datagram that is not answered within this time is sent again: UDP promises nothing.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A running echo server. Dropping it stops it.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Answers each datagram to `address` with `name`, a blank and the datagram, from that very address. The host may get the
    /// address later.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(address: SocketAddr, name: &str) -> io::Result<Self> {
        let socket = bound(address)?;
        socket.set_read_timeout(Some(STOP_CHECK))?;
        let address = socket.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, name) = (Arc::clone(&stopping), name.to_owned());
        let run = move || {
            let mut buffer = [0; ECHO_BYTES_MAX];
            while !stop.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
                // Whoever asked will ask again.
                let _ = socket.send_to(&answer, client);
            }
        };
        let thread = thread::Builder::new()
            .name("udp-echo".to_owned())
            .spawn(run)?;
        Ok(Self {
            address,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it answers: the real port, also if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket with `address` as its own, whether or not the host has it yet.
fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let fresh: OwnedFd = socket(family, SocketType::DGRAM, None)?;
    match address.ip() {
        IpAddr::V4(_) => sockopt::set_ip_freebind(&fresh, true)?,
        IpAddr::V6(_) => sockopt::set_ipv6_freebind(&fresh, true)?,
    }
    bind(&fresh, &address)?;
    Ok(UdpSocket::from(fresh))
}

/// One flow: a client's socket that always asks the same address, and the server that answers it.
#[derive(Debug)]
pub struct Flow {
    socket: UdpSocket,
    number: u64,
    server: Option<String>,
}

impl Flow {
    /// A flow from a fresh port to `to`.
    ///
    /// # Errors
    /// There is no socket, or no route.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match to.ip() {
            IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            IpAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(AGAIN_AFTER))?;
        Ok(Self {
            socket,
            number: 0,
            server: None,
        })
    }

    /// Sends a datagram of `length` bytes, again and again until it is answered, and says by which server. One flow has one
    /// server for ever: another one is a broken flow.
    ///
    /// # Errors
    /// No answer within `limit`, or one of another server than before.
    pub fn exchange(&mut self, length: usize, limit: Duration) -> Result<String, String> {
        self.number += 1;
        let mut question = format!("{} ", self.number).into_bytes();
        question.resize(length.clamp(question.len(), ECHO_BYTES_MAX), b'.');
        let by = Instant::now() + limit;
        let mut last = String::from("nothing");
        while Instant::now() < by {
            // It fails for an ICMP error that came for an earlier one, or for want of a route.
            let sent = self.socket.send(&question);
            match self.answer(&question) {
                Ok(server) => return self.of_one_server(server),
                Err(error) => last = sent.err().unwrap_or(error).to_string(),
            }
        }
        Err(format!(
            "datagram {} of {} bytes was not answered within {limit:?}; last: {last}",
            self.number,
            question.len()
        ))
    }

    /// The server that sends `question` back; answers to earlier ones are passed over.
    fn answer(&self, question: &[u8]) -> io::Result<String> {
        let mut buffer = [0; ECHO_BYTES_MAX + 128];
        let by = Instant::now() + AGAIN_AFTER;
        loop {
            let length = self.socket.recv(&mut buffer)?;
            let answer = &buffer[..length];
            let name = answer
                .strip_suffix(question)
                .and_then(|name| name.strip_suffix(b" "));
            if let Some(name) = name {
                return Ok(String::from_utf8_lossy(name).into_owned());
            }
            if Instant::now() >= by {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn of_one_server(&mut self, server: String) -> Result<String, String> {
        match &self.server {
            Some(before) if *before != server => {
                Err(format!("a flow of {before} was answered by {server}"))
            }
            Some(_) => Ok(server),
            None => {
                self.server = Some(server.clone());
                Ok(server)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_flow_is_answered_by_name_in_every_size() {
        let server = EchoServer::start(SocketAddr::from(([127, 0, 0, 1], 0)), "serv1").unwrap();
        let mut flow = Flow::open(server.address()).unwrap();
        for length in [1, 100, 1400, 4000] {
            assert_eq!(flow.exchange(length, LIMIT).unwrap(), "serv1");
        }
    }

    #[test]
    fn silence_and_another_server_are_reported() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = EchoServer::start(local, "serv1").unwrap();
        let address = first.address();
        let mut flow = Flow::open(address).unwrap();
        flow.exchange(10, LIMIT).unwrap();
        drop(first);
        let silent = flow.exchange(10, Duration::from_millis(300)).unwrap_err();
        assert!(silent.contains("not answered"), "{silent}");
        let _second = EchoServer::start(address, "serv2").unwrap();
        let moved = flow.exchange(10, LIMIT).unwrap_err();
        assert_eq!(moved, "a flow of serv1 was answered by serv2");
    }
}
