//! The blocks that declare something: `UserCheck`, `Services`, `Servers`.

use std::ops::Range;

use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::findings::suggest;
use super::super::keywords::{Directive, SERVER_OPTIONS, SERVICE_OPTIONS};
use super::super::lex::Word;
use super::super::parse::{Block, Statement};
use super::super::places::{ServerPlaces, ServicePlaces};
use super::super::types::{Agent, ForwardingMethod, OnDown, Protocol, Server, Service, UserCheck};
use super::super::values::{self, Complaint};
use super::options::listed;
use super::{Checker, Kind};

impl<'a> Checker<'a> {
    pub(super) fn duplicate_block(&mut self, block: &Block<'a>, first: Range<usize>) {
        let message = format!("there are two `{}` blocks", block.kind.begin());
        self.findings.push(
            Finding::error(Code::DuplicateBlock, block.span(), message)
                .label("again here")
                .related(first, "the first begins here")
                .help("make them one"),
        );
    }

    pub(super) fn user_check(&mut self, block: &Block<'a>) {
        let name = self.block_argument(block);
        let singles = self.singles(&block.statements);
        let mut path = |directive| {
            let word = self.single_argument(&singles, directive)?;
            self.accept(word, values::path(word.text))
        };
        let (check, up, down) = (
            path(Directive::Check),
            path(Directive::Up),
            path(Directive::Down),
        );
        if !singles.contains_key(&Directive::Check) {
            self.findings.push(
                Finding::error(
                    Code::MissingDirective,
                    block.span(),
                    "`UserCheck` has no `Check` line",
                )
                .label("no program in this block")
                .help("add `Check <path>`, the program that checks a service"),
            );
        }
        let Some(name) = name else { return };
        if Agent::built_in(name.text).is_some() {
            let message = format!("the agent `{}` is built in", name.text);
            self.findings.push(
                Finding::error(Code::BuiltInAgent, name.span(), message).help(
                    "give your agent another name, or remove the block to use the built-in one",
                ),
            );
        } else if self.declare(Kind::Agent, name) {
            self.places.user_checks.push(name.span());
            let check = check.unwrap_or_default();
            self.draft.user_checks.push(UserCheck {
                name: name.text.to_owned(),
                check,
                up,
                down,
            });
        }
    }

    pub(super) fn services(&mut self, block: &Block<'a>) {
        self.no_block_argument(block);
        for statement in &block.statements {
            self.service(statement);
        }
    }

    fn service(&mut self, statement: &Statement<'a>) {
        self.count(statement, 3, usize::MAX);
        let mut words = statement.arguments.iter().copied();
        let (name, port, agent) = (words.next(), words.next(), words.next());
        let options = self.options(
            "Service",
            SERVICE_OPTIONS,
            statement.arguments.get(3..).unwrap_or_default(),
        );
        let sticky = options.contains_key("sticky");
        for option in ["persist=", "mask="] {
            if let (false, Some(value)) = (sticky, options.get(option)) {
                let message = format!("`{option}` has no effect on a service that is not sticky");
                self.findings.push(
                    Finding::warning(Code::OptionWithoutEffect, value.span(), message)
                        .help("add `sticky`, or remove the option"),
                );
            }
        }
        let (scheduler, replication) = (self.scheduler(&options), self.replication(&options));
        let (persist, mask) = (self.persist(&options), self.client_mask(&options));
        let (on_down, tls) = (self.on_down(&options), self.tls(&options));
        let fallback = options.get("fallback=").copied();
        let (protocol, port) = port
            .and_then(|word| self.protocol_and_port(word))
            .unwrap_or((Protocol::Tcp, 0));
        if let (Protocol::Udp, OnDown::Reset, Some(value)) =
            (protocol, on_down, options.get("on-down="))
        {
            let message = "`on-down=reset` has no effect on a service over UDP";
            self.findings.push(
                Finding::warning(Code::OptionWithoutEffect, value.span(), message)
                    .help("only TCP has resets; remove the option"),
            );
        }
        let Some(name) = name else { return };
        if !self.declare(Kind::Service, name) {
            return;
        }
        let agent_span = agent.map_or(name.span(), Word::span);
        self.places.services.push(ServicePlaces {
            name: name.span(),
            agent: agent_span,
            tls: options.get("tls=").unwrap_or(&name).span(),
            fallback: fallback.unwrap_or(name).span(),
        });
        let agent = agent.map_or(Agent::None, |word| {
            Agent::built_in(word.text).unwrap_or_else(|| Agent::User(word.text.to_owned()))
        });
        if let (Agent::Connect | Agent::None, Some(value)) = (&agent, options.get("tls=")) {
            let message = format!("`tls=` has no effect with the agent `{}`", agent.name());
            self.findings.push(
                Finding::warning(Code::OptionWithoutEffect, value.span(), message)
                    .help("it says nothing that could be encrypted; remove the option"),
            );
        }
        let name = name.text.to_owned();
        self.draft.services.push(Service {
            name,
            protocol,
            port,
            agent,
            sticky,
            scheduler,
            replication,
            persist,
            mask,
            fallback: fallback.map(|word| word.text.to_owned()),
            on_down,
            tls,
        });
    }

    fn protocol_and_port(&mut self, word: Word<'a>) -> Option<(Protocol, u16)> {
        let protocol = word.split(':').and_then(|(protocol, port)| {
            let (_, protocol) = Protocol::NAMES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(protocol.text))?;
            Some((*protocol, port))
        });
        let Some((protocol, port)) = protocol else {
            let message = format!("`{}` is neither `tcp:<port>` nor `udp:<port>`", word.text);
            let help = "for instance `tcp:25`";
            return self.accept(word, Err(Complaint::new(Code::BadPort, message, help)));
        };
        // An empty port has no text to underline.
        let at = if port.text.is_empty() { word } else { port };
        self.accept(at, values::port(port.text))
            .map(|port| (protocol, port))
    }

    pub(super) fn servers(&mut self, block: &Block<'a>) {
        self.no_block_argument(block);
        for statement in &block.statements {
            self.server(statement);
        }
    }

    fn server(&mut self, statement: &Statement<'a>) {
        self.count(statement, 3, usize::MAX);
        let mut words = statement.arguments.iter().copied();
        let (name, host_word, method_word) = (words.next(), words.next(), words.next());
        let options = self.options(
            "Server",
            SERVER_OPTIONS,
            statement.arguments.get(3..).unwrap_or_default(),
        );
        let host = self.host(host_word);
        let method = method_word.map_or(ForwardingMethod::Tunnel, |word| self.method(word));
        let source = self.source(&options);
        let Some(name) = name else { return };
        if self.declare(Kind::Server, name) {
            self.places.servers.push(ServerPlaces {
                name: name.span(),
                host: host_word.unwrap_or(name).span(),
                method: method_word.unwrap_or(name).span(),
                source: options.get("source=").unwrap_or(&name).span(),
            });
            let noping = options.contains_key("noping");
            self.draft.servers.push(Server {
                name: name.text.to_owned(),
                host,
                method,
                source,
                noping,
            });
        }
    }

    fn method(&mut self, word: Word<'a>) -> ForwardingMethod {
        let names = || ForwardingMethod::NAMES.iter().map(|(name, _)| *name);
        if let Some((_, method)) = ForwardingMethod::NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word.text))
        {
            return *method;
        }
        let message = format!("unknown forwarding method `{}`", word.text);
        self.findings.push(
            Finding::error(Code::UnknownMethod, word.span(), message)
                .help(format!("one of {}", listed(names())))
                .did_you_mean(suggest(word.text, names())),
        );
        ForwardingMethod::Tunnel
    }
}
