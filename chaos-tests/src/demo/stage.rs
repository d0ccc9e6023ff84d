//! What all acts share: the cluster, the observer that listens all the time, the traffic, the screen, the rows.

use std::time::Duration;

use super::cluster::Cluster;
use super::error::DemoError;
use super::outcome::Outcome;
use super::screen::Screen;
use super::traffic::Traffic;
use crate::lines::realtime_ns;
use crate::observer::{
    Contradiction, Event, Observer, Prober, Rules, TwoVoices, Verdict, overlaps,
};

/// Between two questions who has the VIP: an ATM that speaks out of turn for longer is caught.
const QUESTION_INTERVAL: Duration = Duration::from_millis(5);

/// The running demo.
pub(super) struct Stage<'a> {
    // In this order they end: traffic before the hosts that serve it.
    pub(super) traffic: Option<Traffic>,
    prober: Prober,
    observer: Observer,
    pub(super) cluster: Cluster,
    pub(super) outcome: Outcome,
    screen: &'a mut Screen,
    /// When the act began, in nanoseconds since 1970.
    act_began: u64,
    /// Number of frames heard when it began.
    act_frames: usize,
}

impl<'a> Stage<'a> {
    /// Begins to observe, and waits until the cluster is whole.
    ///
    /// # Errors
    /// Those of the observer; [`DemoError::Late`] if no ATM becomes active.
    pub(super) fn set(cluster: Cluster, screen: &'a mut Screen) -> Result<Self, DemoError> {
        let observer = Observer::start(&cluster.lab)?;
        let prober = Prober::start(&cluster.lab, cluster.vip, QUESTION_INTERVAL)?;
        let (active, status) = cluster.await_whole()?;
        screen.done(
            true,
            &format!(
                "VIP {}; {} is active, epoch {}; HeartBeatDelay {} ms, MaxLostHeartbeats {}",
                cluster.vip,
                active.host,
                status.epoch,
                super::configuration::HEARTBEAT_DELAY.as_millis(),
                super::configuration::MAX_LOST_HEARTBEATS,
            ),
        );
        Ok(Self {
            traffic: None,
            prober,
            observer,
            cluster,
            outcome: Outcome::default(),
            screen,
            act_began: realtime_ns(),
            act_frames: 0,
        })
    }

    /// The next act begins.
    pub(super) fn begin(&mut self, title: &str) {
        self.outcome.rows.begin(title);
        self.act_began = realtime_ns();
        self.act_frames = self.observer.count();
        self.screen.step(title);
    }

    /// What the act is doing.
    pub(super) fn say(&mut self, text: &str) {
        self.screen.say(text);
    }

    /// Something was measured.
    pub(super) fn row(
        &mut self,
        what: impl Into<String>,
        measured: impl Into<String>,
        bound: impl Into<String>,
        ok: bool,
    ) {
        self.outcome.rows.push(what, measured, bound, ok);
    }

    /// The act is over.
    pub(super) fn done(&mut self, text: &str) {
        self.screen.done(self.outcome.rows.act_holds(), text);
    }

    /// The act could not go on.
    pub(super) fn failed(&mut self, error: &DemoError) {
        let text = self.outcome.rows.failed(error);
        self.screen.done(false, &text);
    }

    /// An earlier act could not go on, so this one was not tried.
    pub(super) fn not_reached(&mut self) {
        let text = self.outcome.rows.not_reached();
        self.screen.done(false, text);
    }

    /// The traffic of the second act.
    ///
    /// # Errors
    /// [`DemoError::Unavailable`] before it.
    pub(super) fn traffic(&self) -> Result<&Traffic, DemoError> {
        let none = || DemoError::Unavailable("there is no traffic yet".to_owned());
        self.traffic.as_ref().ok_or_else(none)
    }

    /// What was heard since the act began.
    pub(super) fn heard(&self) -> Vec<Event> {
        self.observer.events_from(self.act_frames)
    }

    /// Judges what was heard since the act began.
    pub(super) fn one_voice(&mut self) {
        let events = self.observer.events_from(0);
        let mut found = overlaps(&events, &Rules::default());
        found.retain(|voices| voices.at >= self.act_began);
        let ok = found.is_empty();
        let measured = match found.first() {
            None => "1".to_owned(),
            Some(first) => format!("2 ({} times; {})", found.len(), self.describe(first)),
        };
        self.row("ATMs that spoke at one time", measured, "1", ok);
    }

    fn describe(&self, voices: &TwoVoices) -> String {
        let name = |mac| {
            let atm = self.cluster.atm_with(mac);
            atm.map_or_else(|| format!("{mac:02x?}"), |atm| atm.host.clone())
        };
        let what = match voices.kind {
            Contradiction::Spoke(kind) => format!("{kind:?}"),
            Contradiction::Alternated(ns) => {
                format!("claimed again after {:?}", Duration::from_nanos(ns))
            }
        };
        format!(
            "first {} while {} held it: {what}, at {} ns",
            name(voices.other),
            name(voices.holder),
            voices.at
        )
    }

    /// Ends the traffic in order, judges everything, tears everything down.
    pub(super) fn end(mut self) -> Outcome {
        self.begin("from the beginning to the end");
        if let Some(traffic) = self.traffic.take() {
            super::traffic::end(&mut self, traffic);
        }
        let Self {
            prober,
            observer,
            cluster,
            mut outcome,
            screen,
            ..
        } = self;
        drop(prober);
        let observation = observer.stop();
        let verdict = observation.verdict(&Rules::default());
        outcome.frames_heard = observation.events.len();
        outcome.frames_missed = observation.missed;
        let measured = match &verdict {
            Verdict::OneVoice => format!("1, in {} frames", observation.events.len()),
            Verdict::TwoVoices(found) => format!("2, {} times", found.len()),
            Verdict::Invalid {
                overflow,
                missed,
                complete,
            } => format!(
                "unknown: the observer missed {missed} and dropped {overflow} frames, end mark {complete}"
            ),
        };
        outcome.rows.push(
            "ATMs that spoke at one time",
            measured,
            "1, none missed",
            verdict == Verdict::OneVoice,
        );
        screen.done(verdict == Verdict::OneVoice, "judged; tearing down");
        cluster.lab.down();
        outcome
    }
}
