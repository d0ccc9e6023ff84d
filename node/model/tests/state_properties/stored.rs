//! Whatever is read from a disk or a peer.

use std::collections::BTreeMap;
use std::time::Duration;

use model::command::{BATCH_CHANGES_MAX, Command, Control};
use model::connections::{CHANGE_LEN, ConnectionChange};
use model::ids::{Epoch, NodeId};
use model::state::State;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::script::{change, history};

pub(crate) const LARGEST_TABLE: &str = "\
Services
  Service smtp tcp:25 connect
EndServices
Servers
  Server serv1 10.1.0.11 tunnel
EndServers
ServerPool Pool
  AddServer serv1 smtp/1
EndServerPool
AtmPool ATMs
  AddAtm 10.1.0.1
  NumConnections 4
EndAtmPool
VirtualHost mail.my.org
  Address 10.1.0.100
  AddAtmPool ATMs
  AddServerPool Pool
EndVirtualHost
";

pub(crate) fn config(source: &str) -> Command {
    Command::Control(Control::ApplyConfig {
        source: source.into(),
        hosts: BTreeMap::new(),
        expected: None,
        by: "atm1".into(),
    })
}

pub(crate) fn begin() -> Command {
    Command::Control(Control::BeginEpoch {
        node: NodeId(1),
        name: "atm1".into(),
        term: 1,
        lease: Duration::from_millis(100),
    })
}

/// Whatever it is, it is refused, or it is a state that can be stored again.
fn read_snapshot(bytes: &[u8]) {
    if let Ok(state) = State::decode(bytes) {
        let stored = state.encode();
        assert_eq!(State::decode(&stored).expect("its own bytes"), state);
    }
}

fn read_command(bytes: &[u8]) {
    if let Ok(command) = Command::decode(bytes) {
        assert_eq!(
            Command::decode(&command.encode()).expect("its own bytes"),
            command
        );
    }
}

#[test]
fn arbitrary_bytes_are_no_snapshot_that_hurts() {
    bolero::check!().for_each(|bytes: &[u8]| {
        read_snapshot(bytes);
        // Past the format and the length of the head.
        let mut framed = vec![1];
        framed.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        framed.extend_from_slice(bytes);
        read_snapshot(&framed);
    });
}

#[test]
fn arbitrary_bytes_are_no_command_that_hurts() {
    bolero::check!().for_each(|bytes: &[u8]| {
        read_command(bytes);
        for format in [1, 2, 3] {
            read_command(&[&[format], bytes].concat());
        }
    });
}

#[test]
fn a_batch_that_is_too_long_is_refused() {
    let record = ConnectionChange::Close(model::connections::ConnectionKey {
        client: [192, 0, 2, 1].into(),
        port: 1,
        service: model::ids::VirtualServiceId(1),
    });
    let batch = |len| {
        Command::Connections {
            epoch: Epoch(1),
            changes: vec![record; len],
        }
        .encode()
    };
    assert_eq!(batch(1).len(), 9 + CHANGE_LEN);
    assert!(Command::decode(&batch(BATCH_CHANGES_MAX)).is_ok());
    assert!(Command::decode(&batch(BATCH_CHANGES_MAX + 1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn damaged_snapshots_are_refused_or_harmless(
        steps in history(20),
        cut in any::<prop::sample::Index>(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut state = State::default();
        for step in &steps {
            state.apply(step.command(&state));
        }
        let bytes = state.encode();
        prop_assert_eq!(&State::decode(&bytes).unwrap(), &state);
        read_snapshot(&bytes[..cut.index(bytes.len())]);
        let mut damaged = bytes;
        for (at, byte) in flips {
            let at = at.index(damaged.len());
            damaged[at] ^= byte;
        }
        read_snapshot(&damaged);
    }

    #[test]
    fn a_snapshot_that_is_cut_short_never_passes_for_a_whole_one(steps in history(10), cut in any::<prop::sample::Index>()) {
        let mut state = State::default();
        for step in &steps {
            state.apply(step.command(&state));
        }
        let bytes = state.encode();
        let cut = cut.index(bytes.len());
        // Only whole records at the end can be missing unnoticed: the length of the file is the transport's to check.
        if let Ok(shorter) = State::decode(&bytes[..cut]) {
            prop_assert_eq!((bytes.len() - cut) % CHANGE_LEN, 0);
            let records = |state: &State| state.connections().len() + state.sticky().len();
            prop_assert_eq!(records(&shorter), records(&state) - (bytes.len() - cut) / CHANGE_LEN);
        }
    }

    #[test]
    fn changes_survive_their_stored_form(change in change()) {
        prop_assert_eq!(ConnectionChange::decode(&change.encode()).unwrap(), change);
    }
}
