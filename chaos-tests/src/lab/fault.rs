//! Faults of one host: its daemon, its link.

use super::error::LabError;
use super::handle::Lab;
use super::impair::{Effect, Frames, Impairment, PPM};
use super::network;
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
    /// Only packets of up to 576 bytes pass from and to it, and nobody is told.
    SmallMtu,
    /// Nobody hears its gratuitous ARP; requests are answered.
    NoAnnouncements,
    /// Undoes everything that was done to the link of the host.
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
            Fault::CutPeers | Fault::CutClients if !place.atm => {
                Err(LabError::NotAnAtm(host.to_owned()))
            }
            Fault::Cut if !record.switched => network::set_port_cut(&record, place, true),
            Fault::CutPeers if !record.switched => network::cut_from_peers(&record, place),
            Fault::Cut
            | Fault::CutPeers
            | Fault::CutClients
            | Fault::Mute
            | Fault::Deaf
            | Fault::Lossy
            | Fault::SmallMtu
            | Fault::NoAnnouncements => {
                let name = fault.impairment_of(host).unwrap_or_default();
                self.impair(&name, &impairments(fault, &record, host))
            }
            Fault::LinkDown => network::set_carrier(&record, place, false),
            Fault::Heal => {
                for name in IMPAIRING.iter().filter_map(|f| f.impairment_of(host)) {
                    self.unimpair(&name)?;
                }
                network::set_carrier(&record, place, true)?;
                if record.switched {
                    return Ok(());
                }
                network::join_peers(&record, place)?;
                network::set_port_cut(&record, place, false)
            }
        }
    }

    /// Takes the carrier of the link of `host` away, or gives it back.
    ///
    /// # Errors
    /// [`LabError::NoHost`], or a failed `ip`.
    pub fn set_carrier(&self, host: &str, up: bool) -> Result<(), LabError> {
        let record = self.record();
        network::set_carrier(&record, record.host(host)?, up)
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
        let bridged = record.hosts.iter().filter(|_| !record.switched);
        for host in bridged.filter(|host| host.atm) {
            network::join_peers(&record, host)?;
        }
        network::revive_ports(&record)
    }
}

/// The faults that are impairments of a host.
const IMPAIRING: [Fault; 8] = [
    Fault::Cut,
    Fault::CutPeers,
    Fault::CutClients,
    Fault::Mute,
    Fault::Deaf,
    Fault::Lossy,
    Fault::SmallMtu,
    Fault::NoAnnouncements,
];

impl Fault {
    /// What it is called among the impairments of a lab, if it is one.
    pub(crate) fn impairment_of(self, host: &str) -> Option<String> {
        let name = match self {
            Self::Cut => "cut",
            Self::CutPeers => "peers",
            Self::CutClients => "clients",
            Self::Mute => "mute",
            Self::Deaf => "deaf",
            Self::Lossy => "lossy",
            Self::SmallMtu => "mtu",
            Self::NoAnnouncements => "silent",
            Self::Kill | Self::Stop | Self::Cont | Self::Restart | Self::LinkDown | Self::Heal => {
                return None;
            }
        };
        Some(format!("{name}_{host}"))
    }
}

fn impairments(fault: Fault, record: &Record, host: &str) -> Vec<Impairment> {
    let own = vec![host.to_owned()];
    let others = |wanted: &dyn Fn(bool) -> bool| -> Vec<String> {
        let hosts = record.hosts.iter();
        let wanted = hosts.filter(|other| other.name != host && wanted(other.atm));
        wanted.map(|other| other.name.clone()).collect()
    };
    let both = |there: Impairment| vec![there.reversed(), there];
    let from = Impairment::cut(&own, &others(&|_| true));
    match fault {
        Fault::Cut => both(from),
        Fault::CutPeers => both(Impairment::cut(&own, &others(&|atm| atm))),
        Fault::CutClients => both(Impairment::cut(&own, &others(&|atm| !atm))),
        Fault::Mute => vec![from],
        Fault::Deaf => vec![from.reversed()],
        Fault::NoAnnouncements => vec![Impairment {
            frames: Frames::Announcements,
            ..from
        }],
        Fault::SmallMtu => both(Impairment {
            frames: Frames::LongerThan(SMALL_MTU),
            ..from
        }),
        Fault::Lossy => both(Impairment {
            effect: Effect {
                drop_ppm: LOSSY_PPM,
                ..Effect::default()
            },
            ..from
        }),
        Fault::Kill
        | Fault::Stop
        | Fault::Cont
        | Fault::Restart
        | Fault::LinkDown
        | Fault::Heal => Vec::new(),
    }
}
