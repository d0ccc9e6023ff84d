//! The kernel's view of the host's network, followed: routes to servers, and the host's own addresses.
//!
//! The packet path works on one interface and keeps its own neighbours; where a server is, beyond which router, is the
//! kernel's to say. `table` and `message` are pure, `kernel` asks.

mod kernel;
mod message;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Addresses6, addresses6};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::host;
use kernel::{Changes, routes};
pub(crate) use kernel::{RoutesError, split as split_messages};
pub(crate) use table::RouteTable;

/// Changes come in bursts (a routing daemon that starts, a link that comes up): so long they may collect.
const SETTLE: Duration = Duration::from_millis(50);
/// Reading everything takes at most this fraction of the time, however often the kernel changes its mind.
const REST: u32 = 4;
/// Wait before the kernel is asked again after it refused.
const RETRY: Duration = Duration::from_secs(1);

/// What the kernel says of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Ways on the interface.
    pub(crate) routes: Arc<RouteTable>,
    /// Addresses of all interfaces, sorted.
    pub(crate) own: Vec<IpAddr>,
    /// The interface's own IPv6 addresses.
    pub(crate) ours6: Addresses6,
}

/// Follows the kernel.
pub(crate) struct Follower {
    place: Place,
    changes: Changes,
    pause: Duration,
    trouble: Trouble,
}

#[derive(Clone)]
struct Place {
    interface: String,
    preferred6: Option<Ipv6Addr>,
}

/// What went wrong last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// The kernel could not be asked; it is asked again without waiting for a change.
    Look,
    /// Word of changes does not come any more.
    Changes,
}

impl Follower {
    /// Follows from now on, in this thread's network namespace. `preferred6`: the IPv6 address to choose if the interface
    /// has it.
    pub(crate) fn open(interface: &str, preferred6: Option<Ipv6Addr>) -> Result<Self, RoutesError> {
        Ok(Self {
            place: Place {
                interface: interface.to_owned(),
                preferred6,
            },
            changes: Changes::open()?,
            pause: SETTLE,
            trouble: Trouble::None,
        })
    }

    /// The view as it is now. Waits for the kernel, shortly. `None` with a word in the log: it cannot be asked.
    pub(crate) fn look(&mut self) -> Option<View> {
        let begun = Instant::now();
        let view = self.place.look();
        self.seen(view, begun)
    }

    /// The next view; it may be equal to the last one.
    pub(crate) async fn next(&mut self) -> View {
        loop {
            match self.trouble {
                Trouble::None => {
                    if let Err(error) = self.changes.wait().await {
                        self.tell(Trouble::Changes, &error.into());
                        continue;
                    }
                    tokio::time::sleep(self.pause).await;
                }
                Trouble::Look => tokio::time::sleep(RETRY).await,
                Trouble::Changes => {
                    tokio::time::sleep(RETRY).await;
                    match Changes::open() {
                        Ok(changes) => self.changes = changes,
                        Err(_told) => continue,
                    }
                }
            }
            // The burst is over; what comes after this is a change of its own.
            self.changes.forget();
            let (place, begun) = (self.place.clone(), Instant::now());
            let view = tokio::task::spawn_blocking(move || place.look()).await;
            // A look that panicked is one that failed, and the panic is in the log.
            let view = view
                .unwrap_or_else(|error| Err(RoutesError::Netlink(std::io::Error::other(error))));
            if let Some(view) = self.seen(view, begun) {
                return view;
            }
        }
    }

    fn seen(&mut self, view: Result<View, RoutesError>, begun: Instant) -> Option<View> {
        self.pause = SETTLE.max(begun.elapsed() * REST);
        match view {
            Ok(view) => {
                if self.trouble != Trouble::None {
                    info!(
                        interface = self.place.interface,
                        "the kernel's routes are followed again"
                    );
                }
                self.trouble = Trouble::None;
                Some(view)
            }
            Err(error) => {
                self.tell(Trouble::Look, &error);
                None
            }
        }
    }

    fn tell(&mut self, trouble: Trouble, error: &RoutesError) {
        if self.trouble == Trouble::None {
            warn!(
                interface = self.place.interface,
                error = format!("{error:#}"),
                "the kernel's routes are not followed; the last known ones stay in force"
            );
        }
        self.trouble = trouble;
    }
}

impl Place {
    fn look(&self) -> Result<View, RoutesError> {
        let mut own = host::local_addresses();
        own.sort_unstable();
        own.dedup();
        Ok(View {
            routes: Arc::new(routes(&self.interface)?),
            own,
            ours6: addresses6(&self.interface, self.preferred6),
        })
    }
}
