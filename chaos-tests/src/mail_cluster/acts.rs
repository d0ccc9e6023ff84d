//! The acts: public clients at every server, everything that fails while mail is sent, a daemon that ends.

use std::time::{Duration, Instant};

use super::clients::{curl, python_client, swaks, until_all_served};
use super::configuration::{CHECK_FREQUENCY, CHECK_TIMEOUT};
use super::error::MailClusterError;
use super::servers::{Daemon, SERVERS, Service, files_below, servers_of};
use super::stage::Stage;
use super::storm;
use crate::cluster::{ClusterError, Status, wait_until};

/// One part of the demo: does something and measures it.
pub(super) struct Act {
    pub(super) title: &'static str,
    pub(super) play: fn(&mut Stage<'_>) -> Result<(), MailClusterError>,
}

/// All of them, in order.
pub(super) const ACTS: [Act; 3] = [
    Act {
        title: "public clients through the VIP",
        play: public_clients,
    },
    Act {
        title: "mail while everything fails",
        play: storm::storm,
    },
    Act {
        title: "a daemon ends and comes back",
        play: daemons_end,
    },
];

/// Two servers by turns, while ATMs check them: a few attempts reach both.
const TRIES: usize = 8;

/// A mail that was accepted is in its mailbox by then.
const DELIVERED_MAX: Duration = Duration::from_secs(10);

/// What a health verdict may take beyond the check itself: each ATM reports, and the verdict is committed. Some milliseconds; on a
/// machine that is busy with other things the check itself, and the end of the daemon's children, take their time.
const VERDICT_MAX: Duration = Duration::from_millis(1500);

/// A service that changes its state does so by then, or not at all.
const CHANGE_MAX: Duration = Duration::from_secs(20);

/// Connections that have to go to the other server.
const CONNECTIONS: usize = 6;

fn public_clients(stage: &mut Stage<'_>) -> Result<(), MailClusterError> {
    let lab = stage.lab();
    let delivered_max = stage.setting().here(DELIVERED_MAX);
    let smtp = servers_of(Service::Smtp);
    stage.say("swaks delivers, curl reads");
    let by = until_all_served(&smtp, TRIES, |n| {
        swaks(lab, "curl@mail.my.org", &format!("from-swaks-{n}"))
    })?;
    served(stage, "swaks delivers by SMTP", &smtp, &by);
    for (service, what) in [
        (Service::Imap, "curl imap:// reads it"),
        (Service::Pop3, "curl pop3:// reads it"),
    ] {
        let wanted = servers_of(service);
        // The first answer may come before the delivery is done.
        let attempt = |_| curl(lab, service, "curl", "Another one.");
        wait_until("curl reads", delivered_max, || {
            attempt(0).map_err(|error| error.to_string())
        })?;
        let by = until_all_served(&wanted, TRIES, attempt)?;
        served(stage, what, &wanted, &by);
    }
    stage.say("smtplib delivers, poplib and imaplib read");
    let by = until_all_served(&smtp, TRIES, |_| {
        let args = ["send", "me@my.org", "python@mail.my.org", "from-smtplib"];
        python_client(lab, &args)
    })?;
    served(stage, "smtplib delivers", &smtp, &by);
    for (service, action, what) in [
        (Service::Imap, "imap", "imaplib finds and reads it"),
        (Service::Pop3, "pop3", "poplib finds and reads it"),
    ] {
        let wanted = servers_of(service);
        let args = [action, "python", "from-smtplib"];
        wait_until(what, delivered_max, || {
            python_client(lab, &args).map_err(|error| error.to_string())
        })?;
        let by = until_all_served(&wanted, TRIES, |_| python_client(lab, &args))?;
        served(stage, what, &wanted, &by);
    }
    relayed(stage)?;
    stage.done();
    Ok(())
}

/// Mail for the rest of my.org goes on to the host that has it; what would leave my.org comes back.
fn relayed(stage: &mut Stage<'_>) -> Result<(), MailClusterError> {
    stage.say("mail for the rest of my.org");
    let limit = stage.setting().here(DELIVERED_MAX);
    let at = stage.servers.relayed();
    let before = files_below(&at);
    let begun = Instant::now();
    swaks(stage.lab(), "somebody@my.org", "relayed")?;
    let arrived = wait_until("the mail for my.org is on serv4", limit, || {
        let files = files_below(&at);
        if files > before {
            Ok(())
        } else {
            Err(format!("{files} files there"))
        }
    });
    stage.row(
        "mail for somebody@my.org is passed on to serv4",
        match arrived {
            Ok(()) => format!("after {} ms", begun.elapsed().as_millis()),
            Err(ref error) => error.to_string(),
        },
        format!("<= {} s", limit.as_secs()),
        arrived.is_ok(),
    );
    Ok(())
}

/// Each of `wanted` served at least once, and nobody else did.
fn served(stage: &mut Stage<'_>, what: &str, wanted: &[&str], by: &[String]) {
    let counts = wanted.iter().map(|name| {
        let count = by.iter().filter(|server| server == name).count();
        (name, count)
    });
    let counts: Vec<_> = counts.collect();
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    let text = counts.iter().map(|(name, count)| format!("{name} {count}"));
    stage.row(
        what,
        text.collect::<Vec<_>>().join(", "),
        "each, nobody else",
        all == by.len() && counts.iter().all(|(_, count)| *count > 0),
    );
}

fn daemons_end(stage: &mut Stage<'_>) -> Result<(), MailClusterError> {
    for (name, daemon) in [("serv3", Daemon::Dovecot), ("serv2", Daemon::Postfix)] {
        stage.say(&format!("kill -9 of {} on {name}", daemon.name()));
        daemon_ends(stage, name, daemon)?;
    }
    stage.done();
    Ok(())
}

fn daemon_ends(stage: &mut Stage<'_>, name: &str, daemon: Daemon) -> Result<(), MailClusterError> {
    let offers = SERVERS.iter().find(|(known, _)| *known == name);
    let services: Vec<Service> = offers
        .map_or(&[][..], |(_, offers)| offers)
        .iter()
        .copied()
        .filter(|service| daemon.serves(*service))
        .collect();
    let names = services.iter().map(|service| service.name());
    let names = names.collect::<Vec<_>>().join(" and ");
    let limit = stage.setting().here(CHECK_FREQUENCY + CHECK_TIMEOUT);
    let verdict = stage.setting().here(VERDICT_MAX);
    let bound = format!("<= {} + {} ms", limit.as_millis(), verdict.as_millis());
    let in_time = |took: Duration| took <= limit + verdict;

    all_healthy(stage, name, &services, true)?;
    let begun = Instant::now();
    stage.servers.kill(name, daemon)?;
    all_healthy(stage, name, &services, false)?;
    let took = begun.elapsed();
    stage.row(
        format!(
            "{} of {name} killed: {names} out of rotation",
            daemon.name()
        ),
        format!("after {} ms", took.as_millis()),
        &bound,
        in_time(took),
    );
    for service in &services {
        let mut by = Vec::new();
        for _ in 0..CONNECTIONS {
            by.push(greets(stage, *service));
        }
        let others = by
            .iter()
            .filter(|by| by.as_ref().is_ok_and(|by| by != name));
        let others = others.count();
        stage.row(
            format!("{} then: greeted by the other server", service.name()),
            format!("{others} of {CONNECTIONS}"),
            "all",
            others == CONNECTIONS,
        );
    }

    stage.servers.start_daemon(name, daemon)?;
    for service in &services {
        stage.servers.await_greeting(name, *service)?;
    }
    let begun = Instant::now();
    all_healthy(stage, name, &services, true)?;
    let took = begun.elapsed();
    stage.row(
        format!("{} of {name} serves again: back in rotation", daemon.name()),
        format!("after {} ms", took.as_millis()),
        &bound,
        in_time(took),
    );
    for service in services {
        let by = until_all_served(&[name], TRIES, |_| {
            greets(stage, service).map_err(|error| MailClusterError::Client {
                command: format!("a connection to {}", service.name()),
                status: "no greeting".to_owned(),
                said: error.to_string(),
            })
        })?;
        let again = by.iter().any(|by| by == name);
        stage.row(
            format!("{} then: greeted by {name}", service.name()),
            format!("connection {}", by.len()),
            format!("<= {TRIES}"),
            again,
        );
    }
    Ok(())
}

fn greets(stage: &Stage<'_>, service: Service) -> std::io::Result<String> {
    stage.servers.greets_at_vip(service)
}

/// Waits until the ATMs say of all `services` of the server whether they are up.
pub(super) fn all_healthy(
    stage: &Stage<'_>,
    name: &str,
    services: &[Service],
    wanted: bool,
) -> Result<(), MailClusterError> {
    let atms = stage.cluster.atms();
    let atms: Vec<&str> = atms.iter().map(String::as_str).collect();
    let what = format!("health of {name} is {wanted}");
    let limit = stage.setting().here(CHANGE_MAX);
    let so = |status: &Status| {
        services.iter().all(|service| {
            let server = status.servers.iter().find(|server| server.name == name);
            let mut offers = server.iter().flat_map(|server| &server.services);
            offers.any(|offer| offer.name == service.name() && offer.healthy == wanted)
        })
    };
    let waited: Result<Status, ClusterError> = stage.cluster.wait_for(&what, &atms, limit, so);
    waited?;
    Ok(())
}
