//! Word from the kernel that somebody changed a table of ours in its packet filter, and what is in it then.
//!
//! `nft flush ruleset` takes everything, and with it begins what most distributions' nftables service loads: an operator who changes a
//! rule of his own would leave a VIP to the kernel. Who changed what is not read out of the words: what is in the table is compared with
//! what was in it when we had put it there.

use std::future::poll_fn;
use std::io;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
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
/// The upper byte of message types (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u8 = 10;
/// The last word of a transaction (linux/netfilter/nf_tables.h: `NFT_MSG_NEWGEN`).
const NEW_GENERATION: u16 = (SUBSYSTEM as u16) << 8 | 15;
/// Its number (linux/netfilter/nf_tables.h: `NFTA_GEN_ID`).
const GENERATION_ID: u16 = 1;
/// Asks for it (linux/netfilter/nf_tables.h: `NFT_MSG_GETGEN`).
const GET_GENERATION: u16 = (SUBSYSTEM as u16) << 8 | 16;
/// A question to the kernel (linux/netlink.h: `NLM_F_REQUEST`).
const REQUEST: u16 = 1;
/// How long a transaction that can be seen already may take to be told of.
const TOLD_TIME_MAX: Duration = Duration::from_secs(1);
/// The name of the table, in words about it, its chains, rules and sets (`NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, ..).
const TABLE_NAME: u16 = 1;

/// The family of a table (linux/netfilter.h: `NFPROTO_INET`, `NFPROTO_NETDEV`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inet = 1,
    Netdev = 5,
}

/// What is in a table now, as nft(8) lists it, without what was counted; `None`: there is no such table, or nft cannot be run.
pub(crate) async fn listing(family: Family, name: &str) -> Option<String> {
    let family = match family {
        Family::Inet => "inet",
        Family::Netdev => "netdev",
    };
    let mut nft = tokio::process::Command::new("nft");
    nft.args(["--stateless", "list", "table", family, name]);
    let output = nft.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.await.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Makes a change of our own to a table, in one transaction, and returns what is in the table then, to be compared with it later; `None`:
/// somebody else may have changed it at the same time, or nft cannot be run.
///
/// The change is asked for when it can be heard, and not before.
pub(crate) async fn changed<T, E>(
    (family, name): (Family, &str),
    change: impl AsyncFnOnce() -> Result<T, E>,
) -> Result<(T, Option<String>), E> {
    let witness = open();
    let done = change().await?;
    let listed = listing(family, name).await;
    let mut table = Table::new(family, name);
    // Otherwise what is listed need not be what we have made.
    let alone = match witness {
        Ok(witness) => table.hear_all(&witness).await.is_ok() && table.transactions == 1,
        Err(_) => false,
    };
    Ok((done, listed.filter(|_| alone)))
}

/// The packet filter's generation: it is another one after each transaction, and is so before what the transaction did is listed
/// (`nf_tables_commit`, net/netfilter/nf_tables_api.c).
fn generation() -> io::Result<u32> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    // The kernel answers while it is asked.
    socket.set_non_blocking(true)?;
    let kind = [GET_GENERATION.to_ne_bytes(), REQUEST.to_ne_bytes()].concat();
    // Length, kind, number and sender (netlink(7)), and of no family.
    let question = [&20_u32.to_ne_bytes(), &*kind, &[0; 8], &[0; 4]].concat();
    socket.send_to(&question, &SocketAddr::new(0, 0), 0)?;
    let (answer, _kernel) = socket.recv_from_full()?;
    let generation = split_messages(&answer)?.and_then(|(message, _)| generation_in(message));
    generation.ok_or_else(|| io::Error::other("no generation in the kernel's answer"))
}

/// What a word about a generation says of it.
fn generation_in(message: &[u8]) -> Option<u32> {
    let is_one = message.get(4..6)? == NEW_GENERATION.to_ne_bytes();
    let value = attribute(message, GENERATION_ID).filter(|_| is_one)?;
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// An attribute of a word about nftables: after a header (netlink(7)), and family, version and resource (`struct nfgenmsg`).
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = message.get(20..)?;
    while let Some(([a, b, c, d], value)) = attributes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([*a, *b]));
        // The upper bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        let kind = u16::from_ne_bytes([*c, *d]) & 0x3fff;
        let value = value.get(..len.checked_sub(4)?)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

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

    /// Returns when the table was changed, by whomever, or may have been. Nothing is lost if this is dropped before.
    pub(crate) async fn touched(&mut self) {
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
            // The rest of a burst goes with it.
            for _ in 0..WORDS_MAX {
                if !self.has_more().await? {
                    break;
                }
            }
            if std::mem::take(&mut self.table.touched) {
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
                self.table.touched = true;
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

/// What was heard of a table.
#[derive(Debug)]
struct Table {
    family: Family,
    name: String,
    touched: bool,
    /// Transactions that touched it, and whether the one under way has.
    transactions: usize,
    in_this: bool,
    /// The last one that was told of.
    generation: Option<u32>,
}

impl Table {
    fn new(family: Family, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
            touched: false,
            transactions: 0,
            in_this: false,
            generation: None,
        }
    }

    /// Hears all that whoever has just looked may have seen. The kernel shows what a transaction did before it tells of it.
    async fn hear_all(&mut self, socket: &TokioSocket) -> io::Result<()> {
        let now = generation()?;
        let mut buffer = Vec::with_capacity(WORD_MAX);
        let told = async {
            // The number begins again after 2^32 transactions.
            while (self.generation).is_none_or(|told| now.wrapping_sub(told).cast_signed() > 0) {
                buffer.clear();
                poll_fn(|context| socket.poll_recv(context, &mut buffer)).await?;
                self.hear(&buffer)?;
            }
            Ok(())
        };
        tokio::time::timeout(TOLD_TIME_MAX, told).await?
    }

    /// Reads the words of one datagram.
    fn hear(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut rest = datagram;
        while let Some((message, after)) = split_messages(rest)? {
            rest = after;
            if let Some(generation) = generation_in(message) {
                self.generation = Some(generation);
                self.transactions += usize::from(std::mem::take(&mut self.in_this));
            } else if self.is_about(message) == Some(true) {
                (self.touched, self.in_this) = (true, true);
            }
        }
        Ok(())
    }

    fn is_about(&self, message: &[u8]) -> Option<bool> {
        let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
        let family = *message.get(16)?;
        if kind >> 8 != u16::from(SUBSYSTEM) || family != self.family as u8 {
            return None;
        }
        let name = attribute(message, TABLE_NAME)?;
        Some(name.strip_suffix(&[0]) == Some(self.name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::routing::tests::{Host, block_on, run};

    const OURS: &str = "netdev atm_guard_e0";

    fn nft(input: &str) {
        run("nft", &["-f", "-"], input).unwrap();
    }

    /// As we put it in place.
    fn replace() {
        nft(&format!(
            "table {OURS} {{}}\ndelete table {OURS}\ntable {OURS} {{\n chain in {{\n \
             ip daddr {{ 10.9.0.100, 10.9.0.101 }} counter drop\n }}\n}}\n"
        ));
    }

    #[test]
    fn what_somebody_else_has_a_hand_in_is_not_known() {
        let Some(host) = Host::new("what_somebody_else_has_a_hand_in_is_not_known") else {
            return;
        };
        host.on(|| {
            block_on(async {
                let table = (Family::Netdev, "atm_guard_e0");
                let flush = || nft("flush ruleset\n");
                let other = || nft("table netdev other {}\n");
                let listed = async |change: &dyn Fn()| {
                    let change = async || {
                        change();
                        Ok::<(), ()>(())
                    };
                    changed(table, change).await.unwrap().1
                };
                let whole = listed(&replace).await;
                assert!(whole.as_ref().unwrap().contains("10.9.0.101"), "{whole:?}");
                assert_eq!(listed(&replace).await, whole);
                let beside = listed(&|| (other(), replace(), other()).2).await;
                assert_eq!(beside, whole, "another table is no matter");
                for (what, change) in [
                    ("before", &(|| (flush(), replace()).1) as &dyn Fn()),
                    ("after", &|| (replace(), flush()).1),
                    ("as well", &|| (replace(), replace()).1),
                    ("alone", &other),
                ] {
                    assert_eq!(listed(change).await, None, "{what}");
                    replace();
                }
                let failed: Result<((), _), _> = changed(table, async || Err("it failed")).await;
                assert_eq!(failed, Err("it failed"));
            });
        });
    }

    #[test]
    fn nobody_elses_work_is_taken_for_ours() {
        let Some(host) = Host::new("nobody_elses_work_is_taken_for_ours") else {
            return;
        };
        let with = |vip: &str| {
            format!(
                "table {OURS} {{}}\ndelete table {OURS}\ntable {OURS} {{\n chain in {{\n \
                 type filter hook ingress device \"e0\" priority -500;\n ip daddr {vip} counter drop\n }}\n}}\n"
            )
        };
        let (ours, theirs) = (with("10.9.0.101"), with("10.9.0.99"));
        let table = (Family::Netdev, "atm_guard_e0");
        let ended = AtomicBool::new(false);
        let known = host.on(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    block_on(async {
                        for pause in [0, 0, 0, 40].into_iter().cycle() {
                            while !listing(table.0, table.1)
                                .await
                                .is_some_and(|listed| listed.contains("10.9.0.101"))
                            {
                                if ended.load(Ordering::Relaxed) {
                                    return;
                                }
                            }
                            tokio::time::sleep(Duration::from_millis(pause)).await;
                            nft(&theirs);
                        }
                    });
                });
                let known = block_on(async {
                    let mut known = Vec::new();
                    for _ in 0..100 {
                        let change = async || {
                            nft(&ours);
                            Ok::<(), ()>(())
                        };
                        known.extend(changed(table, change).await.unwrap().1);
                    }
                    known
                });
                ended.store(true, Ordering::Relaxed);
                known
            })
        });
        assert!(!known.is_empty());
        for listed in known {
            assert!(listed.contains("10.9.0.101"), "{listed}");
        }
    }

    #[test]
    fn what_changes_the_table_is_heard_and_seen_and_nothing_else() {
        let Some(host) = Host::new("what_changes_the_table_is_heard_and_seen_and_nothing_else")
        else {
            return;
        };
        host.on(|| {
            block_on(async {
                replace();
                let name = "atm_guard_e0";
                let listed = async || listing(Family::Netdev, name).await;
                let whole = listed().await;
                assert!(whole.as_ref().unwrap().contains("10.9.0.101"), "{whole:?}");
                let mut watch = FilterWatch::new(Family::Netdev, name);
                assert!(watch.socket.is_some());
                // As soon as the kernel says so; what it does not say it has not said by then.
                let mut touched = async || {
                    let heard = tokio::time::timeout(Duration::from_millis(200), watch.touched());
                    heard.await.is_ok()
                };
                assert!(!touched().await, "nothing has happened");
                nft("table netdev other {}\ndelete table netdev other\n");
                nft("table inet atm_guard_e0 {}\ndelete table inet atm_guard_e0\n");
                assert!(!touched().await, "of others");
                replace();
                assert!(touched().await, "replaced by ourselves");
                assert_eq!(listed().await, whole);
                for change in [
                    "flush ruleset\n".to_owned(),
                    format!("delete table {OURS}\n"),
                    format!("flush chain {OURS} in\n"),
                    format!("flush table {OURS}\n"),
                    format!("insert rule {OURS} in counter accept\n"),
                    // An older table of ours that somebody had saved.
                    format!(
                        "flush ruleset\ntable {OURS} {{\n chain in {{\n \
                         ip daddr {{ 10.9.0.100 }} counter drop\n }}\n}}\n"
                    ),
                ] {
                    nft(&change);
                    assert!(touched().await, "{change}");
                    assert_ne!(listed().await, whole, "{change}");
                    assert!(!touched().await, "once");
                    replace();
                    assert!(touched().await);
                    assert_eq!(listed().await, whole);
                }
            });
        });
    }
}
