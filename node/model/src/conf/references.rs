//! Names that refer to other parts of the file, and parts that nothing refers to.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;
use super::diagnostic::Finding;
use super::findings::suggest;
use super::nat::Nat;
use super::places::Subject;
use super::types::{AddServer, Agent, CheckTls, Config, ForwardingMethod, Protocol, Service};

type Report<'r> = dyn FnMut(Finding<Subject>) + 'r;

/// Reports every reference without its target and every part without its use.
pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    let names = Names {
        suggestions_left: Cell::new(SUGGESTIONS_MAX),
        agents: config
            .user_checks
            .iter()
            .map(|agent| agent.name.as_str())
            .collect(),
        services: config
            .services
            .iter()
            .map(|service| service.name.as_str())
            .collect(),
        servers: config
            .servers
            .iter()
            .map(|server| server.name.as_str())
            .collect(),
        pools: config
            .server_pools
            .iter()
            .map(|pool| pool.name.as_str())
            .collect(),
    };
    agents(config, &names, report);
    server_pools(config, &names, report);
    virtual_hosts(config, &names, report);
    nat(config, report);
    sizes(config, report);
}

struct Names<'c> {
    /// A hostile file could have as many unknown names as lines, and looking for each of them takes its time.
    suggestions_left: Cell<usize>,
    agents: BTreeSet<&'c str>,
    services: BTreeSet<&'c str>,
    servers: BTreeSet<&'c str>,
    pools: BTreeSet<&'c str>,
}

/// As many as are reported.
const SUGGESTIONS_MAX: usize = 200;

impl Names<'_> {
    fn suggest<'n>(
        &self,
        word: &str,
        candidates: impl Iterator<Item = &'n str>,
    ) -> Option<&'n str> {
        let left = self.suggestions_left.get().checked_sub(1)?;
        self.suggestions_left.set(left);
        suggest(word, candidates)
    }
}

fn agents(config: &Config, names: &Names<'_>, report: &mut Report<'_>) {
    let mut used = BTreeSet::new();
    for (i, service) in config.services.iter().enumerate() {
        if !names.agents.contains(service.agent.name()) {
            what_ours_cannot(i, service, report);
        }
        let Agent::User(name) = &service.agent else {
            continue;
        };
        used.insert(name.as_str());
        if names.agents.contains(name.as_str()) || Agent::KNOWN_PROGRAMS.contains(&name.as_str()) {
            continue;
        }
        let built_in = ["http", "connect", "none"];
        let known = names
            .agents
            .iter()
            .copied()
            .chain(built_in)
            .chain(Agent::KNOWN_PROGRAMS);
        report(
            Finding::error(
                Code::UnknownAgent,
                Subject::ServiceAgent(i),
                format!("no agent is named `{name}`"),
            )
            .help(format!(
                "add `UserCheck {name}` with the path of the program, or use http, connect or none"
            ))
            .did_you_mean(names.suggest(name, known)),
        );
    }
    for (i, agent) in config.user_checks.iter().enumerate() {
        if !used.contains(agent.name.as_str()) {
            report(
                Finding::warning(
                    Code::AgentNotUsed,
                    Subject::UserCheck(i),
                    format!("no service uses the agent `{}`", agent.name),
                )
                .help("name it as the third argument of a `Service` line"),
            );
        }
    }
}

/// Agents of ours that fail every check of a service, whatever its servers do.
///
/// Warnings: a file of the original may have such a service, and a version that was committed stays one that can be read.
fn what_ours_cannot(i: usize, service: &Service, report: &mut Report<'_>) {
    let agent = &service.agent;
    if service.protocol == Protocol::Udp && agent.is_tcp_only() {
        let message = format!(
            "the agent `{}` speaks TCP only, and `{}` is a service over UDP: every check fails",
            agent.name(),
            service.name
        );
        report(
            Finding::warning(Code::TcpOnlyAgent, Subject::ServiceAgent(i), message)
                .help("write `none`, or a `UserCheck` with a program that knows the service"),
        );
        return;
    }
    // That `tls=` has no effect with these has been said.
    if matches!(agent, Agent::Connect | Agent::None) {
        return;
    }
    let ours = matches!(agent, Agent::Http) || Agent::KNOWN_PROGRAMS.contains(&agent.name());
    let (why, help) = match (service.tls, service.protocol) {
        (Some(CheckTls::Implicit | CheckTls::StartTls), Protocol::Udp) => {
            ("there is no TLS over UDP", "remove the option")
        }
        (Some(CheckTls::StartTls), Protocol::Tcp) if !agent.has_starttls() => (
            "its protocol has no request that starts TLS",
            "write `tls=implicit`: TLS from the first byte on",
        ),
        (Some(_) | None, _) => return,
    };
    if ours {
        let message = format!(
            "`tls=` with the agent `{}`: {why}, and every check fails",
            agent.name()
        );
        report(Finding::warning(Code::TlsNotSpoken, Subject::ServiceTls(i), message).help(help));
    }
}

fn server_pools(config: &Config, names: &Names<'_>, report: &mut Report<'_>) {
    let mut offered = BTreeSet::new();
    let mut added = BTreeSet::new();
    for (p, pool) in config.server_pools.iter().enumerate() {
        if pool.servers.is_empty() {
            report(
                Finding::warning(
                    Code::EmptyPool,
                    Subject::ServerPool(p),
                    format!("the pool `{}` has no servers", pool.name),
                )
                .help("add `AddServer <server> <service>/<weight>`"),
            );
        }
        for (s, server) in pool.servers.iter().enumerate() {
            added.insert(server.server.as_str());
            if !names.servers.contains(server.server.as_str()) {
                let message = format!("no server is named `{}`", server.server);
                report(
                    Finding::error(Code::UnknownServer, Subject::AddServer(p, s), message)
                        .help("declare it with a `Server` line in the `Servers` block")
                        .did_you_mean(names.suggest(&server.server, names.servers.iter().copied())),
                );
            }
            for (o, offer) in server.offers.iter().enumerate() {
                offered.insert(offer.service.as_str());
                if !names.services.contains(offer.service.as_str()) {
                    let message = format!("no service is named `{}`", offer.service);
                    report(
                        Finding::error(Code::UnknownService, Subject::Offer(p, s, o), message)
                            .help("declare it with a `Service` line in the `Services` block")
                            .did_you_mean(
                                names.suggest(&offer.service, names.services.iter().copied()),
                            ),
                    );
                }
            }
        }
    }
    fallbacks(config, names, &mut added, report);
    for (i, service) in config.services.iter().enumerate() {
        if !offered.contains(service.name.as_str()) {
            report(
                Finding::warning(
                    Code::ServiceNotOffered,
                    Subject::Service(i),
                    format!("no server offers `{}`", service.name),
                )
                .help("name it in an `AddServer` line, or remove it"),
            );
        }
    }
    for (i, server) in config.servers.iter().enumerate() {
        if !added.contains(server.name.as_str()) {
            report(
                Finding::warning(
                    Code::ServerNotInPool,
                    Subject::Server(i),
                    format!("no pool has the server `{}`", server.name),
                )
                .help("add it with an `AddServer` line, or remove it"),
            );
        }
    }
}

/// A fallback is a server; `used` gets all of them.
fn fallbacks<'c>(
    config: &'c Config,
    names: &Names<'_>,
    used: &mut BTreeSet<&'c str>,
    report: &mut Report<'_>,
) {
    for (i, service) in config.services.iter().enumerate() {
        let Some(fallback) = service.fallback.as_deref() else {
            continue;
        };
        used.insert(fallback);
        if !names.servers.contains(fallback) {
            let message = format!("no server is named `{fallback}`");
            report(
                Finding::error(Code::UnknownServer, Subject::ServiceFallback(i), message)
                    .help("declare it with a `Server` line in the `Servers` block")
                    .did_you_mean(names.suggest(fallback, names.servers.iter().copied())),
            );
        }
        let offers = |added: &AddServer| {
            let offers = &added.offers;
            added.server == fallback && offers.iter().any(|offer| offer.service == service.name)
        };
        let mut added = config.server_pools.iter().flat_map(|pool| &pool.servers);
        if added.any(offers) {
            let message = format!("`{fallback}` offers `{}` anyway", service.name);
            report(
                Finding::warning(
                    Code::OptionWithoutEffect,
                    Subject::ServiceFallback(i),
                    message,
                )
                .help("name a server that is for the worst case alone"),
            );
        }
    }
}

fn virtual_hosts(config: &Config, names: &Names<'_>, report: &mut Report<'_>) {
    let mut used = BTreeSet::new();
    let atm_pool = config.atm_pool.name.as_str();
    for (h, host) in config.virtual_hosts.iter().enumerate() {
        // An empty name is that of a line or block that is missing, which has been said.
        if host.atm_pool != atm_pool && !host.atm_pool.is_empty() && !atm_pool.is_empty() {
            let message = format!("no ATM pool is named `{}`", host.atm_pool);
            report(
                Finding::error(Code::UnknownPool, Subject::AddAtmPool(h), message)
                    .related(Subject::AtmPool, "the ATM pool of this file")
                    .help(format!("write `AddAtmPool {atm_pool}`")),
            );
        }
        let mut here = BTreeMap::new();
        for (p, pool) in host.server_pools.iter().enumerate() {
            used.insert(pool.as_str());
            if !names.pools.contains(pool.as_str()) {
                let message = format!("no server pool is named `{pool}`");
                report(
                    Finding::error(Code::UnknownPool, Subject::AddServerPool(h, p), message)
                        .help("declare it with a `ServerPool` block")
                        .did_you_mean(names.suggest(pool, names.pools.iter().copied())),
                );
            }
            if let Some(first) = here.insert(pool.as_str(), p) {
                report(
                    Finding::error(
                        Code::DuplicateName,
                        Subject::AddServerPool(h, p),
                        format!("the pool `{pool}` is added twice"),
                    )
                    .label("again here")
                    .related(Subject::AddServerPool(h, first), "first added here")
                    .help("remove one of the two lines"),
                );
            }
        }
    }
    for (i, pool) in config.server_pools.iter().enumerate() {
        if !used.contains(pool.name.as_str()) && !config.virtual_hosts.is_empty() {
            let message = format!("no virtual host uses the pool `{}`", pool.name);
            report(
                Finding::warning(Code::PoolNotUsed, Subject::ServerPool(i), message)
                    .help("name it in an `AddServerPool` line, or remove it"),
            );
        }
    }
    if config.virtual_hosts.is_empty() {
        report(
            Finding::warning(
                Code::NoVirtualHost,
                Subject::File,
                "the file has no `VirtualHost` block",
            )
            .help("without one there is no virtual address, and nothing is forwarded"),
        );
    }
}

fn nat(config: &Config, report: &mut Report<'_>) {
    for (i, server) in config.servers.iter().enumerate() {
        if server.source.is_some() && server.method != ForwardingMethod::Nat {
            let method = server.method.as_str();
            let message = format!("`source=` is for method `nat`, not for `{method}`");
            report(
                Finding::error(Code::SourceWithoutNat, Subject::ServerSource(i), message)
                    .related(Subject::ServerMethod(i), "the method is given here")
                    .help("remove the option, or write `nat`: the other methods keep the client's address"),
            );
        }
    }
    // Whether there is one in each server's IP version is known only where it has an address.
    let mut gateways = config.nat.iter().flat_map(Nat::gateways);
    if gateways.next().is_some() {
        return;
    }
    for (i, server) in config
        .servers
        .iter()
        .enumerate()
        // With a source address of the ATMs' answers come back by themselves.
        .filter(|(_, server)| server.method == ForwardingMethod::Nat && server.source.is_none())
    {
        let message = format!(
            "the server `{}` is reached by NAT, and there is no gateway",
            server.name
        );
        let mut finding = Finding::error(
            Code::NatWithoutGateway,
            Subject::ServerMethod(i),
            message,
        )
        .help(
            "add `Gateway <ip>` to the `NAT` block: answers must come back through the active ATM; or add `source=<address>`",
        );
        if config.nat.is_some() {
            finding = finding.related(Subject::Nat, "no `Gateway` in this block");
        }
        report(finding);
    }
}

fn sizes(config: &Config, report: &mut Report<'_>) {
    let pool = &config.atm_pool;
    let within =
        |limit: u32, have: usize| usize::try_from(limit).map_or(true, |limit| have <= limit);
    let first_beyond = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    if !within(pool.num_services, config.services.len()) {
        let message = format!(
            "there are {} services, and `NumServices` is {}",
            config.services.len(),
            pool.num_services
        );
        report(
            Finding::error(
                Code::TooManyServices,
                Subject::Service(first_beyond(pool.num_services)),
                message,
            )
            .label("one too many")
            .related(Subject::AtmPool, "the limit is set for this pool")
            .help(format!(
                "write `NumServices {}` in the `AtmPool` block",
                config.services.len()
            )),
        );
    }
    if !within(pool.num_servers, config.servers.len()) {
        let message = format!(
            "there are {} servers, and `NumServers` is {}",
            config.servers.len(),
            pool.num_servers
        );
        report(
            Finding::error(
                Code::TooManyServers,
                Subject::Server(first_beyond(pool.num_servers)),
                message,
            )
            .label("one too many")
            .related(Subject::AtmPool, "the limit is set for this pool")
            .help(format!(
                "write `NumServers {}` in the `AtmPool` block",
                config.servers.len()
            )),
        );
    }
}
