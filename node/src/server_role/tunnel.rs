//! Who unpacks the tunnel: the kernel's own devices where it has all that are needed, else a thread of ours.
//!
//! Invariant: every device that is made here is in the journal already.

use std::fs::File;
use std::net::IpAddr;

use model::server::nft::Devices;

use super::decapsulate::{Decapsulation, Tun};
use super::host::Host;
use super::netlink::{KernelTunnel, Netlink};
use super::packet::Filter;
use super::{Plan, ServerRoleError, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, sysctl};

#[derive(Debug)]
pub(super) enum Tunnel {
    None,
    Kernel(Devices),
    Process(Decapsulation),
}

/// Makes the devices of a plan ready and begins to unpack. With what is in the role's table, if that is known.
pub(super) async fn open(
    plan: &Plan,
    host: &Host,
    netlink: &Netlink,
    held: File,
) -> Result<(Tunnel, Option<String>), ServerRoleError> {
    let kernel = in_kernel(plan, host, netlink).await?;
    let tun = match kernel {
        Some(_) => None,
        None => Some(Tun::create()?),
    };
    prepare(names(kernel), plan, host, netlink).await?;
    let table = host.install_table(plan, kernel, held).await?;
    for device in names(kernel) {
        netlink.set_up(device).await?;
    }
    let tunnel = match (tun, kernel) {
        (Some(tun), _) => {
            let filter = Filter::new(&plan.vips, &plan.atms);
            Tunnel::Process(Decapsulation::start(tun, plan.address, filter)?)
        }
        (None, Some(devices)) => Tunnel::Kernel(devices),
        (None, None) => Tunnel::None,
    };
    Ok((tunnel, table))
}

/// Makes the kernel's devices for a plan, all of them or none.
async fn in_kernel(
    plan: &Plan,
    host: &Host,
    netlink: &Netlink,
) -> Result<Option<Devices>, ServerRoleError> {
    // A device without a local address would be the kernel's own (tunl0, sit0, ip6tnl0), which belongs to nobody.
    let made = |kind| netlink.add_tunnel(TUNNEL_DEVICE, kind);
    let devices = match host.local(plan.address) {
        None => None,
        Some(IpAddr::V6(local)) => made(KernelTunnel::Ip6tnl(local))
            .await?
            .then_some(Devices::Ip6tnl),
        Some(IpAddr::V4(local)) if made(KernelTunnel::Ipip(local)).await? => {
            if !plan.has_ipv6() {
                Some(Devices::Ipip)
            } else if netlink
                .add_tunnel(TUNNEL_DEVICE_6IN4, KernelTunnel::Sit(local))
                .await?
            {
                Some(Devices::IpipAndSit)
            } else {
                netlink.remove_link(TUNNEL_DEVICE).await?;
                None
            }
        }
        Some(IpAddr::V4(_)) => None,
    };
    Ok(devices)
}

impl Tunnel {
    pub(super) fn in_kernel(&self) -> Option<Devices> {
        match self {
            Self::Kernel(devices) => Some(*devices),
            Self::None | Self::Process(_) => None,
        }
    }

    fn names(&self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Kernel(_) | Self::Process(_) => names(self.in_kernel()),
        }
    }

    /// Whether it is one for the VIPs of `plan`, too.
    pub(super) fn takes(&self, plan: &Plan) -> bool {
        !(matches!(self, Self::Kernel(Devices::Ipip)) && plan.has_ipv6())
    }

    /// Makes the devices ready for other VIPs.
    pub(super) async fn update(
        &self,
        plan: &Plan,
        host: &Host,
        netlink: &Netlink,
    ) -> Result<(), ServerRoleError> {
        if let (Self::Kernel(Devices::Ipip), Some(vip)) =
            (self, plan.vips.iter().find(|vip| vip.is_ipv6()))
        {
            return Err(ServerRoleError::TunnelWithoutIpv6(*vip));
        }
        prepare(self.names(), plan, host, netlink).await
    }

    /// The packets that came out of the kernel's devices; `/proc` shows those of this network namespace.
    pub(super) fn received_by_kernel(&self) -> u64 {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let received = |device: &&str| {
            let line = table
                .lines()
                .find_map(|line| line.trim_start().strip_prefix(*device)?.strip_prefix(':'));
            // Columns: received bytes, received packets, ...
            line.and_then(|columns| columns.split_whitespace().nth(1)?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.names().iter().map(received).sum()
    }
}

/// The devices out of which the packets come: those of the kernel, or our own.
fn names(kernel: Option<Devices>) -> &'static [&'static str] {
    match kernel {
        Some(Devices::IpipAndSit) => &[TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4],
        Some(Devices::Ipip | Devices::Ip6tnl) | None => &[TUNNEL_DEVICE],
    }
}

/// Gives the devices the settings and the MTU that the plan's VIPs need.
async fn prepare(
    devices: &[&str],
    plan: &Plan,
    host: &Host,
    netlink: &Netlink,
) -> Result<(), ServerRoleError> {
    for device in devices {
        // The MTU first: below 1280 bytes a device has no IPv6 that could be set.
        netlink.set_mtu(device, host.tunnel_mtu(plan)).await?;
        sysctl::prepare_tunnel(device, plan.has_ipv6())?;
    }
    Ok(())
}
