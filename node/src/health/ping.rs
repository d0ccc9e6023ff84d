//! ICMP echo to servers, over one raw socket for each IP version.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence, SurgeError};
use tracing::warn;

/// About as much as ping(8) sends.
const PAYLOAD: &[u8] = b"cluster router health check; an answer is all it asks";

/// Pings. Clones share the sockets and the numbers of pings.
#[derive(Clone, Default)]
pub(super) struct Pinger {
    sockets: Arc<[OnceLock<Option<Client>>; 2]>,
    next: Arc<AtomicU16>,
}

impl Pinger {
    /// Whether `address` answers within `timeout`; `Err` says why not. `None`: this ATM cannot ping, and so has no word about anybody.
    pub(super) async fn ping(
        &self,
        address: IpAddr,
        timeout: Duration,
    ) -> Option<Result<(), String>> {
        let client = self.socket(address)?;
        // Answers are told apart by these, and by the address: one that comes after its time is not the next one's, and two `Server`
        // lines may have one address. A number comes again when the timeout of its last ping is long over.
        let sequence = PingSequence(self.next.fetch_add(1, Ordering::Relaxed));
        let identifier = PingIdentifier(u16::try_from(std::process::id() & 0xffff).unwrap_or(0));
        let mut pinger = client.pinger(address, identifier).await;
        pinger.timeout(timeout);
        Some(match pinger.ping(sequence, PAYLOAD).await {
            Ok(_answer) => Ok(()),
            Err(SurgeError::Timeout { .. }) => Err(format!("no answer to a ping in {timeout:?}")),
            Err(error) => Err(format!("ping: {error}")),
        })
    }

    fn socket(&self, address: IpAddr) -> Option<&Client> {
        let [v4, v6] = &*self.sockets;
        let (socket, kind) = match address {
            IpAddr::V4(_) => (v4, ICMP::V4),
            IpAddr::V6(_) => (v6, ICMP::V6),
        };
        let open = || {
            let client = Client::new(&Config::builder().kind(kind).build());
            client
                .inspect_err(
                    |error| warn!(%error, "servers cannot be pinged by this ATM (CAP_NET_RAW?)"),
                )
                .ok()
        };
        socket.get_or_init(open).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn two_pings_of_one_address_are_two() {
        let (pinger, timeout) = (Pinger::default(), Duration::from_secs(5));
        let ping = || pinger.ping(Ipv4Addr::LOCALHOST.into(), timeout);
        let (one, other) = tokio::join!(ping(), ping());
        // Whoever may not open the socket has no word about either.
        assert_eq!(one, other);
        assert_ne!(one.map(|answer| answer.is_ok()), Some(false));
    }
}
