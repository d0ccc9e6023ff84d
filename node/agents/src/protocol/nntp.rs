//! NNTP: greeting, CAPABILITIES, QUIT (RFC 3977), perhaps STARTTLS between (RFC 4642).

use super::reply::{Form, Reply, reply};
use crate::agent::Target;
use crate::connection::{Connection, Goodbye};
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

pub(super) const GOODBYE: Goodbye = Goodbye {
    words: b"QUIT\r\n",
    last_line: Some(b""),
};

const GREETING: Step = Step::new("greeting", "200 or 201");
const STARTTLS: Step = Step::new("STARTTLS", "382");
const CAPABILITIES: Step = Step::new("CAPABILITIES", "101 and a list that ends");
const QUIT: Step = Step::new("QUIT", "205");

/// A server of RFC 977 does not know CAPABILITIES.
const UNKNOWN_COMMAND: u16 = 500;

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    ask(connection, &GREETING, b"", &[200, 201]).await?;
    if options.tls == Tls::StartTls {
        ask(connection, &STARTTLS, b"STARTTLS\r\n", &[382]).await?;
        connection.encrypt(target, options).await?;
    }
    let words = b"CAPABILITIES\r\n";
    let reply = ask(connection, &CAPABILITIES, words, &[101, UNKNOWN_COMMAND]).await?;
    if reply.code == UNKNOWN_COMMAND {
        connection.say_goodbye(&QUIT, GOODBYE.words).await?;
        return ask(connection, &QUIT, b"", &[205]).await.map(drop);
    }
    while connection.line(&CAPABILITIES).await? != b"." {}
    Ok(())
}

async fn ask(
    connection: &mut Connection<'_>,
    step: &Step,
    words: &[u8],
    codes: &[u16],
) -> Result<Reply, Failure> {
    connection.say(step, words).await?;
    let reply = reply(connection, step, Form::OneLine).await?;
    reply.expect(step, codes)
}
