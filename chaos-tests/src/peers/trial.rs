//! One fault, and what the client and a passive observer saw of it.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::contender::{Contender, Kind};
use super::ear::{CALM, Ear};
use super::echo::EchoProber;
use super::error::PeersError;
use super::outage::{Outage, answers_steadily, longest};
use super::rig::{Rig, Takeover};
use super::strike::Strike;
use super::talk::{Shares, Talk};
use super::two_voices::{only_voice, two_voices};
use crate::lab::{LINES_PORT, in_namespace};
use crate::lines::realtime_ns;
use crate::observer::{Observation, Rules, Verdict};

/// How long a router may take to become calm again: a mended pair needs three advertisements.
const CALM_MAX: Duration = Duration::from_secs(15);

/// The VIP has to answer this long without a gap before an outage counts as over.
const STEADY: Duration = Duration::from_millis(200);

/// How long after the takeover is watched: a second voice that stays shows at once.
const WATCH: Duration = Duration::from_millis(500);

/// A VIP that has not come back after this long is lost: three times the slowest peer's median.
const OUTAGE_MAX: Duration = Duration::from_secs(12);

/// How long a connection through the lab may take to be opened.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The result of one trial. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Who.
    pub contender: Contender,
    /// What.
    pub strike: Strike,
    /// Counted from 0.
    pub number: usize,
    /// Host of the router that was struck.
    pub victim: String,
    /// The longest time without an answer of the VIP after the fault.
    pub outage_ms: f64,
    /// Whether it answered again.
    pub restored: bool,
    /// The longest time without an answer after the fault's end, where it ends within the trial.
    pub relief_outage_ms: Option<f64>,
    /// For how long two routers spoke for the VIP, in the whole trial.
    pub two_voices_ms: f64,
    /// Whether there were still two when the trial ended, or when the fault was ended.
    pub two_voices_to_the_end: bool,
    /// The part of it after the fault's end.
    pub relief_two_voices_ms: Option<f64>,
    /// What the stricter rules of this product's own tests object to; only for this product.
    pub contradictions: Option<usize>,
    /// What became of open connections, where the contender forwards any.
    pub connections: Option<Shares>,
    /// The steps of this product's takeover.
    pub takeover: Option<Takeover>,
}

impl Trial {
    /// Whether two routers spoke at any time.
    #[must_use]
    pub fn has_two_voices(&self) -> bool {
        self.two_voices_ms > 0.0 || self.contradictions.is_some_and(|c| c > 0)
    }
}

/// Which trial it is, and when within the router's rhythm it strikes.
pub(super) struct Order {
    pub(super) contender: Contender,
    pub(super) strike: Strike,
    pub(super) number: usize,
    pub(super) delay: Duration,
}

/// Runs one trial. Afterwards the rig has to be mended, whatever came of it.
///
/// # Errors
/// [`PeersError::Void`] if the trial proves nothing; with it the name of the victim, if there was one.
pub(super) fn run(rig: &Rig, order: &Order) -> Result<Trial, PeersError> {
    let strike = order.strike;
    let ear = Ear::open(rig.lab(), rig.vip())?;
    ear.wait_for_speaker(CALM_MAX)?;
    let client = rig.lab().host("client")?.namespace().to_owned();
    let echo = EchoProber::start(&client, rig.vip())?;
    let talk = order
        .contender
        .keeps_connections()
        .then(|| open_connections(rig, &client))
        .transpose()?;
    wait_until_steady(&echo)?;
    thread::sleep(order.delay);
    let mac = ear
        .speaker(CALM)
        .ok_or_else(|| PeersError::Void("the routers are not calm before the fault".to_owned()))?;
    let victim = rig.host_of(mac).ok_or_else(|| {
        PeersError::Void("somebody else than a router speaks for the VIP".to_owned())
    })?;

    let struck = realtime_ns();
    rig.strike(strike, &victim)?;
    let watch = Watch {
        ear: &ear,
        echo: &echo,
        talk: talk.as_ref(),
    };
    let takeover = |ear: &Ear| ear.other_than(mac, struck);
    watch.until_settled(takeover, takeover_max(order.contender), struck);
    let relieved = strike.is_relieved().then(realtime_ns);
    if let Some(relieved) = relieved {
        rig.relieve(strike, &victim)?;
        let limit = after_relief(order.contender);
        let by = Instant::now() + limit;
        watch.until_settled(|_| Instant::now() >= by, limit, relieved);
    }
    let connections = talk
        .as_ref()
        .map(|talk| talk.judge(Instant::now() + back_off(struck)));
    let ended = realtime_ns();
    drop(talk);
    let probes = echo.probes();
    drop(echo);
    let observation = ear.stop();
    let takeover = rig.takeover(&victim, struck);

    let first = longest(&probes, struck, relieved.unwrap_or(ended));
    let second = relieved.map(|relieved| longest(&probes, relieved, ended));
    judge_observation(&observation, mac, struck)?;
    let contradictions = (order.contender.kind() == Kind::Ours)
        .then(|| contradictions(&observation))
        .transpose()?;
    let both = |from, to| two_voices(&observation.events, from, to);
    Ok(Trial {
        contender: order.contender,
        strike,
        number: order.number,
        victim,
        outage_ms: ms(first.ns),
        restored: first.over && second.is_none_or(|second: Outage| second.over),
        relief_outage_ms: second.map(|second| ms(second.ns)),
        two_voices_ms: ms(both(struck, ended).ns),
        two_voices_to_the_end: both(struck, relieved.unwrap_or(ended)).to_the_end,
        relief_two_voices_ms: relieved.map(|relieved| ms(both(relieved, ended).ns)),
        contradictions,
        connections,
        takeover,
    })
}

fn open_connections(rig: &Rig, client: &str) -> Result<Talk, PeersError> {
    let (client, to) = (client.to_owned(), SocketAddr::from((rig.vip(), LINES_PORT)));
    let connector = move || {
        in_namespace(&client, || TcpStream::connect_timeout(&to, CONNECT_MAX))
            .map_err(std::io::Error::other)?
    };
    let talk = Talk::open(connector).map_err(|error| PeersError::Void(error.to_string()))?;
    if talk.wait_until_all_flow(Instant::now() + CONNECT_MAX) {
        return Ok(talk);
    }
    Err(PeersError::Void(
        "not all connections exchanged lines before the fault".to_owned(),
    ))
}

fn wait_until_steady(echo: &EchoProber) -> Result<(), PeersError> {
    let by = Instant::now() + CALM_MAX;
    while !is_steady(echo) {
        if Instant::now() >= by {
            return Err(PeersError::Void(
                "the VIP does not answer before the fault".to_owned(),
            ));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn is_steady(echo: &EchoProber) -> bool {
    let recent = echo.latest(STEADY * 2);
    answers_steadily(&recent, realtime_ns(), STEADY)
}

/// Everything that is asked whether a fault, or its end, has had its effect.
struct Watch<'a> {
    ear: &'a Ear,
    echo: &'a EchoProber,
    talk: Option<&'a Talk>,
}

impl Watch<'_> {
    /// Waits until `effect` shows (at most `limit`, some faults have none), [`WATCH`] longer, and then until the VIP answers
    /// steadily and the connections had their time to go on.
    fn until_settled(&self, effect: impl Fn(&Ear) -> bool, limit: Duration, since: u64) {
        let by = Instant::now() + limit;
        while !effect(self.ear) && Instant::now() < by {
            thread::sleep(PAUSE);
        }
        thread::sleep(WATCH);
        let by = Instant::now() + OUTAGE_MAX;
        while !is_steady(self.echo) && Instant::now() < by {
            thread::sleep(PAUSE);
        }
        if let Some(talk) = self.talk {
            let by = Instant::now() + back_off(since);
            talk.wait_until_all_flow(by);
        }
    }
}

/// The longest a TCP sender may wait from now on until it tries again: each of its pauses is twice the one before, so the next
/// attempt comes within as long again as the silence lasts, which began no earlier than the fault.
fn back_off(struck: u64) -> Duration {
    /// For the first pause, the lines that follow, and a busy machine.
    const MARGIN: Duration = Duration::from_millis(1000);
    Duration::from_nanos(realtime_ns().saturating_sub(struck)) + MARGIN
}

/// After this a takeover that has not come does not come: four beats of those that count three, and elections.
fn takeover_max(contender: Contender) -> Duration {
    contender.beat() * 4 + Duration::from_millis(500)
}

/// How long the routers have to find each other again when a fault ends.
fn after_relief(contender: Contender) -> Duration {
    contender.beat() * 2 + Duration::from_millis(300)
}

/// The fault must have met the router that spoke, and the observer must have heard everything.
fn judge_observation(
    observation: &Observation,
    mac: [u8; 6],
    struck: u64,
) -> Result<(), PeersError> {
    if observation.overflow > 0 || observation.missed > 0 || !observation.complete {
        return Err(PeersError::Void(format!(
            "the observer missed frames ({} overflowed, {} missed)",
            observation.overflow, observation.missed
        )));
    }
    let calm = u64::try_from(CALM.as_nanos()).unwrap_or(u64::MAX);
    let before = only_voice(&observation.events, struck.saturating_sub(calm), struck);
    if before == Some(mac) {
        return Ok(());
    }
    Err(PeersError::Void(
        "another router spoke right before the fault".to_owned(),
    ))
}

fn contradictions(observation: &Observation) -> Result<usize, PeersError> {
    match observation.verdict(&Rules::default()) {
        Verdict::OneVoice => Ok(0),
        Verdict::TwoVoices(found) => Ok(found.len()),
        Verdict::Invalid { .. } => Err(PeersError::Void("the observer missed frames".to_owned())),
    }
}

fn ms(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e3
}
