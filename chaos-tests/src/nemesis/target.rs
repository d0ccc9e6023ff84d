//! Whom a fault strikes: said by role, settled at the moment it strikes. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hosts by their role. Written as in `active`, `backup(2)`, `atm3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The ATM that holds the lease.
    Active,
    /// The n-th of the ATMs that do not, in the order of the configuration, counted from 1.
    Backup(u16),
    /// The n-th ATM of the configuration, counted from 1.
    Atm(u16),
    /// Every ATM.
    AllAtms,
    /// Every ATM that the fault's other targets do not name.
    OtherAtms,
    /// The largest number of ATMs that is no majority, the active one not among them.
    Minority,
    /// Every ATM but [`Self::Minority`]: the active one is among them.
    Majority,
    /// As many as [`Self::Minority`], the active one among them. Of one or two ATMs, the active one.
    ActiveMinority,
    /// Every ATM but [`Self::ActiveMinority`].
    BackupMajority,
    /// The n-th server of the configuration, counted from 1.
    Server(u16),
    /// Every server.
    AllServers,
    /// Every host that is no ATM: servers and clients.
    NonAtms,
    /// The host of this name.
    Host(String),
}

/// Whom a target was when the fault struck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// As the schedule says it.
    pub target: Target,
    /// Host names, in the order of the lab.
    pub hosts: Vec<String>,
}

/// Who there is, and who is active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Hosts that are ATMs, in the order of the configuration.
    pub atms: Vec<String>,
    /// Hosts that are servers, in that order.
    pub servers: Vec<String>,
    /// Every host.
    pub hosts: Vec<String>,
    /// The ATM that holds the lease, where it is known.
    pub active: Option<String>,
}

/// Why a target names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nobody holds the lease, or nobody could say who does.
    #[error("{0}: no ATM is known to be active")]
    NoActive(Target),
    /// Fewer hosts than the number, or no host of the name.
    #[error("{0} is no host of this lab")]
    Nobody(Target),
    /// Not the name of a target.
    #[error(
        "{0:?} is no target: active, backup(n), atm(n), all-atms, other-atms, minority, majority, active-minority, \
         backup-majority, server(n), all-servers, non-atms, or the name of a host"
    )]
    Unknown(String),
}

impl Target {
    /// Whether somebody has to be asked who is active.
    #[must_use]
    pub fn needs_active(&self) -> bool {
        match self {
            Self::Active
            | Self::Backup(_)
            | Self::Minority
            | Self::Majority
            | Self::ActiveMinority
            | Self::BackupMajority => true,
            Self::Atm(_)
            | Self::AllAtms
            | Self::OtherAtms
            | Self::Server(_)
            | Self::AllServers
            | Self::NonAtms
            | Self::Host(_) => false,
        }
    }

    /// How many ATMs it can name at most, of `atms` in all. A host by name counts as one.
    #[must_use]
    pub fn atms_max(&self, atms: usize) -> usize {
        let minority = minority_of(atms);
        match self {
            Self::Active | Self::Backup(_) | Self::Atm(_) | Self::Host(_) => 1,
            Self::AllAtms | Self::OtherAtms => atms,
            Self::Minority => minority,
            Self::Majority => atms - minority,
            Self::ActiveMinority => minority.max(1),
            Self::BackupMajority => atms - minority.max(1),
            Self::Server(_) | Self::AllServers | Self::NonAtms => 0,
        }
    }
}

/// The largest number of `atms` that is no majority.
#[must_use]
pub(crate) fn minority_of(atms: usize) -> usize {
    atms.saturating_sub(1) / 2
}

impl Roster {
    /// The hosts of each of `targets`.
    ///
    /// # Errors
    /// The first of them that names nobody.
    pub fn resolve(&self, targets: &[Target]) -> Result<Vec<Resolved>, TargetError> {
        let mut resolved: Vec<Resolved> = Vec::new();
        for target in targets {
            let hosts = if *target == Target::OtherAtms {
                Vec::new()
            } else {
                self.hosts_of(target)?
            };
            resolved.push(Resolved {
                target: target.clone(),
                hosts,
            });
        }
        let named: Vec<String> = resolved.iter().flat_map(|r| r.hosts.clone()).collect();
        for others in &mut resolved {
            if others.target == Target::OtherAtms {
                others.hosts = without(&self.atms, &named);
            }
        }
        Ok(resolved)
    }

    fn hosts_of(&self, target: &Target) -> Result<Vec<String>, TargetError> {
        let nobody = || TargetError::Nobody(target.clone());
        let active = || {
            let known = self.active.clone().filter(|host| self.atms.contains(host));
            known.ok_or_else(|| TargetError::NoActive(target.clone()))
        };
        let backups = || active().map(|active| without(&self.atms, &[active]));
        let minority = minority_of(self.atms.len());
        let active_minority = || {
            let active = active()?;
            let companions = backups()?.into_iter().take(minority.saturating_sub(1));
            let chosen: Vec<String> = companions.chain([active]).collect();
            let in_order = self.atms.iter().filter(|atm| chosen.contains(atm));
            Ok::<_, TargetError>(in_order.cloned().collect::<Vec<_>>())
        };
        let hosts = match target {
            Target::Active => vec![active()?],
            Target::Backup(n) => vec![nth(&backups()?, *n).ok_or_else(nobody)?],
            Target::Atm(n) => vec![nth(&self.atms, *n).ok_or_else(nobody)?],
            Target::AllAtms | Target::OtherAtms => self.atms.clone(),
            // The last ones: `Backup(1)` is the likeliest successor, and stays with the majority.
            Target::Minority => backups()?.into_iter().rev().take(minority).rev().collect(),
            Target::Majority => without(&self.atms, &self.hosts_of(&Target::Minority)?),
            Target::ActiveMinority => active_minority()?,
            Target::BackupMajority => without(&self.atms, &active_minority()?),
            Target::Server(n) => vec![nth(&self.servers, *n).ok_or_else(nobody)?],
            Target::AllServers => self.servers.clone(),
            Target::NonAtms => without(&self.hosts, &self.atms),
            Target::Host(name) if self.hosts.contains(name) => vec![name.clone()],
            Target::Host(_) => return Err(nobody()),
        };
        Ok(hosts)
    }
}

fn nth(hosts: &[String], n: u16) -> Option<String> {
    hosts.get(usize::from(n).checked_sub(1)?).cloned()
}

fn without(all: &[String], some: &[String]) -> Vec<String> {
    let rest = all.iter().filter(|host| !some.contains(host));
    rest.cloned().collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("active"),
            Self::Backup(n) => write!(f, "backup({n})"),
            Self::Atm(n) => write!(f, "atm({n})"),
            Self::AllAtms => f.write_str("all-atms"),
            Self::OtherAtms => f.write_str("other-atms"),
            Self::Minority => f.write_str("minority"),
            Self::Majority => f.write_str("majority"),
            Self::ActiveMinority => f.write_str("active-minority"),
            Self::BackupMajority => f.write_str("backup-majority"),
            Self::Server(n) => write!(f, "server({n})"),
            Self::AllServers => f.write_str("all-servers"),
            Self::NonAtms => f.write_str("non-atms"),
            Self::Host(name) => f.write_str(name),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unknown = || TargetError::Unknown(text.to_owned());
        let counted = |of: &str| {
            let number = text
                .strip_prefix(of)?
                .strip_prefix('(')?
                .strip_suffix(')')?;
            number.parse::<u16>().ok().filter(|n| *n > 0)
        };
        if let Some(n) = counted("backup") {
            return Ok(Self::Backup(n));
        }
        if let Some(n) = counted("atm") {
            return Ok(Self::Atm(n));
        }
        if let Some(n) = counted("server") {
            return Ok(Self::Server(n));
        }
        Ok(match text {
            "active" => Self::Active,
            "all-atms" => Self::AllAtms,
            "other-atms" => Self::OtherAtms,
            "minority" => Self::Minority,
            "majority" => Self::Majority,
            "active-minority" => Self::ActiveMinority,
            "backup-majority" => Self::BackupMajority,
            "all-servers" => Self::AllServers,
            "non-atms" => Self::NonAtms,
            name if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Self::Host(name.to_owned())
            }
            _ => return Err(unknown()),
        })
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(atms: usize, active: Option<&str>) -> Roster {
        let numbered = |name: &str, count| (1..=count).map(|n| format!("{name}{n}")).collect();
        let (atms, servers): (Vec<String>, Vec<String>) =
            (numbered("atm", atms), numbered("serv", 2));
        let client = ["client".to_owned()];
        Roster {
            hosts: [&atms[..], &servers, &client].concat(),
            atms,
            servers,
            active: active.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn roles_become_hosts() {
        let five = roster(5, Some("atm2"));
        for (target, hosts) in [
            ("active", "atm2"),
            ("backup(1)", "atm1"),
            ("backup(2)", "atm3"),
            ("atm(2)", "atm2"),
            ("minority", "atm4 atm5"),
            ("majority", "atm1 atm2 atm3"),
            ("active-minority", "atm1 atm2"),
            ("backup-majority", "atm3 atm4 atm5"),
            ("all-atms", "atm1 atm2 atm3 atm4 atm5"),
            ("server(2)", "serv2"),
            ("all-servers", "serv1 serv2"),
            ("non-atms", "serv1 serv2 client"),
            ("client", "client"),
        ] {
            let target: Target = target.parse().unwrap();
            let resolved = five.resolve(std::slice::from_ref(&target)).unwrap();
            assert_eq!(resolved[0].hosts.join(" "), hosts, "{target}");
        }
        let pair = [Target::Active, Target::OtherAtms];
        assert_eq!(
            five.resolve(&pair).unwrap()[1].hosts,
            ["atm1", "atm3", "atm4", "atm5"]
        );
    }

    #[test]
    fn a_target_never_names_more_atms_than_it_says() {
        for atms in 1..=7 {
            let roster = roster(atms, Some("atm1"));
            for name in [
                "active",
                "atm(1)",
                "all-atms",
                "minority",
                "majority",
                "active-minority",
                "backup-majority",
                "non-atms",
                "server(1)",
            ] {
                let target: Target = name.parse().unwrap();
                let hosts = roster.resolve(std::slice::from_ref(&target)).unwrap();
                let struck = hosts[0].hosts.iter().filter(|h| roster.atms.contains(h));
                assert_eq!(struck.count(), target.atms_max(atms), "{name} of {atms}");
            }
        }
    }

    #[test]
    fn nobody_is_an_error_and_not_an_empty_target() {
        let nobody = roster(3, None);
        assert_eq!(
            nobody.resolve(&[Target::Active]),
            Err(TargetError::NoActive(Target::Active))
        );
        let three = roster(3, Some("atm1"));
        for target in [
            Target::Backup(3),
            Target::Server(3),
            Target::Host("atm9".to_owned()),
        ] {
            assert_eq!(
                three.resolve(std::slice::from_ref(&target)),
                Err(TargetError::Nobody(target))
            );
        }
    }

    #[test]
    fn names_read_back_and_others_are_refused() {
        for name in ["active", "backup(7)", "server(64)", "other-atms", "rogue"] {
            assert_eq!(name.parse::<Target>().unwrap().to_string(), name);
        }
        for name in ["", "backup(0)", "backup(x)", "atm-1", "a b"] {
            assert_eq!(
                name.parse::<Target>(),
                Err(TargetError::Unknown(name.to_owned()))
            );
        }
    }
}
