//! The server role: what a host listed under Servers needs to answer for the VIPs.
//!
//! The VIPs stand as /32 and /128 on `lo`, where they answer no ARP and no neighbour solicitation; the packets of the
//! tunnel are unpacked by the kernel's devices where there are such and by a thread of ours where not, in each of the
//! four combinations of IPv4 and IPv6; the MSS that the server announces fits the tunnel. A host that is reached by
//! `nat` alone keeps everything as it is: the packets are addressed to it.
//!
//! IPv4 takes sysctls: `arp_ignore`, `arp_announce`, and `rp_filter` for the tunnel. IPv6 takes none of the host's: Linux
//! answers a solicitation only for an address of the interface that it came in on, and asks with an address of that
//! interface. Only the tunnel device itself is told to have no addresses and no duplicate address detection.
//!
//! Invariant: every change is in the journal (`server-role.json` in the state directory) before it is made, so that
//! [`ServerRole::stop`], a failed [`start`] and, after a kill, the next [`start`] or [`clean_up`] put the host back as
//! it was. The whole role belongs to the network namespace of the thread that calls it. Never imports: consensus,
//! forwarding.

mod counters;
mod decapsulate;
mod error;
mod header;
mod host;
mod journal;
mod nat;
mod netlink;
mod nft;
mod packet;
mod sys;
mod sysctl;
mod tunnel;
mod undo;

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use tracing::{info, warn};

pub use counters::Counters;
pub use error::ServerRoleError;
pub use model::server::{Method, TUNNEL_DEVICE, TUNNEL_DEVICE_6IN4, VIPS_MAX};

use crate::filter_watch::{Family, listing};
use host::Host;
use journal::{Found, Journal, JournalFile};
use model::server::nft::TABLE_NAME;
use netlink::Netlink;
use packet::Filter;
use tunnel::Tunnel;

/// What a host has to do as a server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The interface towards the ATMs and the clients.
    pub interface: String,
    /// This server's own address, to which the ATMs send the tunnel: its IP version is the tunnel's.
    pub address: IpAddr,
    /// The virtual addresses, of both IP versions, at most [`VIPS_MAX`].
    pub vips: Vec<IpAddr>,
    /// How the ATMs forward to this server.
    pub method: Method,
    /// The addresses from which the tunnel's packets may come, in the IP version of `address`; empty accepts every
    /// sender.
    pub atms: Vec<IpAddr>,
    /// The router through which answers of services that are reached by `nat` have to go. The role never touches a
    /// route: it warns where the default route is another.
    pub nat_gateway: Option<IpAddr>,
    /// Where the journal lies; made if it is missing.
    pub state_dir: PathBuf,
}

impl Plan {
    fn has_ipv6(&self) -> bool {
        self.vips.iter().any(IpAddr::is_ipv6)
    }
}

/// Who unpacks the tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unpacking {
    /// Nobody: the method is `direct` or `nat`.
    None,
    /// The kernel's tunnel devices.
    Kernel,
    /// A thread of this process.
    Process,
}

/// A host in the server role. Dropping it ends the unpacking only; [`stop`](Self::stop) puts the host back.
#[derive(Debug)]
pub struct ServerRole {
    plan: Plan,
    journal_file: JournalFile,
    journal: Journal,
    tunnel: Tunnel,
    /// What was in its table when it had been put in place; `None`: that is not known, or there is none.
    table: Option<String>,
}

const LOOPBACK: &str = "lo";

/// Makes this host a server.
///
/// First takes back what a killed predecessor with the same state directory left.
///
/// # Errors
/// Every [`ServerRoleError`]; whatever had been changed is taken back.
pub async fn start(plan: Plan) -> Result<ServerRole, ServerRoleError> {
    check_capabilities(plan.method)?;
    let journal_file = JournalFile::lock(&plan.state_dir).await?;
    for done in take_back_found(&journal_file).await? {
        info!(done, "taken back from a predecessor");
    }
    let netlink = Netlink::connect()?;
    let host = Host::read(&netlink, &plan.interface).await?;
    host.check_unoccupied(plan.method).await?;
    let journal = planned(&plan, &host, &journal_file)?;
    journal_file.store(&journal).await?;
    let made = match journal_file.share() {
        Ok(held) => change(&plan, &host, &journal, &netlink, held).await,
        Err(error) => Err(error),
    };
    match made {
        Ok((tunnel, table)) => {
            if let Some(gateway) = plan.nat_gateway {
                nat::advise(&netlink, gateway).await;
            }
            let role = ServerRole {
                plan,
                journal_file,
                journal,
                tunnel,
                table,
            };
            let Plan {
                interface,
                vips,
                method,
                ..
            } = &role.plan;
            info!(interface, ?vips, ?method, unpacking = ?role.unpacking(), "in the server role");
            Ok(role)
        }
        Err(error) => {
            // The first error is the one to tell; what stays because of a second one is in the journal.
            if let Err(second) = take_back(&journal_file, &journal).await {
                warn!(%second, "the server role is half undone");
            }
            Err(error)
        }
    }
}

/// Everything that [`change`] will do, and the refusals that it would meet half-way.
fn planned(
    plan: &Plan,
    host: &Host,
    journal_file: &JournalFile,
) -> Result<Journal, ServerRoleError> {
    let tunnelled = plan.method == Method::Tunnel;
    let mut journal = Journal::new(journal_file.path())?;
    if plan.method == Method::Nat {
        return Ok(journal);
    }
    journal.addresses = host.missing(&plan.vips)?;
    journal.sysctls = sysctl::plan(&plan.interface, plan.method)?;
    journal.tunnel = tunnelled;
    journal.tunnel_6in4 = tunnelled && plan.address.is_ipv4() && plan.has_ipv6();
    journal.table = tunnelled;
    journal.raised_loopback = !host.loopback.up;
    if tunnelled {
        host.mss(plan)?;
    }
    Ok(journal)
}

/// Takes back what a killed predecessor left, and returns one sentence for each thing. Nothing to do is no error.
///
/// # Errors
/// [`Busy`](ServerRoleError::Busy) when the predecessor is alive, [`CorruptJournal`](ServerRoleError::CorruptJournal)
/// when its journal cannot be understood, [`Incomplete`](ServerRoleError::Incomplete) when something could not be
/// taken back.
pub async fn clean_up(state_dir: &Path) -> Result<Vec<String>, ServerRoleError> {
    if !journal::exists(state_dir)? {
        return Ok(Vec::new());
    }
    take_back_found(&JournalFile::lock(state_dir).await?).await
}

impl ServerRole {
    /// Whether [`update`](Self::update) is enough to do what `plan` says; else the role has to be stopped and started.
    #[must_use]
    pub fn can_become(&self, plan: &Plan) -> bool {
        let same = |plan: &Plan| {
            (
                plan.interface.clone(),
                plan.address,
                plan.method,
                plan.nat_gateway,
                plan.state_dir.clone(),
            )
        };
        same(&self.plan) == same(plan) && self.tunnel.takes(plan)
    }

    /// Serves these VIPs instead, and takes the tunnel from these `atms`; connections to the VIPs that stay are not
    /// touched. With [`Method::Nat`] there are none.
    ///
    /// # Errors
    /// As [`start`]. The host then has the VIPs of before, the new ones, or some of both; calling again continues,
    /// and [`stop`](Self::stop) takes all of them back.
    pub async fn update(
        &mut self,
        vips: Vec<IpAddr>,
        atms: Vec<IpAddr>,
    ) -> Result<(), ServerRoleError> {
        if self.plan.method == Method::Nat {
            return Ok(());
        }
        let netlink = Netlink::connect()?;
        let host = Host::read(&netlink, &self.plan.interface).await?;
        let added = host.missing(&vips)?;
        let next = Plan {
            vips: vips.clone(),
            atms,
            ..self.plan.clone()
        };
        if self.journal.table {
            host.mss(&next)?;
        }
        self.tunnel.update(&next, &host, &netlink).await?;
        let (kept, removed): (Vec<_>, Vec<_>) = self
            .journal
            .addresses
            .iter()
            .copied()
            .partition(|address| vips.contains(address));
        for vip in &added {
            if !self.journal.addresses.contains(vip) {
                self.journal.addresses.push(*vip);
            }
        }
        self.journal_file.store(&self.journal).await?;
        self.plan = next;
        if let Tunnel::Process(decapsulation) = &self.tunnel {
            decapsulation
                .set_filter(Filter::new(&self.plan.vips, &self.plan.atms))
                .await?;
        }
        if self.journal.table {
            let held = self.journal_file.share()?;
            self.table = host
                .install_table(&self.plan, self.tunnel.in_kernel(), held)
                .await?;
        }
        for vip in &added {
            netlink.add_vip(host.loopback.index, *vip).await?;
        }
        for vip in &removed {
            netlink.remove_vip(host.loopback.index, *vip).await?;
        }
        let mut addresses = kept;
        addresses.extend(added);
        addresses.sort_unstable();
        addresses.dedup();
        self.journal.addresses = addresses;
        self.journal_file.store(&self.journal).await?;
        info!(vips = ?self.plan.vips, "VIPs of the server role changed");
        Ok(())
    }

    /// Puts its table in the kernel's packet filter back if it is not as it was put in place. Whether it was not.
    ///
    /// # Errors
    /// As [`start`]; the table is as it was found.
    pub async fn mend_table(&mut self) -> Result<bool, ServerRoleError> {
        if !self.journal.table
            || self.table.is_some() && self.table == listing(Family::Inet, TABLE_NAME).await
        {
            return Ok(false);
        }
        let netlink = Netlink::connect()?;
        let host = Host::read(&netlink, &self.plan.interface).await?;
        let held = self.journal_file.share()?;
        self.table = host
            .install_table(&self.plan, self.tunnel.in_kernel(), held)
            .await?;
        Ok(true)
    }

    /// Puts the host back as it was before [`start`]. A setting that somebody else changed since stays as it is.
    ///
    /// # Errors
    /// [`Incomplete`](ServerRoleError::Incomplete) names what could not be taken back; its journal stays for the next
    /// start.
    pub async fn stop(self) -> Result<(), ServerRoleError> {
        let Self {
            journal_file,
            journal,
            tunnel,
            ..
        } = self;
        // Joins a thread that may be in the middle of a batch.
        tokio::task::spawn_blocking(move || drop(tunnel))
            .await
            .map_err(|error| ServerRoleError::Decapsulation {
                source: std::io::Error::other(error),
            })?;
        take_back(&journal_file, &journal).await?;
        info!("out of the server role");
        Ok(())
    }

    /// The VIPs that stand on this host.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.plan.vips
    }

    /// Who unpacks the tunnel.
    #[must_use]
    pub fn unpacking(&self) -> Unpacking {
        match self.tunnel {
            Tunnel::None => Unpacking::None,
            Tunnel::Kernel(_) => Unpacking::Kernel,
            Tunnel::Process(_) => Unpacking::Process,
        }
    }

    /// What became of the tunnel's packets. Where the kernel unpacks, only `delivered` is counted here and the
    /// discards are counters of the nft table `inet atm_server`.
    #[must_use]
    pub fn counters(&self) -> Counters {
        match &self.tunnel {
            Tunnel::None => Counters::default(),
            Tunnel::Kernel(_) => Counters {
                delivered: self.tunnel.received_by_kernel(),
                ..Counters::default()
            },
            Tunnel::Process(decapsulation) => decapsulation.counters(),
        }
    }
}

/// Makes the changes of a plan. The VIPs come last: the host answers for them only when everything else stands.
async fn change(
    plan: &Plan,
    host: &Host,
    journal: &Journal,
    netlink: &Netlink,
    held: File,
) -> Result<(Tunnel, Option<String>), ServerRoleError> {
    for setting in &journal.sysctls {
        sysctl::apply(setting)?;
    }
    if journal.raised_loopback {
        netlink.set_up(LOOPBACK).await?;
    }
    let opened = match plan.method {
        Method::Direct | Method::Nat => (Tunnel::None, None),
        Method::Tunnel => tunnel::open(plan, host, netlink, held).await?,
    };
    for vip in &journal.addresses {
        netlink.add_vip(host.loopback.index, *vip).await?;
    }
    Ok(opened)
}

/// Refuses early, with one sentence, what would fail half-way.
fn check_capabilities(method: Method) -> Result<(), ServerRoleError> {
    if method == Method::Nat {
        return Ok(());
    }
    // Where the kernel does not tell, the changes themselves find out.
    let Ok(held) = rustix::thread::capabilities(None) else {
        return Ok(());
    };
    if !held.effective.contains(CapabilitySet::NET_ADMIN) {
        return Err(ServerRoleError::NoPermission("CAP_NET_ADMIN"));
    }
    if method == Method::Tunnel && !held.effective.contains(CapabilitySet::NET_RAW) {
        return Err(ServerRoleError::NoPermission("CAP_NET_RAW"));
    }
    Ok(())
}

async fn take_back_found(journal_file: &JournalFile) -> Result<Vec<String>, ServerRoleError> {
    match journal_file.load()? {
        Found::Nothing => Ok(Vec::new()),
        Found::Changes(journal) => take_back(journal_file, &journal).await,
        Found::Elsewhere => {
            journal_file.remove().await?;
            Ok(vec![format!(
                "journal {} of an earlier boot or namespace dropped",
                journal_file.path().display()
            )])
        }
    }
}

async fn take_back(
    journal_file: &JournalFile,
    journal: &Journal,
) -> Result<Vec<String>, ServerRoleError> {
    let undone = undo::undo(journal, journal_file).await;
    if !undone.failures.is_empty() {
        let path = journal_file.path().to_path_buf();
        return Err(ServerRoleError::Incomplete {
            path,
            failures: undone.failures,
        });
    }
    journal_file.remove().await?;
    Ok(undone.done)
}
