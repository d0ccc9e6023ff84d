//! The counters of this ATM by name: verdicts and events of the core, of the engine, of the replicator.

use dataplane_core::{Event, Verdict};
use proto::v1;
use tonic::Status;

use super::cluster::Cluster;
use super::convert;

impl Cluster {
    /// All counters; those by service and server as the request narrows them down.
    pub(super) async fn counters(
        &self,
        request: &v1::CountersRequest,
    ) -> Result<v1::CountersReply, Status> {
        let (state, _) = self.machine.state();
        convert::known_service(&state, &request.service)?;
        convert::known_server(&state, &request.server)?;
        let engine = self.packets.engine();
        let snapshot = engine
            .snapshot()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let counter = |name: String, value: u64| v1::Counter { name, value };
        let verdicts = &snapshot.verdicts;
        let mut counters: Vec<v1::Counter> = Verdict::ALL
            .iter()
            .map(|verdict| counter(verdict.name().into(), verdicts.verdict(*verdict)))
            .collect();
        for verdict in Verdict::ALL {
            if let Verdict::Drop(reason) = verdict
                && verdicts.held_dropped(reason) != 0
            {
                counters.push(counter(
                    format!("held-{}", verdict.name()),
                    verdicts.held_dropped(reason),
                ));
            }
        }
        counters.extend(
            Event::ALL
                .iter()
                .map(|event| counter(event.name().into(), verdicts.event(*event))),
        );
        let received = snapshot.receive.named();
        counters.extend(received.map(|(name, value)| counter(format!("receive-{name}"), value)));
        for count in dataplane::Count::ALL {
            counters.push(counter(
                format!("send-{}", count.name()),
                engine.stats().count(count),
            ));
        }
        if let Some(dropped) = engine.gate_dropped() {
            counters.push(counter("send-gate-dropped".into(), dropped));
        }
        let replicator = &self.replicator;
        let read =
            |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
        counters.push(counter(
            "replicator-entries".into(),
            read(&replicator.entries),
        ));
        counters.push(counter(
            "replicator-committed".into(),
            read(&replicator.committed),
        ));
        counters.push(counter(
            "replicator-refused".into(),
            read(&replicator.refused),
        ));
        counters.push(counter(
            "replicator-not-stuck".into(),
            read(&replicator.not_stuck),
        ));
        counters.push(counter(
            "leader-silence-max-us".into(),
            u64::try_from(self.lease.longest_silence().as_micros()).unwrap_or(u64::MAX),
        ));
        counters.push(counter(
            "engine-connections".into(),
            snapshot.connections as u64,
        ));
        counters.push(counter("engine-pending".into(), snapshot.pending as u64));
        let names = convert::Names::of(&state);
        let tallied = verdicts.tallied();
        let by_service = tallied
            .iter()
            .map(|row| convert::service_counter(&names, row));
        let wanted = |row: &v1::ServiceCounter| {
            (request.service.is_empty() || row.service == request.service)
                && (request.server.is_empty() || row.server == request.server)
        };
        Ok(v1::CountersReply {
            atm: self.myself.name.clone(),
            counters,
            by_service: by_service.filter(wanted).collect(),
        })
    }
}
