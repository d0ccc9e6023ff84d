//! Flags and `key=value` options at the end of a line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::bounds::{PERSIST_MAX, PERSIST_MIN, RISE_FALL_DEFAULT, RISE_FALL_MAX};
use super::super::code::Code;
use super::super::diagnostic::Finding;
use super::super::findings::suggest;
use super::super::lex::Word;
use super::super::types::{CheckTls, OnDown, Replication, Scheduler};
use super::super::values;
use super::Checker;

/// The options of one line: each key once, with the place of its value.
pub(super) type Options<'a> = BTreeMap<&'static str, Word<'a>>;

impl<'a> Checker<'a> {
    /// Sorts the words after the arguments. A key of `known` that ends with `=` takes a value.
    pub(super) fn options(
        &mut self,
        what: &str,
        known: &[&'static str],
        words: &[Word<'a>],
    ) -> Options<'a> {
        let mut options = Options::new();
        for word in words {
            let (key, value) = word
                .split('=')
                .map_or((*word, None), |(key, value)| (key, Some(value)));
            let is = |option: &&&'static str| {
                let takes_value = option.ends_with('=');
                takes_value == value.is_some()
                    && option.trim_end_matches('=').eq_ignore_ascii_case(key.text)
            };
            let Some(option) = known.iter().find(is).copied() else {
                self.unknown_option(what, known, *word, key);
                continue;
            };
            if let Some(first) = options.get(option) {
                self.duplicate_option(option, word.span(), first.span());
                continue;
            }
            options.insert(option, value.unwrap_or(*word));
        }
        options
    }

    fn unknown_option(
        &mut self,
        what: &str,
        known: &[&'static str],
        word: Word<'a>,
        key: Word<'a>,
    ) {
        let bare = known.iter().map(|option| option.trim_end_matches('='));
        let suggestion = suggest(key.text, bare)
            .and_then(|bare| {
                known
                    .iter()
                    .find(|option| option.trim_end_matches('=') == bare)
            })
            .copied();
        let message = format!("`{what}` has no option `{}`", word.text);
        self.findings.push(
            Finding::error(Code::UnknownOption, word.span(), message)
                .help(format!("its options are {}", listed(known.iter().copied())))
                .did_you_mean(suggestion),
        );
    }

    fn duplicate_option(&mut self, option: &str, again: Range<usize>, first: Range<usize>) {
        self.findings.push(
            Finding::error(
                Code::DuplicateOption,
                again,
                format!("`{option}` is given twice"),
            )
            .label("again here")
            .related(first, "first given here"),
        );
    }

    pub(super) fn scheduler(&mut self, options: &Options<'a>) -> Scheduler {
        self.choice("scheduler=", options, &Scheduler::NAMES)
    }

    pub(super) fn replication(&mut self, options: &Options<'a>) -> Replication {
        self.choice("replication=", options, &Replication::NAMES)
    }

    pub(super) fn on_down(&mut self, options: &Options<'a>) -> OnDown {
        self.choice("on-down=", options, &OnDown::NAMES)
    }

    pub(super) fn tls(&mut self, options: &Options<'a>) -> Option<CheckTls> {
        self.chosen("tls=", options, &CheckTls::NAMES)
    }

    /// `rise=` or `fall=`.
    pub(super) fn in_a_row(&mut self, option: &'static str, options: &Options<'a>) -> u32 {
        let given = options.get(option).copied().and_then(|word| {
            self.accept(word, values::number(option, word.text, 1..=RISE_FALL_MAX))
        });
        given.unwrap_or(RISE_FALL_DEFAULT)
    }

    fn choice<T: Copy + Default>(
        &mut self,
        option: &str,
        options: &Options<'a>,
        names: &[(&str, T)],
    ) -> T {
        self.chosen(option, options, names).unwrap_or_default()
    }

    /// `None` when it is not given, and after a complaint.
    fn chosen<T: Copy>(
        &mut self,
        option: &str,
        options: &Options<'a>,
        names: &[(&str, T)],
    ) -> Option<T> {
        let word = options.get(option)?;
        if let Some((_, value)) = names
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word.text))
        {
            return Some(*value);
        }
        let names = || names.iter().map(|(name, _)| *name);
        let message = format!("`{}` is not a valid value of `{option}`", word.text);
        self.findings.push(
            Finding::error(Code::BadOptionValue, word.span(), message)
                .help(format!("one of {}", listed(names())))
                .did_you_mean(suggest(word.text, names())),
        );
        None
    }

    pub(super) fn persist(&mut self, options: &Options<'a>) -> Option<Duration> {
        let word = *options.get("persist=")?;
        self.accept(
            word,
            values::duration("persist=", word.text, PERSIST_MIN..=PERSIST_MAX),
        )
    }

    pub(super) fn source(&mut self, options: &Options<'a>) -> Option<IpAddr> {
        let word = *options.get("source=")?;
        self.accept(word, values::source_address(word.text))
    }

    pub(super) fn client_mask(&mut self, options: &Options<'a>) -> Option<u8> {
        let word = *options.get("mask=")?;
        self.accept(word, values::client_mask(word.text))
    }
}

pub(super) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
