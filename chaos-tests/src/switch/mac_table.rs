//! Behind which port a host is.

use std::collections::BTreeMap;

use super::core::PortId;

/// Addresses that are learned: those of the largest lab many times over. Frames for others are flooded.
pub const MACS_MAX: usize = 1024;

/// Learned addresses. They do not age: a lab is younger than the five minutes of a bridge, and a host that moves sends.
#[derive(Clone, Debug, Default)]
pub struct MacTable(BTreeMap<[u8; 6], PortId>);

impl MacTable {
    /// Notes that `source` sent by `port`. `false`: there was no room.
    pub fn learn(&mut self, source: [u8; 6], port: PortId) -> bool {
        if is_group(source) {
            return true; // Nobody sends by a group's address; nothing is to be learned.
        }
        if self.0.len() >= MACS_MAX && !self.0.contains_key(&source) {
            return false;
        }
        self.0.insert(source, port);
        true
    }

    /// The port of `destination`; `None`: every port.
    #[must_use]
    pub fn port_of(&self, destination: [u8; 6]) -> Option<PortId> {
        self.0.get(&destination).copied()
    }
}

/// IEEE 802: the lowest bit of the first byte.
fn is_group(address: [u8; 6]) -> bool {
    address[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_where_they_sent_last_and_groups_nowhere() {
        let mut table = MacTable::default();
        let (host, group) = ([2, 0, 0, 0, 0, 1], [0xff; 6]);
        assert!(table.learn(host, PortId(1)) && table.learn(group, PortId(1)));
        assert_eq!(table.port_of(host), Some(PortId(1)));
        assert_eq!(table.port_of(group), None);
        assert!(table.learn(host, PortId(2)));
        assert_eq!(table.port_of(host), Some(PortId(2)));
    }

    #[test]
    fn a_full_table_learns_nobody_new() {
        let mut table = MacTable::default();
        let address = |n: usize| {
            let [.., c, d] = u32::try_from(n).unwrap().to_be_bytes();
            [2, 0, 0, 0, c, d]
        };
        for n in 0..MACS_MAX {
            assert!(table.learn(address(n), PortId(0)));
        }
        assert!(!table.learn(address(MACS_MAX), PortId(1)));
        assert_eq!(table.port_of(address(MACS_MAX)), None);
        assert!(table.learn(address(0), PortId(1)), "known ones may move");
    }
}
