//! The tenure task: does what [`model::tenure`] says next, as the daemon's does.

use model::command::{Command, Control as Step, Response};
use model::ids::{ConfigNumber, Epoch};
use model::tenure::{Action, Done, Member, Seen};

use super::atm::{Control, Waiter, Waits, name, node, place};
use super::clock::{MS, US};
use super::event::Later;
use super::hosts;
use super::network::SERVER;
use super::violation::Violation;
use super::world::World;

/// A proposal that is not committed by then is tried again.
const PROPOSAL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

impl World {
    pub(crate) fn tenure_tick(&mut self, me: usize) {
        let local = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        process.keeper.publish(local);
        self.spoke_up(me);
        self.tenure_waits(me);
        self.follow_tenure(me);
        let next = self.local_after(me, self.timing.heartbeat / 2);
        self.later(me, next, Later::Tick);
    }

    /// Asks the rules what is to be done until there is nothing.
    pub(crate) fn follow_tenure(&mut self, me: usize) {
        loop {
            let now = self.atms[me].now(self.now);
            let busy = self.atms[me].disk.busy_since();
            let patience = self.timing.disk_patience;
            let Some(process) = self.atms[me].process() else {
                return;
            };
            if process.waits != Waits::Nothing {
                return;
            }
            let seen = Seen {
                leading: process.raft.leads(),
                disk_stalled: busy.is_some_and(|since| now.saturating_since(since) > patience),
                configured: process.machine.state.current().is_some(),
                latest: process
                    .machine
                    .state
                    .tenure()
                    .map_or(Epoch(0), |tenure| tenure.epoch),
            };
            let action = process.tenures.step(seen, now);
            if action == Action::Rest {
                return;
            }
            if let Action::Wait(until) = action {
                let longest = now + self.timing.heartbeat;
                let at = self.atms[me].clock.when(until.min(longest), self.now);
                // A timer never fires early, and often a little late.
                let late = self.chance.below(500 * US);
                self.later(me, at + late, Later::Wake);
                return;
            }
            self.act(me, action);
        }
    }

    fn act(&mut self, me: usize, action: Action) {
        let now = self.atms[me].now(self.now);
        self.tell(|_| format!("{}: {action:?}", name(me)));
        let Some(process) = self.atms[me].process() else {
            return;
        };
        match action {
            Action::Rest | Action::Wait(_) => {}
            Action::Elected(term) => process.keeper.elected(term, now),
            Action::Deposed(_) => process.keeper.deposed(),
            Action::ProposeConfig => {
                let config = Command::Control(Step::ApplyConfig {
                    source: config(
                        self.atms.len(),
                        self.servers.len(),
                        self.schedule.heartbeat_ms,
                        0,
                    ),
                    hosts: std::collections::BTreeMap::new(),
                    expected: Some(ConfigNumber(0)),
                    by: name(me),
                });
                self.propose_step(me, &config);
            }
            Action::Propose(control) => self.propose_step(me, &Command::Control(control)),
            Action::Barrier => {
                process.waits = Waits::Engine;
                process.engine.tell(0, Control::Barrier);
                self.wake_engine(me);
            }
            Action::AskWaitOut { term, longest } => {
                let until = process.keeper.wait_until(term, longest);
                process.tenures.done(Done::WaitOut(until), now);
            }
            Action::Begin {
                term,
                epoch,
                length,
            } => {
                process.begun = term;
                process.keeper.tenure_begun(term, epoch, length, now);
                self.spoke_up(me);
            }
            Action::FallSilent(_) => {
                process.keeper.tenure_ended();
                process.waits = Waits::Engine;
                process.engine.tell(0, Control::Relinquish);
                self.wake_engine(me);
            }
            Action::FindSuccessor => {
                let group = self.group(me);
                if let Some(process) = self.atms[me].process() {
                    // Nobody to hand over to: silent all the same, and the next claim waits for the disk.
                    let _refused = process.tenures.hand_over(None, &group, now);
                }
            }
            Action::CatchUp(member, deadline) => {
                process.waits = Waits::Log(member, deadline);
                self.tenure_waits(me);
            }
            Action::Transfer(member) => {
                process.raft.transfer(place(member));
                process.tenures.done(Done::Transferred(Ok(())), now);
                self.after_raft(me);
            }
            Action::AwaitSuccessor(epoch, deadline) => {
                process.waits = Waits::Tenure(epoch, deadline);
                self.tenure_waits(me);
            }
            Action::Answer(outcome) => self.tell(|_| format!("{}: {outcome:?}", name(me))),
        }
    }

    /// An operator asks whoever is active to hand over.
    pub(crate) fn hand_over(&mut self, me: usize, to: Option<usize>) {
        let group = self.group(me);
        let now = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let begun = process.tenures.hand_over(to.map(name), &group, now);
        self.tell(|_| format!("{} is asked to hand over to {to:?}: {begun:?}", name(me)));
        if begun.is_ok() {
            self.soon(me, MS, Later::Notice);
        }
    }

    fn group(&self, me: usize) -> Vec<Member> {
        let atm = &self.atms[me];
        let now = atm.now(self.now);
        let peers = atm
            .process
            .as_ref()
            .and_then(|process| process.raft.peers());
        (0..self.atms.len())
            .map(|it| {
                let peer = peers.and_then(|peers| peers.get(it));
                Member {
                    id: node(it),
                    name: name(it),
                    heard: peer.is_some_and(|peer| {
                        now.saturating_since(peer.heard) < self.timing.election_max
                    }),
                    matched: peer.map(|peer| peer.matched),
                }
            })
            .collect()
    }

    fn propose_step(&mut self, me: usize, command: &Command) {
        let Some(process) = self.atms[me].process() else {
            return;
        };
        process.proposal += 1;
        let number = process.proposal;
        process.waits = Waits::Proposal(number);
        if self.propose(me, command, Some(Waiter::Tenure(number))) {
            let at = self.local_after(me, PROPOSAL_TIMEOUT);
            self.later(me, at, Later::ProposalTimeout(number));
        } else {
            self.proposal_answered(me, number, Err("this ATM does not lead".to_owned()));
        }
    }

    pub(crate) fn proposal_timeout(&mut self, me: usize, number: u64) {
        self.proposal_answered(me, number, Err("no quorum in time".to_owned()));
    }

    pub(crate) fn proposal_answered(
        &mut self,
        me: usize,
        number: u64,
        answer: Result<Response, String>,
    ) {
        let now = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        if process.waits == Waits::Proposal(number) {
            process.waits = Waits::Nothing;
            process.tenures.done(Done::Answered(answer), now);
            self.soon(me, 100 * US, Later::Notice);
        }
    }

    /// The engine has done what the tenure task waits for.
    pub(crate) fn engine_done(&mut self, me: usize, done: Done) {
        let now = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        if process.waits == Waits::Engine {
            process.waits = Waits::Nothing;
            process.tenures.done(done, now);
            self.soon(me, 100 * US, Later::Notice);
        }
    }

    /// Something was applied: perhaps a successor's tenure.
    pub(crate) fn tenure_applied(&mut self, me: usize) {
        self.tenure_waits(me);
    }

    /// A follower's log may have caught up.
    pub(crate) fn look_at_log(&mut self, me: usize) {
        if let Some(process) = self.atms[me].process()
            && matches!(process.waits, Waits::Log(..))
        {
            self.tenure_waits(me);
        }
    }

    fn tenure_waits(&mut self, me: usize) {
        let now = self.atms[me].now(self.now);
        let Some(process) = self.atms[me].process() else {
            return;
        };
        let done = match &process.waits {
            Waits::Nothing | Waits::Proposal(_) | Waits::Engine => None,
            Waits::Log(member, deadline) => {
                let matched = process
                    .raft
                    .peers()
                    .and_then(|peers| peers.get(place(*member)))
                    .map(|peer| peer.matched);
                let has_all = matched >= Some(process.raft.log.last());
                (has_all || now >= *deadline).then_some(Done::CaughtUp)
            }
            Waits::Tenure(epoch, deadline) => {
                let later = process
                    .machine
                    .state
                    .tenure()
                    .filter(|tenure| tenure.epoch > *epoch)
                    .map(|tenure| (tenure.epoch, tenure.name.clone()));
                (later.is_some() || now >= *deadline).then_some(Done::Successor(later))
            }
        };
        if let Some(done) = done {
            process.waits = Waits::Nothing;
            process.tenures.done(done, now);
            self.soon(me, 100 * US, Later::Notice);
        }
    }

    /// The lease of this process may have begun, or may last longer: nobody else may hold one (P1).
    pub(crate) fn spoke_up(&mut self, me: usize) {
        let Some(epoch) = self.atms[me].speaks(self.now) else {
            return;
        };
        let other = self
            .atms
            .iter()
            .filter(|other| other.me != me)
            .find_map(|other| Some((other.name(), other.speaks(self.now)?)));
        if let Some((other, held)) = other {
            self.report(Violation::TwoVoices {
                atm: name(me),
                epoch,
                other,
                held,
            });
            return;
        }
        if self.judge.began(me, epoch) {
            self.tell(|_| format!("{} speaks in epoch {epoch}", name(me)));
            self.judge_claim(me, epoch);
            // The cell wakes the engine.
            self.wake_engine(me);
        }
    }
}

/// A version of the configuration. `variant`: two bits for the table's limit, then two for each server: absent, or its weight.
pub(crate) fn config(atms: usize, servers: usize, heartbeat_ms: u64, variant: u32) -> String {
    use std::fmt::Write as _;
    let weight = |server: usize| match variant {
        0 => 1,
        // One server stays, or nobody could connect.
        _ if server == 0 => 1 + (variant >> 2 & 1),
        _ => variant >> (2 * server) & 3,
    };
    let limit = [200, 200, 60, 24][(variant & 3) as usize];
    let mut text = String::from("NetworkMask 255.255.255.0\nServices\n");
    text += "  Service web tcp:80 connect\n  Service bulk tcp:81 connect replication=async\nEndServices\nServers\n";
    let here: Vec<usize> = (0..servers).filter(|it| weight(*it) > 0).collect();
    for server in &here {
        let address = hosts::address(SERVER + server);
        let _infallible = writeln!(text, "  Server serv{} {address} tunnel", server + 1);
    }
    text += "EndServers\nServerPool Pool\n";
    for server in &here {
        let (number, weight) = (server + 1, weight(*server));
        let _infallible = writeln!(text, "  AddServer serv{number} web/{weight} bulk/{weight}");
    }
    text += "EndServerPool\nAtmPool ATMs\n";
    for me in 0..atms {
        let _infallible = writeln!(text, "  AddAtm {}", hosts::address(World::host(me)));
    }
    let _infallible = writeln!(
        text,
        "  SendArpDelay 1\n  HeartBeatDelay {heartbeat_ms}ms\n  MaxLostHeartbeats {}\n  NumConnections {limit}\n  \
         ConnectionTimeout {}\nEndAtmPool",
        super::timing::MAX_LOST,
        hosts::CONNECTION_TIMEOUT_S,
    );
    let _infallible = writeln!(
        text,
        "VirtualHost www.my.org\n  Address {}\n  AddAtmPool ATMs\n  AddServerPool Pool\nEndVirtualHost",
        hosts::VIP
    );
    text
}
