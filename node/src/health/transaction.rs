//! One check: what is done, and what it found, in words.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agents::{Options, Tls, Transport, program};
use model::conf::{Agent, CheckTls, Protocol};
use model::health::{Check, Target};
use tokio::sync::Semaphore;

use super::ping::Pinger;

/// Checks by ourselves under way at once: 1000 servers with 4 services at 30 s are 133 a second, each a round trip long unless it fails.
const CHECKS_MAX: usize = 256;

/// Other people's programs under way at once: each is a process.
const PROGRAMS_MAX: usize = 32;

/// What all checks of this ATM share.
#[derive(Clone)]
pub(super) struct Checks {
    own: Arc<Semaphore>,
    programs: Arc<Semaphore>,
    pinger: Pinger,
}

/// Who carries a check out.
enum Means<'t> {
    Agent(agents::Agent, Options),
    Program(&'t str),
}

impl Checks {
    pub(super) fn new() -> Self {
        Self {
            own: Arc::new(Semaphore::new(CHECKS_MAX)),
            programs: Arc::new(Semaphore::new(PROGRAMS_MAX)),
            pinger: Pinger::default(),
        }
    }

    /// Checks once; `Err` says why it failed, `None` that this ATM cannot tell. Waiting for a turn is not the server's time.
    pub(super) async fn check(&self, target: &Target) -> Option<Result<(), String>> {
        let (port, protocol) = match &target.check {
            Check::Ping => {
                let _turn = self.own.acquire().await;
                return self.pinger.ping(target.address, target.timeout).await;
            }
            Check::Agent { port, protocol, .. } => (*port, *protocol),
        };
        let at = agent_target(target.address, port, protocol);
        Some(match means(&target.check) {
            Means::Agent(agent, options) => {
                let _turn = self.own.acquire().await;
                let done = agents::check_within(agent, &at, &options, target.timeout).await;
                done.map_err(|failure| failure.to_string())
            }
            Means::Program(path) => {
                let _turn = self.programs.acquire().await;
                let limits = program::Limits::within(target.timeout);
                let ended = program::run(Path::new(path), &at, &limits).await;
                if ended.is_healthy() {
                    Ok(())
                } else {
                    Err(format!("{path}: {ended}"))
                }
            }
        })
    }
}

/// A service as agents and scripts are told of it.
pub(super) fn agent_target(address: IpAddr, port: u16, protocol: Protocol) -> agents::Target {
    agents::Target {
        address,
        port,
        transport: transport(protocol),
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    }
}

/// The protocol check of ours that a service names, by its agent or by the program of its agent; else that program.
fn means(check: &Check) -> Means<'_> {
    let Check::Agent {
        agent,
        program,
        tls,
        protocol,
        port,
    } = check
    else {
        // Only agents are asked about here; a connection is the least that anybody can open.
        return Means::Agent(agents::Agent::Connect, Options::default());
    };
    let ours = match agent {
        Agent::Http => Some(agents::Agent::Http),
        Agent::Connect | Agent::None => Some(agents::Agent::Connect),
        Agent::User(name) => match program {
            None => agents::Agent::by_program(name),
            Some(path) => agents::Agent::by_program(path).filter(|_| is_installed(path)),
        },
    };
    match (ours, program) {
        (Some(agent), _) => {
            let mut options = Options::usual(agent, transport(*protocol), *port);
            if let Some(tls) = tls {
                options.tls = match tls {
                    CheckTls::None => Tls::None,
                    CheckTls::Implicit => Tls::Implicit,
                    CheckTls::StartTls => Tls::StartTls,
                };
            }
            Means::Agent(agent, options)
        }
        (None, Some(program)) => Means::Program(program),
        // A name that the configuration refuses.
        (None, None) => Means::Agent(agents::Agent::Connect, Options::default()),
    }
}

/// Whether a program lies where ours are installed: what bears the name of one of ours anywhere else is somebody's own.
fn is_installed(path: &str) -> bool {
    const PLACES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    let directory = Path::new(path).parent();
    directory.is_some_and(|directory| PLACES.iter().any(|place| Path::new(place) == directory))
}

/// A pause that is a part of `interval`, always the same for one subject on one ATM, so that the checks of many spread over it.
pub(super) fn phase(interval: Duration, seed: &impl std::hash::Hash) -> Duration {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    // Of the interval's 4096 parts.
    let part = u32::try_from(hasher.finish() >> 52).unwrap_or(0);
    interval * part / 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(agent: Agent, program: Option<&str>, port: u16, tls: Option<CheckTls>) -> Check {
        Check::Agent {
            agent,
            program: program.map(str::to_owned),
            tls,
            protocol: Protocol::Tcp,
            port,
        }
    }

    #[test]
    fn our_agents_are_known_by_name_and_by_path() {
        use agents::Agent::{Connect, Http, Imap, Smtp};
        let user = |name: &str| Agent::User(name.to_owned());
        for (check, expected) in [
            (target(Agent::Http, None, 80, None), (Http, Tls::None)),
            (target(Agent::Http, None, 443, None), (Http, Tls::Implicit)),
            (target(Agent::Connect, None, 7, None), (Connect, Tls::None)),
            (target(user("smtpAgent"), None, 25, None), (Smtp, Tls::None)),
            (
                target(
                    user("mine"),
                    Some("/usr/bin/smtpAgent"),
                    25,
                    Some(CheckTls::StartTls),
                ),
                (Smtp, Tls::StartTls),
            ),
            (
                target(user("imapAgent"), None, 993, None),
                (Imap, Tls::Implicit),
            ),
            (
                target(user("imapAgent"), None, 993, Some(CheckTls::None)),
                (Imap, Tls::None),
            ),
        ] {
            match means(&check) {
                Means::Agent(agent, options) => assert_eq!((agent, options.tls), expected),
                Means::Program(path) => panic!("{path}"),
            }
        }
        for path in ["/opt/check-mail", "/opt/mine/smtpAgent", "/usr/bin/mine"] {
            let foreign = target(user("smtpAgent"), Some(path), 25, None);
            assert!(matches!(means(&foreign), Means::Program(program) if program == path));
        }
    }

    /// The check of a configuration knows ours by what the model says of them, and checks them by what they are.
    #[test]
    fn the_model_knows_our_agents() {
        let programs = agents::Agent::PROGRAMS;
        assert_eq!(programs.map(|(name, _)| name), Agent::KNOWN_PROGRAMS);
        let programs = programs.map(|(name, ours)| (Agent::User(name.to_owned()), ours));
        let built_in = [
            (Agent::Http, agents::Agent::Http),
            (Agent::Connect, agents::Agent::Connect),
        ];
        for (told, ours) in programs.into_iter().chain(built_in) {
            assert_eq!(told.has_starttls(), ours.has_starttls(), "{told:?}");
            assert_eq!(told.is_tcp_only(), ours.is_tcp_only(), "{told:?}");
        }
    }

    #[test]
    fn a_check_over_udp_is_not_encrypted_whatever_its_port() {
        let mut check = target(Agent::User("dnsAgent".to_owned()), None, 853, None);
        for (over, expected) in [(Protocol::Tcp, Tls::Implicit), (Protocol::Udp, Tls::None)] {
            if let Check::Agent { protocol, .. } = &mut check {
                *protocol = over;
            }
            match means(&check) {
                Means::Agent(agents::Agent::Dns, options) => assert_eq!(options.tls, expected),
                Means::Agent(agent, _) => panic!("{agent:?}"),
                Means::Program(path) => panic!("{path}"),
            }
        }
    }

    #[test]
    fn phases_spread_over_the_interval() {
        let interval = Duration::from_secs(30);
        let phases: Vec<Duration> = (0..4_000).map(|n: u32| phase(interval, &n)).collect();
        assert!(phases.iter().all(|phase| *phase < interval));
        for second in 0..30 {
            let (from, until) = (Duration::from_secs(second), Duration::from_secs(second + 1));
            let there = phases.iter().filter(|p| (from..until).contains(*p)).count();
            // 133 on the average, with a deviation of 11.
            assert!((70..200).contains(&there), "{there} in second {second}");
        }
    }
}
