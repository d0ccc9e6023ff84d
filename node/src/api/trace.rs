//! Live decisions of this ATM's packet path, with names and the wall clock.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dataplane::{Decision, Trace, TraceError, TraceFilter, Traced};
use futures_util::{Stream, StreamExt, stream};
use model::ids::ConfigNumber;
use model::state::State;
use proto::v1;
use proto::v1::trace_reply::Event;
use tonic::Status;

use super::cluster::Cluster;
use super::convert::{self, Names};
use crate::clock;

/// What a trace answers.
pub(super) type Decisions = Pin<Box<dyn Stream<Item = Result<v1::TraceReply, Status>> + Send>>;

impl Cluster {
    /// Decisions on the frames that were asked for, until whoever reads goes away or the engine ends.
    pub(super) async fn trace(
        self: Arc<Self>,
        request: &v1::TraceRequest,
    ) -> Result<Decisions, Status> {
        let (state, _) = self.machine.state();
        let filter = filter(&state, request)?;
        let trace = self.packets.engine().trace(filter).await;
        let trace = trace.map_err(|error| match error {
            TraceError::TooMany => Status::resource_exhausted(error.to_string()),
            TraceError::Gone => Status::unavailable(error.to_string()),
        })?;
        let begun = Event::Begun(self.myself.name.clone());
        let reader = Reader {
            trace,
            version: state.config_number(),
            names: Names::of(&state),
            cluster: self,
        };
        let events = stream::unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        });
        let events = stream::iter([begun]).chain(events);
        let replies = events.map(|event| Ok(v1::TraceReply { event: Some(event) }));
        Ok(replies.boxed())
    }
}

/// Reads a trace and gives its decisions names.
struct Reader {
    trace: Trace,
    /// Of `names`.
    version: ConfigNumber,
    names: Names,
    cluster: Arc<Cluster>,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        Some(match self.trace.next().await? {
            Traced::Missed(missed) => Event::Missed(missed),
            Traced::Decision(decision) => {
                // A whole state is too much to look at for every frame.
                if self.cluster.machine.watch().borrow().config != self.version {
                    let (state, _) = self.cluster.machine.state();
                    self.version = state.config_number();
                    self.names = Names::of(&state);
                }
                Event::Frame(Box::new(frame(&self.names, &decision)))
            }
        })
    }
}

/// The filter that a request means, with the numbers that its names have now.
fn filter(state: &State, request: &v1::TraceRequest) -> Result<TraceFilter, Status> {
    let refused = |why: String| Status::invalid_argument(why);
    let vip: IpAddr = request
        .vip
        .parse()
        .map_err(|_| refused(format!("vip: {:?} is no IP address", request.vip)))?;
    if !state.services().values().any(|entry| entry.vip == vip) {
        let version = state.config_number();
        return Err(Status::not_found(format!(
            "{vip} is no VIP in version {version}"
        )));
    }
    let client = match request.client.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|error| refused(format!("client: {error}")))?,
        ),
    };
    convert::known_service(state, &request.service)?;
    let services: Vec<_> = state
        .services()
        .iter()
        .filter(|(_, entry)| entry.vip == vip)
        .filter(|(_, entry)| request.service.is_empty() || entry.name == request.service)
        .map(|(id, _)| *id)
        .collect();
    if services.is_empty() {
        return Err(Status::not_found(format!(
            "{vip} does not offer the service {}",
            request.service
        )));
    }
    Ok(TraceFilter {
        vip,
        client,
        services,
        only_services: !request.service.is_empty(),
    })
}

fn frame(names: &Names, decision: &Decision) -> v1::TracedFrame {
    let summary = decision.summary();
    let (source_port, destination_port) = summary.ports.unwrap_or_default();
    let address = |address: Option<IpAddr>| address.map_or_else(String::new, |ip| ip.to_string());
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(clock::now().saturating_since(decision.at));
    v1::TracedFrame {
        at_unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX),
        length: u32::try_from(decision.length()).unwrap_or(u32::MAX),
        source: address(summary.source),
        destination: address(summary.destination),
        source_port: source_port.into(),
        destination_port: destination_port.into(),
        protocol: summary.protocol.unwrap_or_default(),
        flags: summary.flags.unwrap_or_default(),
        summary: summary.text,
        verdict: decision.verdict.name().into(),
        service: names.service(decision.about),
        server: names.server(decision.about),
        why: decision.verdict.why().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::command::{Command, Control, Response};
    use tonic::Code;

    use super::*;

    const CONFIG: &str = "\
        NetworkMask 255.255.255.0\n\
        Services\n  Service web tcp:80 connect\n  Service dns udp:53 none\n  Service mail tcp:25 none\nEndServices\n\
        Servers\n  Server near 10.9.0.11 tunnel\nEndServers\n\
        ServerPool Pool\n  AddServer near web/1 dns/1\nEndServerPool\n\
        ServerPool Mail\n  AddServer near mail/1\nEndServerPool\n\
        AtmPool ATMs\n  AddAtm 10.9.0.2\nEndAtmPool\n\
        VirtualHost www.my.org\n  Address 10.9.0.100\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost\n\
        VirtualHost mail.my.org\n  Address 10.9.0.101\n  AddAtmPool ATMs\n  AddServerPool Mail\nEndVirtualHost\n";

    fn state() -> State {
        let mut state = State::default();
        let applied = state.apply(Command::Control(Control::ApplyConfig {
            source: CONFIG.to_owned(),
            hosts: BTreeMap::new(),
            expected: None,
            by: "10.9.0.2".to_owned(),
        }));
        assert!(matches!(applied, Response::Applied(_)), "{applied:?}");
        state
    }

    fn request(vip: &str, client: &str, service: &str) -> v1::TraceRequest {
        v1::TraceRequest {
            vip: vip.into(),
            client: client.into(),
            service: service.into(),
            local: false,
        }
    }

    #[test]
    fn a_filter_has_the_numbers_of_its_names() {
        let state = state();
        let all = filter(&state, &request("10.9.0.100", "192.0.2.0/24", "")).unwrap();
        assert_eq!((all.services.len(), all.only_services), (2, false));
        assert_eq!(all.client.unwrap().to_string(), "192.0.2.0/24");
        let web = filter(&state, &request("10.9.0.100", "", "web")).unwrap();
        assert!(web.only_services);
        let names: Vec<_> = web
            .services
            .iter()
            .map(|id| &state.services()[id].name)
            .collect();
        assert_eq!(names, ["web"]);
    }

    #[test]
    fn what_cannot_be_traced_is_refused_by_name() {
        let state = state();
        for (asked, code, why) in [
            (
                request("web", "", ""),
                Code::InvalidArgument,
                "vip: \"web\" is no IP address",
            ),
            (
                request("10.9.0.1", "", ""),
                Code::NotFound,
                "10.9.0.1 is no VIP in version 1",
            ),
            (
                request("10.9.0.100", "10.0.0.0/33", ""),
                Code::InvalidArgument,
                "client: \"33\" is no prefix length from 0 to 32",
            ),
            (
                request("10.9.0.100", "", "ftp"),
                Code::NotFound,
                "no service named ftp in version 1",
            ),
            (
                request("10.9.0.100", "", "mail"),
                Code::NotFound,
                "10.9.0.100 does not offer the service mail",
            ),
        ] {
            let status = filter(&state, &asked).unwrap_err();
            assert_eq!((status.code(), status.message()), (code, why));
        }
    }
}
