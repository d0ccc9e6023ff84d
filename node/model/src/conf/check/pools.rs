//! The blocks that tie things together: `ServerPool`, `AtmPool`, `VirtualHost`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::super::bounds::{
    ATMS_MAX, CHECK_FREQUENCY_DEFAULT, CHECK_FREQUENCY_MIN, CHECK_MAX, CHECK_TIMEOUT_DEFAULT,
    CHECK_TIMEOUT_MIN, CONNECTION_TIMEOUT_MAX, CONNECTION_TIMEOUT_MIN, HEARTBEAT_DELAY_MAX,
    HEARTBEAT_DELAY_MIN, MAX_LOST_HEARTBEATS_MAX, MAX_LOST_HEARTBEATS_MIN, NUM_CONNECTIONS_MAX,
    NUM_SERVERS_MAX, NUM_SERVICES_MAX, SEND_ARP_DELAY_MAX, SEND_ARP_DELAY_MIN,
};
use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::keywords::{ATM_OPTIONS, Directive, POOL_OPTIONS};
use super::super::lex::Word;
use super::super::parse::{Block, Statement};
use super::super::places::{AddServerPlaces, PoolPlaces, VirtualHostPlaces};
use super::super::types::{AddAtm, AddServer, AtmPool, Host, Offer, ServerPool, VirtualHost};
use super::super::values::{self, Complaint, print_duration};
use super::{Checker, Kind, Singles};

/// A pool while its `AddServer` lines are read.
struct Adding<'a> {
    pool: ServerPool,
    places: PoolPlaces,
    /// Index in the pool, by name.
    servers: BTreeMap<&'a str, usize>,
    /// By server and service.
    offers: BTreeMap<(&'a str, &'a str), Range<usize>>,
}

impl<'a> Checker<'a> {
    pub(super) fn server_pool(&mut self, block: &Block<'a>) {
        let name = self.optioned_block_argument(block);
        let options = block.arguments.get(1..).unwrap_or_default();
        let options = self.options("ServerPool", POOL_OPTIONS, options);
        let singles = self.singles(&block.statements);
        let mut pool = ServerPool::named(name.map_or("", |word| word.text));
        pool.rise = self.in_a_row("rise=", &options);
        pool.fall = self.in_a_row("fall=", &options);
        let server = [
            Directive::CheckServerTimeout,
            Directive::CheckServerFrequency,
        ];
        let port = [Directive::CheckPortTimeout, Directive::CheckPortFrequency];
        [pool.check_server_timeout, pool.check_server_frequency] =
            self.check_times(&singles, server);
        [pool.check_port_timeout, pool.check_port_frequency] = self.check_times(&singles, port);
        let mut adding = Adding {
            pool,
            places: PoolPlaces {
                name: name.map_or(block.span(), Word::span),
                servers: Vec::new(),
            },
            servers: BTreeMap::new(),
            offers: BTreeMap::new(),
        };
        for statement in block
            .statements
            .iter()
            .filter(|statement| statement.directive == Directive::AddServer)
        {
            self.add_server(statement, &mut adding);
        }
        let Adding { pool, places, .. } = adding;
        let Some(name) = name else { return };
        if self.declare(Kind::ServerPool, name) {
            self.places.server_pools.push(places);
            self.draft.server_pools.push(pool);
        }
    }

    /// The timeout and the frequency of a check.
    fn check_times(
        &mut self,
        singles: &Singles<'_, 'a>,
        directives: [Directive; 2],
    ) -> [Duration; 2] {
        let mut values = [CHECK_TIMEOUT_DEFAULT, CHECK_FREQUENCY_DEFAULT];
        let [timeout, frequency] = &mut values;
        let errors = self.findings.errors();
        self.duration(
            singles,
            directives[0],
            CHECK_TIMEOUT_MIN..=CHECK_MAX,
            timeout,
        );
        self.duration(
            singles,
            directives[1],
            CHECK_FREQUENCY_MIN..=CHECK_MAX,
            frequency,
        );
        // One of the two is written, or they would be the defaults, which fit.
        let line = directives
            .iter()
            .find_map(|directive| singles.get(directive));
        // A value that is wrong is too long for nothing.
        if let (Some(line), true) = (
            line,
            timeout > frequency && self.findings.errors() == errors,
        ) {
            let [name, of] = directives.map(Directive::name);
            let (long, short) = (print_duration(*timeout), print_duration(*frequency));
            let message = format!("`{name}` ({long}) is longer than `{of}` ({short})");
            self.findings.push(
                Finding::warning(Code::TimeoutExceedsFrequency, line.span(), message)
                    .help("the next check waits for the last one; give the check less time, or check less often"),
            );
        }
        values
    }

    /// Several lines of one server are as good as one.
    fn add_server(&mut self, statement: &Statement<'a>, adding: &mut Adding<'a>) {
        self.count(statement, 2, usize::MAX);
        let Some((server, offers)) = statement.arguments.split_first() else {
            return;
        };
        let index = *adding.servers.entry(server.text).or_insert_with(|| {
            adding.pool.servers.push(AddServer {
                server: server.text.to_owned(),
                offers: Vec::new(),
            });
            adding.places.servers.push(AddServerPlaces {
                server: server.span(),
                offers: Vec::new(),
            });
            adding.pool.servers.len() - 1
        });
        for word in offers {
            let (service, weight) = self.offer(*word);
            if let Some(first) = adding.offers.get(&(server.text, service.text)) {
                let message = format!(
                    "`{}` offers `{}` twice in this pool",
                    server.text, service.text
                );
                self.findings.push(
                    Finding::error(Code::DuplicateOffer, word.span(), message)
                        .label("again here")
                        .related(first.clone(), "first offered here")
                        .help("remove one of the two"),
                );
                continue;
            }
            adding
                .offers
                .insert((server.text, service.text), word.span());
            let at = if service.text.is_empty() {
                word.span()
            } else {
                service.span()
            };
            if let (Some(added), Some(places)) = (
                adding.pool.servers.get_mut(index),
                adding.places.servers.get_mut(index),
            ) {
                added.offers.push(Offer {
                    service: service.text.to_owned(),
                    weight,
                });
                places.offers.push(at);
            }
        }
    }

    /// `<service>/<weight>`. A weight that is wrong is taken for 0, so that the service still counts as offered.
    fn offer(&mut self, word: Word<'a>) -> (Word<'a>, u16) {
        let Some((service, weight)) = word.split('/') else {
            let message = format!("`{}` has no weight", word.text);
            let help = format!(
                "write `{}/1`; a server with weight 2 gets twice the connections",
                word.text
            );
            self.accept::<()>(word, Err(Complaint::new(Code::BadWeight, message, help)));
            return (word, 0);
        };
        // An empty weight has no text to underline.
        let at = if weight.text.is_empty() { word } else { weight };
        let weight = self.accept(at, values::weight(weight.text));
        (service, weight.unwrap_or_default())
    }

    pub(super) fn atm_pool(&mut self, block: &Block<'a>) {
        let name = self.block_argument(block);
        if let Some(name) = name {
            self.accept(name, values::name(name.text));
        }
        let singles = self.singles(&block.statements);
        let mut pool = AtmPool::named(name.map_or("", |word| word.text));
        let arp = SEND_ARP_DELAY_MIN..=SEND_ARP_DELAY_MAX;
        let heartbeat = HEARTBEAT_DELAY_MIN..=HEARTBEAT_DELAY_MAX;
        let lost = MAX_LOST_HEARTBEATS_MIN..=MAX_LOST_HEARTBEATS_MAX;
        let idle = CONNECTION_TIMEOUT_MIN..=CONNECTION_TIMEOUT_MAX;
        self.duration(
            &singles,
            Directive::SendArpDelay,
            arp,
            &mut pool.send_arp_delay,
        );
        self.duration(
            &singles,
            Directive::HeartBeatDelay,
            heartbeat,
            &mut pool.heartbeat_delay,
        );
        self.duration(
            &singles,
            Directive::ConnectionTimeout,
            idle,
            &mut pool.connection_timeout,
        );
        self.number(
            &singles,
            Directive::MaxLostHeartbeats,
            lost,
            &mut pool.max_lost_heartbeats,
        );
        self.number(
            &singles,
            Directive::NumConnections,
            1..=NUM_CONNECTIONS_MAX,
            &mut pool.num_connections,
        );
        self.number(
            &singles,
            Directive::NumServers,
            1..=NUM_SERVERS_MAX,
            &mut pool.num_servers,
        );
        self.number(
            &singles,
            Directive::NumServices,
            1..=NUM_SERVICES_MAX,
            &mut pool.num_services,
        );
        let atms = self.add_atms(block, &mut pool);
        if let Some(first) = self.atm_pool.clone() {
            self.duplicate_block(block, first);
            return;
        }
        self.atm_pool = Some(block.span());
        self.places.atm_pool = name.map_or(block.span(), Word::span);
        self.places.atms = atms;
        self.draft.atm_pool = pool;
    }

    fn add_atms(&mut self, block: &Block<'a>, pool: &mut AtmPool) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut seen: BTreeMap<Host, Range<usize>> = BTreeMap::new();
        let lines = block
            .statements
            .iter()
            .filter(|statement| statement.directive == Directive::AddAtm);
        for statement in lines {
            self.count(statement, 1, usize::MAX);
            let Some(word) = statement.arguments.first().copied() else {
                continue;
            };
            let options = self.options(
                "AddAtm",
                ATM_OPTIONS,
                statement.arguments.get(1..).unwrap_or_default(),
            );
            let Some(host) = self.accept(word, values::host(word.text)) else {
                // It counts as an ATM, so that a mistyped one is not also a missing one.
                pool.atms.push(AddAtm {
                    host: super::no_host(),
                    witness: false,
                });
                places.push(word.span());
                continue;
            };
            if let Some(first) = seen.get(&host) {
                let message = format!("the ATM `{host}` is added twice");
                self.findings.push(
                    Finding::error(Code::DuplicateName, word.span(), message)
                        .label("again here")
                        .related(first.clone(), "first added here")
                        .help("remove one of the two lines"),
                );
                continue;
            }
            seen.insert(host.clone(), word.span());
            places.push(word.span());
            pool.atms.push(AddAtm {
                host,
                witness: options.contains_key("witness"),
            });
        }
        self.number_of_atms(block, pool, &places);
        places
    }

    fn number_of_atms(&mut self, block: &Block<'a>, pool: &AtmPool, places: &[Range<usize>]) {
        if pool.atms.is_empty() {
            self.findings.push(
                Finding::error(Code::MissingDirective, block.span(), "`AtmPool` has no ATM")
                    .label("no `AddAtm` in this block")
                    .help("add `AddAtm <host-or-ip>` for each ATM, in the order of promotion"),
            );
        } else if pool.atms.iter().all(|atm| atm.witness) {
            self.findings.push(
                Finding::error(
                    Code::OnlyWitnesses,
                    block.span(),
                    "every ATM of this pool is a witness",
                )
                .label("nobody here carries traffic")
                .help("remove `witness` from at least one `AddAtm` line"),
            );
        }
        if let Some(excess) = places.get(ATMS_MAX) {
            let message = format!(
                "there are {} ATMs; at most {ATMS_MAX} are allowed",
                places.len()
            );
            self.findings.push(
                Finding::error(Code::TooManyAtms, excess.clone(), message)
                    .label("one too many")
                    .help("every ATM has a vote, and each more makes agreement slower; three or five are usual"),
            );
        }
    }

    pub(super) fn virtual_host(&mut self, block: &Block<'a>) {
        let host_word = self.block_argument(block);
        let at = host_word.map_or(block.span(), Word::span);
        let host = self.host(host_word);
        if let (Some(word), Host::Address(address)) = (host_word, &host) {
            self.accept(word, values::virtual_address(*address));
        }
        let singles = self.singles(&block.statements);
        let pool = self.single_argument(&singles, Directive::AddAtmPool);
        let mut virtual_host = VirtualHost {
            host,
            addresses: Vec::new(),
            atm_pool: pool.map_or("", |word| word.text).to_owned(),
            server_pools: Vec::new(),
        };
        let mut places = VirtualHostPlaces {
            host: at,
            addresses: Vec::new(),
            atm_pool: pool.map_or(block.span(), Word::span),
            server_pools: Vec::new(),
        };
        for statement in &block.statements {
            if statement.directive == Directive::Address {
                self.address(statement, &mut virtual_host, &mut places);
            } else if statement.directive == Directive::AddServerPool {
                self.add_server_pool(statement, &mut virtual_host, &mut places);
            }
        }
        let has = |directive| {
            block
                .statements
                .iter()
                .any(|statement| statement.directive == directive)
        };
        for (directive, what) in [
            (Directive::AddAtmPool, "the ATM pool"),
            (Directive::AddServerPool, "a server pool"),
        ] {
            if !has(directive) {
                let message = format!("`VirtualHost` has no `{}` line", directive.name());
                self.findings.push(
                    Finding::error(Code::MissingDirective, block.span(), message)
                        .label("missing in this block")
                        .help(format!(
                            "add `{}`, {what} that serves it",
                            directive.usage()
                        )),
                );
            }
        }
        self.places.virtual_hosts.push(places);
        self.draft.virtual_hosts.push(virtual_host);
    }

    fn address(
        &mut self,
        statement: &Statement<'a>,
        host: &mut VirtualHost,
        places: &mut VirtualHostPlaces,
    ) {
        let Some(word) = self.only_argument(statement) else {
            return;
        };
        let address = values::address(word.text).and_then(values::virtual_address);
        if let Some(address) = self.accept(word, address) {
            host.addresses.push(address);
            places.addresses.push(word.span());
        }
    }

    fn add_server_pool(
        &mut self,
        statement: &Statement<'a>,
        host: &mut VirtualHost,
        places: &mut VirtualHostPlaces,
    ) {
        let Some(word) = self.only_argument(statement) else {
            return;
        };
        host.server_pools.push(word.text.to_owned());
        places.server_pools.push(word.span());
    }
}
