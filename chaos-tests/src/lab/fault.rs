//! Faults of one host: its daemon, its link.

use super::error::LabError;
use super::handle::Lab;
use super::impair::{Effect, Frames, Impairment, PPM};
use super::network::{self, MTU};
use super::process::Signal;
use super::record::Record;
use super::spawn::ATMD;

/// Smallest packet that every IPv4 host must take (RFC 791 §3.1).
const SMALL_MTU: u16 = 576;

/// What [`Fault::Lossy`] loses.
const LOSSY_PPM: u32 = PPM / 3;

/// A fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// `kill -9` of the host's atmd.
    Kill,
    /// SIGSTOP: it keeps its sockets and its memory and does nothing.
    Stop,
    /// SIGCONT.
    Cont,
    /// Starts atmd again with the arguments of its first start; kills it first if it runs.
    Restart,
    /// Silent cut of the link: no frame passes, the carrier stays.
    Cut,
    /// No frame passes between this ATM and the other ATMs; everybody else sees it.
    CutPeers,
    /// No frame passes between this ATM and servers and clients; the other ATMs see it.
    CutClients,
    /// It hears everybody, and nobody hears it.
    Mute,
    /// Everybody hears it, and it hears nobody.
    Deaf,
    /// A third of the frames from and to it is lost.
    Lossy,
    /// The carrier of its link goes away.
    LinkDown,
    /// The switch passes only packets of up to 576 bytes to it.
    SmallMtu,
    /// Nobody hears its gratuitous ARP; requests are answered.
    NoAnnouncements,
    /// Undoes everything that was done to the network of the host.
    Heal,
}

impl Lab {
    /// Applies `fault` to `host`. Cuts are idempotent; a killed process is gone when this returns.
    ///
    /// # Errors
    /// [`LabError::NoHost`], [`LabError::NoProcess`], [`LabError::NotRunning`], [`LabError::NotAnAtm`], or a failed command.
    pub fn fault(&self, fault: Fault, host: &str) -> Result<(), LabError> {
        let record = self.record();
        let place = record.host(host)?;
        match fault {
            Fault::Kill => self.kill(host, ATMD),
            Fault::Stop => self.signal(host, ATMD, Signal::STOP),
            Fault::Cont => self.signal(host, ATMD, Signal::CONT),
            Fault::Restart => self.restart(host, ATMD).map(drop),
            Fault::Cut => network::set_port_cut(&record, place, true),
            Fault::CutPeers if !place.atm => Err(LabError::NotAnAtm(host.to_owned())),
            Fault::CutPeers => network::cut_from_peers(&record, place),
            Fault::CutClients if !place.atm => Err(LabError::NotAnAtm(host.to_owned())),
            Fault::CutClients
            | Fault::Mute
            | Fault::Deaf
            | Fault::Lossy
            | Fault::NoAnnouncements => {
                self.impair(&name_of(fault, host), &impairments(fault, &record, host))
            }
            Fault::LinkDown => network::set_carrier(&record, place, false),
            Fault::SmallMtu => network::set_port_mtu(&record, place, SMALL_MTU),
            Fault::Heal => {
                for (fault, _) in IMPAIRING {
                    self.unimpair(&name_of(fault, host))?;
                }
                network::join_peers(&record, place)?;
                network::set_port_mtu(&record, place, MTU)?;
                network::set_carrier(&record, place, true)?;
                network::set_port_cut(&record, place, false)
            }
        }
    }

    /// Ends every cut and every impairment, and revives every link.
    ///
    /// # Errors
    /// A failed `ip`, `bridge` or `nft`.
    pub fn heal_network(&self) -> Result<(), LabError> {
        let record = self.record();
        for name in self.impaired()? {
            self.unimpair(&name)?;
        }
        for host in record.hosts.iter().filter(|host| host.atm) {
            network::join_peers(&record, host)?;
        }
        network::revive_ports(&record)
    }
}

/// The faults that are impairments of a host, and how they are called.
const IMPAIRING: [(Fault, &str); 5] = [
    (Fault::CutClients, "clients"),
    (Fault::Mute, "mute"),
    (Fault::Deaf, "deaf"),
    (Fault::Lossy, "lossy"),
    (Fault::NoAnnouncements, "silent"),
];

fn name_of(fault: Fault, host: &str) -> String {
    let prefix = IMPAIRING.iter().find(|(known, _)| *known == fault);
    format!("{}_{host}", prefix.map_or("none", |(_, prefix)| prefix))
}

fn impairments(fault: Fault, record: &Record, host: &str) -> Vec<Impairment> {
    let own = vec![host.to_owned()];
    let others = |wanted: &dyn Fn(bool) -> bool| -> Vec<String> {
        let hosts = record.hosts.iter();
        let wanted = hosts.filter(|other| other.name != host && wanted(other.atm));
        wanted.map(|other| other.name.clone()).collect()
    };
    let everybody = others(&|_| true);
    let from = Impairment::cut(&own, &everybody);
    match fault {
        Fault::CutClients => {
            let cut = Impairment::cut(&own, &others(&|atm| !atm));
            vec![cut.reversed(), cut]
        }
        Fault::Mute => vec![from],
        Fault::Deaf => vec![from.reversed()],
        Fault::NoAnnouncements => vec![Impairment {
            frames: Frames::Announcements,
            ..from
        }],
        Fault::Lossy => {
            let lossy = Impairment {
                effect: Effect {
                    drop_ppm: LOSSY_PPM,
                    ..Effect::default()
                },
                ..from
            };
            vec![lossy.reversed(), lossy]
        }
        Fault::Kill
        | Fault::Stop
        | Fault::Cont
        | Fault::Restart
        | Fault::Cut
        | Fault::CutPeers
        | Fault::LinkDown
        | Fault::SmallMtu
        | Fault::Heal => Vec::new(),
    }
}
