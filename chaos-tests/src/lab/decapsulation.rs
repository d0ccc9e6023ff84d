//! What a machine must have so that packets come out of the tunnel on servers.

use std::fs::OpenOptions;
use std::io;
use std::process::{Command, Stdio};

/// Servers of a lab cannot take packets out of the tunnel here.
#[derive(Debug, thiserror::Error)]
#[error(
    "servers need a TUN device, and /dev/net/tun cannot be opened ({0}); run as root, or `chmod 0666 /dev/net/tun`"
)]
pub struct NoDecapsulation(#[source] io::Error);

/// Servers take packets out of the tunnel by the kernel's ipip or through a TUN device; without either nothing arrives.
///
/// # Errors
/// There is neither.
pub fn require_decapsulation() -> Result<(), NoDecapsulation> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    match tun {
        Err(error) if !kernel_has_ipip() => Err(NoDecapsulation(error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn kernel_has_ipip() -> bool {
    // A namespace of its own: the attempt leaves nothing behind.
    Command::new("unshare")
        .args(["-n", "ip", "link", "add", "probe", "type", "ipip"])
        .args(["local", "127.0.0.1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
