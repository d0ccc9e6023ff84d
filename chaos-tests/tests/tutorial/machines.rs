//! The computers of the tutorial: fresh Debian machines with their packages, as far as namespaces can be that.

use std::fs;
use std::path::PathBuf;

use chaos_tests::lab::{Lab, MachineSpec, PortKind, program, write_program};
use chaos_tests::mail_cluster::{MailClusterError, Setting, Storage, builder, missing_packages};

use super::Outcome;

/// Stands in for systemd, which cannot be the first process of a namespace here: does what the unit says.
const SYSTEMCTL: &str = include_str!("systemctl.sh");

/// Where the tutorial has the programs copied to.
const PROGRAMS: &str = "/root/atm";

/// All hosts.
pub(crate) fn hosts(lab: &Lab) -> Vec<String> {
    let hosts = lab.hosts();
    hosts.iter().map(|host| host.name().to_owned()).collect()
}

/// The hosts, with nothing of the cluster on them.
pub(crate) fn start(part: Option<&str>) -> Outcome<Lab> {
    let missing = missing_packages();
    if !missing.is_empty() {
        return Err(MailClusterError::Missing(missing));
    }
    let lab = builder(&Setting::default())?
        .port(PortKind::Ring)
        .without_daemons()
        .start()?;
    let programs = lab.dir().join("programs");
    let mailboxes = lab.dir().join("mailboxes");
    for dir in [&programs, &mailboxes] {
        fs::create_dir_all(dir).unwrap();
    }
    for name in ["atmd", "atmctl", "smtpAgent", "popAgent", "imapAgent"] {
        match program(name) {
            Ok(from) => write_program(&programs.join(name), &fs::read(from).unwrap()).unwrap(),
            Err(error) if name.starts_with("atm") => return Err(error.into()),
            // Blocks about it are skipped, by name.
            Err(_) => {}
        }
    }
    for host in hosts(&lab) {
        let mut binds = vec![(programs.clone(), PathBuf::from(PROGRAMS))];
        let shares = host.starts_with("serv") || (host == "atm1" && part.is_some());
        if host == "serv4" {
            binds.push((mailboxes.clone(), PathBuf::from("/srv/mail")));
        } else if shares && Storage::here() == Storage::Directory {
            binds.push((mailboxes.clone(), PathBuf::from("/var/mail")));
        }
        let spec = MachineSpec {
            hostname: format!("{host}.my.org"),
            binds,
            setup: format!(
                "set -eu\nmkdir -p /usr/local/sbin /etc/clusterserver\n\
                 cat > /usr/local/sbin/systemctl <<'END-OF-FILE'\n{SYSTEMCTL}END-OF-FILE\n\
                 chmod 755 /usr/local/sbin/systemctl\n"
            ),
        };
        lab.start_machine(&host, &spec)?;
    }
    Ok(lab)
}
