//! Watches who else claims a VIP: the log says when that begins and when it is over, the status what is known.
//!
//! The engine notices (`dataplane_core::Conflict`) and forgets; here is nothing decided.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataplane::{Handle, MacAddr};
use dataplane_core::{Claimant, Conflict};
use model::Instant;
use proto::v1;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock;

/// How often the engine is asked; a conflict lasts a minute at least.
const LOOK: Duration = Duration::from_secs(1);

/// What is known now. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conflicts(Arc<Mutex<Vec<Conflict>>>);

/// What the log is told.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begun(Conflict),
    Over(Conflict),
}

impl Conflicts {
    /// Follows the engine until `stop`, or until it has ended.
    pub(crate) async fn watch(self, engine: Handle, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let Ok(snapshot) = engine.snapshot().await else {
                return;
            };
            for news in self.take(snapshot.conflicts) {
                tell(&news);
            }
        }
    }

    /// What is known, to be told by the ATM of this name.
    pub(crate) fn told_by(&self, atm: &str) -> Vec<v1::Conflict> {
        let now = clock::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .map(|conflict| convert(conflict, now, atm))
            .collect()
    }

    /// Takes the list as it is now, and says what is new in it.
    fn take(&self, now: Vec<Conflict>) -> Vec<News> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in =
            |list: &[Conflict], one: &Conflict| list.iter().any(|other| key(other) == key(one));
        let begun = now.iter().filter(|one| !is_in(&known, one));
        let over = known.iter().filter(|one| !is_in(&now, one));
        let news = begun
            .cloned()
            .map(News::Begun)
            .chain(over.cloned().map(News::Over))
            .collect();
        *known = now;
        news
    }
}

/// One that ended and began anew in between is another one.
fn key(conflict: &Conflict) -> (IpAddr, MacAddr, Instant) {
    (conflict.vip, conflict.mac, conflict.first)
}

fn tell(news: &News) {
    match news {
        News::Begun(conflict) => warn!(
            vip = %conflict.vip,
            mac = %conflict.mac,
            claimant = who(conflict.claimant),
            "another host claims a virtual address"
        ),
        News::Over(conflict) => info!(
            vip = %conflict.vip,
            mac = %conflict.mac,
            claims = conflict.claims,
            lasted_s = conflict.last.saturating_since(conflict.first).as_secs(),
            "another host does not claim the virtual address any more"
        ),
    }
}

fn who(claimant: Claimant) -> String {
    match claimant {
        Claimant::Foreign => "a foreign host".to_owned(),
        Claimant::Atm(address) => format!("the ATM {address}"),
        Claimant::Unknown => "another ATM or a foreign host".to_owned(),
    }
}

fn convert(conflict: &Conflict, now: Instant, heard_by: &str) -> v1::Conflict {
    use v1::conflict::Claimant as Told;
    let ago =
        |then: Instant| u64::try_from(now.saturating_since(then).as_millis()).unwrap_or(u64::MAX);
    let (claimant, atm) = match conflict.claimant {
        Claimant::Foreign => (Told::Foreign, String::new()),
        Claimant::Atm(address) => (Told::Atm, address.to_string()),
        Claimant::Unknown => (Told::Unknown, String::new()),
    };
    v1::Conflict {
        vip: conflict.vip.to_string(),
        mac: conflict.mac.to_string(),
        claimant: claimant.into(),
        atm,
        first_ms_ago: ago(conflict.first),
        last_ms_ago: ago(conflict.last),
        claims: conflict.claims,
        heard_by: heard_by.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(mac: u8, first_s: u64, last_s: u64) -> Conflict {
        let at = |seconds| Instant::BOOT + Duration::from_secs(seconds);
        Conflict {
            vip: IpAddr::from([10, 1, 0, 100]),
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
            claimant: Claimant::Foreign,
            first: at(first_s),
            last: at(last_s),
            claims: 3,
        }
    }

    #[test]
    fn the_log_hears_of_each_conflict_once_and_of_its_end() {
        let conflicts = Conflicts::default();
        assert_eq!(conflicts.take(vec![]), []);
        let a = conflict(1, 10, 10);
        assert_eq!(conflicts.take(vec![a.clone()]), [News::Begun(a)]);
        let (later, b) = (conflict(1, 10, 40), conflict(2, 40, 40));
        let both = vec![later.clone(), b.clone()];
        assert_eq!(conflicts.take(both), [News::Begun(b.clone())]);
        assert_eq!(conflicts.take(vec![b.clone()]), [News::Over(later)]);
        let again = conflict(2, 300, 300);
        assert_eq!(
            conflicts.take(vec![again.clone()]),
            [News::Begun(again), News::Over(b)]
        );
    }

    #[test]
    fn ages_are_told_and_no_instants() {
        let now = Instant::BOOT + Duration::from_secs(50);
        let told = convert(&conflict(1, 10, 40), now, "atm2");
        assert_eq!((told.first_ms_ago, told.last_ms_ago), (40_000, 10_000));
        assert_eq!(
            (told.mac.as_str(), told.heard_by.as_str()),
            ("02:00:00:00:00:01", "atm2")
        );
    }
}
