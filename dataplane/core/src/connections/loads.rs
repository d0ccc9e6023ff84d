//! How many connections each server has of each virtual service.
//!
//! Invariant: equal to a count over all entries of the connection table, whatever their state.

use model::ids::{ServerId, VirtualServiceId};
use rustc_hash::FxHashMap;

/// The counts. Bounded by the connections: a pair without one has no place.
#[derive(Debug, Default)]
pub(super) struct Loads(FxHashMap<(VirtualServiceId, ServerId), u32>);

impl Loads {
    pub(super) fn get(&self, service: VirtualServiceId, server: ServerId) -> u32 {
        self.0.get(&(service, server)).copied().unwrap_or(0)
    }

    /// The table has less than 2^32 entries, so no count overflows.
    pub(super) fn add(&mut self, service: VirtualServiceId, server: ServerId) {
        *self.0.entry((service, server)).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, service: VirtualServiceId, server: ServerId) {
        if let Some(count) = self.0.get_mut(&(service, server)) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&(service, server));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use model::Instant;
    use model::conf::Protocol;
    use proptest::prelude::*;

    use super::super::{Connections, Flow, Record, Sign};
    use super::*;
    use crate::Limits;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Open(u16, u16),
        OpenHeld(u16, u16),
        Adopt(u16, u16),
        Confirm(u16, u16),
        Assign(u16, u16),
        Touch(u16),
        Remove(u16),
        Sweep,
        Tenure,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (port, server) = (0u16..24, 0u16..4);
        let pair = (port.clone(), server);
        prop_oneof![
            3 => pair.clone().prop_map(|(port, server)| Step::Open(port, server)),
            3 => pair.clone().prop_map(|(port, server)| Step::OpenHeld(port, server)),
            2 => pair.clone().prop_map(|(port, server)| Step::Adopt(port, server)),
            3 => pair.clone().prop_map(|(port, server)| Step::Confirm(port, server)),
            2 => pair.prop_map(|(port, server)| Step::Assign(port, server)),
            1 => port.clone().prop_map(Step::Touch),
            2 => port.prop_map(Step::Remove),
            1 => Just(Step::Sweep),
            1 => Just(Step::Tenure),
        ]
    }

    fn recount(connections: &Connections) -> BTreeMap<(VirtualServiceId, ServerId), u32> {
        let mut counts = BTreeMap::new();
        for id in 0..u32::try_from(connections.entries.len()).unwrap() {
            let entry = connections.get(id).unwrap();
            if connections.find(entry.flow) == Some(id) {
                *counts
                    .entry((entry.flow.service(), entry.pin.server))
                    .or_insert(0) += 1;
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn is_what_a_recount_says(steps in proptest::collection::vec(step(), 1..200)) {
            let mut connections = Connections::new(&Limits { pending_max: 3, connections_max: 10 });
            connections.configure(10, Duration::from_secs(30));
            let now = Instant::BOOT;
            for step in steps {
                let flow = |port| Flow::new(Ipv4Addr::LOCALHOST.into(), port, VirtualServiceId(port % 3));
                match step {
                    Step::Open(port, server) if connections.find(flow(port)).is_none() => {
                        connections.open(flow(port), Protocol::Tcp, ServerId(server).into(), Record::Local, now);
                    }
                    Step::OpenHeld(port, server) if connections.find(flow(port)).is_none() => {
                        connections.open_held(flow(port), Protocol::Tcp, ServerId(server).into(), b"SYN", now);
                    }
                    Step::Adopt(port, server) if connections.find(flow(port)).is_none() => {
                        connections.adopt(flow(port), Protocol::Tcp, ServerId(server).into(), true, now);
                    }
                    Step::Open(..) | Step::OpenHeld(..) | Step::Adopt(..) => {}
                    Step::Confirm(port, server) => {
                        if let Some(id) = connections.find(flow(port)) {
                            connections.confirm(id, ServerId(server).into());
                        }
                    }
                    Step::Assign(port, server) => {
                        if let Some(id) = connections.find(flow(port)) {
                            connections.assign(id, ServerId(server).into());
                        }
                    }
                    Step::Touch(port) => {
                        if let Some(id) = connections.find(flow(port)) {
                            connections.touch(id, Sign::Finish, now);
                        }
                    }
                    Step::Remove(port) => {
                        if let Some(id) = connections.find(flow(port)) {
                            connections.remove(id);
                            // A second time it is nobody's.
                            connections.remove(id);
                        }
                    }
                    Step::Sweep => {
                        connections.unmark_all();
                        connections.retain_marked();
                    }
                    Step::Tenure => connections.begin_tenure(now),
                }
                let counts = recount(&connections);
                prop_assert_eq!(connections.loads.0.len(), counts.len());
                for service in 0..3 {
                    for server in 0..4 {
                        let pair = (VirtualServiceId(service), ServerId(server));
                        prop_assert_eq!(
                            connections.load(pair.0, pair.1),
                            counts.get(&pair).copied().unwrap_or(0)
                        );
                    }
                }
            }
        }
    }
}
