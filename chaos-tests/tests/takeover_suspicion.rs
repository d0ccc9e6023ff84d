//! A leader whose process is gone is not waited for, and one that is only silent is: with HeartBeatDelay 1 s the difference
//! is three seconds.

use std::time::Duration;

use chaos_tests::cluster::{Cluster, Profile, SETTLE_MAX, Trouble, unix_of_boottime};
use chaos_tests::lab::ready;
use chaos_tests::lines::realtime_ns;

const HEARTBEAT: Duration = Duration::from_secs(1);
const LOST: u32 = 3;

/// Silence takes 3.05 s after the last heartbeat, which may have been a second before the fault. Half a second is for a
/// loaded machine, on either side.
const BY_SILENCE_MIN: Duration = Duration::from_millis(2000);
const BY_REFUSAL_MAX: Duration = Duration::from_millis(1500);

#[test]
fn a_refused_connection_is_an_election_at_once_and_a_stopped_process_is_none() {
    if !ready() {
        return;
    }
    let profile = Profile::new(3, 1, HEARTBEAT, LOST, false).unwrap();
    let cluster = Cluster::start_with(profile.builder()).unwrap();
    let elected_after = |trouble| {
        let struck = realtime_ns();
        let blow = cluster.strike(trouble).unwrap();
        let elected = unix_of_boottime(blow.status.tenure.unwrap().leader_at_ns);
        cluster.mend(&blow).unwrap();
        Duration::from_nanos(elected.saturating_sub(struck))
    };
    let killed = elected_after(Trouble::Kill);
    let stopped = elected_after(Trouble::Stop);
    println!("elected after kill -9: {killed:?}, after SIGSTOP: {stopped:?}");
    assert!(killed < BY_REFUSAL_MAX, "{killed:?}");
    assert!(
        (BY_SILENCE_MIN..SETTLE_MAX).contains(&stopped),
        "{stopped:?}"
    );
}
