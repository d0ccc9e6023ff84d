//! Word from the kernel that somebody took a table of ours, or a part of it, out of its packet filter.
//!
//! `nft flush ruleset` takes everything, and with it begins what most distributions' nftables service loads: an operator who changes a
//! rule of his own would leave a VIP to the kernel. What is ours is replaced by us in one transaction, after which it is there again.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::io::Errno;
use tracing::{info, warn};

use crate::routing::split_messages;

/// What the kernel writes at once at most (`NLMSG_GOODSIZE`, net/netfilter/nf_tables_api.c), with room.
const WORD_MAX: usize = 65_536;
/// Before the kernel is asked again whether we may listen.
const RETRY: Duration = Duration::from_secs(1);
/// Words taken at once before other tasks run.
const WORDS_MAX: usize = 256;

/// The multicast group of changes of nftables (linux/netfilter/nfnetlink.h: `NFNLGRP_NFTABLES`), as a bit.
const GROUP: u32 = 1 << (7 - 1);
/// Of message types, the upper byte (`NFNL_SUBSYS_NFTABLES`), and the lower (linux/netfilter/nf_tables.h: `enum nf_tables_msg_types`).
const SUBSYSTEM: u8 = 10;
const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const DELETE_CHAIN: u8 = 5;
const DELETE_RULE: u8 = 8;
/// The last word of a transaction.
const NEW_GENERATION: u8 = 15;
/// The name of the table, in words about it, its chains and its rules (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`).
const TABLE_NAME: u16 = 1;

/// Watches one table in the network namespace of the thread that made it.
pub(crate) struct FilterWatch {
    table: Table,
    /// `None`: the kernel does not let us listen, which was said.
    socket: Option<TokioSocket>,
    buffer: Vec<u8>,
}

impl FilterWatch {
    /// From now on.
    pub(crate) fn new(family: Family, name: &str) -> Self {
        let mut watch = Self {
            table: Table::new(family, name),
            socket: None,
            buffer: Vec::with_capacity(WORD_MAX),
        };
        match open() {
            Ok(socket) => watch.socket = Some(socket),
            Err(error) => watch.tell(&error),
        }
        watch
    }

    /// Returns when the table is not whole, or may not be: what was taken from it, nobody has put back. Nothing is lost if this is
    /// dropped before.
    pub(crate) async fn damaged(&mut self) {
        loop {
            if self.socket.is_some() {
                match self.word().await {
                    Ok(()) => return,
                    Err(error) => self.tell(&error),
                }
                self.socket = None;
            }
            tokio::time::sleep(RETRY).await;
            if let Ok(socket) = open() {
                info!(
                    table = self.table.name,
                    "the packet filter is watched again"
                );
                self.socket = Some(socket);
                return;
            }
        }
    }

    fn tell(&self, error: &io::Error) {
        warn!(
            table = self.table.name, %error,
            "the packet filter is not watched: who takes this table out of it has to start atmd again"
        );
    }

    async fn word(&mut self) -> io::Result<()> {
        loop {
            self.hear().await?;
            // What has come meanwhile may say that we have put it back ourselves.
            for _ in 0..WORDS_MAX {
                if !self.has_more().await? {
                    break;
                }
            }
            if self.table.is_damaged() {
                self.table.damaged = false;
                return Ok(());
            }
        }
    }

    async fn hear(&mut self) -> io::Result<()> {
        self.buffer.clear();
        let heard = poll_fn(|context| self.poll(context)).await;
        self.understand(heard)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.socket {
            Some(socket) => socket.poll_recv(context, &mut self.buffer),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Hears what is there already, if anything is.
    async fn has_more(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let heard = poll_fn(|context| {
            Poll::Ready(match self.poll(context) {
                Poll::Ready(heard) => Some(heard),
                Poll::Pending => None,
            })
        });
        match heard.await {
            Some(heard) => self.understand(heard).map(|()| true),
            None => Ok(false),
        }
    }

    fn understand(&mut self, heard: io::Result<()>) -> io::Result<()> {
        match heard {
            Ok(()) => self.table.hear(&self.buffer),
            // Words were lost (netlink(7)), and any may have been about this table.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                self.table.damaged = true;
                self.table.in_transaction = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// A socket that hears of every change.
fn open() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
    Ok(socket)
}

/// The family of a table (linux/netfilter.h: `NFPROTO_INET`, `NFPROTO_NETDEV`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inet = 1,
    Netdev = 5,
}

/// What was heard of a table.
#[derive(Debug)]
struct Table {
    family: Family,
    name: String,
    damaged: bool,
    /// More words of a transaction are to come: they may put back what others took.
    in_transaction: bool,
}

impl Table {
    fn new(family: Family, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
            damaged: false,
            in_transaction: false,
        }
    }

    const fn is_damaged(&self) -> bool {
        self.damaged && !self.in_transaction
    }

    /// Reads the words of one datagram.
    fn hear(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut rest = datagram;
        while let Some((message, after)) = split_messages(rest)? {
            rest = after;
            self.read(message);
        }
        Ok(())
    }

    /// One word: a header (netlink(7)), family, version and resource (`struct nfgenmsg`), and attributes.
    fn read(&mut self, message: &[u8]) {
        let Some(([_, _, _, _, a, b, ..], rest)) = message.split_first_chunk::<16>() else {
            return;
        };
        let [subsystem, kind] = u16::from_ne_bytes([*a, *b]).to_be_bytes();
        let Some(([family, ..], attributes)) = rest.split_first_chunk::<4>() else {
            return;
        };
        if subsystem != SUBSYSTEM {
            return;
        }
        self.in_transaction = kind != NEW_GENERATION;
        if *family != self.family as u8 || !self.is_named_in(attributes) {
            return;
        }
        match kind {
            NEW_TABLE => self.damaged = false,
            DELETE_TABLE | DELETE_CHAIN | DELETE_RULE => self.damaged = true,
            _ => {}
        }
    }

    fn is_named_in(&self, mut attributes: &[u8]) -> bool {
        while let Some(([a, b, c, d], value)) = attributes.split_first_chunk::<4>() {
            let len = usize::from(u16::from_ne_bytes([*a, *b]));
            // The upper bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
            let kind = u16::from_ne_bytes([*c, *d]) & 0x3fff;
            let Some(value) = len.checked_sub(4).and_then(|len| value.get(..len)) else {
                return false;
            };
            if kind == TABLE_NAME {
                return value.strip_suffix(&[0]) == Some(self.name.as_bytes());
            }
            attributes = attributes
                .get(len.next_multiple_of(4)..)
                .unwrap_or_default();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::routing::tests::{Host, block_on};

    const OURS: &str = "netdev atm_guard_e0";

    fn nft(input: &str) {
        let mut child = Command::new("nft");
        let mut child = child
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "{input}");
    }

    /// As we put it in place.
    fn replace(table: &str) {
        nft(&format!(
            "table {table} {{}}\ndelete table {table}\ntable {table} {{\n chain in {{\n \
             ip daddr {{ 10.9.0.100, 10.9.0.101 }} counter drop\n }}\n}}\n"
        ));
    }

    #[test]
    fn what_takes_from_the_table_is_heard_and_nothing_else() {
        let Some(host) = Host::new("what_takes_from_the_table_is_heard_and_nothing_else") else {
            return;
        };
        host.on(|| {
            block_on(async {
                replace(OURS);
                let mut watch = FilterWatch::new(Family::Netdev, "atm_guard_e0");
                assert!(watch.socket.is_some());
                // As soon as the kernel says so; what it does not say it has not said by then.
                let mut damaged = async || {
                    let heard = tokio::time::timeout(Duration::from_millis(200), watch.damaged());
                    heard.await.is_ok()
                };
                assert!(!damaged().await, "nothing has happened");
                replace(OURS);
                assert!(!damaged().await, "replaced by ourselves");
                nft("table netdev other {}\ndelete table netdev other\n");
                nft("table inet atm_guard_e0 {}\ndelete table inet atm_guard_e0\n");
                nft(&format!("add rule {OURS} in counter\n"));
                assert!(!damaged().await, "none of it is missing");
                for taken in [
                    "flush ruleset\n".to_owned(),
                    format!("delete table {OURS}\n"),
                    format!("flush chain {OURS} in\n"),
                    format!("flush table {OURS}\n"),
                ] {
                    nft(&taken);
                    assert!(damaged().await, "{taken}");
                    assert!(!damaged().await, "once");
                    replace(OURS);
                    assert!(!damaged().await, "put back");
                    nft(&taken);
                    replace(OURS);
                    assert!(!damaged().await, "put back before it was asked: {taken}");
                }
            });
        });
    }
}
