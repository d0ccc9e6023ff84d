//! Impairments of the network: what becomes of frames on their way from some hosts to others. Data, and the text for `nft`.
//!
//! Each impairment has a name of its own and a table of its own, so that several of them add up and each ends alone.

use std::fmt::Write as _;

use super::error::LabError;
use super::handle::Lab;
use super::network::{self, bridge_port, format_mac};
use super::record::Record;

/// Whole, in parts per million.
pub const PPM: u32 = 1_000_000;

/// Most frames that may be duplicated, in parts per million: a copy may be copied again, so all of them would never end.
pub const DUPLICATE_PPM_MAX: u32 = 500_000;

/// What happens to frames of some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// Hosts that send them.
    pub from: Vec<String>,
    /// Hosts that they are on their way to.
    pub to: Vec<String>,
    /// Which of them.
    pub frames: Frames,
    /// What happens to these.
    pub effect: Effect,
}

/// Which frames suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Every one.
    All,
    /// Gratuitous ARP: sender and target are the same address (RFC 5227 §1.1 calls it an announcement).
    Announcements,
    /// Those whose packet is longer than so many bytes; large frames of the hosts' offloads count as they are.
    LongerThan(u16),
}

/// What happens to a frame. Zero everywhere is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Lost, in parts per million.
    pub drop_ppm: u32,
    /// Delivered twice, in parts per million, at most [`DUPLICATE_PPM_MAX`].
    pub duplicate_ppm: u32,
    /// Later by so much, in us. Only with the userspace switch, like everything below.
    pub delay_us: u32,
    /// Later by up to so much more, in us; the order stays.
    pub jitter_us: u32,
    /// Overtaken by those behind it, in parts per million.
    pub reorder_ppm: u32,
    /// How long one that is overtaken is held back, in us.
    pub reorder_us: u32,
}

impl Effect {
    /// Every frame is lost.
    pub const LOST: Self = Self {
        drop_ppm: PPM,
        duplicate_ppm: 0,
        delay_us: 0,
        jitter_us: 0,
        reorder_ppm: 0,
        reorder_us: 0,
    };

    /// Whether the bridge cannot do it.
    #[must_use]
    pub fn needs_switch(&self) -> bool {
        self.delay_us > 0 || self.jitter_us > 0 || self.reorder_ppm > 0
    }

    /// Both at once: chances of losses and copies are independent, times add up.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            drop_ppm: either(self.drop_ppm, other.drop_ppm),
            duplicate_ppm: either(self.duplicate_ppm, other.duplicate_ppm).min(DUPLICATE_PPM_MAX),
            delay_us: self.delay_us.saturating_add(other.delay_us),
            jitter_us: self.jitter_us.saturating_add(other.jitter_us),
            reorder_ppm: either(self.reorder_ppm, other.reorder_ppm),
            reorder_us: self.reorder_us.max(other.reorder_us),
        }
    }
}

/// The chance of one of two independent events, in parts per million.
fn either(one: u32, other: u32) -> u32 {
    let whole = u64::from(PPM);
    let miss = |ppm: u32| whole.saturating_sub(u64::from(ppm));
    u32::try_from(whole - miss(one) * miss(other) / whole).unwrap_or(PPM)
}

impl Impairment {
    /// Loses every frame from `from` to `to`.
    #[must_use]
    pub fn cut(from: &[String], to: &[String]) -> Self {
        Self {
            from: from.to_vec(),
            to: to.to_vec(),
            frames: Frames::All,
            effect: Effect::LOST,
        }
    }

    /// The same in the other direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            ..self.clone()
        }
    }
}

impl Lab {
    /// Puts `impairments` in place as `name`, instead of what was there under this name. Those of other names stay.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::BadName`], [`LabError::NeedsSwitch`], [`LabError::TooManyCopies`], or a failed `nft`.
    pub fn impair(&self, name: &str, impairments: &[Impairment]) -> Result<(), LabError> {
        check_name(name)?;
        let record = self.record();
        for impairment in impairments {
            for host in impairment.from.iter().chain(&impairment.to) {
                record.host(host)?;
            }
            if impairment.effect.duplicate_ppm > DUPLICATE_PPM_MAX {
                return Err(LabError::TooManyCopies(impairment.effect.duplicate_ppm));
            }
        }
        if let Some(switch) = self.switch()? {
            switch.impair(name, impairments);
            return Ok(());
        }
        if impairments.iter().any(|i| i.effect.needs_switch()) {
            return Err(LabError::NeedsSwitch);
        }
        let there = tables(&record)?;
        network::nft(
            &record.switch(),
            &ruleset(&record, name, impairments, &there),
        )
    }

    /// Ends what [`Self::impair`] put in place as `name`; no error if there is nothing.
    ///
    /// # Errors
    /// [`LabError::BadName`], or a failed `nft`.
    pub fn unimpair(&self, name: &str) -> Result<(), LabError> {
        check_name(name)?;
        if let Some(switch) = self.switch()? {
            switch.unimpair(name);
            return Ok(());
        }
        let record = self.record();
        match removal(name, &tables(&record)?) {
            nothing if nothing.is_empty() => Ok(()),
            text => network::nft(&record.switch(), &text),
        }
    }

    /// Names of what is in place.
    ///
    /// # Errors
    /// A failed `nft`.
    pub fn impaired(&self) -> Result<Vec<String>, LabError> {
        if let Some(switch) = self.switch()? {
            return Ok(switch.impaired());
        }
        let tables = tables(&self.record())?;
        let bridge = tables.lines().filter_map(|line| {
            line.trim()
                .strip_prefix("table bridge ")?
                .strip_prefix(TABLE)
        });
        Ok(bridge.map(ToOwned::to_owned).collect())
    }
}

/// Begins the name of every table of an impairment.
const TABLE: &str = "i_";

fn check_name(name: &str) -> Result<(), LabError> {
    let fits = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits {
        Ok(())
    } else {
        Err(LabError::BadName(name.to_owned()))
    }
}

/// What `nft list tables` says of the bridge.
fn tables(record: &Record) -> Result<String, LabError> {
    network::in_namespace(&record.switch(), "nft", &["list", "tables"])
}

/// Deletes those tables of `name` that are `there`. The others are not named: a kernel without their family would refuse it all.
fn removal(name: &str, there: &str) -> String {
    let mut text = String::new();
    for family in ["bridge", "netdev"] {
        let table = format!("table {family} {TABLE}{name}");
        if there.lines().any(|line| line.trim() == table) {
            let _ = writeln!(text, "delete {table}");
        }
    }
    text
}

/// Losses are decided in the bridge, copies where a frame leaves for its receiver: behind the bridge, so that what is lost
/// is not copied.
fn ruleset(record: &Record, name: &str, impairments: &[Impairment], there: &str) -> String {
    let mut text = removal(name, there);
    let _ = write!(
        text,
        "table bridge {TABLE}{name} {{\n chain forward {{\n  type filter hook forward priority 0; policy accept;\n"
    );
    for impairment in impairments {
        let (from, to) = (ports(&impairment.from), ports(&impairment.to));
        if let (Some(from), Some(to), Some(chance)) = (from, to, chance(impairment.effect.drop_ppm))
        {
            let frames = match_of(record, impairment.frames);
            for frames in frames {
                let _ = writeln!(text, "  iifname {from} oifname {to} {frames}{chance}drop");
            }
        }
    }
    text += " }\n}\n";
    for (host, rules) in copies(record, impairments) {
        let _ = write!(
            text,
            "table netdev {TABLE}{name} {{\n chain {host} {{\n  \
             type filter hook egress device \"{port}\" priority 0; policy accept;\n{rules} }}\n}}\n",
            port = bridge_port(&host)
        );
    }
    text
}

/// The rules that copy what goes to a host, by host.
fn copies(record: &Record, impairments: &[Impairment]) -> Vec<(String, String)> {
    let mut chains: Vec<(String, String)> = Vec::new();
    for impairment in impairments {
        let Some(chance) = chance(impairment.effect.duplicate_ppm) else {
            continue;
        };
        for to in &impairment.to {
            let senders = impairment.from.iter().filter(|from| *from != to);
            for sender in senders.filter_map(|from| record.host(from).ok()) {
                for frames in match_of(record, impairment.frames) {
                    let rule = format!(
                        "  ether saddr {mac} {frames}{chance}dup to \"{port}\"\n",
                        mac = format_mac(sender.mac),
                        port = bridge_port(to),
                    );
                    match chains.iter_mut().find(|(host, _)| host == to) {
                        Some((_, rules)) => *rules += &rule,
                        None => chains.push((to.clone(), rule)),
                    }
                }
            }
        }
    }
    chains
}

fn ports(hosts: &[String]) -> Option<String> {
    let ports: Vec<String> = hosts
        .iter()
        .map(|host| format!("\"{}\"", bridge_port(host)))
        .collect();
    (!ports.is_empty()).then(|| format!("{{ {} }}", ports.join(", ")))
}

/// One match for each rule that is needed; nft cannot compare two fields of a frame with one another.
fn match_of(record: &Record, frames: Frames) -> Vec<String> {
    match frames {
        Frames::All => vec![String::new()],
        Frames::LongerThan(bytes) => vec![format!("meta length > {bytes} ")],
        Frames::Announcements => record
            .vips
            .iter()
            .map(|vip| format!("ether type arp arp saddr ip {vip} arp daddr ip {vip} "))
            .collect(),
    }
}

/// `None`: never.
fn chance(ppm: u32) -> Option<String> {
    match ppm {
        0 => None,
        PPM.. => Some(String::new()),
        part => Some(format!("numgen random mod {PPM} < {part} ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_of_two_impairments_are_independent_and_times_add_up() {
        let lossy = |drop_ppm| Effect {
            drop_ppm,
            ..Effect::default()
        };
        for (one, other, both) in [
            (0, 0, 0),
            (300_000, 0, 300_000),
            (500_000, 500_000, 750_000),
            (PPM, 100_000, PPM),
            (PPM, PPM, PPM),
        ] {
            assert_eq!(lossy(one).and(lossy(other)), lossy(both), "{one} {other}");
        }
        let late = Effect {
            delay_us: 10,
            jitter_us: 5,
            ..Effect::default()
        };
        let both = late.and(late);
        assert_eq!((both.delay_us, both.jitter_us), (20, 10));
        assert!(both.needs_switch() && !Effect::LOST.needs_switch());
    }

    #[test]
    fn names_that_are_no_names_of_tables_are_refused() {
        for name in ["", "A", "a b", "a;b", "a-b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("f12").unwrap();
    }

    #[test]
    fn only_tables_that_are_there_are_deleted() {
        let there =
            "table bridge i_f1\ntable bridge i_f12\ntable netdev i_f12\ntable netdev observer\n";
        assert_eq!(removal("f1", there), "delete table bridge i_f1\n");
        assert_eq!(
            removal("f12", there),
            "delete table bridge i_f12\ndelete table netdev i_f12\n"
        );
        assert_eq!(removal("f2", there), "");
    }

    #[test]
    fn a_chance_is_left_out_where_there_is_none() {
        assert_eq!(chance(0), None);
        assert_eq!(chance(PPM).as_deref(), Some(""));
        assert_eq!(
            chance(300_000).as_deref(),
            Some("numgen random mod 1000000 < 300000 ")
        );
    }
}
