//! Whether every accepted mail is there, and only once. Pure.
//!
//! Twice is right in two cases only: its sender saw no answer and sent it again (RFC 5321 section 4.5.3.2.6 has senders do so),
//! or the server that had accepted it lost power between delivering it and noting that it had (the queue of the same server,
//! the same name in it).

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::Mails;
use super::senders::{Found, Sent};

/// Compares what was accepted with what is in the mailboxes; `lost_power`: the servers that did so meanwhile, by host name.
pub(super) fn judge(sent: &[Sent], found: &[Found], lost_power: &[&str]) -> Mails {
    let mut copies: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for mail in found {
        copies.entry(&mail.subject).or_default().push(mail);
    }
    let mut mails = Mails {
        found: found.len(),
        ..Mails::default()
    };
    for sent in sent {
        mails.tried_again += usize::from(sent.unknown + sent.failed > 0);
        let Some(_) = &sent.server else {
            mails.given_up += 1;
            continue;
        };
        mails.accepted += 1;
        let here = copies
            .get(sent.subject.as_str())
            .map_or(&[][..], Vec::as_slice);
        if here.is_empty() {
            mails.lost.push(sent.subject.clone());
        }
        let names: BTreeSet<_> = here
            .iter()
            .map(|mail| (&mail.server, &mail.queue_id))
            .collect();
        let redelivered = here.len() - names.len();
        let by_power = here
            .iter()
            .any(|mail| lost_power.contains(&mail.server.as_str()));
        mails.sent_twice += names.len().saturating_sub(1).min(sent.unknown);
        if names.len() > 1 + sent.unknown || (redelivered > 0 && !by_power) {
            mails.twice.push(sent.subject.clone());
        } else {
            mails.redelivered += redelivered;
        }
    }
    mails
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(subject: &str, server: Option<&str>, unknown: usize) -> Sent {
        Sent {
            subject: subject.to_owned(),
            server: server.map(str::to_owned),
            unknown,
            failed: 0,
            at: 0.0,
        }
    }

    fn found(subject: &str, server: &str, queue_id: &str) -> Found {
        Found {
            subject: subject.to_owned(),
            server: server.to_owned(),
            queue_id: queue_id.to_owned(),
        }
    }

    #[test]
    fn what_is_missing_is_lost_and_what_was_given_up_is_not() {
        let mails = judge(
            &[
                sent("a", Some("s1"), 0),
                sent("b", Some("s1"), 0),
                sent("c", None, 3),
            ],
            &[found("a", "s1", "1")],
            &[],
        );
        assert_eq!((mails.accepted, mails.given_up), (2, 1));
        assert_eq!(mails.lost, ["b"]);
        assert_eq!(mails.tried_again, 1);
    }

    #[test]
    fn twice_is_right_only_after_an_answer_that_nobody_saw() {
        let there = [found("a", "s1", "1"), found("a", "s2", "9")];
        let unseen = judge(&[sent("a", Some("s2"), 1)], &there, &[]);
        assert_eq!((unseen.twice.len(), unseen.sent_twice), (0, 1));
        let seen = judge(&[sent("a", Some("s2"), 0)], &there, &[]);
        assert_eq!(seen.twice, ["a"]);
    }

    #[test]
    fn a_queue_may_repeat_only_where_the_power_was_lost() {
        let there = [found("a", "s1", "1"), found("a", "s1", "1")];
        let lost_power = judge(&[sent("a", Some("s1"), 0)], &there, &["s1"]);
        assert_eq!((lost_power.twice.len(), lost_power.redelivered), (0, 1));
        let another = judge(&[sent("a", Some("s1"), 0)], &there, &["s2"]);
        assert_eq!(another.twice, ["a"]);
    }
}
