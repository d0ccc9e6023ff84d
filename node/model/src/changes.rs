//! What records of connections do to the state.

use crate::command::{Refusal, Response};
use crate::connections::{ConnectionChange, ConnectionKey, Pin};
use crate::ids::Epoch;
use crate::source_ports::ServerTuple;
use crate::state::{ServerEntry, State};
use crate::sticky::StickyKey;

impl State {
    /// Applies a batch. `sticks`: whether connections make their clients sticky.
    pub(crate) fn change_connections(
        &mut self,
        epoch: Epoch,
        changes: Vec<ConnectionChange>,
        sticks: bool,
    ) -> Result<Response, Refusal> {
        self.current_tenure(epoch)?;
        let mut accepted = Vec::with_capacity(changes.len());
        let mut refused = Vec::new();
        let mut not_stuck = 0_u32;
        for change in changes {
            match change {
                ConnectionChange::Open(key, pin) => {
                    if let Err(refusal) = self.open(key, pin) {
                        refused.push((key, refusal));
                        continue;
                    }
                    accepted.push(change);
                    if let Err(client) = self.stick(key, pin, sticks) {
                        accepted.push(ConnectionChange::Unstick(client));
                        not_stuck += 1;
                    }
                }
                // An end that comes twice is an end.
                ConnectionChange::Close(key) => {
                    self.close(&key);
                    accepted.push(change);
                }
                ConnectionChange::Unstick(client) => {
                    self.sticky.remove(&client);
                    accepted.push(change);
                }
            }
        }
        Ok(Response::Connections {
            accepted,
            refused,
            not_stuck,
        })
    }

    fn open(&mut self, key: ConnectionKey, pin: Pin) -> Result<(), Refusal> {
        match self.connections.get(&key) {
            Some(known) if known == pin => return Ok(()),
            Some(known) if known.server == pin.server => return Err(Refusal::OtherSourcePort),
            Some(_) => return Err(Refusal::OtherServer),
            None => {}
        }
        let server = self.servers.get(&pin.server).ok_or(Refusal::Unknown)?;
        if !self.services.contains_key(&key.service) {
            return Err(Refusal::Unknown);
        }
        self.source_port_is_free(server, &key, pin)?;
        if self.connections.len() >= self.connections_max() {
            return Err(Refusal::TableFull);
        }
        self.insert_connection(key, pin);
        Ok(())
    }

    /// No port is given out twice, and none that is not needed.
    fn source_port_is_free(
        &self,
        server: &ServerEntry,
        key: &ConnectionKey,
        pin: Pin,
    ) -> Result<(), Refusal> {
        match (server.source, pin.source_port) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Refusal::NeedlessSourcePort),
            (Some(_), None) => Err(Refusal::NoSourcePort),
            (Some(_), Some(_)) => match self.server_tuple(key, pin) {
                Some(tuple) if self.source_ports.is_taken(&tuple) => Err(Refusal::SourcePortTaken),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// Adds a connection that is not in the table, whatever it says.
    pub(crate) fn insert_connection(&mut self, key: ConnectionKey, pin: Pin) {
        if let Some(tuple) = self.server_tuple(&key, pin) {
            self.source_ports.take(tuple);
        }
        self.connections.insert(key, pin);
    }

    fn close(&mut self, key: &ConnectionKey) {
        if let Some(pin) = self.connections.remove(key)
            && let Some(tuple) = self.server_tuple(key, pin)
        {
            self.source_ports.give_back(&tuple);
        }
    }

    /// The connection as its server sees it; `None` without full NAT. Neither server nor service change what they are
    /// while it lives, so it is the same at its end as at its beginning.
    fn server_tuple(&self, key: &ConnectionKey, pin: Pin) -> Option<ServerTuple> {
        let server = self.servers.get(&pin.server)?;
        let service = self.services.get(&key.service)?;
        Some(ServerTuple {
            source: server.source?,
            source_port: pin.source_port?,
            server: server.address,
            protocol: service.protocol,
            port: service.port,
        })
    }

    /// The client of a sticky service belongs to the server of its latest connection, or to none, which is the error.
    fn stick(&mut self, key: ConnectionKey, pin: Pin, sticks: bool) -> Result<(), StickyKey> {
        let Some(client) = self.sticky_rules.key(key.service, key.client) else {
            return Ok(());
        };
        let has_room =
            self.sticky.get(&client).is_some() || self.sticky.len() < self.connections_max();
        if sticks && has_room && self.sticky_rules.allows(key.service, pin.server) {
            self.sticky.set(client, pin.server);
            Ok(())
        } else {
            self.sticky.remove(&client);
            Err(client)
        }
    }
}
