//! Captures as the test writes them, in each of the forms that `explain` reads.

/// A frame of a capture: seconds, microseconds, bytes, length on the wire.
pub(crate) type Record = (u32, u32, Vec<u8>, usize);

/// Frames one millisecond after another.
pub(crate) fn at_once(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Record> {
    (0..)
        .zip(frames)
        .map(|(at, frame)| {
            let length = frame.len();
            (1_700_000_000, at * 1000, frame, length)
        })
        .collect()
}

/// pcap with microseconds, little endian.
pub(crate) fn pcap(records: &[Record]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    file.extend([number(262_144), number(1)].concat());
    for (seconds, micros, frame, length) in records {
        file.extend([seconds.to_le_bytes(), micros.to_le_bytes()].concat());
        file.extend([number(frame.len()), number(*length)].concat());
        file.extend(frame);
    }
    file
}

/// pcap with nanoseconds, big endian.
pub(crate) fn pcap_big_endian(records: &[Record]) -> Vec<u8> {
    let mut file = vec![0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0];
    let number = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    file.extend([number(262_144), number(1)].concat());
    for (seconds, micros, frame, length) in records {
        file.extend([seconds.to_be_bytes(), (micros * 1000 + 7).to_be_bytes()].concat());
        file.extend([number(frame.len()), number(*length)].concat());
        file.extend(frame);
    }
    file
}

/// pcapng, little endian, one interface.
pub(crate) fn pcapng(records: &[Record]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let total = u32::try_from(padded + 12).unwrap().to_le_bytes();
        let mut block = [&kind.to_le_bytes()[..], &total, body].concat();
        block.resize(8 + padded, 0);
        block.extend(total);
        block
    };
    let section = [
        &0x1a2b_3c4d_u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &[0xff; 8],
    ]
    .concat();
    let mut file = [
        block(0x0a0d_0d0a, &section),
        block(1, &[1, 0, 0, 0, 0, 0, 0, 0]),
    ]
    .concat();
    for (seconds, micros, frame, length) in records {
        let time = u64::from(*seconds) * 1_000_000 + u64::from(*micros);
        let high = u32::try_from(time >> 32).unwrap();
        let low = u32::try_from(time & 0xffff_ffff).unwrap();
        let captured = u32::try_from(frame.len()).unwrap();
        let words = [0, high, low, captured, u32::try_from(*length).unwrap()];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.extend(block(6, &[&header[..], frame].concat()));
    }
    file
}
