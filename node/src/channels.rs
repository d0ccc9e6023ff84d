//! Every gRPC channel and server of the process is made here: limits, timeouts and, one day, certificates in one place.

#[cfg(not(atm_sim))]
use std::net::SocketAddr;
use std::time::Duration;

use proto::v1::admin_client::AdminClient;
use proto::v1::nodes_client::NodesClient;
use proto::v1::peer_client::PeerClient;
#[cfg(not(atm_sim))]
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// Where a server listens.
#[cfg(not(atm_sim))]
pub(crate) use tokio::net::TcpListener;

#[cfg(atm_sim)]
use crate::simulation::net::connect_lazy;
#[cfg(atm_sim)]
pub(crate) use crate::simulation::net::{TcpListener, bind, incoming};

/// A connection that takes longer is not worth having: the peers are a network hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// A frozen peer is noticed by this at the latest, even with nothing under way.
const KEEPALIVE: Duration = Duration::from_millis(500);

/// The same between a server and an ATM: a thousand servers must not be heard for their pings.
const NODE_KEEPALIVE: Duration = Duration::from_secs(5);

/// Largest report or plan: 1024 VIPs and the reason of a failure fit many times.
pub(crate) const NODE_MESSAGE_MAX: usize = 256 * 1024;

/// Largest message: an append of openraft's most entries, each a full batch of connection records, fits.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// A channel to another ATM's Peer address. Connects when it is first used, and again after every failure.
pub(crate) fn to_peer(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(connect_lazy(&endpoint))
}

/// A channel from a server to an ATM's Peer address.
pub(crate) fn to_atm(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(NODE_KEEPALIVE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(NODE_KEEPALIVE)
        .keep_alive_timeout(NODE_KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(connect_lazy(&endpoint))
}

#[cfg(not(atm_sim))]
fn connect_lazy(endpoint: &Endpoint) -> Channel {
    endpoint.connect_lazy()
}

/// The Peer service at the other end.
pub(crate) fn peer_client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// The Nodes service at the other end.
pub(crate) fn node_client(channel: Channel) -> NodesClient<Channel> {
    NodesClient::new(channel)
        .max_decoding_message_size(NODE_MESSAGE_MAX)
        .max_encoding_message_size(NODE_MESSAGE_MAX)
}

/// The Admin service at the other end.
pub(crate) fn admin_client(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX)
}

/// A server with the same habits.
pub(crate) fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE * 4))
}

/// Takes an address before anything else happens, so that a taken port is known at the start.
#[cfg(not(atm_sim))]
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// What a server accepts from.
#[cfg(not(atm_sim))]
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}
