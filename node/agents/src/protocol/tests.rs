//! Whatever a server sends, and however it comes in pieces: a transaction ends, and says why in one line.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;

use super::*;

const AGENTS: [Agent; 8] = [
    Agent::Http,
    Agent::Smtp,
    Agent::Pop,
    Agent::Imap,
    Agent::Ftp,
    Agent::Nntp,
    Agent::Dns,
    Agent::Ldap,
];

/// What servers say, so that the bytes get past the greeting now and then.
const FRAGMENTS: [&[u8]; 26] = [
    b"\r\n",
    b"\n",
    b"220 x\r\n",
    b"220-x\r\n",
    b"250 x\r\n",
    b"250-",
    b"211-Features:\r\n",
    b"211 End\r\n",
    b"500 x\r\n",
    b"200 x\r\n",
    b"101 x\r\n",
    b".\r\n",
    b"+OK\r\n",
    b"-ERR\r\n",
    b"* OK x\r\n",
    b"* CAPABILITY IMAP4rev1\r\n",
    b"a2 OK\r\n",
    b"* BYE\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Content-Length: 3\r\n\r\n",
    &[
        0x30, 0x0c, 0x02, 0x01, 0x02, 0x65, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00,
    ],
    &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x30, 0x05, 0x02, 0x01, 0x02, 0x64, 0x00],
    &[0x00, 0x1b],
    &[0xff, 0xff],
];

fn said() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => (0..FRAGMENTS.len()).prop_map(|fragment| FRAGMENTS[fragment].to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(fragment, 0..20).prop_map(|fragments| fragments.concat())
}

/// The transaction with a server that says `bytes` in pieces of `piece`, whatever it hears, and ends.
fn hear_out(agent: Agent, bytes: &[u8], piece: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let target = Target {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 1,
        transport: Transport::Tcp,
    };
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(16 * 1024);
        let progress = Progress::default();
        let transaction = async {
            let mut connection = Connection::over(Box::new(ours), target.address, &progress);
            let options = Options::default();
            let outcome = converse_over(agent, &mut connection, &target, &options).await;
            let patience = Duration::from_secs(10);
            connection.part(&QUIT, outcome.is_ok(), patience).await;
            outcome
        };
        let server = async {
            for piece in bytes.chunks(piece) {
                if theirs.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            // The transaction may have ended first.
            let _closed_anyway = theirs.shutdown().await;
            theirs
        };
        tokio::join!(transaction, server).0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_server_is_too_strange(agent in 0..AGENTS.len(), bytes in said(), piece in 1_usize..64) {
        if let Err(failure) = hear_out(AGENTS[agent], &bytes, piece) {
            let sentence = failure.to_string();
            prop_assert!(
                sentence.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
                "{sentence:?}"
            );
            prop_assert!(sentence.len() < 1200, "{sentence:?}");
        }
    }

    /// Where the pieces are cut does not matter.
    #[test]
    fn pieces_make_no_difference(agent in 0..AGENTS.len(), bytes in said(), piece in 1_usize..64) {
        // The id of a query is drawn anew.
        prop_assume!(AGENTS[agent] != Agent::Dns);
        let whole = hear_out(AGENTS[agent], &bytes, usize::MAX);
        let pieces = hear_out(AGENTS[agent], &bytes, piece);
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
    }
}

/// The fragments are such that each of the line protocols can succeed.
#[test]
fn the_fragments_reach_the_end() {
    for (agent, said) in [
        (Agent::Smtp, "220 x\r\n250-\r\n250 x\r\n"),
        (Agent::Pop, "+OK\r\n+OK\r\n.\r\n"),
        (Agent::Pop, "+OK\r\n-ERR\r\n+OK\r\n"),
        (Agent::Imap, "* OK x\r\n* CAPABILITY IMAP4rev1\r\na2 OK\r\n"),
        (Agent::Ftp, "220-x\r\n.\r\n220 x\r\n500 x\r\n200 x\r\n"),
        (Agent::Nntp, "200 x\r\n101 x\r\n.\r\n"),
        (Agent::Http, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
    ] {
        for piece in [1, 7, 1000] {
            hear_out(agent, said.as_bytes(), piece).unwrap();
        }
    }
    hear_out(Agent::Ldap, FRAGMENTS[21], 1).unwrap();
}
