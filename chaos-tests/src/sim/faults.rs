//! Faults strike.

use model::command::{Command, Control};

use super::atm::name;
use super::clock::{MS, True};
use super::event::Event;
use super::network::{ALL, ATM, Cut, Hosts, bit};
use super::schedule::{Fault, Who, Wires};
use super::tenure::config;
use super::world::World;

impl World {
    pub(crate) fn strike(&mut self, place: usize) {
        if self.healed.is_some() {
            return;
        }
        let Some(planned) = self.schedule.faults.get(place) else {
            return;
        };
        let fault = planned.fault.clone();
        self.judge.tally.faults += 1;
        self.tell(|_| format!("FAULT {fault:?}"));
        match fault {
            Fault::Crash { who, ms } => {
                let me = self.whom(who);
                self.crash(me, ms);
            }
            Fault::PowerCut { spared, ms } => {
                let spared = spared.map(|who| self.whom(who));
                for me in (0..self.atms.len()).filter(|me| Some(*me) != spared) {
                    let ms = ms + self.chance.below(50);
                    self.crash(me, ms);
                }
            }
            Fault::Pause { who, ms, in_batch } => self.pause(who, ms, in_batch),
            Fault::Isolate { who, from, ms } => {
                let me = bit(ATM + self.whom(who));
                self.cut(me, ALL, from, ms);
                self.cut(ALL, me, from, ms);
            }
            Fault::OneWay {
                who,
                outgoing,
                wires,
                ms,
            } => {
                let me = bit(ATM + self.whom(who));
                let (from, to) = if outgoing { (me, ALL) } else { (ALL, me) };
                self.cut(from, to, wires, ms);
            }
            Fault::Split { half, bridge, ms } => {
                let all = (1 << self.atms.len()) - 1;
                let bridge = bridge.map_or(0, |who| bit(ATM + self.whom(who)));
                let (one, other) = (half & all & !bridge, !half & all & !bridge);
                self.cut(one, other, Wires::All, ms);
                self.cut(other, one, Wires::All, ms);
            }
            Fault::Storm { weather, ms } => self.network.storm(weather, self.now + ms * MS),
            Fault::Drift { who } => {
                let me = self.whom(who);
                self.atms[me].clock.drift(&mut self.chance, self.now);
            }
            Fault::Step { who, ms } => {
                let me = self.whom(who);
                self.atms[me].clock.step_wall(ms);
            }
            Fault::SlowDisk { who, each_ms, ms } => {
                let me = self.whom(who);
                self.atms[me].slow = (self.now + ms * MS, each_ms * MS);
            }
            Fault::FullDisk { who, ms } => {
                let me = self.whom(who);
                self.atms[me].full_until = self.now + ms * MS;
            }
            Fault::Transfer { to } => {
                let me = self.whom(Who::Leader);
                self.if_running(me, |world| {
                    if let Some(process) = world.atms[me].process() {
                        process.raft.transfer(to % world.schedule.atms);
                    }
                    world.after_raft(me);
                });
            }
            Fault::Coup { who } => {
                let me = self.whom(who);
                let local = self.atms[me].now(self.now);
                self.if_running(me, |world| {
                    if let Some(process) = world.atms[me].process.as_deref_mut() {
                        process.raft.stand(true, &mut world.chance, local);
                    }
                    world.after_raft(me);
                });
            }
            Fault::HandOver { to } => {
                let me = self.whom(Who::Active);
                let to = to.map(|to| to % self.atms.len());
                self.if_running(me, |world| world.hand_over(me, to));
            }
            Fault::ServerDown { server, ms } => self.server_down(server, ms),
            Fault::Health { server, healthy } => {
                let server = server % self.servers.len();
                self.operate(|world, me| {
                    let process = world.atms[me].process.as_ref()?;
                    let wanted = format!("serv{}", server + 1);
                    let (id, _) = process
                        .machine
                        .state
                        .servers()
                        .iter()
                        .find(|(_, entry)| entry.name == wanted)?;
                    Some(Control::Health {
                        server: *id,
                        service: "web".to_owned(),
                        healthy,
                    })
                });
            }
            Fault::Config { variant } => self.operate(|world, me| {
                let (atms, servers) = (world.atms.len(), world.servers.len());
                Some(Control::ApplyConfig {
                    source: config(atms, servers, world.schedule.heartbeat_ms, variant),
                    hosts: std::collections::BTreeMap::new(),
                    expected: None,
                    by: name(me),
                })
            }),
        }
    }

    /// Everything is well again, and stays so.
    pub(crate) fn heal(&mut self) {
        self.healed = Some(self.now);
        self.tell(|_| "everything heals".to_owned());
        self.network.heal();
        for me in 0..self.atms.len() {
            let atm = &mut self.atms[me];
            atm.slow = (0, 0);
            atm.full_until = 0;
            atm.stop_in_batch = None;
            // What waits for the end of a pause comes then, and it is not far.
            atm.paused_until = atm.paused_until.min(self.now);
            self.start(me);
        }
        for server in &mut self.servers {
            server.down_until = server.down_until.min(self.now);
        }
    }

    /// The checks find every server well.
    pub(crate) fn mend_health(&mut self) {
        const SERVICE: &str = "web";
        self.operate(|world, me| {
            let state = &world.atms[me].process.as_ref()?.machine.state;
            let ill = state
                .servers()
                .keys()
                .find(|id| !state.is_healthy(**id, SERVICE))?;
            Some(Control::Health {
                server: *ill,
                service: SERVICE.to_owned(),
                healthy: true,
            })
        });
    }

    fn crash(&mut self, me: usize, ms: u64) {
        self.kill(me);
        let at = self.now + ms * MS;
        self.queue.put(at, Event::Start(me));
    }

    fn pause(&mut self, who: Who, ms: u64, in_batch: bool) {
        let me = self.whom(who);
        let until = self.now + ms * MS;
        let atm = &mut self.atms[me];
        if in_batch {
            atm.stop_in_batch = Some(ms);
            return;
        }
        atm.paused_until = atm.paused_until.max(until);
        self.queue.put(until, Event::Resume(me));
        self.tell(|_| format!("{} is stopped", name(me)));
    }

    fn cut(&mut self, from: Hosts, to: Hosts, wires: Wires, ms: u64) {
        let (peers, frames) = match wires {
            Wires::Peers => (true, false),
            Wires::Frames => (false, true),
            Wires::All => (true, true),
        };
        let until: True = self.now + ms * MS;
        self.network.cuts.push(Cut {
            until,
            from,
            to,
            peers,
            frames,
        });
    }

    /// A server loses its connections: nothing of them is promised any more.
    fn server_down(&mut self, server: usize, ms: u64) {
        let server = server % self.servers.len();
        self.servers[server].down_until = self.now + ms * MS;
        self.servers[server].connections.clear();
        for client in &mut self.clients {
            for connection in client.connections.values_mut() {
                if connection.server == Some(server) {
                    connection.protected = false;
                }
            }
        }
        let at = self.now + ms * MS;
        self.queue.put(at, Event::ServerUp(server));
    }

    fn operate(&mut self, command: impl Fn(&Self, usize) -> Option<Control>) {
        let me = self.whom(Who::Leader);
        self.if_running(me, |world| {
            if let Some(control) = command(world, me) {
                world.propose(me, &Command::Control(control), None);
            }
        });
    }

    fn if_running(&mut self, me: usize, act: impl FnOnce(&mut Self)) {
        if self.atms[me].process.is_some() && self.atms[me].paused_until <= self.now {
            act(self);
        }
    }
}
