//! [`Printer`]: writes messages to the output in the form that was asked for.

use std::io;

use bus_core::{Headers, MessageInfo};

use crate::args::ConsumeArgs;
use crate::exit::Failure;
use crate::format::Format;
use crate::framing::{FrameWriter, Framing};
use crate::jsonl;
use crate::stdio::{self, Patient};

/// Writes messages as they were asked for.
pub(crate) struct Printer {
    channel: String,
    form: Form,
    writer: FrameWriter<Patient>,
}

enum Form {
    Payload,
    Json,
    Template(Format),
}

impl Printer {
    pub(crate) fn new(args: &ConsumeArgs) -> Result<Self, Failure> {
        let output = stdio::output().map_err(|error| Failure::io("cannot write", &error))?;
        let (form, framing) = match &args.format {
            Some(format) => (Form::Template(format.clone()), Framing::Whole),
            None if args.framing.jsonl => (Form::Json, Framing::lines()),
            None => (Form::Payload, args.framing.framing()),
        };
        Ok(Self { channel: args.channel.to_string(), form, writer: FrameWriter::new(output, &framing) })
    }

    /// Writes a message; it may stay in the buffer until [`flush`](Self::flush). What is not
    /// printed of it is not asked for.
    pub(crate) fn print(
        &mut self,
        payload: &[u8],
        info: impl FnOnce() -> MessageInfo,
        headers: impl FnOnce() -> Headers,
    ) -> io::Result<()> {
        let Self { channel, form, writer } = self;
        match form {
            Form::Payload => writer.put(payload),
            Form::Json => writer.put_with(|out| jsonl::write(channel, &info(), &headers(), payload, out)),
            Form::Template(format) => {
                let headers = if format.has_headers() { headers() } else { Headers::new() };
                writer.put_with(|out| format.fill(channel, &info(), &headers, payload, out))
            }
        }
    }

    /// Writes everything out.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// How many messages were written whole since this was last asked. The rest is forgotten.
    pub(crate) fn take_written(&mut self) -> usize {
        self.writer.take_written()
    }
}
