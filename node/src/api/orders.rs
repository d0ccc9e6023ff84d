//! Orders about servers, and the events that tell of everything that happened to them.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use model::command::{Control, Response as Outcome};
use model::health::{Event, HOST, Order, OverrideKey};
use model::state::State;
use proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::change::no_answer;
use super::cluster::Cluster;
use crate::health::unix_ms;
use crate::raft::Glimpse;

/// Clients that follow the events of one ATM: each is a connection and a task that every entry of the log wakes.
const EVENT_FOLLOWERS_MAX: usize = 64;

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
        let order = Control::Order {
            key: key.clone(),
            order,
            by: self.myself.name.clone(),
            at_ms: unix_ms(),
        };
        let late =
            "no quorum committed the order in time; it may still be committed: see atmctl status";
        let (outcome, index) = self.commit(order, late).await?;
        let Outcome::Health(changed) = outcome else {
            return Err(no_answer(outcome));
        };
        Ok(v1::OrderServerReply {
            changed,
            connections: self.machine.read(|state| connections(state, &key)),
            index,
        })
    }

    /// Events from the one after `request.after` on.
    pub(super) fn events(
        self: Arc<Self>,
        request: &v1::EventsRequest,
    ) -> Result<EventPages, Status> {
        let place = request.follow.then(|| self.event_followers.place());
        let place = place.transpose()?;
        let reader = Reader {
            glimpses: self.machine.watch(),
            after: request.after,
            first: true,
            place,
            cluster: self,
        };
        let pages = stream::unfold(reader, |mut reader| async move {
            let page = reader.next().await?;
            Some((Ok(page), reader))
        });
        Ok(pages.boxed())
    }
}

/// Places for those who follow the events of this ATM.
pub(crate) struct EventFollowers(Arc<Semaphore>);

impl EventFollowers {
    /// All of them are free.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(EVENT_FOLLOWERS_MAX)))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        place.map_err(|_full| {
            Status::resource_exhausted(format!(
                "{EVENT_FOLLOWERS_MAX} clients follow the events of this ATM already"
            ))
        })
    }
}

/// Reads events as they are applied.
struct Reader {
    cluster: Arc<Cluster>,
    glimpses: tokio::sync::watch::Receiver<Glimpse>,
    after: u64,
    first: bool,
    /// Only who has one follows.
    place: Option<OwnedSemaphorePermit>,
}

impl Reader {
    /// The next events; the first answer comes at once, even with none.
    async fn next(&mut self) -> Option<v1::EventsReply> {
        let after = self.after;
        if !std::mem::replace(&mut self.first, false) {
            self.place.as_ref()?;
            // The log has many entries for one event, and every one of them is glimpsed.
            let comes = self.glimpses.wait_for(|glimpse| glimpse.events > after);
            comes.await.ok()?;
        }
        let events: Vec<v1::Event> = self
            .cluster
            .machine
            .read(|state| state.events().since(after).map(event).collect());
        // Who asks for all of them misses none of those that are not kept any more.
        let missed = match events.first() {
            Some(oldest) if after > 0 => oldest.number - after - 1,
            Some(_) | None => 0,
        };
        self.after = events.last().map_or(after, |event| event.number);
        Some(v1::EventsReply { events, missed })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_follow_and_no_more() {
        let followers = EventFollowers::new();
        let mut places: Vec<_> = (0..EVENT_FOLLOWERS_MAX)
            .map(|_| followers.place().unwrap())
            .collect();
        let refused = followers.place().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        places.pop();
        assert!(followers.place().is_ok(), "one has left");
    }
}
