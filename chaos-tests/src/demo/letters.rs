//! Mail through the VIP: sent by SMTP, read back by POP3 and by IMAP, whichever servers serve it.

use std::net::TcpStream;
use std::time::Duration;

use super::error::DemoError;
use super::stage::Stage;
use crate::lab::LabError;
use crate::mail::client::{ClientError, Fetched, Mail, fetch_by_imap, fetch_by_pop3, send};

/// Mails: with weights 1 and 1 the second of each kind goes to the other server.
const MAILS: usize = 2;

/// A whole session; it takes milliseconds.
const SESSION_MAX: Duration = Duration::from_secs(5);

const SMTP: u16 = 25;
const POP3: u16 = 110;
const IMAP: u16 = 143;

const USER: &str = "demo";

/// The act.
///
/// # Errors
/// [`DemoError::Mail`] if a session breaks.
pub(super) fn act(stage: &mut Stage<'_>) -> Result<(), DemoError> {
    let (mut took, mut by_pop3, mut by_imap) = (Vec::new(), Vec::new(), Vec::new());
    let mut intact = [0_usize; 2];
    for number in 1..=MAILS {
        let subject = format!("demo {number} {}", stage.cluster.lab.prefix());
        let body = format!("Mail {number} of the demo.\r\n.\r\nIts last line.\r\n");
        let mail = Mail {
            from: "sender@my.org",
            to: &format!("{USER}@mail.my.org"),
            subject: &subject,
            body: &body,
        };
        stage.say(&format!("mail {number} by SMTP"));
        let sent = send(open(stage, SMTP)?, SESSION_MAX, &mail).map_err(failed("SMTP"))?;
        stage.say(&format!(
            "mail {number} taken by {}; reading it",
            sent.server
        ));
        let is_intact = |found: &Fetched| {
            found.body == body.as_bytes() && found.received_by.as_deref() == Some(&sent.server)
        };
        let found = fetch_by_pop3(open(stage, POP3)?, SESSION_MAX, USER, &subject);
        if let Some(found) = found.map_err(failed("POP3"))? {
            intact[0] += usize::from(is_intact(&found));
            by_pop3.push(found.server);
        }
        let found = fetch_by_imap(open(stage, IMAP)?, SESSION_MAX, USER, &subject);
        if let Some(found) = found.map_err(failed("IMAP"))? {
            intact[1] += usize::from(is_intact(&found));
            by_imap.push(found.server);
        }
        took.push(sent.server);
    }
    stage.row(
        format!("{MAILS} mails sent by SMTP"),
        format!("taken by {}", took.join(", ")),
        "taken",
        took.len() == MAILS,
    );
    let read = [("POP3", &by_pop3, intact[0]), ("IMAP", &by_imap, intact[1])];
    for (protocol, servers, intact) in read {
        stage.row(
            format!("read back by {protocol}"),
            format!("{intact} unchanged; from {}", servers.join(", ")),
            format!("{MAILS} unchanged"),
            intact == MAILS,
        );
    }
    stage.one_voice();
    stage.done(&format!(
        "sent to {}; read from {} by POP3, from {} by IMAP",
        took.join(", "),
        by_pop3.join(", "),
        by_imap.join(", ")
    ));
    Ok(())
}

fn open(stage: &Stage<'_>, port: u16) -> Result<TcpStream, DemoError> {
    let to = stage.cluster.service(port);
    let stream = stage.cluster.connect(to, SESSION_MAX);
    Ok(stream.map_err(LabError::io(format!("connect to {to} from the client")))?)
}

fn failed(protocol: &'static str) -> impl FnOnce(ClientError) -> DemoError {
    move |error| DemoError::Mail(format!("{protocol}: {error}"))
}
