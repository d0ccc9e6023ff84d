//! NNTP: greeting, CAPABILITIES, QUIT (RFC 3977), perhaps STARTTLS between (RFC 4642).

use super::reply::{Form, ask};
use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

/// How its replies go on.
const FORM: Form = Form::OneLine;

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
    ask(connection, &GREETING, b"", FORM, &[200, 201]).await?;
    if options.tls == Tls::StartTls {
        ask(connection, &STARTTLS, b"STARTTLS\r\n", FORM, &[382]).await?;
        connection.encrypt(target, options).await?;
    }
    let (words, codes) = (b"CAPABILITIES\r\n", [101, UNKNOWN_COMMAND]);
    let reply = ask(connection, &CAPABILITIES, words, FORM, &codes).await?;
    if reply.code == UNKNOWN_COMMAND {
        connection.say_goodbye(&QUIT, super::QUIT.words).await?;
        return ask(connection, &QUIT, b"", FORM, &[205]).await.map(drop);
    }
    while connection.line(&CAPABILITIES).await? != b"." {}
    Ok(())
}
