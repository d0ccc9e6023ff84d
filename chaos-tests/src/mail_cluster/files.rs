//! The files of one mail server, and the script that puts them in place and starts its daemons. Pure.

use std::fmt::Write as _;

use super::servers::Service;

const MAIN_CF: &str = include_str!("../../mail/main.cf");
const DOVECOT_CONF: &str = include_str!("../../mail/dovecot.conf");

/// Clients of the storm, each with a mailbox of its own: u1, u2, …
pub(super) const SENDERS: usize = 20;

/// Every mailbox has this password.
pub(super) const PASSWORD: &str = "secret";

/// Ends a file in the script; no line of a file is equal to it.
const END: &str = "END-OF-FILE";

/// What starts postfix, as Debian's unit does.
pub(super) const START_POSTFIX: &str = "/usr/lib/postfix/configure-instance.sh - && postfix start";

/// What starts dovecot.
pub(super) const START_DOVECOT: &str = "dovecot";

/// All mailboxes.
pub(super) fn users() -> Vec<String> {
    let named = ["somebody", "swaks", "curl", "python", "idle"].map(str::to_owned);
    let numbered = (1..=SENDERS).map(|n| format!("u{n}"));
    named.into_iter().chain(numbered).collect()
}

/// The script that makes a machine the mail server `name`; run again it changes nothing.
pub(super) fn setup(name: &str, offers: &[Service], network: &str, mount: &str) -> String {
    let host = format!("{name}.my.org");
    let main = MAIN_CF
        .replace("@HOST@", &host)
        .replace("@NETWORK@", network);
    let protocols: Vec<&str> = offers.iter().filter_map(|offer| offer.dovecot()).collect();
    let dovecot = DOVECOT_CONF
        .replace("@HOST@", &host)
        .replace("@PROTOCOLS@", &protocols.join(" "));
    let users = users();
    let boxes = users.iter();
    let boxes: String = boxes
        .map(|user| format!("{user}@mail.my.org {user}/Maildir/\n"))
        .collect();
    let passwords: String = users
        .iter()
        .map(|user| format!("{user}:{{PLAIN}}{PASSWORD}\n"))
        .collect();
    let mut script = format!("set -eu\n{mount}\nmkdir -p /etc/postfix /etc/dovecot\n");
    for (path, text) in [
        ("/etc/mailname", "mail.my.org\n"),
        ("/etc/postfix/main.cf", &main),
        ("/etc/postfix/vmailbox", &boxes),
        ("/etc/dovecot/dovecot.conf", &dovecot),
        ("/etc/dovecot/users", &passwords),
    ] {
        let _ = write!(script, "cat > {path} <<'{END}'\n{text}{END}\n");
    }
    // postfix waits for two seconds if a file is as young as that.
    script += "[ -e /etc/postfix/master.cf ] || cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf\n\
               touch -d '1 hour ago' /etc/postfix/*\n";
    if offers.contains(&Service::Smtp) {
        let _ = writeln!(
            script,
            "{{ {START_POSTFIX}; }} </dev/null >/var/log/start-postfix.log 2>&1"
        );
    }
    if !protocols.is_empty() {
        let _ = writeln!(
            script,
            "{START_DOVECOT} </dev/null >/var/log/start-dovecot.log 2>&1"
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in_and_only_what_is_offered_starts() {
        let both = setup(
            "serv1",
            &[Service::Smtp, Service::Pop3],
            "10.1.0.0/24",
            "true",
        );
        assert!(!both.contains('@') || !both.contains("@HOST@") && !both.contains("@NETWORK@"));
        assert!(!both.contains("@PROTOCOLS@"));
        assert!(both.contains("myhostname = serv1.my.org"));
        assert!(both.contains("protocols = pop3\n"));
        assert!(both.contains("postfix start") && both.contains("start-dovecot"));
        assert!(both.contains("u20@mail.my.org u20/Maildir/"));
        let reading = setup(
            "serv3",
            &[Service::Imap, Service::Pop3],
            "10.1.0.0/24",
            "true",
        );
        assert!(reading.contains("protocols = imap pop3\n"));
        assert!(!reading.contains("postfix start"));
    }
}
