//! What a gateway is held to: lines that `cat` writes to a FIFO, received by a program of the bus, beside `cat` at
//! both sides of the same FIFO.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bus_core::{Bus, ChannelName, LinkSpec, Pipe, Unlink};

use crate::options::Options;
use crate::server::{Kind, Server};
use crate::table::{self, Need, Row};

/// Lines of one length, their newline included.
struct Lines {
    bytes: usize,
    /// So many make a run of a fraction of a second.
    count: usize,
    unit: &'static str,
    need: Need,
}

const LINES: &[Lines] = &[
    Lines { bytes: 1_024, count: 400_000, unit: "GB/s", need: Need::RatioAtLeast(0.5) },
    Lines { bytes: 64, count: 3_000_000, unit: "M/s", need: Need::AtLeast(1.0) },
];

/// Measures what `options` select and prints each figure as soon as it is known.
pub(crate) fn measure_all(options: &Options) {
    for lines in LINES {
        let name = format!("FIFO to receiver, lines of {} B, floor cat", lines.bytes);
        if options.selects(&name) {
            match lines.measure(&name, options) {
                Ok(row) => table::print(&row),
                Err(error) => table::print_failed(&name, &error),
            }
        }
    }
}

impl Lines {
    fn measure(&self, name: &str, options: &Options) -> Result<Row> {
        let folder =
            tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700)).tempdir()?;
        let (file, fifo) = (folder.path().join("lines"), folder.path().join("fifo"));
        let mut row =
            Row { name: name.to_owned(), unit: self.unit, floor: Vec::new(), subject: Vec::new(), need: self.need };
        self.write(&file)?;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)?;
        for _ in 0..options.rounds {
            row.floor.push(self.rate(by_cat(&file, &fifo)?));
            row.subject.push(self.rate(self.by_gateway(&file, &fifo)?));
        }
        Ok(row)
    }

    fn write(&self, file: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        for number in 0..self.count {
            writeln!(out, "{number:>width$}", width = self.bytes - 1)?;
        }
        Ok(out.flush()?)
    }

    fn rate(&self, took: Duration) -> f64 {
        let lines_per_second = self.count as f64 / took.as_secs_f64();
        match self.unit {
            "M/s" => lines_per_second / 1e6,
            _ => lines_per_second * self.bytes as f64 / 1e9,
        }
    }

    fn by_gateway(&self, file: &Path, fifo: &Path) -> Result<Duration> {
        let server = Server::start(Kind::Daemon)?;
        let bus = Bus::connect_to(&bus_core::Address::new(&server.place().socket)?)?;
        let mut receiver = bus.raw_receiver("lines").open()?;
        let path = fifo.to_str().context("a path of letters")?.to_owned();
        let link = bus.link(LinkSpec::new(ChannelName::new("lines")?, Pipe::FromFifo(path)))?;
        let begun = Instant::now();
        let writer = cat(file, File::options().write(true).open(fifo)?)?;
        let mut received = 0;
        while received < self.count {
            let batch = receiver.next_batch(1_024, Some(Instant::now() + Duration::from_secs(10)))?;
            ensure!(batch.iter().all(|line| line.len() == self.bytes - 1), "a line is torn");
            received += batch.len();
            batch.ack();
        }
        let took = begun.elapsed();
        finish(writer)?;
        bus.unlink(Unlink::Id(link.id))?;
        Ok(took)
    }
}

fn by_cat(file: &Path, fifo: &Path) -> Result<Duration> {
    let reader = Command::new("cat").arg(fifo).stdout(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let writer = cat(file, File::options().write(true).open(fifo)?)?;
    finish(writer)?;
    finish(reader)?;
    Ok(begun.elapsed())
}

fn cat(file: &Path, to: File) -> Result<Child> {
    Ok(Command::new("cat").arg(file).stdout(to).spawn()?)
}

fn finish(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "cat ended with {status}");
    Ok(())
}
