//! What the cluster agrees to do, as it stands in the log.
//!
//! Stored form: one version byte, then for `FORMAT_COMMAND` the command in postcard, or for `FORMAT_CONNECTIONS`
//! the epoch (8 bytes, big endian) and the records, fixed width. New commands are added at the end of the enum only.
//! `FORMAT_CONNECTIONS_OLD` is read, for logs from before there were source ports and sticky clients.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::connections::{BadRecord, CHANGE_LEN, ConnectionChange, ConnectionKey, OLD_CHANGE_LEN};
use crate::health::{Order, OverrideKey, ScriptStep, Subject};
use crate::ids::{ConfigNumber, Epoch, NodeId, ServerId};

/// Changes in one entry at most: 52 KiB of records, small enough that one entry never delays a heartbeat noticeably.
pub const BATCH_CHANGES_MAX: usize = 2048;

/// A change to the replicated state. Idempotent, or refused by its epoch or expected version when it comes twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Changes of the connection table, by the active ATM of this epoch.
    Connections {
        /// The tenure they were made in; another tenure's changes are refused.
        epoch: Epoch,
        /// At most [`BATCH_CHANGES_MAX`].
        changes: Vec<ConnectionChange>,
    },
    /// Changes that were stored before there were sticky clients, in records without a source port. Their clients are
    /// not made sticky: ATMs that read the same log from different snapshots must come to the same state. Only
    /// [`decode`](Self::decode) makes it.
    ConnectionsBeforeSticky {
        /// As in [`Connections`](Self::Connections).
        epoch: Epoch,
        /// `Open` without a source port, and `Close`.
        changes: Vec<ConnectionChange>,
    },
    /// Everything that happens seldom.
    Control(Control),
}

/// A change that happens seldom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// A new version of the configuration.
    ApplyConfig {
        /// The file, as the operator wrote it.
        source: String,
        /// Addresses of the names in it, resolved once by the proposer.
        hosts: BTreeMap<String, IpAddr>,
        /// Refuse unless this is the current version.
        expected: Option<ConfigNumber>,
        /// Name of the ATM that proposed it.
        by: String,
    },
    /// The leader of `term` starts a tenure.
    BeginEpoch {
        /// The new active ATM.
        node: NodeId,
        /// Its name in AtmPool.
        name: String,
        /// The Raft term it leads.
        term: u64,
        /// How long its lease lasts after each acknowledged round.
        lease: Duration,
    },
    /// The active ATM has fallen silent, in order: its successor need not wait.
    EndEpoch {
        /// The tenure that is over.
        epoch: Epoch,
    },
    /// A member's data directory, by the random name it got when it was made: a lost directory must not vote as if it were the old one.
    Register {
        /// The member.
        node: NodeId,
        /// Name of its data directory.
        incarnation: String,
    },
    /// What checks found of one service of one server: a [`Verdict`](Self::Verdict) as it was stored before there were epochs,
    /// reasons and pings in it.
    Health {
        /// The server.
        server: ServerId,
        /// The service's name.
        service: String,
        /// Whether it takes new connections.
        healthy: bool,
    },
    /// The member's data directory is lost: the next one that comes by its name is its new one.
    Forget {
        /// The member.
        node: NodeId,
    },
    /// What the checks of the ATMs found, as the active one judged.
    Verdict {
        /// Its tenure.
        epoch: Epoch,
        /// What is judged.
        subject: Subject,
        /// Whether it passes its checks.
        healthy: bool,
        /// Milliseconds since 1970 by the proposer's wall clock.
        at_ms: u64,
        /// What a check said, for people.
        reason: String,
    },
    /// An operator's order about a server.
    Order {
        /// Whom it is about.
        key: OverrideKey,
        /// What is ordered.
        order: Order,
        /// The ATM that took it.
        by: String,
        /// Milliseconds since 1970 by its wall clock.
        at_ms: u64,
    },
    /// What the active ATM does with a script.
    Script {
        /// Its tenure.
        epoch: Epoch,
        /// The number of the run.
        run: u64,
        /// What it does, or what became of it.
        step: ScriptStep,
        /// Milliseconds since 1970 by its wall clock.
        at_ms: u64,
    },
    /// The ATM of this tenure speaks from now on: for the record of events only.
    Active {
        /// Its tenure.
        epoch: Epoch,
        /// Milliseconds since 1970 by its wall clock.
        at_ms: u64,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing to say (blank entries, membership, snapshots).
    None,
    /// The version is in force.
    Applied(ConfigNumber),
    /// The tenure began.
    EpochBegun {
        /// Its number.
        epoch: Epoch,
        /// The longest lease an older tenure may still hold; zero: none can.
        longest_older_lease: Duration,
    },
    /// The tenure is over.
    EpochEnded,
    /// The member's data directory is known.
    Registered,
    /// The member's data directory, if one was known, is forgotten.
    Forgotten(Option<String>),
    /// The verdict or order is in force; `true`: something is another than before.
    Health(bool),
    /// The step of a script, or the beginning of a tenure, is written down; `true`: it was not before.
    Noted(bool),
    /// The batch was applied, but for these.
    Connections {
        /// What the packet path of every ATM carries out, in order: the changes that were applied. An `Open` of a
        /// sticky service makes its client belong to its server; where it could not, an `Unstick` that nobody
        /// proposed follows it, and is counted in `not_stuck`.
        accepted: Vec<ConnectionChange>,
        /// Not applied.
        refused: Vec<(ConnectionKey, Refusal)>,
        /// Connections that were accepted and left their sticky client without a server: `NumConnections` clients
        /// belong to one already, the server does not offer the service any more, or the batch is from before there
        /// were sticky clients.
        not_stuck: u32,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a command, or one record of it, changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The epoch is not the current one.
    #[error("epoch {given} is over; the current one is {current}")]
    StaleEpoch {
        /// The command's.
        given: Epoch,
        /// The state's.
        current: Epoch,
    },
    /// A tenure of a later term has begun.
    #[error("term {given} is over; the tenure of term {current} has begun")]
    StaleTerm {
        /// The command's.
        given: u64,
        /// The state's.
        current: u64,
    },
    /// Another version is current.
    #[error("version {current} is current, not {expected}")]
    OtherVersion {
        /// What the command expected.
        expected: ConfigNumber,
        /// What is.
        current: ConfigNumber,
    },
    /// The configuration has errors.
    #[error("the configuration has {count} error(s); the first: line {line}: {first}")]
    BadConfig {
        /// How many.
        count: usize,
        /// The first one's line.
        line: usize,
        /// The first one.
        first: String,
    },
    /// The configuration changes the members of the group.
    #[error(
        "the AtmPool differs from the group's ({0}); ATMs are added to and removed from a running group one at a time, which this version cannot do"
    )]
    OtherMembers(String),
    /// The active ATM cannot have lost its data directory.
    #[error("{0} is active; its data directory is in use")]
    Active(String),
    /// All numbers of servers or virtual services are taken by live connections.
    #[error("no number is free for another {0}")]
    NoNumber(&'static str),
    /// `NumConnections` is reached.
    #[error("the connection table is full")]
    TableFull,
    /// No such server or virtual service.
    #[error("unknown server or service")]
    Unknown,
    /// The configuration has no such server, or it does not offer that service.
    #[error("the configuration has no server {0}")]
    UnknownServer(String),
    /// The connection already belongs to another server.
    #[error("the connection belongs to another server")]
    OtherServer,
    /// The connection already has another source port.
    #[error("the connection has another source port")]
    OtherSourcePort,
    /// The server has `source=`, and the record has no source port.
    #[error("the server is reached by full NAT, and the connection has no source port")]
    NoSourcePort,
    /// The server has no `source=`, and the record has a source port.
    #[error("the server is not reached by full NAT, and the connection has a source port")]
    NeedlessSourcePort,
    /// Another live connection looks the same to the server.
    #[error("another connection to the server has this source port")]
    SourcePortTaken,
    /// The member is known by another data directory.
    #[error("node {node} is known by data directory {known}, not {given}")]
    OtherIncarnation {
        /// The member.
        node: NodeId,
        /// Of the group.
        known: String,
        /// Of the command.
        given: String,
    },
}

const FORMAT_COMMAND: u8 = 1;
const FORMAT_CONNECTIONS_OLD: u8 = 2;
const FORMAT_CONNECTIONS: u8 = 3;

/// A stored command that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum BadCommand {
    /// No bytes at all.
    #[error("empty command")]
    Empty,
    /// Written by a newer version, or damaged.
    #[error("command of unknown format {0} (written by a newer version?)")]
    Format(u8),
    /// The batch's length does not fit.
    #[error("connection batch of {0} bytes")]
    Length(usize),
    /// A record in it.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The rest.
    #[error("command cannot be decoded")]
    Decode(#[from] postcard::Error),
}

impl Command {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Connections { epoch, changes } => {
                encode_batch(FORMAT_CONNECTIONS, *epoch, changes, CHANGE_LEN)
            }
            Self::ConnectionsBeforeSticky { epoch, changes } => {
                encode_batch(FORMAT_CONNECTIONS_OLD, *epoch, changes, OLD_CHANGE_LEN)
            }
            Self::Control(control) => postcard::to_extend(control, vec![FORMAT_COMMAND])
                .expect("a vector takes any command"),
        }
    }

    /// The inverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCommand> {
        let (format, rest) = bytes.split_first().ok_or(BadCommand::Empty)?;
        match *format {
            FORMAT_COMMAND => Ok(Self::Control(postcard::from_bytes(rest)?)),
            FORMAT_CONNECTIONS => {
                let (epoch, changes) = decode_batch(rest, ConnectionChange::decode)?;
                Ok(Self::Connections { epoch, changes })
            }
            FORMAT_CONNECTIONS_OLD => {
                let (epoch, changes) = decode_batch(rest, ConnectionChange::decode_old)?;
                Ok(Self::ConnectionsBeforeSticky { epoch, changes })
            }
            other => Err(BadCommand::Format(other)),
        }
    }
}

/// Records of `len` bytes: what is beyond, an older format does not have.
fn encode_batch(format: u8, epoch: Epoch, changes: &[ConnectionChange], len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + changes.len() * len);
    bytes.push(format);
    bytes.extend_from_slice(&epoch.0.to_be_bytes());
    for change in changes {
        bytes.extend(change.encode().into_iter().take(len));
    }
    bytes
}

fn decode_batch<const LEN: usize>(
    bytes: &[u8],
    record: impl Fn(&[u8; LEN]) -> Result<ConnectionChange, BadRecord>,
) -> Result<(Epoch, Vec<ConnectionChange>), BadCommand> {
    let (epoch, records) = bytes
        .split_first_chunk::<8>()
        .ok_or(BadCommand::Length(bytes.len()))?;
    let (records, odd) = records.as_chunks::<LEN>();
    if !odd.is_empty() || records.len() > BATCH_CHANGES_MAX {
        return Err(BadCommand::Length(bytes.len()));
    }
    let changes = records.iter().map(record).collect::<Result<_, _>>()?;
    Ok((Epoch(u64::from_be_bytes(*epoch)), changes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Pin;
    use crate::ids::VirtualServiceId;
    use crate::sticky::StickyKey;

    #[test]
    fn commands_survive_their_stored_form() {
        let key = ConnectionKey {
            client: "10.1.0.200".parse().unwrap(),
            port: 40000,
            service: VirtualServiceId(3),
        };
        let six = ConnectionKey {
            client: "2001:db8::1".parse().unwrap(),
            ..key
        };
        for command in [
            Command::Connections {
                epoch: Epoch(7),
                changes: vec![
                    ConnectionChange::Open(key, ServerId(2).into()),
                    ConnectionChange::Open(
                        six,
                        Pin {
                            server: ServerId(2),
                            source_port: std::num::NonZeroU16::new(1024),
                        },
                    ),
                    ConnectionChange::Close(six),
                    ConnectionChange::Unstick(StickyKey {
                        service: key.service,
                        client: key.client,
                    }),
                ],
            },
            Command::ConnectionsBeforeSticky {
                epoch: Epoch(7),
                changes: vec![
                    ConnectionChange::Open(key, ServerId(2).into()),
                    ConnectionChange::Close(six),
                ],
            },
            Command::Control(Control::EndEpoch { epoch: Epoch(9) }),
            Command::Control(Control::BeginEpoch {
                node: NodeId(1),
                name: "atm1".into(),
                term: 4,
                lease: Duration::from_millis(135),
            }),
        ] {
            assert_eq!(Command::decode(&command.encode()).unwrap(), command);
        }
    }

    /// What a version before source ports and sticky clients wrote, byte for byte.
    #[test]
    fn batches_of_the_older_format_are_read() {
        const BYTES: [u8; 9 + 3 * OLD_CHANGE_LEN] = [
            2, 0, 0, 0, 0, 0, 0, 0, 1, // format, epoch
            1, 0, 0, 1, 0, 1, 156, 64, // open, server 1, service 1, port 40000
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 7, //
            1, 0, 0, 2, 0, 1, 156, 65, // open, server 2, service 1, port 40001
            32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, //
            2, 0, 0, 0, 0, 1, 0, 9, // close, service 1, port 9
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 8,
        ];
        let key = |client: &str, port| ConnectionKey {
            client: client.parse().unwrap(),
            port,
            service: VirtualServiceId(1),
        };
        let command = Command::decode(&BYTES).unwrap();
        let expected = Command::ConnectionsBeforeSticky {
            epoch: Epoch(1),
            changes: vec![
                ConnectionChange::Open(key("192.0.2.7", 40000), ServerId(1).into()),
                ConnectionChange::Open(key("2001:db8::7", 40001), ServerId(2).into()),
                ConnectionChange::Close(key("192.0.2.8", 9)),
            ],
        };
        assert_eq!(command, expected);
        assert_eq!(command.encode(), BYTES);
        // Its records end where they ended then: a newer one among them is damage.
        let mut damaged = BYTES;
        damaged[9] = 3;
        assert!(Command::decode(&damaged).is_err());
    }

    #[test]
    fn damaged_commands_are_refused() {
        for bytes in [
            &[][..],
            &[9, 1, 2],
            &[FORMAT_CONNECTIONS, 1],
            &[FORMAT_CONNECTIONS_OLD, 1],
            &[FORMAT_COMMAND],
            &[FORMAT_COMMAND, 200, 1],
        ] {
            assert!(Command::decode(bytes).is_err(), "{bytes:?}");
        }
        let mut bad = vec![FORMAT_CONNECTIONS];
        bad.extend_from_slice(&[0; 8 + CHANGE_LEN]);
        assert!(matches!(
            Command::decode(&bad),
            Err(BadCommand::Record(BadRecord(0)))
        ));
    }
}
