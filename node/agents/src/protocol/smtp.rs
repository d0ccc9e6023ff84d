//! SMTP: greeting, EHLO, QUIT (RFC 5321), perhaps STARTTLS between (RFC 3207).

use std::net::IpAddr;

use super::reply::{Form, reply};
use crate::agent::Target;
use crate::connection::{Connection, Goodbye};
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

pub(super) const GOODBYE: Goodbye = Goodbye {
    words: b"QUIT\r\n",
    last_line: Some(b""),
};

const GREETING: Step = Step::new("greeting", "220");
const EHLO: Step = Step::new("EHLO", "250");
const STARTTLS: Step = Step::new("STARTTLS", "220");

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    ask(connection, &GREETING, "", 220).await?;
    // The name of this host may be none that a server believes; its address is (RFC 5321 §4.1.3).
    let ehlo = match connection.own_address() {
        IpAddr::V4(address) => format!("EHLO [{address}]\r\n"),
        IpAddr::V6(address) => format!("EHLO [IPv6:{address}]\r\n"),
    };
    ask(connection, &EHLO, &ehlo, 250).await?;
    if options.tls == Tls::StartTls {
        ask(connection, &STARTTLS, "STARTTLS\r\n", 220).await?;
        connection.encrypt(target, options).await?;
        // What was said before counts no longer (RFC 3207 §4.2).
        ask(connection, &EHLO, &ehlo, 250).await?;
    }
    Ok(())
}

async fn ask(
    connection: &mut Connection<'_>,
    step: &Step,
    words: &str,
    code: u16,
) -> Result<(), Failure> {
    connection.say(step, words.as_bytes()).await?;
    let reply = reply(connection, step, Form::EachLineMarked).await?;
    reply.expect(step, &[code]).map(drop)
}
