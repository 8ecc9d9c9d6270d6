//! [`Printer`]: writes messages to the output in the form that was asked for.

use std::io::{self, Write};

use bus_core::{ChannelName, Headers, MessageInfo};

use crate::args::{ConsumeArgs, FramingArgs};
use crate::exit::Failure;
use crate::format::Format;
use crate::stdio::{self, Patient};
use bus_core::framing::{FrameWriter, Framing, jsonl};

/// Writes messages as they were asked for.
pub(crate) struct Printer<W> {
    channel: String,
    form: Form,
    writer: FrameWriter<W>,
}

enum Form {
    Payload,
    Json,
    Template(Format),
}

impl Printer<Patient> {
    /// To the standard output.
    pub(crate) fn new(args: &ConsumeArgs) -> Result<Self, Failure> {
        let output = stdio::output().map_err(|error| Failure::io("cannot write the output", &error))?;
        Ok(match &args.format {
            Some(format) => Self {
                channel: args.channel.to_string(),
                form: Form::Template(format.clone()),
                writer: FrameWriter::new(output, &Framing::Whole),
            },
            None => Self::framed(output, &args.channel, &args.framing),
        })
    }
}

impl<W: Write> Printer<W> {
    /// To `output`, one behind the other.
    pub(crate) fn framed(output: W, channel: &ChannelName, framing: &FramingArgs) -> Self {
        let (form, framing) = match framing.jsonl {
            true => (Form::Json, Framing::JsonLines),
            false => (Form::Payload, framing.framing()),
        };
        Self { channel: channel.to_string(), form, writer: FrameWriter::new(output, &framing) }
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

    /// How many bytes all messages took in the output until now, those in the buffer included.
    pub(crate) fn printed_bytes(&self) -> u64 {
        self.writer.put_bytes()
    }

    /// What is written to, to be changed while nothing is in the buffer.
    pub(crate) fn output_mut(&mut self) -> &mut W {
        self.writer.output_mut()
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
