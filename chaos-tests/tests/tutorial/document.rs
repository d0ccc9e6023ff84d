//! The fenced blocks of a tutorial, and what their tags say. Pure.
//!
//! ```text
//! KIND [file=PATH] [host=NAME,...|all|active|killed] [word...]
//! ```
//! `sh` runs on each host in turn; `text expect` belongs to the `sh` before it; a block with `file=` is put there; any other is only
//! to be looked at, and must have no tag.

use std::collections::BTreeMap;

/// What is to be done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Run it.
    Run,
    /// Put it into a file.
    File(String),
    /// Nothing.
    Show,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Line of its first fence.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    /// `host=`, as written.
    pub(crate) hosts: Vec<String>,
    /// The other `key=value` tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// Tags without a value.
    pub(crate) words: Vec<String>,
    pub(crate) text: String,
    /// What its output has to be like; the words of that block's tag.
    pub(crate) expected: Option<(Vec<String>, String)>,
}

impl Block {
    pub(crate) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }
}

/// The words and keys that mean something; another one is a slip of the pen.
const WORDS: [&str; 5] = ["apt", "nfs", "systemctl", "build", "scp"];
const KEYS: [&str; 6] = ["retry", "exit", "dir", "program", "part", "same"];

/// All blocks of `text`, in order.
///
/// # Errors
/// What is wrong with a tag, with its line.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, fence)) = lines.next() {
        let Some(tag) = fence.strip_prefix("```") else {
            continue;
        };
        let mut body = String::new();
        let mut closed = false;
        for (_, inner) in lines.by_ref() {
            closed = inner == "```";
            if closed {
                break;
            }
            body += inner;
            body.push('\n');
        }
        if !closed {
            return Err(format!("line {line}: the block does not end"));
        }
        let mut tags = tag.split_ascii_whitespace();
        let language = tags.next().unwrap_or_default();
        let tags: Vec<&str> = tags.collect();
        if let ("text", Some((&"expect", more))) = (language, tags.split_first()) {
            let block = found.last_mut().filter(|last| last.kind == Kind::Run);
            let block = block.ok_or(format!(
                "line {line}: nothing was run that this could be of"
            ))?;
            if block.expected.is_some() {
                return Err(format!("line {line}: there is an expectation already"));
            }
            let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
            if more.iter().any(|word| word != "any-order") {
                return Err(format!("line {line}: {more:?}"));
            }
            block.expected = Some((more, body));
            continue;
        }
        found.push(tagged(line, language, &tags, body)?);
    }
    Ok(found)
}

fn tagged(line: usize, language: &str, tags: &[&str], text: String) -> Result<Block, String> {
    let mut block = Block {
        line,
        kind: if language == "sh" {
            Kind::Run
        } else {
            Kind::Show
        },
        hosts: Vec::new(),
        tags: BTreeMap::new(),
        words: Vec::new(),
        text,
        expected: None,
    };
    for tag in tags {
        match tag.split_once('=') {
            Some(("file", path)) if block.kind == Kind::Show => {
                block.kind = Kind::File(path.to_owned());
            }
            Some(("host", hosts)) => block.hosts = hosts.split(',').map(str::to_owned).collect(),
            Some((key, value)) if KEYS.contains(&key) => {
                block.tags.insert(key.to_owned(), value.to_owned());
            }
            None if WORDS.contains(tag) => block.words.push((*tag).to_owned()),
            _ => return Err(format!("line {line}: what is {tag}?")),
        }
    }
    if block.kind == Kind::Show {
        if !tags.is_empty() {
            return Err(format!("line {line}: tags on a block that is only shown"));
        }
    } else if block.hosts.is_empty() {
        return Err(format!("line {line}: on which host?"));
    }
    Ok(block)
}

/// Whether `output` has lines like those of `expected`, in this order or in any. `...` stands for anything, also for nothing.
///
/// # Errors
/// The line that is missing.
pub(crate) fn is_as_expected(output: &str, expected: &str, any_order: bool) -> Result<(), String> {
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let mut from = 0;
    for wanted in expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let start = if any_order { 0 } else { from };
        let place = lines[start..].iter().position(|line| is_like(line, wanted));
        match place {
            Some(place) => from = start + place + 1,
            None => return Err(format!("no line like {wanted:?}")),
        }
    }
    Ok(())
}

/// Whether `line` is `pattern` with something for each `...`.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_tags_and_expectations() {
        let text = "x\n```text\nlook\n```\n```sh host=a,b retry=3 nfs\nrun\n```\n```text expect\nout\n```\n\
                    ```conf file=/etc/x host=all\ny\n```\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].kind, Kind::Show);
        assert_eq!((found[1].line, found[1].text.as_str()), (5, "run\n"));
        assert_eq!(found[1].hosts, ["a", "b"]);
        assert!(found[1].has("nfs") && found[1].tags["retry"] == "3");
        assert_eq!(found[1].expected, Some((vec![], "out\n".to_owned())));
        assert_eq!(found[2].kind, Kind::File("/etc/x".to_owned()));
    }

    #[test]
    fn slips_of_the_pen_are_told() {
        for (text, said) in [
            ("```sh\nx\n```\n", "on which host"),
            ("```sh host=a rety=3\nx\n```\n", "what is rety=3"),
            ("```text expect\nx\n```\n", "nothing was run"),
            ("```sh host=a\nx\n", "does not end"),
            ("```text host=a\nx\n```\n", "only shown"),
        ] {
            let error = blocks(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn dots_stand_for_anything_and_order_matters() {
        let output = "  one 1\ntwo\nthree 3 x\n";
        for (expected, any_order, holds) in [
            ("one ...\nthree ... x", false, true),
            ("two\none ...", false, false),
            ("two\none ...", true, true),
            ("one", false, false),
            ("...3...", false, true),
            ("two...", false, true),
            ("three ... y", false, false),
        ] {
            let outcome = is_as_expected(output, expected, any_order);
            assert_eq!(outcome.is_ok(), holds, "{expected}: {outcome:?}");
        }
    }
}
