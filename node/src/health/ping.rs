//! ICMP echo to servers, over one raw socket for each IP version.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence, SurgeError};
use tracing::warn;

/// About as much as ping(8) sends.
const PAYLOAD: &[u8] = b"cluster router health check; an answer is all it asks";

/// Pings. Clones share the sockets.
#[derive(Clone, Default)]
pub(super) struct Pinger {
    sockets: Arc<[OnceLock<Option<Client>>; 2]>,
}

impl Pinger {
    /// Whether `address` answers within `timeout`; `Err` says why not. `None`: this ATM cannot ping, and so has no word about anybody.
    pub(super) async fn ping(
        &self,
        address: IpAddr,
        timeout: Duration,
    ) -> Option<Result<(), String>> {
        let client = self.socket(address)?;
        // Answers are told apart by these, and by the address.
        let identifier = PingIdentifier(u16::try_from(std::process::id() & 0xffff).unwrap_or(0));
        let mut pinger = client.pinger(address, identifier).await;
        pinger.timeout(timeout);
        Some(match pinger.ping(PingSequence(0), PAYLOAD).await {
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
