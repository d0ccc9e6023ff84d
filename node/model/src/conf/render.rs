//! Diagnostics for people: the line, the offending text underlined, and the way out, as rustc shows them.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::diagnostic::{Diagnostic, Severity};

/// Draws `diagnostics` over `source`, and a last line that counts them; empty when there are none.
///
/// Spans that do not fit `source` are moved to its nearest character.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], file_name: &str, source: &str, color: bool) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[group(diagnostic, file_name, source)]));
        text.push_str("\n\n");
    }
    text.push_str(&summary(diagnostics, file_name));
    text.push('\n');
    text
}

fn group<'a>(diagnostic: &'a Diagnostic, file_name: &'a str, source: &'a str) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let primary = fitting(&diagnostic.span, source);
    let related: Vec<_> = diagnostic
        .related
        .iter()
        .map(|other| (fitting(&other.span, source), other))
        .collect();
    let first = related
        .iter()
        .map(|(span, _)| span.start)
        .fold(primary.start, usize::min);
    let last = related
        .iter()
        .map(|(span, _)| span.end)
        .fold(primary.end, usize::max);

    // Only the lines concerned are handed over: the renderer reads all it is given, once for each diagnostic.
    let from = source
        .get(..first)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1);
    let to = source
        .get(last..)
        .and_then(|after| after.find('\n'))
        .map_or(source.len(), |at| last + at);
    let shown = source.get(from..to).unwrap_or_default();
    let line = source
        .get(..from)
        .map_or(0, |before| before.matches('\n').count())
        + 1;
    let inside =
        |span: Range<usize>| span.start.saturating_sub(from)..span.end.saturating_sub(from);

    let mut snippet = Snippet::source(shown)
        .path(file_name)
        .line_start(line)
        .annotation(
            AnnotationKind::Primary
                .span(inside(primary))
                .label(diagnostic.label.as_deref()),
        );
    for (span, other) in related {
        snippet = snippet.annotation(
            AnnotationKind::Context
                .span(inside(span))
                .label(other.label.as_str()),
        );
    }
    let group = level
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code.as_str())
        .element(snippet);
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

fn fitting(span: &Range<usize>, source: &str) -> Range<usize> {
    let start = source.floor_char_boundary(span.start);
    start..source.ceil_char_boundary(span.end.max(start))
}

fn summary(diagnostics: &[Diagnostic], file_name: &str) -> String {
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .count();
    let warnings = diagnostics.len() - errors;
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match (errors, warnings) {
        (0, warnings) => format!("{file_name}: {}", counted(warnings, "warning")),
        (errors, 0) => format!("{file_name}: {}", counted(errors, "error")),
        (errors, warnings) => format!(
            "{file_name}: {}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    }
}
