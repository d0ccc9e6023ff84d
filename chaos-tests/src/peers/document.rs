//! What a campaign tells people: the table on the terminal, the page in docs, the same as JSON. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use super::contender::Contender;
use super::results::{Campaign, Failure};
use super::strike::Strike;
use super::summary::{Cell, Spread, Survival, Target};

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seed and machine.
    pub campaign: Campaign,
    /// Per contender and fault.
    pub cells: Vec<Cell>,
    /// This product's goals.
    pub targets: Vec<Target>,
    /// Contenders that were not measured, and why.
    pub skipped: Vec<(Contender, String)>,
    /// Attempts that proved nothing, and rigs that could not be mended.
    pub failures: Vec<Failure>,
}

impl Report {
    /// The table for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for strike in Strike::ALL {
            let cells: Vec<_> = self.of(strike).collect();
            if cells.is_empty() {
                continue;
            }
            let rows = cells.iter().map(|cell| row(cell).to_vec());
            let _ = writeln!(text, "{}", strike.label());
            text += &aligned(std::iter::once(HEAD.map(ToOwned::to_owned).to_vec()).chain(rows));
            for line in cells.iter().filter_map(|cell| steps(cell)) {
                let _ = writeln!(text, "  {line}");
            }
            text.push('\n');
        }
        text += "outage: ms without an ICMP echo answer of the VIP, min / median / p99; two voices: trials with any; ms at most, or to the end of what was watched\n\n";
        for target in &self.targets {
            let _ = writeln!(
                text,
                "{:<8} {}: {}",
                held(target),
                target.goal,
                target.measured
            );
        }
        for (contender, reason) in &self.skipped {
            let _ = writeln!(text, "skipped  {}: {reason}", contender.label());
        }
        if !self.failures.is_empty() {
            let _ = writeln!(text, "{}", self.void());
        }
        text
    }

    /// `docs/FAILOVER.md`; the chart stands beside it as `chart`.
    #[must_use]
    pub fn page(&self, chart: &str) -> String {
        let mut text = String::from(INTRODUCTION);
        let _ = write!(
            text,
            "\n![Outage and two voices, each trial a dot]({chart})\n\n## Result\n\nMeasured on {}, seed {}. ",
            self.campaign.machine, self.campaign.seed
        );
        if !self.campaign.versions.is_empty() {
            let _ = write!(text, "The others: {}. ", self.campaign.versions.join(", "));
        }
        text += "Times in ms; outage as min / median / p99. With fewer than 100 trials p99 is the worst.\n";
        for strike in Strike::ALL {
            let cells: Vec<_> = self.of(strike).collect();
            if cells.is_empty() {
                continue;
            }
            let _ = write!(
                text,
                "\n### {}\n\n| {} |\n|",
                capital(strike.label()),
                HEAD.join(" | ")
            );
            text += &"---|".repeat(HEAD.len());
            text.push('\n');
            for cell in &cells {
                let _ = writeln!(text, "| {} |", row(cell).join(" | "));
            }
            for line in cells.iter().filter_map(|cell| steps(cell)) {
                let _ = writeln!(text, "\n{line}.");
            }
        }
        text += "\n## Goals of this product\n\n| goal | measured | |\n|---|---|---|\n";
        for target in &self.targets {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                target.goal,
                target.measured,
                held(target)
            );
        }
        for (contender, reason) in &self.skipped {
            let _ = writeln!(text, "\nNot measured: {} ({reason}).", contender.label());
        }
        if !self.failures.is_empty() {
            let _ = writeln!(text, "\n{}", capital(&self.void()));
        }
        text + METHOD
    }

    fn of(&self, strike: Strike) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |c| c.strike == strike)
    }

    /// How much went wrong, by contender.
    fn void(&self) -> String {
        let count = |contender: &Contender| {
            self.failures
                .iter()
                .filter(|f| f.contender == *contender)
                .count()
        };
        let parts: Vec<_> = Contender::ALL
            .iter()
            .map(|c| (c, count(c)))
            .filter(|(_, n)| *n > 0)
            .map(|(c, n)| format!("{} {n}", c.label()))
            .collect();
        format!(
            "what went wrong on the way and was done again (failed attempts, routers that could not be mended): {}",
            parts.join(", ")
        )
    }
}

const HEAD: [&str; 9] = [
    "router",
    "trials",
    "outage",
    "after its end",
    "two voices: trials",
    "ms at most",
    "alive, client talks",
    "alive, server talks",
    "stall",
];

fn row(cell: &Cell) -> [String; 9] {
    let survival =
        |s: Option<Survival>| s.map_or_else(|| "-".to_owned(), |s| format!("{} %", s.percent()));
    let stall = |s: Option<Survival>| {
        s.and_then(|s| s.stall_ms)
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"))
    };
    let lost = match cell.never_restored {
        0 => String::new(),
        n => format!(", {n} never back"),
    };
    [
        cell.contender.label().to_owned(),
        cell.trials.to_string(),
        format!("{}{lost}", spread(cell.outage_ms)),
        cell.relief_outage_ms.map_or_else(|| "-".to_owned(), spread),
        format!("{} of {}", cell.two_voices_trials, cell.trials),
        match cell.two_voices_to_the_end {
            0 => format!("{:.0}", cell.two_voices_ms.max),
            n if n == cell.two_voices_trials => "to the end".to_owned(),
            n => format!("{:.0}, {n} to the end", cell.two_voices_ms.max),
        },
        survival(cell.client_talks),
        survival(cell.server_talks),
        match (stall(cell.client_talks), stall(cell.server_talks)) {
            (client, server) if client == server => client,
            (client, server) => format!("{client}, {server}"),
        },
    ]
}

/// Where the time of this product's takeover goes.
fn steps(cell: &Cell) -> Option<String> {
    let took = cell.takeover?;
    Some(format!(
        "{}, steps at the median, ms after the fault: elected {:.0}, tenure committed {:.0}, table {:.0}, lease {:.0}, announced {:.0}",
        cell.contender.label(),
        took.elected_ms,
        took.begun_ms,
        took.table_ms,
        took.claimed_ms,
        took.announced_ms
    ))
}

fn spread(spread: Spread) -> String {
    let Spread {
        min, median, p99, ..
    } = spread;
    format!("{min:.0} / {median:.0} / {p99:.0}")
}

fn held(target: &Target) -> &'static str {
    match target.reached {
        Some(true) => "reached",
        Some(false) => "MISSED",
        None => "-",
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

fn aligned(rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        rows.iter()
            .filter_map(|r: &Vec<String>| r.get(n))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(c, w)| format!("{c:<w$}"))
            .collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
    text
}

const INTRODUCTION: &str = "# Takeover beside other routers

How long a virtual address is out of reach when its router fails, whether two routers ever speak for it, and what becomes of
open connections: this product, keepalived, keepalived with conntrackd, and ucarp. All of them in the same lab, in the same
run, trial by trial in turn, seen by the same client. `make bench-failover` measures it and writes this page.
";

const METHOD: &str = "
## What was measured, and for whom

Each router is a network namespace on one bridge, with three servers and a client. This product runs as three ATMs: *heartbeat
100 ms, 2 lost* is HeartBeatDelay 100ms and MaxLostHeartbeats 2. The others run as the usual pair: priorities 200 and 190, the first router master, default
preemption.

- **The VIP.** For this product it is spoken for by atmd, never by a kernel. For keepalived and ucarp it is an address of the router's kernel.
- **Outage.** The client asks the VIP by ICMP echo every millisecond, through its own neighbour table. The outage is the longest time from the
  first question that got no answer within 100 ms to the next answer. For this product the active ATM answers, for the others the router's kernel: in all
  cases \"the VIP can be reached through a router\". 0 means that every question was answered. *After its end*: the same after SIGCONT or the heal.
- **Two voices.** Every 2 ms somebody asks by ARP who has the VIP; a passive observer hears every frame of every router. A router speaks from one of
  its frames in the VIP's name to the next as long as they are at most 25 ms apart; two voices last while such times of two routers overlap. A takeover
  (all frames of the old router before all frames of the new one) is none. Where there are still two half a second after the second one came, it says *to the end*: of the fault, or of what was watched.
  For the others ARP counts. For this product each forwarded packet
  counts as well, and a trial also counts as one with two voices if a single frame breaks the stricter rules of its own tests.
- **Open connections.** 50 where the client sends a numbered line every 50 ms, 50 where the server does; alive are those on which lines go on
  after the fault, none lost, repeated or out of order. For this product they go through the tunnel to the servers, for
  keepalived + conntrackd through nft DNAT (servers in turn) with `nf_conntrack_tcp_loose=0` and invalid packets dropped in prerouting at -90. Where
  two routers spoke, each of them saw a part of a connection, and the window tracking of the one that goes on may drop the rest for ever. Plain
  keepalived and ucarp forward nothing here: a connection ends in the router's kernel, and with it. *Stall*: the longest silence of a surviving
  connection, median over connections, then over trials (client talks, server talks); 50 of it is the interval of the lines, and the rest is the outage and the
  sender's back-off (0.2, 0.6, 1.4, 3.0 s).
- **Faults**, always of the router that speaks at that moment, at a random instant of its rhythm. *Crash*: no frame passes its link, the carrier stays, and `kill -9`
  of everything on it. *Link down*: the carrier goes. *kill -9* and *SIGSTOP*: of every process of the router's software at once (keepalived: parent and
  VRRP child; if only one of them dies, keepalived itself starts it again or gives the VIP up). Its kernel lives on: what the kernel does in the VIP's name
  it goes on doing, which is why an outage of 0 there comes with two voices. *Partition*: no frame passes between the routers, clients and servers see all.
- keepalived at 0.01 s has `vrrp_rt_priority` and `vrrp_no_swap`, as the fast profile of this product has real-time priority and locked memory.

Everything random comes from the seed: the order of contenders and faults in each round, and the instant of each fault.

## Again

    make bench-failover                                      all of it: 20 trials of each, about an hour and a quarter
    make bench-failover BENCH='--trials 5 --time-limit 30m'
    target/debug/chaos bench-failover --contenders ours-100ms,keepalived-100ms --faults crash --trials 20

Results are added to `target/bench-failover/trials.jsonl` as they come; an interrupted campaign goes on where it was (`--fresh` begins anew). The page is
written by `--write-docs`.

## Baselines

Measured earlier in the same kind of lab, for comparison (ms, min / median / max): keepalived after a host crash at 1 s 2342 / 2869 / 3292, at 0.1 s 242 / 285 / 326,
at 0.01 s 30 / 47 / 71 (20 trials each); ucarp 2392 / 3686 / 3936 (10). After kill -9, SIGSTOP and partition all of them had no outage and two routers that
answered, to the end. Of 100 open connections survived: nft DNAT without synchronisation 32 to 34, hashed DNAT 99 to 100 when clients talk and 0 when servers
talk, conntrackd as installed 0 to 100, tuned 100 with a stall of 0.45 s at 0.1 s.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::summary::{cells, targets, tests::trial};

    #[test]
    fn every_cell_is_a_row_and_every_goal_a_line() {
        let trials = [
            trial(Contender::Ours100Ms, Strike::Crash, 255.0),
            trial(Contender::Keepalived100Ms, Strike::Crash, 290.0),
            trial(Contender::Ucarp1S, Strike::Kill, 0.0),
        ];
        let cells = cells(&trials);
        let report = Report {
            campaign: Campaign {
                seed: 7,
                machine: "here".to_owned(),
                versions: vec!["keepalived 2".to_owned()],
            },
            targets: targets(&cells),
            cells,
            skipped: vec![(Contender::OursFast, "no profile".to_owned())],
            failures: Vec::new(),
        };
        let table = report.table();
        for part in [
            "host crash",
            "255 / 255 / 255",
            "290 / 290 / 290",
            "reached  heartbeat 100 ms",
            "skipped  atmd, fast profile: no profile",
        ] {
            assert!(table.contains(part), "{part} in {table}");
        }
        let page = report.page("failover.svg");
        assert!(
            page.contains("| ucarp, advert 1 s | 1 | 0 / 0 / 0 | - | 0 of 1 | 0 | - | - | - |"),
            "{page}"
        );
        assert!(page.contains("![Outage and two voices, each trial a dot](failover.svg)"));
        assert!(page.contains("seed 7"));
    }
}
