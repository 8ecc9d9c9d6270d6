//! How many instructions a message costs in either ring, counted by valgrind's callgrind.
//!
//! One process writes messages and reads them, with the clock left out. Two runs that differ only in how
//! many there are differ by those messages.

use std::hint::black_box;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::ends::{Kind, RingReader, RingWriter};
use super::files::{Files, Size};
use super::{bare, own};

/// Writes messages to a ring of its own, and then reads them if it is asked to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Instructions {
    kind: Kind,
    messages: u32,
    reads: bool,
}

/// As large as those of the smallest flow, in bytes.
const PAYLOAD_BYTES: usize = 64;

const FEW_MESSAGES: u32 = 1_000;
const MANY_MESSAGES: u32 = 5_000;

/// Room for all of them, so that a message costs what it costs while there is room.
const SIZE: Size = Size { payload_bytes: PAYLOAD_BYTES, ring_bytes: MANY_MESSAGES as usize * 4 * PAYLOAD_BYTES };

impl Instructions {
    pub(crate) fn play(self) -> Result<()> {
        let files = Files::create(SIZE)?;
        let (here, there) = (files.writing_maps()?, files.reading_maps()?);
        match self.kind {
            Kind::Bare => self.run(bare::Writer::new(here, SIZE), bare::Reader::new(there, SIZE)),
            Kind::Own => self.run(own::Writer::new(here, SIZE), own::Reader::new(there, SIZE)),
        }
    }

    fn run(self, mut writer: impl RingWriter, mut reader: impl RingReader) -> Result<()> {
        let mut payload = [7; PAYLOAD_BYTES];
        for stamp_ns in 0..self.messages {
            ensure!(writer.put(stamp_ns.into(), black_box(&payload))?, "the ring is full");
        }
        for stamp_ns in (0..self.messages).take_while(|_| self.reads) {
            reader.look()?;
            ensure!(reader.stamp()? == Some(stamp_ns.into()), "message {stamp_ns} is wrong");
            reader.take(black_box(&mut payload))?;
        }
        Ok(())
    }

    /// How many instructions the process takes from its start to its end.
    fn count(self) -> Result<f64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
        command.arg("--role").arg(serde_json::to_string(&crate::role::Role::Instructions(self))?);
        let output = command.stdin(Stdio::null()).output().context("valgrind not found")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "valgrind ended with {}: {said}", output.status);
        let collected = said.lines().find_map(|line| line.split_once("Collected : "));
        let (_, count) = collected.context("callgrind has counted nothing")?;
        Ok(count.trim().parse()?)
    }
}

/// Instructions per message.
pub(crate) struct PerMessage {
    pub(crate) writing: f64,
    pub(crate) reading: f64,
}

pub(crate) fn per_message(kind: Kind) -> Result<PerMessage> {
    let of = |reads| -> Result<f64> {
        let few = Instructions { kind, messages: FEW_MESSAGES, reads }.count()?;
        let many = Instructions { kind, messages: MANY_MESSAGES, reads }.count()?;
        Ok((many - few) / f64::from(MANY_MESSAGES - FEW_MESSAGES))
    };
    let writing = of(false)?;
    Ok(PerMessage { writing, reading: of(true)? - writing })
}
