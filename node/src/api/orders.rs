//! Orders about servers, and the events that tell of everything that happened to them.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use model::command::{Command, Control, Refusal, Response as Outcome};
use model::health::{Event, HOST, Order, OverrideKey};
use model::state::State;
use proto::v1;
use tonic::Status;

use super::cluster::Cluster;
use super::relay::CHANGE_TIMEOUT;
use crate::health::unix_ms;
use crate::raft::{Glimpse, StoredCommand};

/// What `Events` answers.
pub(super) type EventPages = Pin<Box<dyn Stream<Item = Result<v1::EventsReply, Status>> + Send>>;

impl Cluster {
    /// Puts an order into the log.
    pub(super) async fn order_server(
        &self,
        request: v1::OrderServerRequest,
    ) -> Result<v1::OrderServerReply, Status> {
        let order = order(&request)?;
        let key = OverrideKey {
            server: request.server,
            service: request.service,
        };
        let command = Command::Control(Control::Order {
            key: key.clone(),
            order,
            by: self.myself.name.clone(),
            at_ms: unix_ms(),
        });
        let write = self.raft.client_write(StoredCommand::from(&command));
        let written = tokio::time::timeout(CHANGE_TIMEOUT, write).await;
        let written = written.map_err(|_| {
            Status::unavailable("no quorum committed the order in time; it may still be committed: see atmctl status")
        })?;
        let written = written.map_err(|error| Status::unavailable(error.to_string()))?;
        match written.data {
            Outcome::Health(changed) => Ok(v1::OrderServerReply {
                changed,
                connections: self.machine.read(|state| connections(state, &key)),
                index: written.log_id.index(),
            }),
            Outcome::Refused(refusal @ Refusal::UnknownServer(_)) => {
                Err(Status::not_found(refusal.to_string()))
            }
            Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
            Outcome::None
            | Outcome::Applied(_)
            | Outcome::EpochBegun { .. }
            | Outcome::EpochEnded
            | Outcome::Registered
            | Outcome::Forgotten(_)
            | Outcome::Noted(_)
            | Outcome::Connections { .. } => Err(Status::internal(super::change::OTHER_ANSWER)),
        }
    }

    /// Events from the one after `request.after` on.
    pub(super) fn events(self: Arc<Self>, request: &v1::EventsRequest) -> EventPages {
        let reader = Reader {
            glimpses: self.machine.watch(),
            after: request.after,
            first: true,
            follow: request.follow,
            cluster: self,
        };
        stream::unfold(reader, |mut reader| async move {
            let page = reader.next().await?;
            Some((Ok(page), reader))
        })
        .boxed()
    }
}

/// Reads events as they are applied.
struct Reader {
    cluster: Arc<Cluster>,
    glimpses: tokio::sync::watch::Receiver<Glimpse>,
    after: u64,
    first: bool,
    follow: bool,
}

impl Reader {
    /// The next events; the first answer comes at once, even with none.
    async fn next(&mut self) -> Option<v1::EventsReply> {
        loop {
            self.glimpses.borrow_and_update();
            let after = self.after;
            let events: Vec<v1::Event> = self
                .cluster
                .machine
                .read(|state| state.events().since(after).map(event).collect());
            let first = std::mem::replace(&mut self.first, false);
            if first || !events.is_empty() {
                let oldest = events.first().map_or(after + 1, |event| event.number);
                // Who asks for all of them misses none of those that are not kept any more.
                let missed = if after == 0 { 0 } else { oldest - after - 1 };
                self.after = events.last().map_or(after, |event| event.number);
                return Some(v1::EventsReply { events, missed });
            }
            if !self.follow || self.glimpses.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn order(request: &v1::OrderServerRequest) -> Result<Order, Status> {
    use v1::order_server_request::Action;
    let refused = |why: &str| Err(Status::invalid_argument(why.to_owned()));
    if request.server.is_empty() {
        return refused("field `server`: a name is needed");
    }
    if request.weight.is_some() && request.action() != Action::Weight {
        return refused("field `weight`: only with action WEIGHT");
    }
    match request.action() {
        Action::None => refused("field `action`: one is needed"),
        Action::Enable => Ok(Order::Enable),
        Action::Drain => Ok(Order::Drain { sticky: true }),
        Action::DrainAll => Ok(Order::Drain { sticky: false }),
        Action::Disable => Ok(Order::Disable),
        Action::Weight => match request.weight.map(u16::try_from).transpose() {
            Ok(weight) => Ok(Order::Weight(weight)),
            Err(_) => refused("field `weight`: from 0 to 65535"),
        },
    }
}

/// Connections of a server, or of one service of it.
fn connections(state: &State, key: &OverrideKey) -> u64 {
    let counts = state.connections().counts().iter();
    let own = counts.filter(|((service, server), _)| {
        let server = state.servers().get(server);
        let service = state.services().get(service);
        server.is_some_and(|known| known.name == key.server)
            && (key.service == HOST || service.is_some_and(|known| known.name == key.service))
    });
    own.map(|(_, count)| count).sum()
}

fn event(event: &Event) -> v1::Event {
    v1::Event {
        number: event.number,
        at_unix_ms: event.at_ms,
        kind: event.kind.as_str().to_owned(),
        server: event.server.clone(),
        service: event.service.clone(),
        text: event.text.clone(),
    }
}
