//! From the text of a file to a [`Config`]: every problem at once, each at its place.
//!
//! The draft holds a part for every line that names one, with a stand-in for each value that is wrong (port 0, host
//! ""), so that one mistake does not bring others in its wake. A draft with an error never leaves this module.

mod blocks;
mod nat;
mod options;
mod pools;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::code::Code;
use super::diagnostic::{Diagnostic, Finding, LineIndex};
use super::findings::Findings;
use super::keywords::{BlockKind, Directive};
use super::lex::{FILE_BYTES_MAX, Word, span_of};
use super::parse::{self, Block, Statement, Tree};
use super::places::{Places, Subject};
use super::print::print;
use super::types::{AtmPool, Config, Host};
use super::values::{self, Complaint};
use super::{references, resolve};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The configuration; `None` exactly if a diagnostic is an error.
    pub config: Option<Config>,
    /// Every problem, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the parts of the configuration stand.
    pub places: Places,
}

/// Checks a whole file. `file_name` is only repeated in the diagnostics.
///
/// What depends on the addresses of host names is checked as far as addresses are written in the file;
/// [`Checked::check_resolved`] does the rest.
#[must_use]
pub fn check(file_name: &str, source: &str) -> Checked {
    check_after(Findings::default(), file_name, source)
}

/// Like [`check`], for bytes that may not be UTF-8. Positions and spans are those of [`String::from_utf8_lossy`].
#[must_use]
pub fn check_bytes(file_name: &str, bytes: &[u8]) -> Checked {
    let mut findings = Findings::default();
    // What is too large is refused by its size alone, before it is copied.
    let bytes = bytes.get(..FILE_BYTES_MAX + 1).unwrap_or(bytes);
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        at += chunk.valid().len();
        if !chunk.invalid().is_empty() {
            let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
            let message = format!(
                "the file is not UTF-8: byte 0x{:02x}",
                chunk.invalid().first().unwrap_or(&0)
            );
            findings.push(
                Finding::error(Code::InvalidUtf8, at..end, message)
                    .label("not a character")
                    .help("save the file as UTF-8; outside of comments only ASCII is needed"),
            );
            at = end;
        }
    }
    check_after(findings, file_name, &String::from_utf8_lossy(bytes))
}

fn check_after(mut findings: Findings, file_name: &str, source: &str) -> Checked {
    let tree = parse::parse(source, &mut findings);
    let mut checker = Checker {
        findings,
        draft: empty(),
        places: Places::default(),
        atm_pool: None,
        declared: BTreeMap::new(),
    };
    checker.tree(&tree);
    let Checker {
        mut findings,
        draft,
        places,
        ..
    } = checker;
    let at_place = |finding: Finding<Subject>| finding.moved(|subject| places.span(subject));
    references::check(&draft, &mut |finding| findings.push(at_place(finding)));
    resolve::check_places(&draft, &BTreeMap::new(), &mut |finding| {
        findings.push(at_place(finding))
    });

    // The canonical form says what the file left to defaults. It must be readable as well, for it is what is stored.
    const GROWTH_MAX: usize = 16;
    if !findings.has_errors() && source.len() > FILE_BYTES_MAX / GROWTH_MAX {
        let canonical = print(&draft).len();
        if canonical > FILE_BYTES_MAX {
            let message = format!(
                "written in full the file has {canonical} bytes; at most {FILE_BYTES_MAX} are read"
            );
            findings.push(Finding::error(Code::FileTooLarge, 0..0, message));
        }
    }
    let config = (!findings.has_errors()).then_some(draft);
    let index = LineIndex::new(source);
    let diagnostics = findings
        .into_sorted()
        .into_iter()
        .map(|finding| index.diagnostic(file_name, finding))
        .collect();
    Checked {
        config,
        diagnostics,
        places,
    }
}

impl Checked {
    /// [`Config::problems`], each at its place in `source`, the text that was checked. What the check said already is
    /// not said again.
    #[must_use]
    pub fn check_resolved(
        &self,
        file_name: &str,
        source: &str,
        hosts: &BTreeMap<String, IpAddr>,
    ) -> Vec<Diagnostic> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let index = LineIndex::new(source);
        let mut findings = Findings::default();
        for problem in config.problems(hosts) {
            findings.push(problem.moved(|subject| self.places.span(subject)));
        }
        findings
            .into_sorted()
            .into_iter()
            .map(|finding| index.diagnostic(file_name, finding))
            .filter(|diagnostic| !self.diagnostics.contains(diagnostic))
            .collect()
    }
}

fn empty() -> Config {
    Config {
        network_mask: None,
        nat: None,
        user_checks: Vec::new(),
        services: Vec::new(),
        servers: Vec::new(),
        server_pools: Vec::new(),
        atm_pool: AtmPool::named(""),
        virtual_hosts: Vec::new(),
    }
}

/// The stand-in for a host that is wrong; no host has this name.
fn no_host() -> Host {
    Host::Name(String::new())
}

/// What has a name of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Agent,
    Service,
    Server,
    ServerPool,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Service => "service",
            Self::Server => "server",
            Self::ServerPool => "server pool",
        }
    }
}

type Singles<'t, 'a> = BTreeMap<Directive, &'t Statement<'a>>;

struct Checker<'a> {
    findings: Findings,
    draft: Config,
    places: Places,
    /// The line that begins the `AtmPool` block.
    atm_pool: Option<Range<usize>>,
    declared: BTreeMap<(Kind, &'a str), Range<usize>>,
}

impl<'a> Checker<'a> {
    fn tree(&mut self, tree: &Tree<'a>) {
        let singles = self.singles(&tree.statements);
        if let Some(word) = self.single_argument(&singles, Directive::NetworkMask) {
            self.draft.network_mask = self.accept(word, values::mask(word.text));
        }
        let mut nat = None;
        for block in &tree.blocks {
            match block.kind {
                BlockKind::Nat => self.nat(block, &mut nat),
                BlockKind::UserCheck => self.user_check(block),
                BlockKind::Services => self.services(block),
                BlockKind::Servers => self.servers(block),
                BlockKind::ServerPool => self.server_pool(block),
                BlockKind::AtmPool => self.atm_pool(block),
                BlockKind::VirtualHost => self.virtual_host(block),
            }
        }
        if self.atm_pool.is_none() {
            self.findings.push(
                Finding::error(Code::NoAtmPool, 0..0, "the file has no `AtmPool` block").help(
                    "add `AtmPool <name>` with an `AddAtm` line for each ATM, and `EndAtmPool`",
                ),
            );
        }
    }

    /// The lines that may stand once, by their directive; of several the first counts.
    fn singles<'t>(&mut self, statements: &'t [Statement<'a>]) -> Singles<'t, 'a> {
        let mut singles = Singles::new();
        for statement in statements
            .iter()
            .filter(|statement| !statement.directive.repeats())
        {
            if let Some(first) = singles.get(&statement.directive) {
                let message = format!("`{}` is given twice", statement.directive.name());
                self.findings.push(
                    Finding::error(Code::DuplicateDirective, statement.span(), message)
                        .label("again here")
                        .related(first.span(), "first given here")
                        .help("remove one of the two lines"),
                );
            } else {
                singles.insert(statement.directive, statement);
            }
        }
        singles
    }

    /// The argument of a line with exactly one.
    fn single_argument(
        &mut self,
        singles: &Singles<'_, 'a>,
        directive: Directive,
    ) -> Option<Word<'a>> {
        let statement = singles.get(&directive)?;
        self.only_argument(statement)
    }

    fn only_argument(&mut self, statement: &Statement<'a>) -> Option<Word<'a>> {
        self.count(statement, 1, 1);
        statement.arguments.first().copied()
    }

    /// Complains unless a line has `least` to `most` arguments.
    fn count(&mut self, statement: &Statement<'a>, least: usize, most: usize) {
        let (name, usage) = (statement.directive.name(), statement.directive.usage());
        self.count_words(
            name,
            usage,
            statement.span(),
            &statement.arguments,
            least,
            most,
        );
    }

    /// The one argument of the line that begins a block.
    fn block_argument(&mut self, block: &Block<'a>) -> Option<Word<'a>> {
        let (name, usage) = (block.kind.begin(), block.kind.usage());
        self.count_words(name, usage, block.span(), &block.arguments, 1, 1);
        block.arguments.first().copied()
    }

    /// The argument of the line that begins a block which takes options.
    fn optioned_block_argument(&mut self, block: &Block<'a>) -> Option<Word<'a>> {
        let (name, usage) = (block.kind.begin(), block.kind.usage());
        let most = usize::MAX;
        self.count_words(name, usage, block.span(), &block.arguments, 1, most);
        block.arguments.first().copied()
    }

    fn no_block_argument(&mut self, block: &Block<'a>) {
        let (name, usage) = (block.kind.begin(), block.kind.usage());
        self.count_words(name, usage, block.span(), &block.arguments, 0, 0);
    }

    fn count_words(
        &mut self,
        name: &str,
        usage: &str,
        line: Range<usize>,
        words: &[Word<'a>],
        least: usize,
        most: usize,
    ) {
        let have = words.len();
        if have < least {
            let arguments = if least == 1 {
                "an argument".to_owned()
            } else {
                format!("{least} arguments")
            };
            let message = format!(
                "`{name}` needs {arguments}, and has {}",
                if have == 0 {
                    "none".to_owned()
                } else {
                    have.to_string()
                }
            );
            self.findings.push(
                Finding::error(Code::MissingArgument, line, message)
                    .label("something is missing here")
                    .help(format!("write `{usage}`")),
            );
        } else if let Some(extra) = words.get(most..).and_then(span_of) {
            let message = format!("`{name}` has too many arguments");
            self.findings.push(
                Finding::error(Code::ExtraArgument, extra, message)
                    .label("too much")
                    .help(format!("write `{usage}`")),
            );
        }
    }

    /// The value, or `None` after a complaint about the word.
    fn accept<T>(&mut self, word: Word<'a>, value: Result<T, Complaint>) -> Option<T> {
        value
            .map_err(|complaint| {
                self.findings.push(
                    Finding::error(complaint.code, word.span(), complaint.message)
                        .help(complaint.help),
                );
            })
            .ok()
    }

    fn duration(
        &mut self,
        singles: &Singles<'_, 'a>,
        directive: Directive,
        bounds: RangeInclusive<Duration>,
        value: &mut Duration,
    ) {
        let Some(word) = self.single_argument(singles, directive) else {
            return;
        };
        if let Some(given) =
            self.accept(word, values::duration(directive.name(), word.text, bounds))
        {
            *value = given;
        }
    }

    fn number(
        &mut self,
        singles: &Singles<'_, 'a>,
        directive: Directive,
        bounds: RangeInclusive<u32>,
        value: &mut u32,
    ) {
        let Some(word) = self.single_argument(singles, directive) else {
            return;
        };
        if let Some(given) = self.accept(word, values::number(directive.name(), word.text, bounds))
        {
            *value = given;
        }
    }

    fn host(&mut self, word: Option<Word<'a>>) -> Host {
        word.and_then(|word| self.accept(word, values::host(word.text)))
            .unwrap_or_else(no_host)
    }

    /// Whether the name is new; complains if it is not, or is no name.
    fn declare(&mut self, kind: Kind, word: Word<'a>) -> bool {
        self.accept(word, values::name(word.text));
        let span = word.span();
        let Some(first) = self.declared.get(&(kind, word.text)) else {
            self.declared.insert((kind, word.text), span);
            return true;
        };
        let message = format!("there are two {}s named `{}`", kind.word(), word.text);
        self.findings.push(
            Finding::error(Code::DuplicateName, span, message)
                .label("again here")
                .related(first.clone(), "first declared here")
                .help("give one of them another name"),
        );
        false
    }
}
