//! The four ways to lose the active ATM: killed, stopped, cut off from its peers, and told to hand over.

use std::time::Duration;

use serde::Deserialize;

use super::cluster::Atm;
use super::error::DemoError;
use super::silence::longest_unanswered;
use super::stage::Stage;
use super::status::Status;
use super::takeover::{Heard, Takeover, ms};
use super::traffic::conversation;
use crate::lab::Fault;
use crate::lines::realtime_ns;

/// First client packet through the new ATM, after the fault. A single run on a busy machine: elections wait for disks and
/// for the processor.
const TAKEOVER_MAX_MS: f64 = 1500.0;

/// No packet goes through during a planned hand-over for at most this long: two commits and one election, unhurried.
const HAND_OVER_MAX_MS: f64 = 500.0;

/// The longest takeover, and then the last retransmission that it can have swallowed: sent after 3.0 s.
const UNANSWERED_MAX_MS: f64 = 3500.0;

/// A takeover that has not come by then does not come.
const TAKEOVER_WAIT: Duration = Duration::from_secs(10);

/// Between two looks at what the observer heard.
const HEARD_LOOK: Duration = Duration::from_millis(5);

/// A killed ATM is away for so long; the others have long taken over.
const AWAY: Duration = Duration::from_millis(500);

/// A stopped one, or one that is cut off, for so long at least: beyond its lease (135 ms) and the takeover, so that it comes
/// back to a cluster that has another active ATM.
const AWAY_ALIVE: Duration = Duration::from_millis(1500);

/// An ATM that comes back has to be a backup with everything applied by then.
const RETURN_MAX: Duration = Duration::from_secs(10);

/// For so long afterwards the active one has to stay what it is.
const STAY: Duration = Duration::from_secs(1);

/// Acknowledgements are looked at from so long before the fault: several intervals of lines.
const BEFORE_NS: u64 = 2_000_000_000;

/// `kill -9`, then a restart.
///
/// # Errors
/// What keeps the act from going on.
pub(super) fn kill(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    unplanned(
        stage,
        "kill -9",
        Fault::Kill,
        AWAY,
        "restarted",
        Fault::Restart,
    )
}

/// SIGSTOP, then SIGCONT.
///
/// # Errors
/// What keeps the act from going on.
pub(super) fn stop(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    unplanned(
        stage,
        "SIGSTOP",
        Fault::Stop,
        AWAY_ALIVE,
        "continued",
        Fault::Cont,
    )
}

/// Cut off from the other ATMs, then healed.
///
/// # Errors
/// What keeps the act from going on.
pub(super) fn cut_peers(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    unplanned(
        stage,
        "cut off from its peers",
        Fault::CutPeers,
        AWAY_ALIVE,
        "healed",
        Fault::Heal,
    )
}

fn unplanned(
    stage: &mut Stage<'_>,
    cause: &str,
    fault: Fault,
    away: Duration,
    undone: &str,
    undo: Fault,
) -> Result<(), DemoError> {
    let (old, before) = stage.cluster.await_whole()?;
    let since = realtime_ns();
    stage.cluster.lab.fault(fault, &old.host)?;
    stage.say(&format!("{}: {cause}; who takes over?", old.host));
    let outcome = takeover(
        stage,
        &format!("{}: {cause}", old.host),
        &old,
        &before,
        since,
    );
    // Whatever came of it, the fault ends here: the cut of a link outlives nobody's patience.
    let (new, heard, status) = match outcome {
        Ok(found) => found,
        Err(error) => {
            stage.cluster.lab.fault(undo, &old.host)?;
            return Err(error);
        }
    };
    let first_ms = ms(since, heard.first_new);
    stage.row(
        "first client packet through the new one",
        format!("{first_ms:.0} ms ({})", new.host),
        format!("<= {TAKEOVER_MAX_MS} ms"),
        first_ms <= TAKEOVER_MAX_MS,
    );
    stage.say(&format!("{} took over after {first_ms:.0} ms", new.host));
    let gone = Duration::from_nanos(realtime_ns().saturating_sub(since));
    stage.cluster.interrupt.pause(away.saturating_sub(gone))?;
    stage.cluster.lab.fault(undo, &old.host)?;
    comes_back(stage, &old, &new, &status, undone)?;
    conversation(stage)?;
    unanswered(stage, since)?;
    stage.one_voice();
    stage.done(&format!(
        "{}: {cause}; {} forwards after {first_ms:.0} ms",
        old.host, new.host
    ));
    Ok(())
}

/// Waits for another ATM than `old` to forward and asks it how it came to that.
fn takeover(
    stage: &mut Stage<'_>,
    cause: &str,
    old: &Atm,
    before: &Status,
    since: u64,
) -> Result<(Atm, Heard, Status), DemoError> {
    let cluster = &stage.cluster;
    let heard = cluster.interrupt.wait_for(
        "a packet through another ATM",
        TAKEOVER_WAIT,
        HEARD_LOOK,
        || Ok(Heard::among(&stage.heard(), old.mac, since)),
    )?;
    let new = cluster.atm_with(heard.by).cloned();
    let new = new.ok_or_else(|| DemoError::Answer {
        command: "the observer".to_owned(),
        reason: format!("{:02x?} is no ATM of this lab", heard.by),
    })?;
    let status =
        cluster.await_status(&new.host, "its own account of it", RETURN_MAX, |status| {
            // Should the VIP have moved on already, the row about staying active says so.
            let tenure = status.tenure.filter(|tenure| tenure.epoch > before.epoch);
            status.active.is_some() && tenure.is_some_and(|tenure| tenure.first_arp_at_ns > 0)
        })?;
    let tenure = status
        .tenure
        .filter(|_| status.active.as_ref() == Some(&new.name));
    let milestones = heard.milestones(tenure.as_ref(), since);
    stage.outcome.takeovers.push(Takeover {
        cause: cause.to_owned(),
        from: old.host.clone(),
        to: new.host.clone(),
        milestones,
    });
    Ok((new, heard, status))
}

/// `old` is back, as a backup that catches up, and `new` stays active.
fn comes_back(
    stage: &mut Stage<'_>,
    old: &Atm,
    new: &Atm,
    then: &Status,
    undone: &str,
) -> Result<(), DemoError> {
    stage.say(&format!("{} {undone}; it has to catch up", old.host));
    let begun = realtime_ns();
    let index = stage.cluster.status(&new.host)?.applied_index;
    let back = stage.cluster.await_status(
        &new.host,
        &format!("the return of {}", old.host),
        RETURN_MAX,
        |status| {
            status
                .atm(&old.name)
                .is_some_and(|atm| atm.is_backup_at(index))
        },
    );
    let what = format!("{} {undone}: backup, caught up", old.host);
    let bound = format!("{index} in {} s", RETURN_MAX.as_secs());
    match back {
        Ok(status) => {
            let reached = status.atm(&old.name).map(|atm| atm.applied_index);
            let after = ms(begun, realtime_ns());
            let measured = format!("index {} after {after:.0} ms", reached.unwrap_or_default());
            stage.row(what, measured, bound, true);
        }
        Err(error @ DemoError::Late { .. }) => stage.row(what, error.to_string(), bound, false),
        Err(other) => return Err(other),
    }
    stage.cluster.interrupt.pause(STAY)?;
    let now = stage.cluster.status(&new.host)?;
    let active = now.active.as_deref();
    let name = active
        .and_then(|name| stage.cluster.atm_named(name))
        .map(|atm| atm.host.clone());
    let stays = active == Some(&new.name) && now.epoch == then.epoch;
    let why = if stays {
        String::new()
    } else {
        stage.cluster.last_warning(&new.host)
    };
    stage.row(
        "the active ATM stays active",
        format!(
            "{}, epoch {}{why}",
            name.as_deref().unwrap_or("nobody"),
            now.epoch
        ),
        format!("{}, epoch {}", new.host, then.epoch),
        stays,
    );
    Ok(())
}

fn unanswered(stage: &mut Stage<'_>, since: u64) -> Result<(), DemoError> {
    let events = stage
        .traffic()?
        .events_since(since.saturating_sub(BEFORE_NS));
    let (longest, connection) = longest_unanswered(&events, since, realtime_ns());
    stage.row(
        "longest time one had no answer",
        format!("{longest:.0} ms (number {connection})"),
        format!("<= {UNANSWERED_MAX_MS} ms"),
        longest <= UNANSWERED_MAX_MS,
    );
    Ok(())
}

/// What `atmctl failover --output json` says.
#[derive(Deserialize)]
struct HandedOver {
    to: String,
    epoch: u64,
    elapsed_ms: u64,
}

/// `atmctl failover`.
///
/// # Errors
/// What keeps the act from going on.
pub(super) fn failover(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    let (old, before) = stage.cluster.await_whole()?;
    let since = realtime_ns();
    let args = ["--output", "json", "failover"];
    let text = stage.cluster.atmctl(&old.host, &args)?;
    let said: HandedOver = serde_json::from_str(&text).map_err(|error| DemoError::Answer {
        command: format!("atmctl {} on {}", args.join(" "), old.host),
        reason: error.to_string(),
    })?;
    let cause = format!("{}: atmctl failover", old.host);
    let (new, heard, status) = takeover(stage, &cause, &old, &before, since)?;
    stage.row(
        "atmctl names the successor",
        format!("{}, epoch {}, {} ms", said.to, said.epoch, said.elapsed_ms),
        format!("{}, epoch {}", new.name, status.epoch),
        said.to == new.name && said.epoch == status.epoch,
    );
    let outage = heard.outage_ms(since);
    stage.row(
        "no packet was forwarded for",
        format!("{outage:.0} ms"),
        format!("<= {HAND_OVER_MAX_MS} ms"),
        outage <= HAND_OVER_MAX_MS,
    );
    comes_back(stage, &old, &new, &status, "relieved")?;
    conversation(stage)?;
    unanswered(stage, since)?;
    stage.one_voice();
    stage.done(&format!(
        "{} handed over to {}; {outage:.0} ms without a packet",
        old.host, new.host
    ));
    Ok(())
}
