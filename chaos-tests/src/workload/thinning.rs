//! What has to be kept of the frames that ATMs sent for a VIP, so that the judgement over what is kept is the judgement
//! over all of them: of each run of frames of one ATM the first, the first claim, and the last. Pure.
//!
//! Hours of traffic become a few events per takeover, and one more per [`SAMPLE`] so that a silence shows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::observer::{Event, Kind, Mac};

/// How often a voice that goes on is noted, in nanoseconds.
const SAMPLE: u64 = 200_000_000;

/// Frames of several processors may reach the observer this much out of order, in nanoseconds.
const DISORDER: u64 = 50_000_000;

/// Who speaks for each VIP at present, and frames that may still be overtaken by earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Thinning {
    waiting: Vec<Event>,
    voices: BTreeMap<Ipv4Addr, Voice>,
}

#[derive(Clone, Copy, Debug)]
struct Voice {
    source: Mac,
    claimed: bool,
    kept: u64,
    /// Its last frame, unless that one is kept already.
    last: Option<Event>,
}

impl Thinning {
    /// Takes frames that came since the last call, and gives those to keep in the order of their times.
    pub(crate) fn take(&mut self, frames: &[Event]) -> Vec<Event> {
        let heard = frames.iter().filter(|frame| frame.kind != Kind::Relayed);
        self.waiting.extend(heard);
        self.waiting.sort_by_key(|frame| frame.at);
        let settled = self
            .waiting
            .last()
            .map_or(0, |last| last.at.saturating_sub(DISORDER));
        let end = self.waiting.partition_point(|frame| frame.at <= settled);
        let frames: Vec<_> = self.waiting.drain(..end).collect();
        self.keep(&frames)
    }

    /// Nothing more comes: gives what is left.
    pub(crate) fn finish(mut self) -> Vec<Event> {
        let frames = std::mem::take(&mut self.waiting);
        let mut kept = self.keep(&frames);
        kept.extend(self.voices.into_values().filter_map(|voice| voice.last));
        kept.sort_by_key(|frame| frame.at);
        kept
    }

    fn keep(&mut self, frames: &[Event]) -> Vec<Event> {
        let mut kept = Vec::new();
        for frame in frames {
            let claims = frame.kind == Kind::GratuitousArp;
            match self.voices.get_mut(&frame.vip) {
                Some(voice) if voice.source == frame.source => {
                    let first_claim = claims && !voice.claimed;
                    if first_claim || frame.at.saturating_sub(voice.kept) >= SAMPLE {
                        // Before a silence stands the last frame, not the last sample.
                        kept.extend(voice.last.take());
                        kept.push(*frame);
                        voice.kept = frame.at;
                        voice.claimed |= claims;
                    } else {
                        voice.last = Some(*frame);
                    }
                }
                _ => {
                    let voice = Voice {
                        source: frame.source,
                        claimed: claims,
                        kept: frame.at,
                        last: None,
                    };
                    let before = self.voices.insert(frame.vip, voice);
                    kept.extend(before.and_then(|voice| voice.last));
                    kept.push(*frame);
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::{Rules, overlaps};

    const MS: u64 = 1_000_000;

    fn frame(at_ms: u64, source: u8, kind: Kind) -> Event {
        Event {
            at: at_ms * MS,
            source: [2, 0, 0, 0, 0, source],
            vip: Ipv4Addr::new(10, 1, 0, 100),
            kind,
            flow: None,
        }
    }

    fn thinned(frames: &[Event], chunk: usize) -> Vec<Event> {
        let mut thinning = Thinning::default();
        let mut kept: Vec<_> = frames
            .chunks(chunk)
            .flat_map(|frames| thinning.take(frames))
            .collect();
        kept.extend(thinning.finish());
        kept
    }

    /// Steps of a linear congruential generator: any frames will do, and the same ones each time.
    fn random_frames(seed: u64, claims: u64) -> Vec<Event> {
        let mut state = seed;
        let mut draw = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let (mut at, mut source) = (1, 1);
        (0..400)
            .map(|_| {
                at += draw(120);
                let mut kind = Kind::Tunnelled;
                if draw(20) == 0 {
                    source = u8::try_from(draw(3)).unwrap();
                    kind = if draw(claims) == 0 {
                        Kind::ArpAnswer
                    } else {
                        Kind::GratuitousArp
                    };
                }
                frame(at, source, kind)
            })
            .collect()
    }

    #[test]
    fn the_judgement_is_the_same() {
        let mut contradictions = 0;
        for seed in 0..50 {
            let frames = random_frames(seed, 4);
            let all = overlaps(&frames, &Rules::default());
            contradictions += all.len();
            for chunk in [1, 7, 400] {
                let kept = overlaps(&thinned(&frames, chunk), &Rules::default());
                assert_eq!(kept.first(), all.first(), "seed {seed}");
                assert_eq!(kept.is_empty(), all.is_empty(), "seed {seed}");
            }
        }
        assert!(contradictions > 50, "{contradictions}");
    }

    #[test]
    fn an_hour_of_one_voice_is_a_few_samples() {
        let frames: Vec<_> = (0..60_000).map(|n| frame(n, 1, Kind::Tunnelled)).collect();
        let kept = thinned(&frames, 1000);
        assert!(kept.len() < 2 * 60 * 5 + 3, "{}", kept.len());
        assert_eq!(kept.first(), frames.first());
        assert_eq!(kept.last(), frames.last());
    }

    #[test]
    fn the_last_frame_before_a_silence_is_kept() {
        let frames = [
            frame(0, 1, Kind::Tunnelled),
            frame(10, 1, Kind::Tunnelled),
            frame(2000, 1, Kind::Tunnelled),
        ];
        assert_eq!(thinned(&frames, 1), frames);
    }
}
