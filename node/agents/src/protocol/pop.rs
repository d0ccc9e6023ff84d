//! POP3: greeting, CAPA (RFC 2449), QUIT (RFC 1939), perhaps STLS between (RFC 2595).

use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

const GREETING: Step = Step::new("greeting", "+OK");
const STLS: Step = Step::new("STLS", "+OK");
const CAPA: Step = Step::new("CAPA", "+OK and a list that ends");
const QUIT: Step = Step::new("QUIT", "+OK");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Err,
}

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    agreed(connection, &GREETING).await?;
    if options.tls == Tls::StartTls {
        connection.say(&STLS, b"STLS\r\n").await?;
        agreed(connection, &STLS).await?;
        connection.encrypt(target, options).await?;
    }
    connection.say(&CAPA, b"CAPA\r\n").await?;
    let answer = connection.line(&CAPA).await?;
    match status(&answer).ok_or_else(|| CAPA.answered(&answer))? {
        Status::Ok => while connection.line(&CAPA).await? != b"." {},
        // A server of RFC 1939 does not know CAPA: that it takes leave in order is then the proof.
        Status::Err => {
            connection.say_goodbye(&QUIT, super::QUIT.words).await?;
            agreed(connection, &QUIT).await?;
        }
    }
    Ok(())
}

async fn agreed(connection: &mut Connection<'_>, step: &Step) -> Result<(), Failure> {
    let line = connection.line(step).await?;
    match status(&line) {
        Some(Status::Ok) => Ok(()),
        Some(Status::Err) | None => Err(step.answered(&line)),
    }
}

fn status(line: &[u8]) -> Option<Status> {
    let word = line.split(|byte| *byte == b' ').next()?;
    match word {
        b"+OK" => Some(Status::Ok),
        b"-ERR" => Some(Status::Err),
        _ => None,
    }
}
