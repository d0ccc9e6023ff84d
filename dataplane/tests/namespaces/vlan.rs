//! Frames with a VLAN tag: those of another VLAN are somebody else's, a tag that is only a priority is none.

use std::time::Duration;

use dataplane::{PortKind, boottime};
use model::conf::ForwardingMethod;
use model::ids::Epoch;
use pnet::datalink::{self, Channel};

use super::lab::{ATM_MAC, Lab, Router, block_on, eventually};
use super::stream::{forwarded, packet, record};

/// Of each kind, in other numbers, so that none can stand for another.
const OF_ANOTHER: u64 = 7;
const WITH_PRIORITY: usize = 20;
const UNTAGGED: usize = 30;

#[test]
fn the_ring_leaves_another_vlans_frames_alone_and_counts_them() {
    tagged("ring_tagged", PortKind::Ring);
}

#[test]
fn pnet_leaves_another_vlans_frames_alone_and_counts_them() {
    tagged("pnet_tagged", PortKind::Pnet);
}

fn tagged(test: &str, kind: PortKind) {
    let Some(lab) = Lab::new(test) else { return };
    let at_server = lab.observe("server");
    let router = lab.on("atm", move || Router::start(kind, ForwardingMethod::Direct));
    block_on(router.handle.commit(vec![record()])).unwrap();
    let until = boottime() + Duration::from_secs(60);
    assert!(router.lease.grant(Epoch(1), until));
    lab.on("client", || {
        let e0 = datalink::interfaces()
            .into_iter()
            .find(|interface| interface.name == "e0");
        let channel = datalink::channel(&e0.unwrap(), datalink::Config::default());
        let Ok(Channel::Ethernet(mut wire, _)) = channel else {
            panic!("no channel")
        };
        // VLAN 9; priority 5 (IEEE 802.1Q).
        for (tag, count) in [
            (Some(9_u16), usize::try_from(OF_ANOTHER).unwrap()),
            (Some(5 << 13), WITH_PRIORITY),
            (None, UNTAGGED),
        ] {
            for _ in 0..count {
                wire.send_to(&frame(tag), None).unwrap().unwrap();
            }
        }
    });
    let mut seen = Vec::new();
    let all = eventually(Duration::from_secs(10), || {
        seen.extend(at_server.try_iter());
        let other = block_on(router.handle.snapshot())
            .unwrap()
            .receive
            .other_vlan;
        other == OF_ANOTHER && forwarded(&seen).len() == WITH_PRIORITY + UNTAGGED
    });
    assert!(
        all,
        "{} frames came through; {}",
        forwarded(&seen).len(),
        router.account()
    );
}

/// To the ATM, from the client.
fn frame(tag: Option<u16>) -> Vec<u8> {
    let tag = tag.map(|tag| [[0x81, 0], tag.to_be_bytes()].concat());
    let source = [2, 0, 0, 0, 9, 1];
    [
        &ATM_MAC[..],
        &source,
        &tag.unwrap_or_default(),
        &[8, 0],
        &packet(),
    ]
    .concat()
}
