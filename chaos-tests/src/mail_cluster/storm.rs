//! Clients send mail while the active ATM is killed, hands over and is cut off, and a server loses power; IMAP sessions
//! wait in IDLE all the time.

use std::time::{Duration, Instant};

use super::acts::all_healthy;
use super::clients::swaks;
use super::error::MailClusterError;
use super::idle::{self, Sessions};
use super::judge::judge;
use super::outcome::Mails;
use super::senders::{MAILS_EACH, Senders, collect};
use super::servers::Service;
use super::stage::Stage;
use crate::cluster::{Trouble, wait_until};

/// The takeovers, in order.
const TROUBLES: [(Trouble, &str); 3] = [
    (Trouble::Kill, "kill -9 of the active ATM"),
    (Trouble::Failover, "atmctl failover"),
    (Trouble::CutPeers, "the active ATM cut off from the others"),
];

/// The server that loses power. It offers no IMAP, so no session in IDLE is on it.
const VICTIM: &str = "serv1";

/// Mail flows again by then: a takeover, and the clients' patience with a connection of before.
const FLOW_MAX: Duration = Duration::from_secs(20);

/// A mail is announced by then: dovecot looks every 5 s where it is not told.
const ANNOUNCED_MAX: Duration = Duration::from_secs(15);

/// A queue that was left by a power cut is delivered by then.
const DELIVERED_MAX: Duration = Duration::from_secs(60);

/// The whole act.
///
/// # Errors
/// What keeps it from going on.
pub(super) fn storm(stage: &mut Stage<'_>) -> Result<(), MailClusterError> {
    let lab = stage.lab();
    let setting = stage.setting();
    let clients = setting.senders;
    stage.say(&format!(
        "IMAP sessions in IDLE, {clients} clients that send"
    ));
    let sessions = Sessions::open(lab, setting)?;
    let mut on: Vec<String> = sessions.servers().into_values().collect();
    on.sort();
    on.dedup();
    stage.row(
        "IMAP sessions in IDLE",
        format!("{} on {}", idle::SESSIONS, on.join(" and ")),
        "on both servers",
        on.len() == 2,
    );
    let senders = Senders::start(lab, setting)?;
    flows(stage, &senders)?;
    for (announced, (trouble, what)) in TROUBLES.into_iter().enumerate() {
        stage.say(what);
        let blow = stage.cluster.strike(trouble)?;
        let before = senders.sent().len();
        let begun = Instant::now();
        let flowing = flows(stage, &senders);
        stage.row(
            format!("{what}: {clients} mails accepted after the takeover"),
            format!(
                "{} to {}, {} mails in {} ms",
                blow.before,
                blow.after,
                senders.sent().len() - before,
                begun.elapsed().as_millis()
            ),
            format!("<= {} s", setting.here(FLOW_MAX).as_secs()),
            flowing.is_ok(),
        );
        // Where the killed ATM was a server as well, nobody unpacks what new connections bring there until its atmd runs again, and those
        // hang: a mail program tries again, and meets another server.
        let tries_max = if setting.combined && trouble == Trouble::Kill {
            CONNECT_TRIES
        } else {
            1
        };
        announce(stage, &sessions, announced + 1, tries_max)?;
        stage.cluster.mend(&blow)?;
    }
    power_cut(stage, &senders)?;
    let answered = sessions.finish(setting)?;
    stage.row(
        "sessions of before that answer a command at the end",
        format!("{answered} of {}", idle::SESSIONS),
        "all",
        answered == idle::SESSIONS,
    );
    stage.say("the last mails, and counting them");
    let sent = senders.finish()?;
    let mut mails = Mails::default();
    let victim = format!("{VICTIM}.my.org");
    // Too little mail is not an error of this step: the rows say what is missing.
    let _ = wait_until(
        "every accepted mail is in its mailbox",
        setting.here(DELIVERED_MAX),
        || {
            let found = collect(lab, clients).map_err(|error| error.to_string())?;
            mails = judge(&sent, &found, &[&victim]);
            if mails.lost.is_empty() {
                Ok(())
            } else {
                Err(format!("{:?}", mails.lost))
            }
        },
    );
    count(stage, mails);
    stage.done();
    Ok(())
}

/// Waits until every client could have sent one more mail, at most for [`FLOW_MAX`].
fn flows(stage: &Stage<'_>, senders: &Senders) -> Result<(), MailClusterError> {
    let flow = stage.setting().senders;
    let limit = stage.setting().here(FLOW_MAX);
    let before = senders.sent().len();
    wait_until("mail is accepted", limit, || {
        let more = senders.sent().len() - before;
        if more >= flow {
            Ok(())
        } else {
            Err(format!("{more} mails"))
        }
    })?;
    Ok(())
}

/// Two servers by turns, and the senders take turns between the tries: each of them meets the dead one with an even chance, so that
/// three tries failed in one run of eight, and eight do in one of 256. The row tells which try it was.
const CONNECT_TRIES: usize = 8;

/// A mail of now, taken at the latest at try `tries_max`, is announced on all sessions of before.
fn announce(
    stage: &mut Stage<'_>,
    sessions: &Sessions,
    count: usize,
    tries_max: usize,
) -> Result<(), MailClusterError> {
    let to = format!("{}@mail.my.org", idle::USER);
    let mut tries = 1;
    while let Err(error) = swaks(stage.lab(), &to, &format!("announced-{count}")) {
        if tries == tries_max || !error.to_string().contains("Error connecting") {
            return Err(error);
        }
        tries += 1;
    }
    let begun = Instant::now();
    let limit = stage.setting().here(ANNOUNCED_MAX);
    let told = wait_until("the mail is announced", limit, || {
        let told = sessions.told_of(count).len();
        if told == idle::SESSIONS {
            Ok(())
        } else {
            Err(format!("on {told} sessions"))
        }
    });
    stage.row(
        "a mail after it is announced on the sessions of before",
        format!(
            "{} of {}, within {} ms; sent at try {tries}",
            sessions.told_of(count).len(),
            idle::SESSIONS,
            begun.elapsed().as_millis()
        ),
        match tries_max {
            1 => "all; try 1".to_owned(),
            _ => format!("all; try <= {tries_max}"),
        },
        told.is_ok(),
    );
    Ok(())
}

/// A server loses power and comes back.
fn power_cut(stage: &mut Stage<'_>, senders: &Senders) -> Result<(), MailClusterError> {
    stage.say(&format!("{VICTIM} loses power"));
    let smtp = [Service::Smtp];
    let begun = Instant::now();
    stage.servers.power_off(VICTIM)?;
    all_healthy(stage, VICTIM, &smtp, false)?;
    let out = begun.elapsed();
    flows(stage, senders)?;
    stage.say(&format!("{VICTIM} is switched on again"));
    stage.servers.power_on(VICTIM)?;
    let before = senders.accepted_by(VICTIM);
    let begun = Instant::now();
    let limit = stage.setting().here(FLOW_MAX);
    let again = wait_until("the server accepts mail again", limit, || {
        let more = senders.accepted_by(VICTIM) - before;
        if more > 0 {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    });
    stage.row(
        format!("{VICTIM} loses power; then it accepts mail again"),
        format!(
            "out of rotation after {} ms, back {} ms after it was on",
            out.as_millis(),
            begun.elapsed().as_millis()
        ),
        "it does",
        again.is_ok(),
    );
    flows(stage, senders)
}

fn count(stage: &mut Stage<'_>, mails: Mails) {
    let clients = stage.setting().senders;
    let least = clients * MAILS_EACH;
    stage.row(
        format!("mails sent by {clients} clients and accepted (250 after DATA)"),
        format!(
            "{}, {} of them not at once",
            mails.accepted, mails.tried_again
        ),
        format!(">= {least}, none given up"),
        mails.accepted >= least && mails.given_up == 0,
    );
    stage.row(
        "accepted mails that are in their mailbox",
        format!(
            "{} of {}",
            mails.accepted - mails.lost.len(),
            mails.accepted
        ),
        "all",
        mails.lost.is_empty(),
    );
    stage.row(
        "in their mailbox twice",
        format!(
            "{}; sent again without an answer {}, by the queue of {VICTIM} {}",
            mails.twice.len(),
            mails.sent_twice,
            mails.redelivered
        ),
        "0",
        mails.twice.is_empty(),
    );
    stage.outcome.mails = Some(mails);
}
