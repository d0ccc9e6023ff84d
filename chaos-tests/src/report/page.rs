//! The page: one HTML file with everything in it.

use std::fmt::Write as _;

use super::pictures::Picture;
use super::plot::escape;
use super::{Log, Run};
use crate::checkers::{Finding, Outcome, Verdict, outages};

/// Findings shown per checker; `verdicts.json` has more.
const FINDINGS_SHOWN: usize = 20;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1a1a;--muted:#666;--line:#ddd;--bg:#fff;--good:#00785a;--bad:#b84a00;--doubt:#8a6100}\
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e8;--muted:#a0a4ab;--line:#33373e;--bg:#16181c;--good:#2fc498;--bad:#ff8a4a;--doubt:#e6b33d}}\
body{font:15px/1.5 'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;color:var(--ink);background:var(--bg);max-width:1110px;margin:24px auto;padding:0 16px}\
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 6px}p{margin:4px 0 10px}.muted{color:var(--muted)}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto;display:block;margin:6px 0 12px}\
.good{color:var(--good);font-weight:bold}.bad{color:var(--bad);font-weight:bold}.doubt{color:var(--doubt);font-weight:bold}\
code{font:13px/1.4 'DejaVu Sans Mono',monospace}dl{display:grid;grid-template-columns:max-content auto;gap:2px 16px;margin:8px 0}dt{color:var(--muted)}dd{margin:0}\
ul{margin:4px 0;padding-left:20px}";

/// The whole page.
pub(super) fn page(run: &Run<'_>, pictures: &[Picture], logs: &[Log]) -> String {
    let mut html = String::new();
    let title = escape(run.title);
    let (word, class) = if run.verdicts.passed() {
        ("Every promise that was looked at held.", "good")
    } else if run.verdicts.violated().next().is_some() {
        ("A promise was broken.", "bad")
    } else {
        (
            "Nothing was seen to break, but not everything is proved.",
            "doubt",
        )
    };
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"{class}\">{word}</p>\n<dl>\n"
    );
    for (name, value) in run.facts {
        let _ = writeln!(
            html,
            "<dt>{}</dt><dd><code>{}</code></dd>",
            escape(name),
            escape(value)
        );
    }
    html.push_str(
        "</dl>\n<h2>Verdicts</h2>\n<table>\n<tr><th>checker</th><th>verdict</th><th></th></tr>\n",
    );
    for verdict in &run.verdicts.0 {
        row(&mut html, verdict);
    }
    html.push_str("</table>\n");
    distributions(&mut html, run);
    for Picture {
        heading,
        caption,
        svg,
        ..
    } in pictures
    {
        let _ = writeln!(html, "<h2>{}</h2>", escape(heading));
        if !caption.is_empty() {
            let _ = writeln!(html, "<p class=\"muted\">{}</p>", escape(caption));
        }
        html.push_str(svg);
    }
    files(&mut html, logs);
    html.push_str("</body>\n</html>\n");
    html
}

fn row(html: &mut String, verdict: &Verdict) {
    let (word, class, why) = match &verdict.outcome {
        Outcome::Holds => ("✓ holds", "good", ""),
        Outcome::Violated => ("✗ violated", "bad", ""),
        Outcome::GaveUp(why) => ("? gave up", "doubt", why.as_str()),
        Outcome::Invalid(why) => ("? invalid", "doubt", why.as_str()),
        Outcome::NothingToCheck => ("– nothing to check", "muted", ""),
    };
    let _ = write!(
        html,
        "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{}{}",
        verdict.checker,
        escape(&verdict.summary),
        escape(why)
    );
    for finding in verdict.findings.iter().take(FINDINGS_SHOWN) {
        details(html, finding);
    }
    let hidden = verdict.findings.len().saturating_sub(FINDINGS_SHOWN);
    let more = verdict.more + u64::try_from(hidden).unwrap_or(u64::MAX);
    if more > 0 {
        let _ = write!(html, "<p class=\"muted\">and {more} more</p>");
    }
    html.push_str("</td></tr>\n");
}

fn details(html: &mut String, finding: &Finding) {
    let _ = write!(
        html,
        "<details><summary>{}</summary><ul>",
        escape(&finding.what)
    );
    for moment in &finding.moments {
        let seconds = std::time::Duration::from_nanos(moment.t_ns).as_secs_f64();
        let _ = write!(
            html,
            "<li><code>{seconds:.6} s</code> {}</li>",
            escape(&moment.what)
        );
    }
    html.push_str("</ul></details>");
}

/// The outages by kind of fault, as figures.
fn distributions(html: &mut String, run: &Run<'_>) {
    let found = outages(run.history, run.rules);
    if found.by_fault.is_empty() {
        return;
    }
    html.push_str("<h2>Outages by fault, in ms</h2>\n<table>\n<tr><th>fault</th>");
    for name in ["n", "min", "median", "p95", "p99", "max"] {
        let _ = write!(html, "<th class=\"n\">{name}</th>");
    }
    html.push_str("</tr>\n");
    for (fault, of) in &found.by_fault {
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td>",
            escape(fault),
            of.count
        );
        for ns in [of.min_ns, of.median_ns, of.p95_ns, of.p99_ns, of.max_ns] {
            let ms = std::time::Duration::from_nanos(ns).as_secs_f64() * 1e3;
            let _ = write!(html, "<td class=\"n\">{ms:.1}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
    for (probe, share) in &found.share {
        let _ = writeln!(
            html,
            "<p>{} was answered {:.4} % of the time.</p>",
            escape(probe),
            share * 100.0
        );
    }
}

fn files(html: &mut String, logs: &[Log]) {
    html.push_str("<h2>Files</h2>\n<ul>\n");
    for name in ["history.jsonl", "schedule.json", "verdicts.json"] {
        let _ = writeln!(html, "<li><a href=\"{name}\">{name}</a></li>");
    }
    for log in logs {
        let name = escape(&log.name);
        let _ = match &log.copied {
            Ok((bytes, cut)) => {
                let cut = if *cut { ", only its end" } else { "" };
                writeln!(
                    html,
                    "<li><a href=\"logs/{name}\">logs/{name}</a> <span class=\"muted\">{bytes} bytes{cut}</span></li>"
                )
            }
            Err(error) => writeln!(
                html,
                "<li>logs/{name} <span class=\"bad\">not copied: {}</span></li>",
                escape(&error.to_string())
            ),
        };
    }
    html.push_str("</ul>\n");
}
