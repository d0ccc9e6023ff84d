//! The tutorial of the clustered mail server, run: each block of `docs/tutorial/clustered-mail-server.md` in order, on hosts that
//! are machines of their own. What cannot be run as written is run in the nearest form that there is, and said.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on has failed its test"
)]

mod document;
mod machines;
mod player;

use chaos_tests::lab::{ready, skipped};
use chaos_tests::mail_cluster::MailClusterError;

/// The text.
const TUTORIAL: &str = include_str!("../../../docs/tutorial/clustered-mail-server.md");

/// Plays all blocks without a part, then those of `part`.
fn every_command_does_what_the_tutorial_says(part: Option<&str>) {
    let blocks = document::blocks(TUTORIAL).unwrap();
    if !ready() {
        return;
    }
    let lab = match machines::start(part) {
        Ok(lab) => lab,
        Err(error) if error.is_unavailable() => {
            skipped(error);
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut player = player::Player::new(&lab, part);
    for block in &blocks {
        player.play(block);
    }
    let told = player.told();
    println!("{told}");
    // What was not run as written is to be seen.
    for reason in told
        .lines()
        .filter_map(|line| line.strip_prefix("skipped: "))
    {
        skipped(reason);
    }
}

#[test]
fn from_fresh_machines_to_a_cluster_that_survives() {
    every_command_does_what_the_tutorial_says(None);
}

#[test]
fn an_atm_becomes_a_server_as_well() {
    every_command_does_what_the_tutorial_says(Some("combined"));
}

#[test]
fn every_tag_of_the_tutorial_means_something() {
    let blocks = document::blocks(TUTORIAL).unwrap();
    assert!(blocks.len() > 40, "{}", blocks.len());
    let expectations = blocks.iter().filter(|block| block.expected.is_some());
    assert!(expectations.count() > 15);
}

/// What a step of the tutorial fails with.
type Outcome<T> = Result<T, MailClusterError>;
