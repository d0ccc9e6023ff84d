//! `atmctl explain`: what an active ATM would do with each frame of a capture. Decides nothing: the core does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dataplane::offline::{Capture, CaptureWriter, Captured, Explained, Offline, Setup, SetupError};
use dataplane::{MacAddr, Summary};

use crate::args::{Explain, Format, Global};
use crate::failure::Failure;
use crate::json::Frame;
use crate::output::{self, printable};
use crate::{hosts, offline};

pub(super) fn run(global: &Global, arguments: &Explain) -> Result<(), Failure> {
    if offline::is_stdin(&arguments.conf) && offline::is_stdin(&arguments.pcap) {
        let why = "--conf and --pcap cannot both be stdin";
        return Err(Failure::Usage(why.to_owned()));
    }
    let mut atm = atm(global, arguments)?;
    let input = open(&arguments.pcap)?;
    let unreadable = |source| Failure::Capture {
        path: arguments.pcap.clone(),
        source,
    };
    let mut capture = Capture::new(input).map_err(unreadable)?;
    let mut sent = Sent::create(arguments.write.as_deref(), &arguments.pcap)?;
    let mut report = Report::new(global.output);
    let mut bytes = Vec::new();
    // What could be explained is said before what could not be read.
    let end = loop {
        let captured = match capture.next(&mut bytes) {
            Ok(Some(captured)) => captured,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        // The core may change the bytes.
        let summary = Summary::of(&bytes);
        report.heard(&atm, &summary);
        sent.begin(&capture)?;
        let explained = atm
            .frame(captured, &mut bytes, &mut |time, frame| {
                sent.frame(time, frame)
            })
            .map_err(|source| sent.failed(source))?;
        if !report.frame(captured, &summary, &explained)? {
            break Ok(());
        }
    };
    sent.begin(&capture)?;
    sent.finish()?;
    report.finish(&atm, sent.count)?;
    end.map_err(unreadable)
}

/// The ATM that the options describe.
fn atm(global: &Global, arguments: &Explain) -> Result<Offline, Failure> {
    let known = match &arguments.hosts {
        Some(path) => hosts::read(path)?,
        None => BTreeMap::new(),
    };
    let (checked, hosts) = offline::check_with_hosts(&arguments.conf, &known)?;
    output::say_verbatim(&checked.render(global.color.on_stderr()));
    if checked.has_errors() {
        return Err(Failure::Invalid { file: checked.name });
    }
    let mut neighbours = BTreeMap::new();
    for (ip, mac) in &arguments.neigh {
        if neighbours
            .insert(*ip, *mac)
            .is_some_and(|other| other != *mac)
        {
            return Err(Failure::Usage(format!(
                "--neigh: {ip} has two Ethernet addresses"
            )));
        }
    }
    let setup = Setup {
        source: checked.source,
        hosts,
        own: arguments.own.clone(),
        neighbours,
        mtu: Some(arguments.mtu),
        vlan: arguments.vlan,
    };
    Offline::new(setup).map_err(|error| match error {
        SetupError::Refused(refusal) => Failure::Refused(refusal.to_string()),
        SetupError::NoOwn | SetupError::TwoOwn(..) | SetupError::OwnIsVirtual(_) => {
            Failure::Usage(format!("--own: {error}"))
        }
    })
}

fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if offline::is_stdin(path) {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|source| Failure::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(Box::new(BufReader::new(file)))
}

/// The frames that would be sent.
struct Sent {
    /// Where they are kept; nowhere without `--write`.
    path: Option<PathBuf>,
    file: Option<File>,
    writer: Option<CaptureWriter<BufWriter<File>>>,
    count: u64,
}

impl Sent {
    fn create(path: Option<&Path>, input: &Path) -> Result<Self, Failure> {
        let mut sent = Self {
            path: path.map(Path::to_owned),
            file: None,
            writer: None,
            count: 0,
        };
        if let Some(path) = path {
            if is_same(path, input) {
                let why = "--write would overwrite the capture that is read";
                return Err(Failure::Usage(why.to_owned()));
            }
            sent.file = Some(File::create(path).map_err(|source| sent.failed(source))?);
        }
        Ok(sent)
    }

    /// Begins the file, with the resolution of `capture`, unless that is done.
    fn begin(&mut self, capture: &Capture<Box<dyn Read>>) -> Result<(), Failure> {
        if let Some(file) = self.file.take() {
            let writer = CaptureWriter::new(BufWriter::new(file), capture.resolution());
            self.writer = Some(writer.map_err(|source| self.failed(source))?);
        }
        Ok(())
    }

    fn frame(&mut self, time: u64, frame: &[u8]) -> io::Result<()> {
        self.count += 1;
        match &mut self.writer {
            Some(writer) => writer.frame(time, frame),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match &mut self.writer {
            Some(writer) => writer.flush().map_err(|source| self.failed(source)),
            None => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> Failure {
        let path = self.path.clone().unwrap_or_default();
        Failure::Write { path, source }
    }
}

/// Whether two paths name one file that is there.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match (identity(one), identity(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// What is said: a line for each frame, then the sums.
struct Report {
    format: Format,
    out: BufWriter<io::StdoutLock<'static>>,
    first: Option<u64>,
    /// Frames by name of their verdict.
    totals: BTreeMap<&'static str, u64>,
    emitted: u64,
    /// A frame was sent to the ATM.
    addressed: bool,
    /// The first Ethernet address other than the ATM's that a frame for a VIP was sent to.
    elsewhere: Option<MacAddr>,
}

impl Report {
    fn new(format: Format) -> Self {
        Self {
            format,
            out: BufWriter::new(io::stdout().lock()),
            first: None,
            totals: BTreeMap::new(),
            emitted: 0,
            addressed: false,
            elsewhere: None,
        }
    }

    /// Notes whom a frame was sent to.
    fn heard(&mut self, atm: &Offline, summary: &Summary) {
        let Some(mac) = summary.link_destination.filter(|mac| !mac.is_group()) else {
            return;
        };
        if mac == atm.mac() {
            self.addressed = true;
        } else if summary
            .destination
            .is_some_and(|address| atm.is_virtual(address))
        {
            self.elsewhere.get_or_insert(mac);
        }
    }

    /// Says what became of a frame; `false`: nobody listens any more.
    fn frame(
        &mut self,
        captured: Captured,
        summary: &Summary,
        explained: &Explained<'_>,
    ) -> Result<bool, Failure> {
        let outcome = explained.outcome;
        let (verdict, reason) = (outcome.name(), outcome.why());
        *self.totals.entry(verdict).or_default() += 1;
        self.emitted += explained.emitted;
        let index = captured.index;
        let line = match self.format {
            Format::Json => {
                let frame = Frame {
                    index,
                    verdict,
                    server: explained.server,
                    reason,
                    emitted: explained.emitted,
                };
                serde_json::to_string(&frame)
                    .map_err(|error| Failure::Output(io::Error::other(error)))?
            }
            Format::Table => {
                let heading = self.first.is_none();
                let time = seconds(captured.time, *self.first.get_or_insert(captured.time));
                let server = printable(explained.server.unwrap_or("-"));
                let row = row(
                    &index.to_string(),
                    &time,
                    &summary.text,
                    verdict,
                    &server,
                    reason,
                );
                if heading {
                    let head = row_of_titles();
                    format!("{head}\n{row}")
                } else {
                    row
                }
            }
        };
        self.line(&line)
    }

    fn finish(&mut self, atm: &Offline, sent: u64) -> Result<(), Failure> {
        if self.format == Format::Table {
            let frames: u64 = self.totals.values().sum();
            let mut text = "\nFRAMES  VERDICT".to_owned();
            for (name, count) in &self.totals {
                text.push_str(&format!("\n{count:>6}  {name}"));
            }
            text.push_str(&format!("\n{frames:>6}  in all\n{sent:>6}  sent"));
            if sent > self.emitted {
                let own = sent - self.emitted;
                text.push_str(&format!(", {own} of them on no frame's account"));
            }
            self.line(&text)?;
        }
        self.written(Write::flush)?;
        if let Some(elsewhere) = self.elsewhere.filter(|_| !self.addressed) {
            let mac = atm.mac();
            output::say(format_args!(
                "note: no frame was sent to the ATM ({mac}), but frames for a virtual address were sent to {elsewhere}: \
                 if that is the ATM of the capture, say so with --neigh OWN={elsewhere}"
            ));
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<bool, Failure> {
        self.written(|out| writeln!(out, "{line}"))
    }

    fn written(
        &mut self,
        write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
    ) -> Result<bool, Failure> {
        match write(&mut self.out) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::Output(error)),
        }
    }
}

fn row_of_titles() -> String {
    row("FRAME", "TIME", "WHAT", "VERDICT", "SERVER", "WHY")
}

/// Columns of fixed width, since a capture may be longer than memory; a long cell pushes the rest aside.
fn row(index: &str, time: &str, what: &str, verdict: &str, server: &str, why: &str) -> String {
    format!("{index:>6}  {time:>12}  {what:<56}  {verdict:<20}  {server:<12}  {why}")
}

/// Seconds since the first frame, to the microsecond.
fn seconds(time: u64, first: u64) -> String {
    let sign = if time < first { "-" } else { "" };
    let micros = time.abs_diff(first) / 1000;
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_from_the_first_frame_on() {
        for (time, text) in [
            (10_000_000_000, "0.000000"),
            (11_000_001_999, "1.000001"),
            (9_500_000_000, "-0.500000"),
        ] {
            assert_eq!(seconds(time, 10_000_000_000), text);
        }
    }
}
