//! SMTP: greeting, EHLO, QUIT (RFC 5321), perhaps STARTTLS between (RFC 3207).

use std::net::IpAddr;

use super::reply::{Form, ask};
use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

/// How its replies go on.
const FORM: Form = Form::EachLineMarked;

const GREETING: Step = Step::new("greeting", "220");
const EHLO: Step = Step::new("EHLO", "250");
const STARTTLS: Step = Step::new("STARTTLS", "220");

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    ask(connection, &GREETING, b"", FORM, &[220]).await?;
    // The name of this host may be none that a server believes; its address is (RFC 5321 §4.1.3).
    let ehlo = match connection.own_address() {
        IpAddr::V4(address) => format!("EHLO [{address}]\r\n"),
        IpAddr::V6(address) => format!("EHLO [IPv6:{address}]\r\n"),
    };
    ask(connection, &EHLO, ehlo.as_bytes(), FORM, &[250]).await?;
    if options.tls == Tls::StartTls {
        ask(connection, &STARTTLS, b"STARTTLS\r\n", FORM, &[220]).await?;
        connection.encrypt(target, options).await?;
        // What was said before counts no longer (RFC 3207 §4.2).
        ask(connection, &EHLO, ehlo.as_bytes(), FORM, &[250]).await?;
    }
    Ok(())
}
