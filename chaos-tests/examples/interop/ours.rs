//! Our side: the very core that forwards, offline.

use std::collections::BTreeMap;

use dataplane::offline::{Captured, Offline, Setup};

use crate::cases::{Case, cases};
use crate::traffic::{FIRST_FRAME, FRAME_INTERVAL};
use crate::world::{ROUTER4, ROUTER6, WAYS, Way, configuration};

/// The verdict on a frame whose server has a method that the core lacks.
const UNSUPPORTED: &str = "unsupported-method";

/// Ways that the core has, and those that it says it has not.
pub(crate) fn ways() -> Result<(Vec<&'static Way>, Vec<&'static Way>), String> {
    let mut had = Vec::new();
    let mut lacking = Vec::new();
    for way in &WAYS {
        // A first packet is enough.
        let first: Vec<Case> = cases(&[way]).into_iter().take(1).collect();
        let verdicts = Router::new()?.run(&first)?.1;
        let lacks = verdicts.contains(&UNSUPPORTED);
        if lacks { &mut lacking } else { &mut had }.push(way);
    }
    Ok((had, lacking))
}

/// What leaves us on account of each step of the cases, in their order.
pub(crate) fn answers(cases: &[Case]) -> Result<Vec<Vec<Vec<u8>>>, String> {
    Ok(Router::new()?.run(cases)?.0)
}

/// Frames by step, and the name of each frame's verdict.
type Run = (Vec<Vec<Vec<u8>>>, Vec<&'static str>);

struct Router {
    atm: Offline,
    frames: u64,
}

impl Router {
    fn new() -> Result<Self, String> {
        let setup = Setup {
            source: configuration(),
            hosts: BTreeMap::new(),
            own: vec![ROUTER4.into(), ROUTER6.into()],
            neighbours: BTreeMap::new(),
            ..Setup::default()
        };
        let atm = Offline::new(setup).map_err(|error| format!("our side: {error}"))?;
        Ok(Self { atm, frames: 0 })
    }

    fn run(mut self, cases: &[Case]) -> Result<Run, String> {
        let mut steps = Vec::new();
        let mut verdicts = Vec::new();
        for step in cases.iter().flat_map(|case| &case.steps) {
            let mut sent = Vec::new();
            for frame in &step.frames {
                let mut bytes = frame.clone();
                self.frames += 1;
                let captured = Captured {
                    index: self.frames,
                    time: FIRST_FRAME + self.frames * FRAME_INTERVAL,
                    length: u32::try_from(bytes.len()).map_err(|error| error.to_string())?,
                };
                let mut keep = |_, frame: &[u8]| {
                    sent.push(frame.to_vec());
                    Ok(())
                };
                let explained = self
                    .atm
                    .frame(captured, &mut bytes, &mut keep)
                    .map_err(|error| format!("our side: {error}"))?;
                verdicts.push(explained.outcome.name());
            }
            steps.push(without_neighbourhood(sent));
        }
        Ok((steps, verdicts))
    }
}

/// Without ARP, neighbour discovery and multicast listeners: what hosts of a link say to each other is not compared.
pub(crate) fn without_neighbourhood(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.retain(|frame| !is_neighbourhood(frame));
    frames
}

fn is_neighbourhood(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            let icmp = match (frame.get(20), frame.get(54)) {
                // A listener's report comes behind hop-by-hop options (RFC 3810 §5).
                (Some(0), Some(58)) => frame.get(62),
                (Some(58), _) => frame.get(54),
                _ => None,
            };
            // RFC 2710, RFC 4861, RFC 3810.
            matches!(icmp, Some(130..=137 | 143))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::deliveries;
    use crate::world::Method;

    #[test]
    fn our_side_has_tunnels_and_direct_and_forwards_every_first_packet() {
        let (had, lacking) = ways().unwrap();
        assert!(lacking.iter().all(|way| way.method == Method::Nat));
        let cases = cases(&had);
        let answers = answers(&cases).unwrap();
        let steps: usize = cases.iter().map(|case| case.steps.len()).sum();
        assert_eq!(answers.len(), steps);
        let firsts = cases.iter().scan(0, |at, case| {
            let first = *at;
            *at += case.steps.len();
            Some((case, first))
        });
        for (case, first) in firsts.filter(|(case, _)| case.name == "connection") {
            let [delivery] = deliveries(&answers[first]).unwrap().try_into().unwrap();
            let tunnel = delivery.outer.is_some();
            assert_eq!(
                tunnel,
                case.way.method == Method::Tunnel,
                "{}",
                case.way.name
            );
        }
    }
}
