//! Sending whole Ethernet frames from a host's interface.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket,
};

use crate::lab::{LabError, in_namespace};

/// A packet socket that only sends.
#[derive(Debug)]
pub struct RawPort(OwnedFd);

impl RawPort {
    /// Opens `interface` inside the network namespace `namespace`.
    ///
    /// # Errors
    /// [`LabError::Io`]: no such namespace or interface, or no right to open a packet socket.
    pub fn open(namespace: &str, interface: &str) -> Result<Self, LabError> {
        let opened = in_namespace(namespace, || {
            // Without a protocol the socket receives nothing.
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            bind(fd.as_raw_fd(), &link_address(interface)?)?;
            Ok(Self(fd))
        })?;
        opened.map_err(LabError::io(format!("open {interface} in {namespace}")))
    }

    /// Sends one frame, Ethernet header included.
    ///
    /// # Errors
    /// What `send(2)` reports.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

/// The address that binds a packet socket to `interface` of the calling thread's network namespace.
pub(crate) fn link_address(interface: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
}

/// Opens a packet socket for every frame of `interface` in the calling thread's network namespace.
///
/// Until it is bound it hears all interfaces: the caller throws away what came before.
pub(super) fn listen(interface: &str) -> io::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )?;
    bind(fd.as_raw_fd(), &link_address(interface)?)?;
    Ok(fd)
}
