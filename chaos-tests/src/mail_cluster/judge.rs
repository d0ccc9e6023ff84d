//! Whether every accepted mail is there, and only once. Pure.
//!
//! Twice is right in two cases only: its sender saw no answer and sent it again (RFC 5321 section 4.5.3.2.6 has senders do so),
//! or the server that had accepted it lost power between delivering it and noting that it had (the queue of the same server,
//! the same name in it). Each repeated name needs that excuse of its own server.

use std::collections::BTreeMap;

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
        let mut names: BTreeMap<_, usize> = BTreeMap::new();
        for mail in here {
            *names.entry((&mail.server, &mail.queue_id)).or_default() += 1;
        }
        let redelivered = here.len() - names.len();
        let repeated = names.iter().filter(|(_, count)| **count > 1);
        let by_power = repeated
            .map(|((server, _), _)| server.as_str())
            .all(|server| lost_power.contains(&server));
        mails.sent_twice += names.len().saturating_sub(1).min(sent.unknown);
        if names.len() > 1 + sent.unknown || !by_power {
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
    fn twice_is_right_only_after_an_answer_that_nobody_saw_or_in_a_queue_that_lost_power() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], usize, Option<[usize; 2]>);
        let (one, another) = (("s1", "1"), ("s2", "9"));
        // Name, copies, answers that nobody saw; sent twice and redelivered, or `twice`. s1 lost power.
        let cases: [Case<'_>; 9] = [
            ("once", &[one], 0, Some([0, 0])),
            ("no answer, sent again", &[one, another], 1, Some([1, 0])),
            ("answered, sent again", &[one, another], 0, None),
            (
                "more copies than tries",
                &[one, another, ("s2", "10")],
                1,
                None,
            ),
            ("the victim's queue repeats", &[one, one], 0, Some([0, 1])),
            ("another queue repeats", &[another, another], 0, None),
            ("both excuses", &[one, one, another], 1, Some([1, 1])),
            (
                "the victim's copy excuses no other",
                &[one, another, another],
                1,
                None,
            ),
            (
                "nor does its repetition",
                &[one, one, another, another],
                1,
                None,
            ),
        ];
        for (name, copies, unknown, right) in cases {
            let copies = copies.iter().map(|(server, id)| found("a", server, id));
            let copies: Vec<_> = copies.collect();
            let mails = judge(&[sent("a", Some("s2"), unknown)], &copies, &["s1"]);
            match right {
                Some(counts) => {
                    assert_eq!(mails.twice, [""; 0], "{name}");
                    assert_eq!([mails.sent_twice, mails.redelivered], counts, "{name}");
                }
                None => assert_eq!(mails.twice, ["a"], "{name}"),
            }
        }
    }
}
