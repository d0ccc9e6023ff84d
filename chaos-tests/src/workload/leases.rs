//! The lease as each ATM tells it in its own log: intervals in which it was allowed to speak, and epochs as it applied them.
//!
//! atmd writes an event of the target `lease` each time its deadline moves (`held`) or is given up (`ended`), for each epoch that it
//! applies (`begun`), and for each that it makes its own (`claimed`), with instants of CLOCK_BOOTTIME. The logs are read as they grow.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::history::{Lease, Op, Recorder, Tenure, monotonic_ns};
use crate::lab::{ATMD, Host, Lab};

/// The log filter with which atmd tells of its lease.
pub(crate) const LOG_FILTER: &str = "info,openraft=error,fjall=warn,lsm_tree=warn,lease=trace";

/// A line of a log that is longer is passed over: none of the lease is.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads the logs of all ATMs.
pub(crate) struct Leases {
    logs: Vec<Log>,
    recorder: Recorder,
    /// Whether instants of different ATMs can be compared.
    comparable: bool,
    /// CLOCK_BOOTTIME minus CLOCK_MONOTONIC.
    boot_offset_ns: i128,
    /// The host of each ATM, by its name in the configuration.
    hosts: BTreeMap<String, String>,
    /// Log index of each BeginEpoch.
    begun: BTreeMap<u64, u64>,
}

struct Log {
    host: String,
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
    held: Option<Lease>,
}

#[derive(Deserialize)]
struct Line {
    target: String,
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    message: String,
    now_ns: u64,
    #[serde(default)]
    until_ns: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    atm: String,
    #[serde(default)]
    applied_ns: u64,
    #[serde(default)]
    table_ns: u64,
}

impl Leases {
    /// Follows the logs of the ATMs of `lab`. Where their instants cannot be compared, only epochs are told.
    pub(crate) fn new(lab: &Lab, recorder: Recorder, comparable: bool) -> Self {
        let atms: Vec<_> = lab.hosts().into_iter().filter(Host::is_atm).collect();
        let logs = atms.iter().map(|host| Log {
            host: host.name().to_owned(),
            path: host.log(ATMD),
            read: 0,
            rest: Vec::new(),
            held: None,
        });
        let record = lab.record();
        let hosts = record.hosts.into_iter();
        Self {
            logs: logs.collect(),
            recorder,
            comparable,
            boot_offset_ns: boot_offset_ns(),
            hosts: hosts
                .filter_map(|host| Some((host.written?, host.name)))
                .collect(),
            begun: BTreeMap::new(),
        }
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// A log cannot be read.
    pub(crate) fn follow(&mut self) -> io::Result<()> {
        for at in 0..self.logs.len() {
            let Some(log) = self.logs.get_mut(at) else {
                continue;
            };
            let lines = log.lines()?;
            for line in lines {
                self.take(at, &line);
            }
        }
        Ok(())
    }

    /// Reads the rest, and records what is still open.
    ///
    /// # Errors
    /// A log cannot be read.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.follow()?;
        for log in &mut self.logs {
            if let Some(lease) = log.held.take() {
                self.recorder.fact(Op::Lease(lease));
            }
        }
        Ok(())
    }

    fn take(&mut self, at: usize, line: &Line) {
        let fields = &line.fields;
        let now_ns = self.monotonic(fields.now_ns);
        let until_ns = self.monotonic(fields.until_ns);
        let Some(log) = self.logs.get_mut(at) else {
            return;
        };
        match fields.message.as_str() {
            "held" | "ended" | "claimed" if !self.comparable => {}
            "held" => {
                match &mut log.held {
                    // Without a gap it is the same interval, extended.
                    Some(lease) if lease.epoch == fields.epoch && now_ns <= lease.until_ns => {
                        lease.until_ns = lease.until_ns.max(until_ns);
                    }
                    held => {
                        let lease = Lease {
                            atm: log.host.clone(),
                            epoch: fields.epoch,
                            from_ns: now_ns,
                            until_ns,
                            revoked_ns: None,
                        };
                        if let Some(over) = held.replace(lease) {
                            self.recorder.fact(Op::Lease(over));
                        }
                    }
                }
            }
            "ended" => {
                if let Some(lease) = log.held.take() {
                    self.recorder.fact(Op::Lease(Lease {
                        revoked_ns: Some(now_ns),
                        ..lease
                    }));
                }
            }
            "begun" => {
                self.begun.insert(fields.epoch, fields.index);
                let named = self.hosts.get(&fields.atm);
                let op = Op::Epoch {
                    epoch: fields.epoch,
                    atm: named.unwrap_or(&fields.atm).clone(),
                    index: fields.index,
                    seen_by: log.host.clone(),
                };
                let at_ns = if self.comparable {
                    now_ns
                } else {
                    monotonic_ns()
                };
                self.recorder.fact_at(at_ns, op);
            }
            "claimed" => {
                // An ATM has applied the begin of its epoch before it claims it, or the checker is told that it had not.
                let index = self.begun.get(&fields.epoch).copied().unwrap_or(0);
                let atm = log.host.clone();
                let table_ns = self.monotonic(fields.table_ns);
                let tenure = Tenure {
                    atm,
                    epoch: fields.epoch,
                    index,
                    applied_ns: self.monotonic(fields.applied_ns),
                    // The barrier behind which `table_ns` was read waits for everything that was applied.
                    table_index: index,
                    table_ns,
                    claimed_ns: Some(now_ns),
                    spoke_ns: None,
                };
                self.recorder.fact_at(now_ns, Op::Tenure(Box::new(tenure)));
            }
            _ => {}
        }
    }

    fn monotonic(&self, boot_ns: u64) -> u64 {
        u64::try_from(i128::from(boot_ns) - self.boot_offset_ns).unwrap_or(0)
    }
}

impl Log {
    fn lines(&mut self) -> io::Result<Vec<Line>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let read = file.read_to_end(&mut self.rest)?;
        self.read += u64::try_from(read).unwrap_or(u64::MAX);
        let end = self.rest.iter().rposition(|byte| *byte == b'\n');
        let rest = self.rest.split_off(end.map_or(0, |end| end + 1));
        let whole = std::mem::replace(&mut self.rest, rest);
        if self.rest.len() > LINE_BYTES_MAX {
            self.rest.clear();
        }
        let lines = whole.split(|byte| *byte == b'\n');
        // Other targets, and what the runtime says of a panic, have another form.
        let lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        Ok(lines.filter(|line| line.target == "lease").collect())
    }
}

/// CLOCK_BOOTTIME minus CLOCK_MONOTONIC: how long the machine was suspended.
fn boot_offset_ns() -> i128 {
    let boot = clock_gettime(ClockId::Boottime);
    let boot = i128::from(boot.tv_sec) * 1_000_000_000 + i128::from(boot.tv_nsec);
    boot - i128::from(monotonic_ns())
}
