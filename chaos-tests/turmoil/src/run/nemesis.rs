//! Faults happen here, and are undone.

use std::net::IpAddr;
use std::time::Duration;

use node::simulation::{self, Disk};

use super::{LATENCY, Undo, World};
use crate::fault::Fault;

impl World<'_> {
    pub(super) fn begin(&mut self, fault: Fault) {
        self.faults += 1;
        if self.plan.verbose {
            eprintln!("{} ms: {fault:?}", self.now_ms);
        }
        let after = match fault {
            Fault::Crash { atm, down_ms } => {
                if self.atms[atm].starts_at.is_none() {
                    self.sim.crash(self.atms[atm].address);
                    self.atms[atm].host.crashed();
                }
                self.atms[atm].starts_at = Some(self.now_ms + down_ms);
                return;
            }
            Fault::Cut { a, b, for_ms } => {
                self.sim
                    .partition(self.atms[a].address, self.atms[b].address);
                for_ms
            }
            Fault::OneWay { from, to, for_ms } => {
                self.sim
                    .partition_oneway(self.atms[from].address, self.atms[to].address);
                for_ms
            }
            Fault::Isolate { atm, for_ms } => {
                for other in self.others(atm) {
                    self.sim.partition(self.atms[atm].address, other);
                }
                for_ms
            }
            Fault::Bridge { atm, for_ms } => {
                let others = self.others(atm);
                for (position, a) in others.iter().enumerate() {
                    for b in &others[position + 1..] {
                        self.sim.partition(*a, *b);
                    }
                }
                for_ms
            }
            Fault::Hold { a, b, for_ms } => {
                self.sim.hold(self.atms[a].address, self.atms[b].address);
                for_ms
            }
            Fault::Latency { max_ms, for_ms } => {
                self.sim
                    .set_max_message_latency(Duration::from_millis(max_ms));
                for_ms
            }
            Fault::Loss { permille, for_ms } => {
                self.sim.set_fail_rate(permille as f64 / 1000.0);
                for_ms
            }
            Fault::SlowDisk {
                atm,
                sync_ms,
                for_ms,
            } => {
                let slow = simulation::Fault::Slow(Duration::from_millis(sync_ms));
                self.disk(atm).set_fault(slow);
                for_ms
            }
            Fault::FullDisk { atm, for_ms } => {
                self.disk(atm).set_fault(simulation::Fault::Full);
                for_ms
            }
            Fault::BrokenDisk { atm, for_ms } => {
                self.disk(atm).set_fault(simulation::Fault::Error);
                for_ms
            }
            Fault::StalledEngine { atm, for_ms } => {
                self.atms[atm].host.cable.stall(true);
                for_ms
            }
            Fault::Transfer { to } => {
                let probes: Vec<_> = self.atms.iter().map(|atm| atm.host.probe()).collect();
                for probe in probes {
                    probe.transfer(&self.atms[to].host.name);
                }
                return;
            }
            Fault::HandOver { to } => {
                self.requests.borrow_mut().push(to);
                return;
            }
        };
        self.undo.push(Undo {
            at_ms: self.now_ms + after,
            fault,
        });
    }

    fn others(&self, atm: usize) -> Vec<IpAddr> {
        let all = self.atms.iter().enumerate();
        all.filter(|(index, _)| *index != atm)
            .map(|(_, other)| other.address)
            .collect()
    }

    fn disk(&self, atm: usize) -> &Disk {
        &self.atms[atm].host.disk
    }

    pub(super) fn undo_due(&mut self) {
        let now_ms = self.now_ms;
        let (due, later) = self
            .undo
            .drain(..)
            .partition(|undo: &Undo| undo.at_ms <= now_ms);
        self.undo = later;
        for Undo { fault, .. } in due {
            match fault {
                Fault::Cut { a, b, .. } => {
                    self.sim.repair(self.atms[a].address, self.atms[b].address)
                }
                Fault::OneWay { from, to, .. } => {
                    self.sim
                        .repair(self.atms[from].address, self.atms[to].address);
                }
                Fault::Isolate { atm, .. } => {
                    for other in self.others(atm) {
                        self.sim.repair(self.atms[atm].address, other);
                    }
                }
                Fault::Bridge { atm, .. } => {
                    let others = self.others(atm);
                    for (position, a) in others.iter().enumerate() {
                        for b in &others[position + 1..] {
                            self.sim.repair(*a, *b);
                        }
                    }
                }
                Fault::Hold { a, b, .. } => {
                    self.sim.release(self.atms[a].address, self.atms[b].address)
                }
                Fault::Latency { .. } => self.sim.set_max_message_latency(LATENCY),
                Fault::Loss { .. } => self.sim.set_fail_rate(0.0),
                Fault::SlowDisk { atm, .. }
                | Fault::FullDisk { atm, .. }
                | Fault::BrokenDisk { atm, .. } => {
                    self.disk(atm).set_fault(simulation::Fault::None);
                }
                Fault::StalledEngine { atm, .. } => self.atms[atm].host.cable.stall(false),
                Fault::Crash { .. } | Fault::Transfer { .. } | Fault::HandOver { .. } => {}
            }
        }
    }

    pub(super) fn restart_due(&mut self) {
        for index in 0..self.atms.len() {
            if self.atms[index]
                .starts_at
                .is_some_and(|at| at <= self.now_ms)
            {
                self.atms[index].starts_at = None;
                if self.plan.verbose {
                    eprintln!("{} ms: atm{} starts", self.now_ms, index + 1);
                }
                self.sim.bounce(self.atms[index].address);
            }
        }
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&mut self) {
        for undo in &mut self.undo {
            undo.at_ms = 0;
        }
        self.undo_due();
        for atm in &mut self.atms {
            atm.host.disk.set_fault(simulation::Fault::None);
            atm.host.cable.stall(false);
            if let Some(at) = &mut atm.starts_at {
                *at = self.now_ms;
            }
        }
        let addresses: Vec<_> = self.atms.iter().map(|atm| atm.address).collect();
        for (position, a) in addresses.iter().enumerate() {
            for b in &addresses[position + 1..] {
                self.sim.release(*a, *b);
                self.sim.repair(*a, *b);
            }
        }
    }
}
