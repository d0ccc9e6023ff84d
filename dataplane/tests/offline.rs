//! Captures of any content through an offline ATM: no bytes make it panic, hang, or send what it should not.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dataplane::Summary;
    use dataplane::offline::{Capture, CaptureWriter, Offline, Resolution, Setup};

    const CONF: &str = "\
Services
  Service http tcp:80 httpAgent
EndServices
Servers
  Server serv1 10.0.0.11 tunnel
  Server serv2 10.9.0.12 direct
EndServers
ServerPool Web
  AddServer serv1 http/1
  AddServer serv2 http/1
EndServerPool
AtmPool ATMs
  AddAtm 10.0.0.1
  SendArpDelay 100ms
EndAtmPool
VirtualHost 10.0.0.100
  AddAtmPool ATMs
  AddServerPool Web
EndVirtualHost
";

    fn atm() -> Offline {
        let setup = Setup {
            source: CONF.to_owned(),
            ..Setup::default()
        };
        Offline::new(setup).unwrap()
    }

    /// Frames by name of their verdict, and what was sent, with its times.
    type Run = (BTreeMap<&'static str, u64>, Vec<(u64, Vec<u8>)>);

    /// Runs a file to its end or first error.
    fn run(file: &[u8]) -> Run {
        let mut atm = atm();
        let mut verdicts = BTreeMap::new();
        let mut sent = Vec::new();
        let Ok(mut capture) = Capture::new(file) else {
            return (verdicts, sent);
        };
        let mut bytes = Vec::new();
        while let Ok(Some(captured)) = capture.next(&mut bytes) {
            let _ = Summary::of(&bytes);
            let before = sent.len();
            let explained = atm
                .frame(captured, &mut bytes, &mut |time, frame| {
                    sent.push((time, frame.to_vec()));
                    Ok(())
                })
                .unwrap();
            *verdicts.entry(explained.outcome.name()).or_default() += 1;
            let emitted = usize::try_from(explained.emitted).unwrap();
            assert!(before + emitted <= sent.len());
            // Its own frames come last, and have its time.
            let own = sent.iter().rev().take(emitted);
            assert!(own.map(|(time, _)| *time).all(|time| time == captured.time));
        }
        (verdicts, sent)
    }

    fn capture(frames: &[(u64, &[u8])]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = CaptureWriter::new(&mut file, Resolution::Nanos).unwrap();
        for (time, frame) in frames {
            writer.frame(*time, frame).unwrap();
        }
        file
    }

    #[test]
    fn no_file_makes_it_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            run(bytes);
            let classic = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            run(&[&classic[..], &[0, 0, 4, 0, 1, 0, 0, 0], bytes].concat());
            let section = [
                0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff,
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 28, 0, 0, 0,
            ];
            let interface = [1, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0];
            run(&[&section[..], &interface, bytes].concat());
        });
    }

    #[test]
    fn no_frames_make_it_panic() {
        bolero::check!()
            .with_type::<Vec<(u32, Vec<u8>)>>()
            .for_each(|frames| {
                let head = |ethertype: [u8; 2]| {
                    let link = [2, 0, 10, 0, 0, 1, 2, 0, 192, 0, 2, 7];
                    [&link[..], &ethertype].concat()
                };
                let frames: Vec<_> = frames
                    .iter()
                    .map(|(time, bytes)| {
                        let ethertype = [[8, 0], [8, 6], [0x86, 0xdd]][bytes.len() % 3];
                        (u64::from(*time), [head(ethertype), bytes.clone()].concat())
                    })
                    .collect();
                let all: Vec<_> = frames
                    .iter()
                    .map(|(time, frame)| (*time, &frame[..]))
                    .collect();
                let (verdicts, _) = run(&capture(&all));
                assert_eq!(verdicts.values().sum::<u64>(), all.len() as u64);
            });
    }

    #[test]
    fn a_gap_of_a_century_ends() {
        let century = 100 * 365 * 86_400 * 1_000_000_000;
        let (verdicts, sent) = run(&capture(&[(0, &[0; 60]), (century, &[0; 60])]));
        assert_eq!(verdicts, BTreeMap::from([("host", 2)]));
        // Announced every 100 ms, twice a time, for as long as it is followed; then once more, at the end.
        assert_eq!(sent[0].0, 100_000_000);
        let at_end = sent.iter().filter(|(time, _)| *time == century).count();
        assert_eq!((at_end, sent.len() > 1000), (2, true), "{}", sent.len());
        assert!(sent.is_sorted_by_key(|(time, _)| *time));
    }

    #[test]
    fn time_that_goes_back_stands_still() {
        let (verdicts, sent) = run(&capture(&[(5_000_000_000, &[0; 60]), (0, &[0; 60])]));
        assert_eq!(verdicts, BTreeMap::from([("host", 2)]));
        assert!(sent.is_empty());
    }
}
