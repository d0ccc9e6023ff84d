//! What servers and clients do with what reaches them.

use super::clock::{MS, True, US};
use super::event::{AnswerKind, Event};
use super::hosts::{self, ASYNC_PORT, QUORUM_PORT, State, VIP};
use super::network::{CLIENT, SERVER, Wire};
use super::packets::{ACK, Arp, FIN, RST, SYN, Segment};
use super::violation::Violation;
use super::world::World;
use dataplane_core::MacAddr;

/// Connections of one client at once.
const CONNECTIONS_MAX: usize = 4;
/// Packets without an answer after which a client gives a connection up.
const UNANSWERED_MAX: u32 = 60;

impl World {
    pub(crate) fn server_receives(&mut self, me: usize, bytes: &[u8]) {
        let host = SERVER + me;
        if self.servers[me].down_until > self.now {
            return;
        }
        if let Some(arp) = Arp::parse(bytes) {
            if arp.request && arp.target == hosts::address(host) {
                let answer = Arp {
                    request: false,
                    mac: hosts::mac(host),
                    sender: arp.target,
                    target: arp.sender,
                };
                self.send_frame(host, &answer.frame(arp.mac));
            }
            return;
        }
        let Some(segment) = Segment::in_tunnel(bytes, hosts::address(host)) else {
            return;
        };
        let Some(client) = hosts::host_at(segment.client).and_then(|it| it.checked_sub(CLIENT))
        else {
            return;
        };
        self.judge.tally.forwarded += 1;
        self.judge_delivery(client, me, &segment);
        let connections = &mut self.servers[me].connections;
        let key = (segment.client, segment.port);
        let kind = match segment.flags {
            SYN => {
                connections.insert(key);
                AnswerKind::SynAck
            }
            RST => {
                connections.remove(&key);
                return;
            }
            _ if !connections.contains(&key) => AnswerKind::Reset,
            flags if flags & FIN != 0 => AnswerKind::FinAck,
            _ => AnswerKind::Ack,
        };
        // Straight to the client, past the ATMs.
        let arrivals = self
            .network
            .arrivals(Wire::Frames, host, CLIENT + client, self.now);
        for at in arrivals.into_iter().flatten() {
            let (server, port) = (me, segment.port);
            self.queue.put(
                at,
                Event::Answer {
                    client,
                    server,
                    port,
                    kind,
                },
            );
        }
    }

    /// A packet of an acknowledged connection goes to its server and to no other (P2).
    fn judge_delivery(&mut self, client: usize, server: usize, segment: &Segment) {
        let now = self.now;
        let Some(connection) = self
            .clients
            .get_mut(client)
            .and_then(|client| client.connections.get_mut(&segment.port))
        else {
            return;
        };
        let elsewhere = connection.must_live(now) && connection.server != Some(server);
        connection.was_forwarded(now);
        if elsewhere {
            let what = format!(
                "a packet reached server {server}, it belongs to {:?}",
                connection.server
            );
            let connection = format!("{}:{}", segment.client, segment.port);
            self.report(Violation::ConnectionLost { connection, what });
        }
    }

    pub(crate) fn client_receives(&mut self, me: usize, bytes: &[u8]) {
        let Some(arp) = Arp::parse(bytes) else {
            return;
        };
        if arp.sender == VIP {
            self.clients[me].vip_mac = Some(arp.mac);
        }
    }

    /// A server's answer.
    pub(crate) fn answered(&mut self, me: usize, server: usize, port: u16, kind: AnswerKind) {
        let now = self.now;
        self.digest.add(u64::from(port) << 8 | kind as u64);
        let Some(connection) = self.clients[me].connections.get_mut(&port) else {
            return;
        };
        connection.unanswered = 0;
        connection.answered = now;
        let lost = match kind {
            AnswerKind::SynAck if connection.state == State::Connecting => {
                connection.state = State::Open;
                connection.server = Some(server);
                connection.due = now;
                let stays = self.servers[server].down_until <= now;
                connection.protected = connection.service == QUORUM_PORT && stays;
                self.judge.tally.connections += 1;
                None
            }
            AnswerKind::Reset if connection.must_live(now) => {
                Some("its server knows nothing of it")
            }
            AnswerKind::SynAck | AnswerKind::Ack
                if connection.must_live(now) && connection.server != Some(server) =>
            {
                Some("another server answers")
            }
            AnswerKind::Reset | AnswerKind::FinAck => {
                self.clients[me].connections.remove(&port);
                None
            }
            AnswerKind::SynAck | AnswerKind::Ack => None,
        };
        if let Some(what) = lost {
            let connection = format!("{}:{port}", hosts::address(CLIENT + me));
            self.report(Violation::ConnectionLost {
                connection,
                what: format!("{what} (server {server})"),
            });
        }
    }

    /// A client does what is due.
    pub(crate) fn client(&mut self, me: usize) {
        let now = self.now;
        let next = now + self.whims.between(20 * MS, 120 * MS);
        self.queue.put(next, Event::Client(me));
        if self.quiet {
            return;
        }
        if self.clients[me].connections.len() < CONNECTIONS_MAX && self.whims.percent(40) {
            let service = if self.whims.percent(80) {
                QUORUM_PORT
            } else {
                ASYNC_PORT
            };
            let ends = now + self.whims.between(300 * MS, 9_000 * MS);
            self.clients[me].connect(service, now, ends);
        }
        let due: Vec<u16> = self.clients[me]
            .connections
            .iter()
            .filter(|(_, connection)| connection.due <= now)
            .map(|(port, _)| *port)
            .collect();
        for port in due {
            self.speak(me, port);
        }
        self.ask_for_vip(me);
    }

    /// A connection's next packet.
    fn speak(&mut self, me: usize, port: u16) {
        let now = self.now;
        let gap = match self.whims.below(10) {
            0 => self.whims.between(500 * MS, 1_300 * MS),
            1..4 => self.whims.between(MS, 40 * MS),
            _ => self.whims.between(40 * MS, 500 * MS),
        };
        let client = &mut self.clients[me];
        let Some(connection) = client.connections.get_mut(&port) else {
            return;
        };
        if connection.unanswered >= UNANSWERED_MAX {
            client.connections.remove(&port);
            return;
        }
        connection.unanswered += 1;
        connection.due = now + gap;
        if connection.state == State::Open && now >= connection.ends {
            connection.state = State::Closing;
            connection.protected = false;
        }
        let flags = match connection.state {
            State::Connecting => SYN,
            State::Open => ACK,
            State::Closing => FIN | ACK,
        };
        let Some(mac) = client.vip_mac else { return };
        let segment = Segment {
            client: hosts::address(CLIENT + me),
            port,
            vip: VIP,
            service: connection.service,
            flags,
        };
        let frame = segment.frame(hosts::mac(CLIENT + me), mac);
        self.send_frame(CLIENT + me, &frame);
    }

    /// Nobody answers, or nobody was asked yet: who has the VIP?
    fn ask_for_vip(&mut self, me: usize) {
        const AGAIN: True = 200 * MS;
        let now = self.now;
        let client = &mut self.clients[me];
        let silent = client
            .connections
            .values()
            .any(|connection| connection.unanswered >= 3);
        if (client.vip_mac.is_some() && !silent) || now < client.asked + AGAIN {
            return;
        }
        client.asked = now + 10 * US;
        let question = Arp {
            request: true,
            mac: hosts::mac(CLIENT + me),
            sender: hosts::address(CLIENT + me),
            target: VIP,
        };
        self.send_frame(CLIENT + me, &question.frame(MacAddr::BROADCAST));
    }
}
