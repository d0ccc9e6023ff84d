//! The raw tree: blocks, and the lines in them. Knows which keyword belongs where, and nothing of arguments.

use std::ops::Range;

use super::code::Code;
use super::diagnostic::Finding;
use super::findings::{Findings, suggest};
use super::keywords::{self, BlockKind, Directive, Keyword};
use super::lex::{self, Line, Word, span_of};

/// A line in the place where it belongs.
#[derive(Clone, Debug)]
pub(super) struct Statement<'a> {
    pub(super) directive: Directive,
    pub(super) keyword: Word<'a>,
    pub(super) arguments: Vec<Word<'a>>,
}

impl Statement<'_> {
    pub(super) fn span(&self) -> Range<usize> {
        whole_line(self.keyword, &self.arguments)
    }
}

/// A block, closed or not.
#[derive(Clone, Debug)]
pub(super) struct Block<'a> {
    pub(super) kind: BlockKind,
    pub(super) keyword: Word<'a>,
    pub(super) arguments: Vec<Word<'a>>,
    pub(super) statements: Vec<Statement<'a>>,
}

impl Block<'_> {
    /// The line that begins it.
    pub(super) fn span(&self) -> Range<usize> {
        whole_line(self.keyword, &self.arguments)
    }
}

/// A file. Invariant: every statement stands where [`Directive::home`] says.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree<'a> {
    pub(super) statements: Vec<Statement<'a>>,
    pub(super) blocks: Vec<Block<'a>>,
}

/// Reads the whole file, whatever is wrong with it.
pub(super) fn parse<'a>(source: &'a str, findings: &mut Findings) -> Tree<'a> {
    let lines = lex::lines(source, findings);
    let mut parser = Parser {
        tree: Tree::default(),
        open: None,
        findings,
    };
    for line in lines {
        parser.line(line);
    }
    parser.finish()
}

struct Parser<'a, 'f> {
    tree: Tree<'a>,
    open: Option<Block<'a>>,
    findings: &'f mut Findings,
}

impl<'a> Parser<'a, '_> {
    fn line(&mut self, line: Line<'a>) {
        let mut words = line.into_iter();
        let Some(keyword) = words.next() else { return };
        let arguments: Vec<Word<'a>> = words.collect();
        match keywords::find(keyword.text) {
            Some(Keyword::Begin(kind)) => self.begin(kind, keyword, arguments),
            Some(Keyword::End(kind)) => self.end(kind, keyword, &arguments),
            Some(Keyword::Directive(directive)) => self.statement(Statement {
                directive,
                keyword,
                arguments,
            }),
            None => self.unknown(keyword),
        }
    }

    fn begin(&mut self, kind: BlockKind, keyword: Word<'a>, arguments: Vec<Word<'a>>) {
        if let Some(open) = self.open.take() {
            let end = open.kind.end();
            let message = format!(
                "`{}` is not closed before `{}` begins",
                open.kind.begin(),
                kind.begin()
            );
            self.findings.push(
                Finding::error(Code::UnclosedBlock, open.span(), message)
                    .label("this block is not closed")
                    .related(keyword.span(), format!("`{end}` is missing before this"))
                    .help(format!("blocks do not nest; end it with `{end}`")),
            );
            self.tree.blocks.push(open);
        }
        self.open = Some(Block {
            kind,
            keyword,
            arguments,
            statements: Vec::new(),
        });
    }

    fn end(&mut self, kind: BlockKind, keyword: Word<'a>, arguments: &[Word<'a>]) {
        if let Some(extra) = span_of(arguments) {
            let message = format!("`{}` stands alone on its line", kind.end());
            self.findings
                .push(Finding::error(Code::ExtraArgument, extra, message).label("too much"));
        }
        let Some(open) = self.open.take() else {
            let message = format!("`{}` ends no block", kind.end());
            self.findings.push(
                Finding::error(Code::StrayEnd, keyword.span(), message)
                    .label("no block is open here")
                    .help(format!("the block begins with `{}`", kind.usage())),
            );
            return;
        };
        // A wrong end is the end all the same: it is far likelier than a block inside a block.
        if open.kind != kind {
            let message = format!(
                "`{}` ends a block that `{}` began",
                kind.end(),
                open.kind.begin()
            );
            self.findings.push(
                Finding::error(Code::WrongEnd, keyword.span(), message)
                    .label(format!("expected `{}`", open.kind.end()))
                    .related(open.span(), "the block begins here"),
            );
        }
        self.tree.blocks.push(open);
    }

    fn statement(&mut self, statement: Statement<'a>) {
        let home = statement.directive.home();
        let here = self.open.as_ref().map(|block| block.kind);
        if home != here {
            self.misplaced(&statement, home);
            return;
        }
        match &mut self.open {
            Some(block) => block.statements.push(statement),
            None => self.tree.statements.push(statement),
        }
    }

    fn misplaced(&mut self, statement: &Statement<'a>, home: Option<BlockKind>) {
        let name = statement.directive.name();
        let message = match home {
            Some(kind) => format!("`{name}` stands outside of a `{}` block", kind.begin()),
            None => format!("`{name}` stands inside a block"),
        };
        let mut finding = Finding::error(Code::MisplacedKeyword, statement.keyword.span(), message);
        finding = match home {
            Some(kind) => finding.help(format!(
                "put it between `{}` and `{}`",
                kind.usage(),
                kind.end()
            )),
            None => finding.help("put it before the first block"),
        };
        if let Some(open) = &self.open {
            finding = finding.related(
                open.span(),
                format!("inside this `{}` block", open.kind.begin()),
            );
        }
        self.findings.push(finding);
    }

    fn unknown(&mut self, keyword: Word<'a>) {
        let message = format!("unknown keyword `{}`", keyword.text);
        let finding = Finding::error(Code::UnknownKeyword, keyword.span(), message)
            .label("not a keyword")
            .help("comments begin with `#`");
        if self.findings.is_full_of_errors() {
            self.findings.push(finding);
            return;
        }
        // A keyword that fits here is a better guess than a closer one that does not.
        let here = self.open.as_ref().map(|block| block.kind);
        let fitting = keywords::keywords().filter(|name| match keywords::find(name) {
            Some(Keyword::Directive(directive)) => directive.home() == here,
            Some(Keyword::Begin(_)) => here.is_none(),
            Some(Keyword::End(kind)) => here == Some(kind),
            None => false,
        });
        let suggestion =
            suggest(keyword.text, fitting).or_else(|| suggest(keyword.text, keywords::keywords()));
        self.findings.push(finding.did_you_mean(suggestion));
    }

    fn finish(mut self) -> Tree<'a> {
        if let Some(open) = self.open.take() {
            let message = format!("`{}` is never closed", open.kind.begin());
            self.findings.push(
                Finding::error(Code::UnclosedBlock, open.span(), message)
                    .label("the file ends inside this block")
                    .help(format!("end it with `{}`", open.kind.end())),
            );
            self.tree.blocks.push(open);
        }
        self.tree
    }
}

fn whole_line(keyword: Word<'_>, arguments: &[Word<'_>]) -> Range<usize> {
    keyword.start
        ..arguments
            .last()
            .map_or(keyword.span().end, |last| last.span().end)
}
