//! The settings of `/proc/sys/net/ipv4/conf` that a server needs: which to change is decided here from what is read.
//!
//! IPv6 needs none of them: neighbour solicitations are answered only for addresses of the interface they come in on,
//! a VIP is never their source, and there is no reverse path filter in the kernel. Only the tunnel device, which goes
//! away with its settings, is prepared for IPv6.

use std::io;
use std::path::{Path, PathBuf};

use model::server::{ARP_ANNOUNCE, ARP_IGNORE, ARP_IGNORE_SILENT, TUNNEL_IPV6};
use serde::{Deserialize, Serialize};

use super::{Method, ServerRoleError, TUNNEL_DEVICE};

/// One changed setting.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    /// An interface, or `all` or `default`.
    pub(super) interface: String,
    pub(super) key: Key,
    pub(super) before: i32,
    pub(super) after: i32,
}

/// The settings in question, each defined in the kernel's `ip-sysctl.rst`. The effective value of each is the larger
/// of the interface's and that of `all`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Key {
    /// Which ARP requests are answered. 1: only for addresses of the interface the request came in on.
    ArpIgnore,
    /// Which sender address own ARP requests have. 2: the best one for the target, so never a VIP of `lo`.
    ArpAnnounce,
    /// Reverse path filter. A packet from the tunnel comes from a client that is routed elsewhere.
    RpFilter,
}

impl Key {
    fn file_name(self) -> &'static str {
        match self {
            Self::ArpIgnore => "arp_ignore",
            Self::ArpAnnounce => "arp_announce",
            Self::RpFilter => "rp_filter",
        }
    }
}

impl Setting {
    /// Whether the name is one that an interface can have, so that the path stays below `conf`.
    pub(super) fn is_sound(&self) -> bool {
        // IFNAMSIZ with its zero byte; `default` and `all` are shorter.
        const NAME_MAX: usize = 15;
        let name = self.interface.as_str();
        !name.is_empty()
            && name.len() <= NAME_MAX
            && name != "."
            && name != ".."
            && !name.contains(['/', '\0'])
    }

    pub(super) fn path(&self) -> PathBuf {
        path(&self.interface, self.key)
    }
}

/// The changes that make this host a server, in the order in which they are safe.
pub(super) fn plan(interface: &str, method: Method) -> Result<Vec<Setting>, ServerRoleError> {
    let mut settings = Vec::new();
    if method == Method::Nat {
        return Ok(settings);
    }
    for name in ["all", interface] {
        for key in [Key::ArpIgnore, Key::ArpAnnounce] {
            settings.extend(raised(name, key, read(name, key)?));
        }
    }
    if method == Method::Tunnel {
        let names = interfaces()?;
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            match read(&name, Key::RpFilter) {
                Ok(value) => values.push((name, value)),
                // The interface went away since the directory was read.
                Err(ServerRoleError::Sysctl { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        settings.extend(open_reverse_path(values));
    }
    Ok(settings)
}

/// What an ARP setting has to become, if it is not already one that keeps a VIP on `lo` silent.
fn raised(interface: &str, key: Key, before: i32) -> Option<Setting> {
    let after = match key {
        Key::ArpIgnore if ARP_IGNORE_SILENT.contains(&before) => return None,
        Key::ArpIgnore => ARP_IGNORE,
        Key::ArpAnnounce if before >= ARP_ANNOUNCE => return None,
        Key::ArpAnnounce => ARP_ANNOUNCE,
        Key::RpFilter => return None,
    };
    Some(Setting {
        interface: interface.to_owned(),
        key,
        before,
        after,
    })
}

/// Takes the reverse path filter off `all`, without which no single device can be without one, and puts it on each
/// interface that had it through `all`, and on `default` for those that come later. `all` is last, so that no
/// interface is without its filter in between.
fn open_reverse_path(mut values: Vec<(String, i32)>) -> Vec<Setting> {
    values.sort();
    let Some(everywhere) = values
        .iter()
        .find_map(|(name, value)| (name == "all").then_some(*value))
    else {
        return Vec::new();
    };
    if everywhere == 0 {
        return Vec::new();
    }
    let key = Key::RpFilter;
    let mut settings: Vec<Setting> = values
        .into_iter()
        .filter(|(name, value)| name != "all" && name != TUNNEL_DEVICE && *value < everywhere)
        .map(|(interface, before)| Setting {
            interface,
            key,
            before,
            after: everywhere,
        })
        .collect();
    settings.push(Setting {
        interface: "all".to_owned(),
        key,
        before: everywhere,
        after: 0,
    });
    settings
}

/// Takes the reverse path filter off the tunnel device, which goes away with its settings. With `ipv6` it takes IPv6
/// packets without having an address. Without, it has no IPv6 at all.
pub(super) fn prepare_tunnel(device: &str, ipv6: bool) -> Result<(), ServerRoleError> {
    write_path(&path(device, Key::RpFilter), 0)?;
    let set = |key: &str, value| {
        let path = Path::new("/proc/sys/net/ipv6/conf").join(device).join(key);
        write_path(&path, value)
    };
    if ipv6 {
        return TUNNEL_IPV6
            .into_iter()
            .try_for_each(|(key, value)| set(key, value));
    }
    match set("disable_ipv6", 1) {
        // A kernel without IPv6 has nothing to switch off.
        Err(ServerRoleError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// Whether an interface has IPv6: the kernel has it and nobody switched it off.
pub(super) fn has_ipv6(interface: &str) -> bool {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(interface)
        .join("disable_ipv6");
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "0")
}

/// Puts a setting into effect.
pub(super) fn apply(setting: &Setting) -> Result<(), ServerRoleError> {
    write_path(&setting.path(), setting.after)
}

/// Puts a setting back, if it still has the value that was set here. Says whether it did.
pub(super) fn restore(setting: &Setting) -> Result<bool, ServerRoleError> {
    match read(&setting.interface, setting.key) {
        Ok(value) if value == setting.after => {}
        // Never changed, or changed by somebody else since, who knows better.
        Ok(_) => return Ok(false),
        // The interface is gone, and its settings with it.
        Err(ServerRoleError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    write_path(&setting.path(), setting.before).map(|()| true)
}

fn path(interface: &str, key: Key) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf")
        .join(interface)
        .join(key.file_name())
}

fn interfaces() -> Result<Vec<String>, ServerRoleError> {
    let directory = Path::new("/proc/sys/net/ipv4/conf");
    let failed = |source| ServerRoleError::Sysctl {
        path: directory.to_path_buf(),
        source,
    };
    let mut names = Vec::new();
    for entry in directory.read_dir().map_err(failed)? {
        // Kernel names are bytes; one that is no UTF-8 could not be journaled and keeps what it has.
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
}

fn read(interface: &str, key: Key) -> Result<i32, ServerRoleError> {
    let path = path(interface, key);
    let value = std::fs::read_to_string(&path).and_then(|text| {
        text.trim()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    value.map_err(|source| ServerRoleError::Sysctl { path, source })
}

fn write_path(path: &Path, value: i32) -> Result<(), ServerRoleError> {
    std::fs::write(path, format!("{value}\n")).map_err(|source| ServerRoleError::Sysctl {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(of: &[(&str, i32)]) -> Vec<(String, i32)> {
        of.iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn arp_settings_are_raised_only_where_they_would_speak_for_a_vip() {
        let after = |key, before| raised("all", key, before).map(|setting| setting.after);
        for (before, expected) in [(0, Some(1)), (1, None), (2, None), (3, Some(1)), (8, None)] {
            assert_eq!(
                after(Key::ArpIgnore, before),
                expected,
                "arp_ignore {before}"
            );
        }
        for (before, expected) in [(0, Some(2)), (1, Some(2)), (2, None)] {
            assert_eq!(
                after(Key::ArpAnnounce, before),
                expected,
                "arp_announce {before}"
            );
        }
    }

    #[test]
    fn a_filter_on_all_moves_to_each_interface_and_all_is_last() {
        let found = open_reverse_path(values(&[
            ("lo", 0),
            ("all", 1),
            ("eth0", 2),
            ("default", 0),
            ("eth1", 1),
        ]));
        let changes: Vec<_> = found
            .iter()
            .map(|s| (s.interface.as_str(), s.before, s.after))
            .collect();
        assert_eq!(changes, [("default", 0, 1), ("lo", 0, 1), ("all", 1, 0)]);
        let effective = |name: &str, own: i32| {
            let own = changes
                .iter()
                .find(|(changed, ..)| *changed == name)
                .map_or(own, |(.., after)| *after);
            own.max(0)
        };
        assert_eq!(
            (
                effective("eth0", 2),
                effective("eth1", 1),
                effective("lo", 0)
            ),
            (2, 1, 1)
        );
    }

    #[test]
    fn without_a_filter_on_all_nothing_changes() {
        assert_eq!(open_reverse_path(values(&[("all", 0), ("eth0", 1)])), []);
    }
}
