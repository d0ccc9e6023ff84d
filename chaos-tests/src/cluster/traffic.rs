//! Connections of the client to the service `lines` of the first virtual address.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::error::ClusterError;
use super::running::Cluster;
use super::wait::wait_until;
use crate::lab::{LINES_PORT, enter};
use crate::lines::{Churn, ChurnOptions, Client, Options};

/// Between two lines of a connection, in each direction.
pub const LINES_INTERVAL: Duration = Duration::from_millis(20);

/// More than what may have been under way when the waiting began.
const LINES_ENOUGH: u64 = 5;

/// How long opening a connection may take: a SYN that met a takeover is repeated after 1, 3 and 7 s.
pub const OPEN_MAX: Duration = Duration::from_secs(15);

impl Cluster {
    /// Opens `count` connections with lines both ways, and returns once all were welcomed.
    ///
    /// # Errors
    /// They are not, within [`OPEN_MAX`].
    pub fn lines(&self, count: usize) -> Result<Client, ClusterError> {
        let options = Options::new(count, LINES_INTERVAL);
        let client =
            Client::open(options, self.connector()?).map_err(|source| ClusterError::Workload {
                what: "open connections".to_owned(),
                source,
            })?;
        if client.wait_open(OPEN_MAX) {
            return Ok(client);
        }
        let report = client.snapshot();
        Err(ClusterError::Late {
            what: format!("{count} connections welcomed"),
            limit: OPEN_MAX,
            last: format!("{} opened, {:?}", report.opened, report.open_failures),
        })
    }

    /// Opens `rate` connections a second until it is finished, each of which exchanges `lines` lines, two milliseconds apart.
    ///
    /// # Errors
    /// The rate is out of bounds, or a thread cannot be had.
    pub fn churn(&self, rate: u32, lines: u64) -> Result<Churn, ClusterError> {
        let options = ChurnOptions {
            lines,
            in_flight: 192,
            // A connection stalls for as long as a takeover and the sender's back-off after it.
            talk_max: Duration::from_secs(20),
            ..ChurnOptions::new(rate)
        };
        Churn::start(options, self.connector()?, io::sink()).map_err(|source| {
            ClusterError::Workload {
                what: "open short connections".to_owned(),
                source,
            }
        })
    }

    /// Waits until lines have passed both ways on every connection of `client` since this call.
    ///
    /// # Errors
    /// They do not within `limit`: the report tells which connections are silent or broken.
    pub fn wait_until_all_flow(
        &self,
        client: &Client,
        limit: Duration,
    ) -> Result<(), ClusterError> {
        self.wait_until_flow(client, None, limit)
    }

    /// As [`Self::wait_until_all_flow`], on every connection whose server is not `but`.
    ///
    /// # Errors
    /// As there.
    pub fn wait_until_flow(
        &self,
        client: &Client,
        but: Option<&str>,
        limit: Duration,
    ) -> Result<(), ClusterError> {
        let before = client.snapshot();
        wait_until("lines both ways on every connection", limit, || {
            let now = client.snapshot();
            let silent: Vec<_> = before
                .per_connection
                .iter()
                .zip(&now.per_connection)
                .filter(|(_, now)| but.is_none() || now.server.as_deref() != but)
                .filter(|(then, now)| {
                    now.lines_received < then.lines_received + LINES_ENOUGH
                        || now.lines_acknowledged < then.lines_acknowledged + LINES_ENOUGH
                })
                .map(|(_, now)| format!("{} {:?} {:?}", now.token, now.server, now.ended))
                .collect();
            if silent.is_empty() {
                Ok(())
            } else {
                Err(silent.join("; "))
            }
        })
    }

    /// Opens connections from the client's namespace, on any thread that does nothing else.
    ///
    /// # Errors
    /// The lab has no client.
    pub fn connector(
        &self,
    ) -> Result<impl Fn() -> io::Result<TcpStream> + Send + Sync + 'static, ClusterError> {
        thread_local! {
            static INSIDE: Cell<bool> = const { Cell::new(false) };
        }
        let namespace = self.lab().host("client")?.namespace().to_owned();
        let address = SocketAddr::from((self.target(), LINES_PORT));
        Ok(move || {
            if !INSIDE.get() {
                enter(&namespace).map_err(io::Error::other)?;
                INSIDE.set(true);
            }
            TcpStream::connect_timeout(&address, OPEN_MAX)
        })
    }
}
