//! Who spoke for the VIP: a passive observer over the whole run, and a prober that gives every ATM a reason to speak.

use std::collections::BTreeMap;
use std::time::Duration;

use super::thinning::Thinning;
use crate::history::{Event, Observed, Op, Recorder, monotonic_ns};
use crate::lab::{Lab, LabError};
use crate::lines::realtime_ns;
use crate::observer::{Mac, Observation, Observer, Prober, Rules};

/// How often every ATM that believes in itself is asked to say so.
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// The observation while it runs.
pub(crate) struct Voices {
    observer: Observer,
    _prober: Prober,
    thinning: Thinning,
    kept: Vec<crate::observer::Event>,
    frames: u64,
    from_ns: u64,
    names: BTreeMap<Mac, String>,
}

impl Voices {
    /// Begins to observe.
    ///
    /// # Errors
    /// As those of [`Observer::start`] and [`Prober::start`].
    pub(crate) fn start(lab: &Lab) -> Result<Self, LabError> {
        let from_ns = monotonic_ns();
        let observer = Observer::start(lab)?;
        let vip = lab.vips().first().copied();
        let vip = vip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
        let atms = lab.hosts().into_iter().filter(|host| host.is_atm());
        Ok(Self {
            observer,
            _prober: Prober::start(lab, vip, ASK_INTERVAL)?,
            thinning: Thinning::default(),
            kept: Vec::new(),
            frames: 0,
            from_ns,
            names: atms
                .map(|host| (host.mac(), host.name().to_owned()))
                .collect(),
        })
    }

    /// Takes over what was heard, so that the observer's memory stays small. To be called every second or so.
    pub(crate) fn follow(&mut self) {
        let heard = self.observer.take();
        self.frames += u64::try_from(heard.len()).unwrap_or(u64::MAX);
        self.kept.extend(self.thinning.take(&heard));
    }

    /// Ends the observation and records what was heard.
    pub(crate) fn finish(self, recorder: &Recorder) {
        let Self {
            observer,
            mut thinning,
            mut kept,
            frames,
            from_ns,
            names,
            ..
        } = self;
        let rest = observer.stop();
        let frames = frames + u64::try_from(rest.events.len()).unwrap_or(u64::MAX);
        kept.extend(thinning.take(&rest.events));
        kept.extend(thinning.finish());
        let observation = Observation {
            events: kept,
            ..rest
        };
        let observed = Observed {
            observation: &observation,
            rules: Rules::default(),
            realtime_offset_ns: i128::from(realtime_ns()) - i128::from(monotonic_ns()),
            names: &names,
            from_ns,
            to_ns: monotonic_ns(),
        };
        for Event {
            t_ns,
            process,
            kind,
            mut op,
        } in observed.facts()
        {
            if let Op::Observation(seen) = &mut op {
                seen.frames = frames;
            }
            recorder.record(t_ns, process, kind, op);
        }
    }
}
