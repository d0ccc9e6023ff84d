//! DNS: one question (RFC 1035), over UDP, TCP (RFC 7766) or TLS (RFC 7858).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::net::UdpSocket;

use crate::agent::Target;
use crate::connection::Connection;
use crate::failure::{Failure, Progress, Seen, Step};
use crate::options::{BadOption, Options};
use crate::text::{plain, quoted};

const QUERY: Step = Step::new(
    "query",
    "an answer to the question with NOERROR or NXDOMAIN",
);

/// A datagram may be lost on the way: resolvers ask again after a second or more.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// So often; then the answer is only waited for.
const ASK_MAX: u32 = 10;
/// Datagrams that answer something else are late answers to somebody before us on this port; more are an attack.
const STRAY_MAX: u32 = 64;

/// Nobody may send more to whoever did not ask for more (RFC 1035 §4.2.1, RFC 6891 §6.2.5); a longer one is cut, and shows.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// The name in the form that DNS takes.
pub(crate) fn checked_name(name: &str) -> Result<Name<'_>, BadOption> {
    let bad = || BadOption::Query(name.to_owned());
    let relative = name.strip_suffix('.').unwrap_or(name);
    // simple-dns passes over empty labels.
    if name.is_empty() || (!relative.is_empty() && relative.split('.').any(str::is_empty)) {
        return Err(bad());
    }
    Name::new(relative).map_err(|_| bad())
}

pub(super) async fn over_tcp(
    connection: &mut Connection<'_>,
    options: &Options,
) -> Result<(), Failure> {
    let query = Query::new(&options.query)?;
    let length = u16::try_from(query.bytes.len()).expect("a question is no longer than its name");
    let words = [&length.to_be_bytes(), &*query.bytes].concat();
    connection.say(&QUERY, &words).await?;
    let length = connection.exactly(&QUERY, 2).await?;
    let length = length
        .into_iter()
        .fold(0, |length, byte| length << 8 | usize::from(byte));
    let answer = connection.exactly(&QUERY, length).await?;
    match query.judge(&answer) {
        Judgement::Stray => Err(QUERY.failed(Seen::Answer(format!(
            "{}, to another question",
            quoted(&answer)
        )))),
        Judgement::Healthy => Ok(()),
        Judgement::Ill(seen) => Err(QUERY.failed(seen)),
    }
}

pub(super) async fn over_udp(
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.reached(&QUERY);
    let query = Query::new(&options.query)?;
    let failed = |error| QUERY.failed(Seen::Io(error));
    let any: IpAddr = match target.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))
        .await
        .map_err(failed)?;
    // Connected: others cannot answer, and a closed port is an error at once.
    socket
        .connect(target.socket_address())
        .await
        .map_err(failed)?;
    let mut asked = 0;
    let mut stray = 0;
    let mut again = tokio::time::interval(ASK_AGAIN);
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let due = async {
            if asked < ASK_MAX {
                again.tick().await;
            } else {
                std::future::pending().await
            }
        };
        let length = tokio::select! {
            biased;
            () = due => {
                asked += 1;
                socket.send(&query.bytes).await.map_err(failed)?;
                continue;
            }
            received = socket.recv(&mut datagram) => received.map_err(failed)?,
        };
        match query.judge(&datagram[..length]) {
            Judgement::Healthy => return Ok(()),
            Judgement::Ill(seen) => return Err(QUERY.failed(seen)),
            Judgement::Stray if stray < STRAY_MAX => stray += 1,
            Judgement::Stray => {
                let said = quoted(&datagram[..length]);
                let seen = format!("{said}, like {STRAY_MAX} before it to another question");
                return Err(QUERY.failed(Seen::Answer(seen)));
            }
        }
    }
}

/// A question, and what it looks like on the wire.
struct Query {
    id: u16,
    question: Question<'static>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Judgement {
    Healthy,
    Ill(Seen),
    /// Not an answer to this question.
    Stray,
}

impl Query {
    fn new(name: &str) -> Result<Self, Failure> {
        let unable = |why: String| QUERY.failed(Seen::Unable(why));
        // Unpredictable, so that nobody answers in the server's name (RFC 5452 §9.2).
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| unable(error.to_string()))?;
        let id = u16::from_be_bytes(id);
        let name = checked_name(name)
            .map_err(|error| unable(error.to_string()))?
            .into_owned();
        let question = Question::new(name, QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false);
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(question.clone());
        let bytes = packet
            .build_bytes_vec()
            .map_err(|error| unable(error.to_string()))?;
        Ok(Self {
            id,
            question,
            bytes,
        })
    }

    fn judge(&self, bytes: &[u8]) -> Judgement {
        // The id first: what has another one is not ours, however it looks.
        if bytes.get(..2) != Some(&self.id.to_be_bytes()) {
            return Judgement::Stray;
        }
        let answer = match Packet::parse(bytes) {
            Ok(answer) => answer,
            Err(error) => {
                let why = plain(&error.to_string());
                let said = quoted(bytes);
                return Judgement::Ill(Seen::Answer(format!("{said}, no message of DNS ({why})")));
            }
        };
        if !answer.has_flags(PacketFlag::RESPONSE) {
            return Judgement::Stray;
        }
        match (answer.rcode(), &*answer.questions) {
            // A server that cannot read a question need not repeat it.
            (RCODE::FormatError | RCODE::NotImplemented, []) => ill(bytes),
            (RCODE::NoError | RCODE::NameError, [question]) if self.is(question) => {
                Judgement::Healthy
            }
            (_, [question]) if self.is(question) => ill(bytes),
            _ => Judgement::Stray,
        }
    }

    fn is(&self, question: &Question<'_>) -> bool {
        let ours = self.question.qname.as_bytes();
        let theirs = question.qname.as_bytes();
        question.qtype == self.question.qtype
            && question.qclass == self.question.qclass
            && ours.count() == question.qname.as_bytes().count()
            && self
                .question
                .qname
                .as_bytes()
                .zip(theirs)
                .all(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs))
    }
}

/// The RCODE of a message as the IANA registry names it.
fn ill(bytes: &[u8]) -> Judgement {
    const NAMES: [&str; 6] = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
    ];
    let rcode = bytes.get(3).map_or(0, |flags| flags & 0x0f);
    let name = NAMES.get(usize::from(rcode)).map_or_else(
        || format!("RCODE {rcode}"),
        |name| format!("{name} (RCODE {rcode})"),
    );
    Judgement::Ill(Seen::Answer(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identification, flags and four counts (RFC 1035 §4.1.1).
    const HEADER_BYTES: usize = 12;

    fn answer(query: &Query, change: impl FnOnce(&mut Packet<'static>)) -> Vec<u8> {
        let mut packet = Packet::new_reply(query.id);
        packet.questions.push(query.question.clone());
        change(&mut packet);
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let query = Query::new("www.Example.com.").unwrap();
        let other = Query::new("example.com").unwrap();
        let healthy = |bytes: &[u8]| matches!(query.judge(bytes), Judgement::Healthy);
        let stray = |bytes: &[u8]| matches!(query.judge(bytes), Judgement::Stray);
        assert!(healthy(&answer(&query, |_| {})));
        assert!(healthy(&answer(&query, |packet| {
            *packet.rcode_mut() = RCODE::NameError;
        })));
        let mut lower = answer(&query, |_| {});
        lower[HEADER_BYTES..].make_ascii_lowercase();
        assert!(healthy(&lower));
        assert!(stray(&query.bytes), "the question itself");
        assert!(stray(&answer(&query, |packet| packet.questions.clear())));
        assert!(stray(&answer(&query, |packet| {
            packet.questions = vec![other.question.clone()];
        })));
        assert!(stray(&answer(&query, |packet| {
            packet.questions.push(query.question.clone());
        })));
        assert!(stray(&answer(&query, |packet| {
            packet.set_id(query.id.wrapping_add(1));
        })));
        assert!(stray(b""));
        let whole = answer(&query, |_| {});
        assert!(!healthy(&whole[..whole.len() - 1]));
    }

    #[test]
    fn a_server_that_gives_no_answer_to_the_question_is_ill_and_says_how() {
        let query = Query::new("localhost").unwrap();
        for (rcode, said) in [
            (RCODE::FormatError, "FORMERR (RCODE 1)"),
            (RCODE::ServerFailure, "SERVFAIL (RCODE 2)"),
            (RCODE::NotImplemented, "NOTIMP (RCODE 4)"),
            (RCODE::Refused, "REFUSED (RCODE 5)"),
            (RCODE::YXDOMAIN, "RCODE 6"),
        ] {
            let bytes = answer(&query, |packet| *packet.rcode_mut() = rcode);
            let Judgement::Ill(Seen::Answer(seen)) = query.judge(&bytes) else {
                panic!("{rcode:?}");
            };
            assert_eq!(seen, said);
        }
    }

    #[test]
    fn names_are_checked() {
        let long = "a".repeat(64);
        let longest = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(61),
        ]
        .join(".");
        for good in [".", "localhost", "localhost.", "a.b", &*longest] {
            assert!(checked_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", ".a", "a..b", "a..", &long, &format!("{longest}e")] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let query = Query::new("localhost").unwrap();
        bolero::check!().for_each(|bytes: &[u8]| {
            let _any = query.judge(bytes);
            let ours = [&query.id.to_be_bytes(), bytes].concat();
            let _any = query.judge(&ours);
        });
    }
}
