//! `atmctl server drain|enable|disable|weight`: orders about servers, which the configuration does not have.

use proto::v1;
use proto::v1::order_server_request::Action;

use super::CHANGE_TIMEOUT;
use crate::args::{Format, Global, Order, Ordered, Weight};
use crate::client::{self, Effect};
use crate::failure::Failure;
use crate::json::Ordered as Done;
use crate::output::{self, printable};

pub(super) async fn run(global: &Global, order: &Order) -> Result<(), Failure> {
    let (whom, action, weight) = match order {
        Order::Drain { whom, all: false } => (whom, Action::Drain, None),
        Order::Drain { whom, all: true } => (whom, Action::DrainAll, None),
        Order::Disable { whom } => (whom, Action::Disable, None),
        Order::Enable { whom } => (whom, Action::Enable, None),
        Order::Weight { whom, weight } => (whom, Action::Weight, weight.given()),
    };
    let Ordered { name, service } = whom;
    let reply = client::ask(
        global,
        Effect::Changes,
        CHANGE_TIMEOUT,
        async |mut admin| {
            let request = v1::OrderServerRequest {
                server: name.clone(),
                service: service.clone().unwrap_or_default(),
                action: action.into(),
                weight: weight.map(u32::from),
            };
            Ok(admin.order_server(request).await?.into_inner())
        },
    );
    let reply = reply.await?;
    let done = Done {
        server: name.clone(),
        service: service.clone(),
        changed: reply.changed,
        connections: reply.connections,
        index: reply.index,
    };
    match global.output {
        Format::Json => output::print_json(&done),
        Format::Table => output::print(&sentence(&done, order)),
    }
}

fn sentence(done: &Done, order: &Order) -> String {
    let whom = match &done.service {
        Some(service) => format!("{} of {}", printable(service), printable(&done.server)),
        None => printable(&done.server).into_owned(),
    };
    let what = match order {
        Order::Drain { all: false, .. } => {
            "gets no new connections but those of its sticky clients".to_owned()
        }
        Order::Drain { all: true, .. } | Order::Disable { .. } => {
            "gets no new connections".to_owned()
        }
        Order::Enable { .. } => "gets new connections again, if it is healthy".to_owned(),
        Order::Weight {
            weight: Weight::Default,
            ..
        } => "has the weight of the configuration".to_owned(),
        Order::Weight {
            weight: Weight::Given(weight),
            ..
        } => format!("has weight {weight}"),
    };
    let before = if done.changed { "" } else { ", as before" };
    format!(
        "{whom} {what}{before}; {} connections left\n",
        done.connections
    )
}
