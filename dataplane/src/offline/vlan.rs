//! VLAN tags as Linux treats them around a packet socket: taken off for the interface whose VLAN it is, put on again behind it.

use std::borrow::Cow;

/// Bytes of both Ethernet addresses, behind which a tag stands.
const ADDRESSES: usize = 12;
const TAG: usize = 4;
/// Ethernet types of a tag (IEEE 802.1Q), and of an outer one (IEEE 802.1ad).
const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;
/// Of a tag's second half, the VLAN; 0: it is only a priority.
const VLAN: u16 = 0x0fff;

/// What an interface gets of a frame that comes in below it; `None`: it is another interface's. `vlan`: the interface is that of a VLAN
/// (`eth0.5`); without one it is the one below, which gets what has no tag or a mere priority.
pub(super) fn received(frame: &mut [u8], vlan: Option<u16>) -> Option<&mut [u8]> {
    let Some((kind, tag)) = tag(frame) else {
        return vlan.is_none().then_some(frame);
    };
    let is_ours = match vlan {
        Some(vlan) => kind == CUSTOMER && tag & VLAN == vlan,
        None => tag & VLAN == 0,
    };
    if !is_ours {
        return None;
    }
    frame.copy_within(..ADDRESSES, TAG);
    frame.get_mut(TAG..)
}

/// What goes out below the interface for a frame that it sends.
pub(super) fn sent(frame: &[u8], vlan: Option<u16>) -> Cow<'_, [u8]> {
    let (Some(vlan), Some((addresses, rest))) = (vlan, frame.split_at_checked(ADDRESSES)) else {
        return Cow::Borrowed(frame);
    };
    let tag = [CUSTOMER.to_be_bytes(), vlan.to_be_bytes()].concat();
    Cow::Owned([addresses, &tag, rest].concat())
}

/// The outermost tag: which kind, and the rest of it.
fn tag(frame: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *frame.get(ADDRESSES..)?.first_chunk::<TAG>()?;
    let kind = u16::from_be_bytes([a, b]);
    matches!(kind, CUSTOMER | SERVICE).then_some((kind, u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tags: &[[u8; 4]]) -> Vec<u8> {
        [&[1; 6][..], &[2; 6], &tags.concat(), &[8, 0, 0x45, 0]].concat()
    }

    #[test]
    fn an_interface_gets_what_is_its_own() {
        let five = [0x81, 0, 0, 5];
        for (name, tags, vlan, expected) in [
            ("no tag", &[][..], None, Some(&[][..])),
            ("no tag, for a VLAN", &[], Some(5), None),
            ("a VLAN", &[five], None, None),
            ("a VLAN, for it", &[five], Some(5), Some(&[])),
            ("with priority 7", &[[0x81, 0, 0xe0, 5]], Some(5), Some(&[])),
            ("a VLAN, for another", &[five], Some(6), None),
            ("priority alone", &[[0x81, 0, 0xa0, 0]], None, Some(&[])),
            ("priority, for a VLAN", &[[0x81, 0, 0xa0, 0]], Some(5), None),
            ("an outer tag", &[[0x88, 0xa8, 0, 5]], None, None),
            (
                "an outer tag, for a VLAN",
                &[[0x88, 0xa8, 0, 5]],
                Some(5),
                None,
            ),
            (
                "the inner one stays",
                &[[0x81, 0, 0, 0], five],
                None,
                Some(&[five]),
            ),
        ] {
            let mut bytes = frame(tags);
            let expected = expected.map(frame);
            assert_eq!(
                received(&mut bytes, vlan),
                expected.as_deref().map(Vec::from).as_deref_mut(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_too_short_for_a_tag_has_none() {
        for length in 0..16 {
            let mut bytes = frame(&[[0x81, 0, 0, 5]]);
            bytes.truncate(length);
            assert_eq!(received(&mut bytes.clone(), None), Some(&mut bytes[..]));
        }
    }

    #[test]
    fn a_frame_that_is_sent_has_the_tag_of_its_interface() {
        assert_eq!(sent(&frame(&[]), None), frame(&[]));
        assert_eq!(sent(&frame(&[]), Some(5)), frame(&[[0x81, 0, 0, 5]]));
        assert_eq!(sent(&[1; 11], Some(5)), [1; 11].as_slice());
    }
}
