//! Numbers of servers and virtual services: kept from version to version, and never two things under one while it matters.

use std::collections::BTreeMap;

use crate::command::Refusal;
use crate::ids::{ServerId, VirtualServiceId};
use crate::state::{ServerEntry, ServiceEntry};

/// Anything that keeps its number for as long as it is what it is.
pub(crate) trait Numbered: Clone {
    const WHAT: &'static str;
    /// The two are the same thing, in two versions.
    fn same(&self, other: &Self) -> bool;
    fn retire(&mut self);
}

impl Numbered for ServerEntry {
    const WHAT: &'static str = "server";
    fn same(&self, other: &Self) -> bool {
        (&self.name, self.address, self.method, self.source)
            == (&other.name, other.address, other.method, other.source)
    }
    fn retire(&mut self) {
        self.configured = false;
    }
}

impl Numbered for ServiceEntry {
    const WHAT: &'static str = "virtual service";
    fn same(&self, other: &Self) -> bool {
        (self.vip, self.protocol, self.port) == (other.vip, other.protocol, other.port)
    }
    fn retire(&mut self) {
        self.configured = false;
    }
}

impl From<u16> for ServerId {
    fn from(raw: u16) -> Self {
        Self(raw)
    }
}

impl From<u16> for VirtualServiceId {
    fn from(raw: u16) -> Self {
        Self(raw)
    }
}

/// Whether a number means the same thing in two versions.
pub(crate) fn keeps_number<I: Ord, T: Numbered>(
    before: &BTreeMap<I, T>,
    after: &BTreeMap<I, T>,
    id: I,
) -> bool {
    match (before.get(&id), after.get(&id)) {
        (Some(before), Some(after)) => before.same(after),
        (Some(_) | None, Some(_) | None) => false,
    }
}

/// The next version's table: what is still wanted keeps its number, what is not stays while it has connections (P8),
/// what is new gets the lowest free number. Numbers of the version before come last: a record or a verdict that was on its
/// way when the version changed must not find another thing under its number.
pub(crate) fn renumber<I, T>(
    old: &BTreeMap<I, T>,
    wanted: Vec<T>,
    in_use: impl Fn(I) -> bool,
) -> Result<BTreeMap<I, T>, Refusal>
where
    I: Copy + Ord + From<u16>,
    T: Numbered,
{
    let mut next = BTreeMap::new();
    for (id, entry) in old {
        if !wanted.iter().any(|new| new.same(entry)) && in_use(*id) {
            let mut entry = entry.clone();
            entry.retire();
            next.insert(*id, entry);
        }
    }
    let mut new = Vec::new();
    for entry in wanted {
        match old.iter().find(|(_, known)| known.same(&entry)) {
            Some((id, _)) => {
                next.insert(*id, entry);
            }
            None => new.push(entry),
        }
    }
    let fresh = (1..=u16::MAX).filter(|id| !old.contains_key(&I::from(*id)));
    let mut numbers = fresh.chain(1..=u16::MAX).map(I::from);
    for entry in new {
        let id = numbers
            .by_ref()
            .find(|id| !next.contains_key(id))
            .ok_or(Refusal::NoNumber(T::WHAT))?;
        next.insert(id, entry);
    }
    Ok(next)
}
