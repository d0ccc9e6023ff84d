//! FTP: greeting, FEAT (RFC 2389) or NOOP, QUIT (RFC 959), perhaps AUTH TLS between (RFC 4217).

use super::reply::{Form, ask};
use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Step};
use crate::options::{Options, Tls};

/// How its replies go on.
const FORM: Form = Form::FreeBetween;

const GREETING: Step = Step::new("greeting", "220");
const AUTH: Step = Step::new("AUTH TLS", "234");
const FEAT: Step = Step::new("FEAT", "211");
const NOOP: Step = Step::new("NOOP", "200 or 530");

/// What FEAT is answered by servers that do not know it, or not from somebody who has not logged in.
const NOT_TOLD: [u16; 3] = [500, 502, 530];

pub(super) async fn converse(
    connection: &mut Connection<'_>,
    target: &Target,
    options: &Options,
) -> Result<(), Failure> {
    ask(connection, &GREETING, b"", FORM, &[220]).await?;
    if options.tls == Tls::StartTls {
        ask(connection, &AUTH, b"AUTH TLS\r\n", FORM, &[234]).await?;
        connection.encrypt(target, options).await?;
    }
    let [unknown, unimplemented, not_logged_in] = NOT_TOLD;
    let codes = [211, unknown, unimplemented, not_logged_in];
    let feat = ask(connection, &FEAT, b"FEAT\r\n", FORM, &codes).await?;
    if NOT_TOLD.contains(&feat.code) {
        // Some servers want a login even for doing nothing; saying so is doing their work.
        ask(connection, &NOOP, b"NOOP\r\n", FORM, &[200, 530]).await?;
    }
    Ok(())
}
