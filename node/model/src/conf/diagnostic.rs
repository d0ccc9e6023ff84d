//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use serde::{Serialize, Serializer};

/// Whether a configuration can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration can be used; it probably says something that was not meant.
    Warning,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The kind of a problem. Its text is stable: scripts may depend on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name, in kebab-case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

codes! {
    /// More than [`FILE_BYTES_MAX`](super::FILE_BYTES_MAX) bytes.
    FileTooLarge = "file-too-large",
    /// More than [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX) bytes.
    LineTooLong = "line-too-long",
    /// Bytes that are not UTF-8.
    InvalidUtf8 = "invalid-utf8",
    /// A control character other than tab and line end.
    ControlCharacter = "control-character",
    /// More problems than are reported.
    TooManyProblems = "too-many-problems",
    /// The first word of a line is no keyword.
    UnknownKeyword = "unknown-keyword",
    /// A keyword that belongs in another block.
    MisplacedKeyword = "misplaced-keyword",
    /// A block without its end.
    UnclosedBlock = "unclosed-block",
    /// A block closed by the end of another kind of block.
    WrongEnd = "wrong-end",
    /// An end without a block.
    StrayEnd = "stray-end",
    /// Too few arguments.
    MissingArgument = "missing-argument",
    /// Too many arguments.
    ExtraArgument = "extra-argument",
    /// A block without a line it needs.
    MissingDirective = "missing-directive",
    /// A directive with one value, given twice.
    DuplicateDirective = "duplicate-directive",
    /// A block that stands once, given twice.
    DuplicateBlock = "duplicate-block",
    /// A name, or a reference to it, given twice.
    DuplicateName = "duplicate-name",
    /// A flag or option given twice.
    DuplicateOption = "duplicate-option",
    /// Not a name.
    BadName = "bad-name",
    /// Not an absolute path.
    BadPath = "bad-path",
    /// Not `tcp:<port>` or `udp:<port>`.
    BadPort = "bad-port",
    /// Not `<service>/<weight>`, or a weight out of bounds.
    BadWeight = "bad-weight",
    /// Not a whole number, or out of bounds.
    BadNumber = "bad-number",
    /// Not a duration, zero, or out of bounds.
    BadDuration = "bad-duration",
    /// Not an address, or one that no host can have.
    BadAddress = "bad-address",
    /// Neither an address nor a host name.
    BadHost = "bad-host",
    /// Not a network mask.
    BadMask = "bad-mask",
    /// A forwarding method that does not exist.
    UnknownMethod = "unknown-method",
    /// A flag or option that does not exist.
    UnknownOption = "unknown-option",
    /// An option with a value it cannot have.
    BadOptionValue = "bad-option-value",
    /// An option that has no effect without another.
    OptionWithoutEffect = "option-without-effect",
    /// A service names an agent that does not exist.
    UnknownAgent = "unknown-agent",
    /// A pool offers a service that does not exist.
    UnknownService = "unknown-service",
    /// A pool adds a server that does not exist.
    UnknownServer = "unknown-server",
    /// A virtual host adds a pool that does not exist.
    UnknownPool = "unknown-pool",
    /// A `UserCheck` with the name of a built-in agent.
    BuiltInAgent = "built-in-agent",
    /// More services than `NumServices`.
    TooManyServices = "too-many-services",
    /// More servers than `NumServers`.
    TooManyServers = "too-many-servers",
    /// More than [`ATMS_MAX`](super::ATMS_MAX) ATMs.
    TooManyAtms = "too-many-atms",
    /// More than [`VIRTUAL_ADDRESSES_MAX`](super::VIRTUAL_ADDRESSES_MAX) virtual addresses.
    TooManyAddresses = "too-many-addresses",
    /// No `AtmPool` block.
    NoAtmPool = "no-atm-pool",
    /// No ATM that carries traffic.
    OnlyWitnesses = "only-witnesses",
    /// A `nat` server and no `Gateway`.
    NatWithoutGateway = "nat-without-gateway",
    /// A check that may outlast its interval.
    TimeoutExceedsFrequency = "timeout-exceeds-frequency",
    /// A subnet whose address is one of its hosts.
    HostBits = "host-bits",
    /// A service that no server offers.
    ServiceNotOffered = "service-not-offered",
    /// A server that no pool adds.
    ServerNotInPool = "server-not-in-pool",
    /// A pool that adds no server.
    EmptyPool = "empty-pool",
    /// A pool that no virtual host adds.
    PoolNotUsed = "pool-not-used",
    /// An agent that no service names.
    AgentNotUsed = "agent-not-used",
    /// No `VirtualHost` block.
    NoVirtualHost = "no-virtual-host",
    /// A name without an address.
    UnresolvedHost = "unresolved-host",
    /// Two ATMs, or two virtual addresses of one host, with one address.
    DuplicateAddress = "duplicate-address",
    /// One address offers one service of one virtual host twice.
    DuplicateOffer = "duplicate-offer",
    /// A virtual address that is the address of an ATM or a server.
    AddressConflict = "address-conflict",
    /// One virtual address has one protocol and port twice.
    ServiceOverlap = "service-overlap",
    /// A virtual address and a server of different IP versions, with a method that cannot bridge them.
    MixedFamilies = "mixed-families",
    /// An ATM outside the network of the first.
    OutsideNetwork = "outside-network",
    /// A `nat` server outside the subnet.
    OutsideSubnet = "outside-subnet",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One problem at a place of type `P`: a span of the file, or a part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding<P> {
    /// Whether the configuration is refused.
    pub severity: Severity,
    /// The kind.
    pub code: Code,
    /// The place at fault.
    pub at: P,
    /// One sentence that names the thing.
    pub message: String,
    /// What to write beside the underlined text.
    pub label: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// Other places that matter, and why.
    pub related: Vec<(P, String)>,
}

impl<P> Finding<P> {
    pub(super) fn error(code: Code, at: P, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, at, message.into())
    }

    pub(super) fn warning(code: Code, at: P, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, at, message.into())
    }

    fn new(severity: Severity, code: Code, at: P, message: String) -> Self {
        Self {
            severity,
            code,
            at,
            message,
            label: None,
            help: None,
            related: Vec::new(),
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `did you mean …?`, if there is something that may have been meant; it replaces an earlier help.
    pub(super) fn did_you_mean(self, suggestion: Option<&str>) -> Self {
        match suggestion {
            Some(suggestion) => self.help(format!("did you mean `{suggestion}`?")),
            None => self,
        }
    }

    pub(super) fn related(mut self, at: P, label: impl Into<String>) -> Self {
        self.related.push((at, label.into()));
        self
    }

    /// The same finding at other places.
    pub(super) fn moved<Q>(self, place: impl Fn(P) -> Q) -> Finding<Q> {
        Finding {
            severity: self.severity,
            code: self.code,
            at: place(self.at),
            message: self.message,
            label: self.label,
            help: self.help,
            related: self
                .related
                .into_iter()
                .map(|(at, label)| (place(at), label))
                .collect(),
        }
    }
}

impl<P> fmt::Display for Finding<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Findings in a file, bounded.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: Vec<Finding<Range<usize>>>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    /// Nobody reads more, and a hostile file of 1 MiB could have half a million.
    const KEPT_OF_EACH_SEVERITY_MAX: usize = 200;

    pub(super) fn push(&mut self, finding: Finding<Range<usize>>) {
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= Self::KEPT_OF_EACH_SEVERITY_MAX {
            self.kept.push(finding);
        }
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether a further error would only be counted, so that looking for its cure is in vain.
    pub(super) fn is_full_of_errors(&self) -> bool {
        self.errors >= Self::KEPT_OF_EACH_SEVERITY_MAX
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// In the order of the file; the last one tells how many were left out.
    pub(super) fn into_sorted(mut self) -> Vec<Finding<Range<usize>>> {
        self.kept
            .sort_by_key(|finding| (finding.at.start, finding.severity));
        let left_out = |count: usize| count.saturating_sub(Self::KEPT_OF_EACH_SEVERITY_MAX);
        let (errors, warnings) = (left_out(self.errors), left_out(self.warnings));
        if errors + warnings > 0 {
            let severity = if errors > 0 {
                Severity::Error
            } else {
                Severity::Warning
            };
            let message =
                format!("{errors} more errors and {warnings} more warnings are not shown");
            let end = self.kept.last().map_or(0, |finding| finding.at.end);
            self.kept.push(Finding::new(
                severity,
                Code::TooManyProblems,
                end..end,
                message,
            ));
        }
        self.kept
    }
}

/// A problem at its place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the configuration is refused.
    pub severity: Severity,
    /// The kind.
    pub code: Code,
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the offending text, on character boundaries; may be empty.
    pub span: Range<usize>,
    /// One sentence that names the thing.
    pub message: String,
    /// What to write beside the underlined text.
    pub label: Option<String>,
    /// The way out.
    pub help: Option<String>,
    /// Other places that matter.
    pub related: Vec<Related>,
}

/// Another place that a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Why it matters.
    pub label: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{}:{}:{}: {severity}: {}",
            self.file, self.line, self.column, self.message
        )?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// Where the lines of a file begin.
pub(super) struct LineIndex<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(source.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { source, starts }
    }

    /// Line and column, both from 1, of a byte.
    pub(super) fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.source.floor_char_boundary(byte);
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = line
            .checked_sub(1)
            .and_then(|line| self.starts.get(line))
            .copied()
            .unwrap_or_default();
        (
            line,
            self.source
                .get(start..byte)
                .map_or(0, |before| before.chars().count())
                + 1,
        )
    }

    pub(super) fn diagnostic(&self, file: &str, finding: Finding<Range<usize>>) -> Diagnostic {
        let (line, column) = self.position(finding.at.start);
        let related = finding.related.into_iter().map(|(span, label)| {
            let (line, column) = self.position(span.start);
            Related {
                line,
                column,
                span,
                label,
            }
        });
        Diagnostic {
            severity: finding.severity,
            code: finding.code,
            file: file.to_owned(),
            line,
            column,
            span: finding.at,
            message: finding.message,
            label: finding.label,
            help: finding.help,
            related: related.collect(),
        }
    }
}

/// The candidate that `word` may have been meant to be.
pub(super) fn suggest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // More than anybody has names; keeps the search short for a hostile file.
    const CANDIDATES_MAX: usize = 1000;
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let wanted = word.to_ascii_lowercase();
    let tolerance = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX)
        .map(|candidate| {
            (
                strsim::osa_distance(&wanted, &candidate.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let index = LineIndex::new("ab\näöü x\n\nz");
        for (byte, expected) in [
            (0, (1, 1)),
            (2, (1, 3)),
            (3, (2, 1)),
            (10, (2, 5)),
            (12, (3, 1)),
            (13, (4, 1)),
            (99, (4, 2)),
        ] {
            assert_eq!(index.position(byte), expected, "byte {byte}");
        }
        assert_eq!(LineIndex::new("").position(0), (1, 1));
    }

    #[test]
    fn suggestions_are_close() {
        let candidates = ["smtp", "imap", "pop"];
        for (word, expected) in [
            ("smpt", Some("smtp")),
            ("IMAP", Some("imap")),
            ("http", None),
            ("", None),
        ] {
            assert_eq!(suggest(word, candidates), expected, "{word}");
        }
    }

    #[test]
    fn findings_are_bounded_and_say_so() {
        let mut findings = Findings::default();
        for at in 0..1000 {
            findings.push(Finding::warning(Code::PoolNotUsed, at..at, ""));
        }
        findings.push(Finding::error(Code::BadName, 0..1, "late, but an error"));
        assert!(findings.has_errors());
        let sorted = findings.into_sorted();
        assert_eq!(sorted.len(), 202);
        assert_eq!(sorted[0].code, Code::BadName);
        assert_eq!(
            sorted[201].message,
            "0 more errors and 800 more warnings are not shown"
        );
    }

    #[test]
    fn codes_are_kebab_case_and_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
            assert!(seen.insert(code.as_str()), "{code}");
        }
    }
}
