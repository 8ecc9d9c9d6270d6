//! The command line as typed. The verbs make of it what they need.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bus_core::framing::Framing;
use bus_core::{ChannelName, ChannelOptions, Codec, Headers, Pipe, Restart, WhenFull, limits};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Command, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::format::Format;
use crate::values;

/// Publish to, consume from and look after the named channels of a bus
#[derive(Debug, Parser)]
#[command(name = "bus", version, max_term_width = 100, disable_help_subcommand = true, after_help = after_help())]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The socket of the bus; otherwise BUS_SOCKET, otherwise that of this user
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Do not start a daemon where none answers (or set BUS_AUTOSTART=0)
    #[arg(long, global = true)]
    pub(crate) no_autostart: bool,
    /// Print errors only: no notes, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(visible_aliases = ["send", "pub"])]
    Publish(Box<PublishArgs>),
    #[command(visible_aliases = ["recv", "sub"])]
    Consume(Box<ConsumeArgs>),
    Run(Box<RunArgs>),
    List(ListArgs),
    Show(ShowArgs),
    Create(CreateArgs),
    /// Remove a channel, what it holds and its ends
    #[command(after_help = "Examples:\n  bus delete jobs")]
    Delete(OrderArgs),
    /// Remove what a channel holds
    #[command(after_help = "Examples:\n  bus purge jobs\n  bus purge jobs --json | jq .messages")]
    Purge(OrderArgs),
    /// Remove the message at the head of a channel
    #[command(after_help = "Examples:\n  bus consume jobs --peek -n 1    # what stands in the way?\n  bus skip jobs")]
    Skip(OrderArgs),
    /// Remove the receiver of a channel; what it has not acknowledged goes to the next
    #[command(after_help = "Examples:\n  bus kick jobs")]
    Kick(OrderArgs),
    Link(Box<LinkArgs>),
    Unlink(Box<UnlinkArgs>),
    Links(LinksArgs),
    /// Serve a bus, as `busd` does, until told to end
    #[command(after_help = "\
Examples:
  bus daemon
  bus daemon --socket /tmp/mine/bus.sock --idle-exit 10m
  bus daemon --config busd.toml --check-config")]
    Daemon(Box<bus_daemon::Args>),
    Demo(DemoArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// One producer of the demonstration
    #[command(hide = true)]
    DemoProducer(DemoProducerArgs),
    /// The consumer of the demonstration
    #[command(hide = true)]
    DemoConsumer(DemoConsumerArgs),
    /// The daemon of the demonstration
    #[command(hide = true)]
    DemoDaemon(DemoDaemonArgs),
}

/// Publish messages to a channel
///
/// Publishes each MESSAGE, or, without any, what stands in the input: one message per line, or as
/// another framing has it. Ends with 0 only when the daemon has accepted all of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus publish jobs 'resize 17.png'
  tail -f app.log | bus publish logs
  find . -print0 | bus publish files --null
  bus publish images --whole --file a.png --file b.png -H kind=png
  bus consume old --jsonl --until-empty | bus publish new --jsonl")]
pub(crate) struct PublishArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    /// What to publish, each as one message; read from the input when there is none
    #[arg(value_name = "MESSAGE", allow_negative_numbers = true, conflicts_with = "file", conflicts_with_all = FRAMINGS)]
    pub(crate) messages: Vec<OsString>,
    /// Read this file instead of the input (- is the input); may be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<PathBuf>,
    /// Set a header on every message; may be given several times
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = values::header)]
    pub(crate) headers: Vec<(String, String)>,
    /// How the payloads are encoded
    #[arg(long, default_value_t = Codec::Raw, value_parser = codec())]
    pub(crate) codec: Codec,
    /// Publish the messages given as arguments N times
    #[arg(long, value_name = "N", default_value_t = 1, requires = "messages", value_parser = values::count)]
    pub(crate) count: u64,
    /// Publish at most N messages a second
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
    /// End with 4 when no daemon answers for so long, a message finds no room, or is not accepted
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// End with 6 instead of waiting when there is no room
    #[arg(long = "try", conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// End with 5 when the channel has no receiver
    #[arg(long)]
    pub(crate) require_receiver: bool,
    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) framing: FramingArgs,
}

impl PublishArgs {
    /// The headers that every message gets.
    pub(crate) fn headers(&self) -> Headers {
        self.headers.iter().cloned().collect()
    }
}

/// Consume the messages of a channel
///
/// Writes each payload to the output, as a line or as another framing has it. A message is
/// acknowledged once it is written; whatever ends this command before, the message comes again.
/// Only one consumer at a time holds a channel.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus consume jobs
  bus consume jobs -n 1 --timeout 5s
  bus consume logs --format '%t %i %p\\n'
  bus consume images --exec 'convert - thumb-$BUS_SEQUENCE.png' --max-attempts 3 --retry-delay 2s
  bus consume jobs --peek --jsonl | jq .headers

Fields of --format:
  %p payload   %s sender id   %i sender's pid   %n sequence   %t time sent   %c channel
  %a attempt   %r redelivered   %h headers as JSON   %% a percent sign   \\n \\t \\0 \\xHH bytes

Environment of --exec:
  BUS_CHANNEL BUS_SENDER BUS_PID BUS_SEQUENCE BUS_SENT_AT BUS_ATTEMPT BUS_REDELIVERED BUS_CODEC
  and BUS_HEADER_KEY for each header, KEY in capitals with _ for all but letters and digits")]
pub(crate) struct ConsumeArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    /// Write this for each message, with %p for the payload; see below
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true, value_parser = Format::parse, conflicts_with_all = FRAMINGS)]
    pub(crate) format: Option<Format>,
    /// Run CMD by the shell for each message, with the payload as its input
    #[arg(long, value_name = "CMD", conflicts_with_all = ["format", "peek"], conflicts_with_all = FRAMINGS)]
    pub(crate) exec: Option<OsString>,
    /// Run CMD up to N times for a message, then end with 8
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exec", value_parser = values::attempts)]
    pub(crate) max_attempts: u32,
    /// How long to wait before CMD is run again
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "exec", requires = "max_attempts", value_parser = values::duration)]
    pub(crate) retry_delay: Duration,
    #[command(flatten)]
    pub(crate) until: UntilArgs,
    /// Show copies of what the channel holds, and take nothing
    #[arg(long, conflicts_with_all = ["standby", "until_empty", "until_disconnected", "timeout", "idle"])]
    pub(crate) peek: bool,
    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) framing: FramingArgs,
}

/// How a receiver takes its seat, and when it has had enough.
#[derive(Clone, Debug, Args)]
#[group(id = "until", multiple = true)]
pub(crate) struct UntilArgs {
    /// End after N messages
    #[arg(short = 'n', long = "messages", value_name = "N", value_parser = values::count)]
    pub(crate) messages: Option<u64>,
    /// End with 4 after so long, connecting included, unless the messages of -n came before
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// End when no message came for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) idle: Option<Duration>,
    /// End when the channel is empty, and no sender of an earlier daemon is to bring more
    #[arg(long, conflicts_with_all = ["idle", "until_disconnected"])]
    pub(crate) until_empty: bool,
    /// End when all senders have left and the channel is empty, once one has been there; so does who stands in line then
    #[arg(long)]
    pub(crate) until_disconnected: bool,
    /// Wait in line when the channel has a receiver
    #[arg(long)]
    pub(crate) standby: bool,
}

impl UntilArgs {
    /// Whether any of them was given.
    pub(crate) fn is_any(&self) -> bool {
        let Self { messages, timeout, idle, until_empty, until_disconnected, standby } = self;
        messages.is_some() || timeout.is_some() || idle.is_some() || *until_empty || *until_disconnected || *standby
    }
}

/// Run a command between channels
///
/// Runs CMD with its input fed from the channel of --in, or its output published to the channel of --out, or
/// both, so that any filter becomes a process of the bus. Messages are framed the same way on both sides. What
/// is not joined to a channel stays as it is. A message is acknowledged once CMD has read it whole out of its pipe;
/// what it has not read, or read in part, goes back to the channel when it ends.
///
/// Ends when CMD has ended and nobody holds its output any more, with the exit code of CMD: 128 and the signal's
/// number when it was killed, 127 when there is no such command, 126 when it cannot be run; and with a code of the
/// table of `bus --help` when a channel failed. The conditions of `bus consume` end CMD's input. Ctrl-C reaches CMD by
/// the terminal, and SIGTERM is passed on; what CMD has written when it ends by that has 3 seconds to find room.
///
/// The time of --timeout is for CMD too: when it has passed CMD's input ends, what has no room in the channel of --out
/// is not published, and the exit code is 4. A CMD that has not ended 2 seconds later is sent SIGTERM, and is killed
/// after one more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus run --in logs --out errors -- grep --line-buffered ERROR
  bus run --out ticks -- vmstat 1
  bus run --in events --until-empty -- sort -u
  bus run --in orders --out large --jsonl -- jq -c --unbuffered 'select(.headers.size == \"L\")'")]
pub(crate) struct RunArgs {
    /// Feed CMD's input from this channel
    #[arg(long = "in", value_name = "CHANNEL", required_unless_present = "output")]
    pub(crate) input: Option<ChannelName>,
    /// Publish CMD's output to this channel
    #[arg(long = "out", value_name = "CHANNEL")]
    pub(crate) output: Option<ChannelName>,
    /// Set a header on every message that is published; may be given several times
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = values::header, requires = "output")]
    pub(crate) headers: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) until: UntilArgs,
    /// What to run, with its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    pub(crate) command: Vec<OsString>,
    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) framing: FramingArgs,
}

/// What separates messages in the input or the output.
#[derive(Clone, Debug, Args)]
#[group(id = "framing", multiple = false)]
#[command(next_help_heading = "Framing")]
pub(crate) struct FramingArgs {
    /// Each line is a message (the default)
    #[arg(long)]
    lines: bool,
    /// Messages are separated by NUL
    #[arg(long)]
    null: bool,
    /// Messages are separated by STR, in which \n \r \t \0 \xHH are bytes
    #[arg(long, value_name = "STR", allow_hyphen_values = true, value_parser = clap::builder::ValueParser::new(values::delimiter))]
    delimiter: Option<Delimiter>,
    /// A 32-bit little-endian length stands before each message
    #[arg(long)]
    len32: bool,
    /// Each line is a message as a JSON object, with headers and codec
    #[arg(long)]
    pub(crate) jsonl: bool,
    /// The whole input is one message; in the output nothing stands between messages
    #[arg(long)]
    whole: bool,
}

/// The arguments of [`FramingArgs`]. Named one by one, so that an error names the one that was typed.
const FRAMINGS: [&str; 6] = ["lines", "null", "delimiter", "len32", "jsonl", "whole"];

/// A list of bytes that clap does not take for a list of arguments.
type Delimiter = Vec<u8>;

impl FramingArgs {
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self { null: true, .. } => Framing::null(),
            Self { delimiter: Some(delimiter), .. } => Framing::Delimited(delimiter.clone()),
            Self { len32: true, .. } => Framing::Length32,
            Self { whole: true, .. } => Framing::Whole,
            Self { jsonl: true, .. } => Framing::JsonLines,
            _ => Framing::lines(),
        }
    }
}

/// What separates messages in a pipe.
#[derive(Clone, Debug, Args)]
#[group(id = "pipe_framing", multiple = false)]
#[command(next_help_heading = "Framing")]
pub(crate) struct PipeFramingArgs {
    /// Each line is a message (the default)
    #[arg(long)]
    lines: bool,
    /// Messages are separated by NUL
    #[arg(long)]
    null: bool,
    /// Messages are separated by STR, in which \n \r \t \0 \xHH are bytes
    #[arg(long, value_name = "STR", allow_hyphen_values = true, value_parser = clap::builder::ValueParser::new(values::delimiter))]
    delimiter: Option<Delimiter>,
    /// A 32-bit little-endian length stands before each message
    #[arg(long)]
    len32: bool,
    /// Each line is a message as a JSON object, with headers and codec, as `bus publish --jsonl` takes it
    #[arg(long)]
    jsonl: bool,
    /// What is written until all writers have closed is one message; for a reader nothing stands between messages
    #[arg(long)]
    whole: bool,
}

impl PipeFramingArgs {
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self { null: true, .. } => Framing::null(),
            Self { delimiter: Some(delimiter), .. } => Framing::Delimited(delimiter.clone()),
            Self { len32: true, .. } => Framing::Length32,
            Self { whole: true, .. } => Framing::Whole,
            Self { jsonl: true, .. } => Framing::JsonLines,
            _ => Framing::lines(),
        }
    }
}

/// List the channels
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bus list\n  bus list --json | jq '.[] | select(.ledger.queued > 0).channel'")]
pub(crate) struct ListArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show a channel: its options, its account and its ends
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus show jobs
  bus show jobs --json | jq .ledger.queued")]
pub(crate) struct ShowArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Declare a channel, so that it stays when it is empty and nobody is there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus create jobs
  bus create latest --capacity 1 --when-full drop-oldest
  bus create images --max-message 64MiB --capacity-bytes 1GiB")]
pub(crate) struct CreateArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    /// How many messages it holds
    #[arg(long, value_name = "MESSAGES", value_parser = values::capacity)]
    capacity: Option<u64>,
    /// How many bytes it holds
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    capacity_bytes: Option<u64>,
    /// How many messages one sender may have unacknowledged
    #[arg(long, value_name = "MESSAGES", value_parser = values::window)]
    window: Option<u32>,
    /// The largest message
    #[arg(long, value_name = "SIZE", value_parser = values::message_size)]
    max_message: Option<u32>,
    /// What happens when it is full
    #[arg(long, value_name = "POLICY", default_value_t = WhenFull::Block, value_parser = when_full())]
    when_full: WhenFull,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl CreateArgs {
    pub(crate) fn options(&self) -> ChannelOptions {
        ChannelOptions {
            capacity: self.capacity,
            capacity_bytes: self.capacity_bytes,
            window: self.window,
            message_max_bytes: self.max_message,
            when_full: self.when_full,
        }
    }
}

/// An order that names a channel: what it does stands beside its verb.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Join a FIFO or a command to a channel
///
/// The daemon makes the FIFO, or runs the command by `sh -c`, as its own user, until `bus unlink` or its own
/// end. Programs that know nothing of the bus then write messages to a FIFO or their output, or read them from
/// a FIFO or their input. A channel without room makes the writer wait; messages without a reader wait in the
/// channel, and count as acknowledged when they are read out of the pipe. A command that the shell cannot run is
/// refused; of one that fails later, `bus links` tells. A command that takes messages gets the end of its input at
/// the end, then SIGTERM, then SIGKILL.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus link logs --from-command 'tail -F /var/log/app.log' --restart always
  bus link jobs --from-fifo ~/jobs.fifo && echo 'resize 17.png' > ~/jobs.fifo
  bus link jobs --to-fifo ~/work.fifo && while read -r job; do echo \"$job\"; done < ~/work.fifo
  bus link lines --to-command \"gzip > $PWD/lines.gz\"; bus unlink lines
  bus link jobs --to-command \"$PWD/worker\" --ack line    # it writes a line for each message done
  bus link jobs --to-command \"$PWD/worker\" --keep        # comes back with the daemon")]
#[command(group = ArgGroup::new("pipe").required(true).args(["from_fifo", "to_fifo", "from_command", "to_command"]))]
pub(crate) struct LinkArgs {
    /// The channel
    pub(crate) channel: ChannelName,
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,
    /// Whether a command is run again when it has ended
    #[arg(long, value_name = "WHEN", default_value = "on-failure", value_parser = restart())]
    pub(crate) restart: Restart,
    /// How often in a row a command is run again, after pauses from 100 ms to 10 s
    #[arg(long, value_name = "N", default_value_t = limits::LINK_RESTARTS)]
    pub(crate) restart_limit: u32,
    /// The command of --to-command acknowledges each message by a line on its output; it gets the next then
    #[arg(long, value_name = "HOW", value_parser = ["line"], conflicts_with_all = ["from_fifo", "to_fifo", "from_command"])]
    pub(crate) ack: Option<String>,
    /// Write the gateway into the daemon's config file too, from where it comes back with the daemon; where that
    /// fails, nothing is made
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) framing: PipeFramingArgs,
}

/// The pipe of a gateway.
#[derive(Clone, Debug, Args)]
#[group(id = "pipe_args", multiple = false)]
pub(crate) struct PipeArgs {
    /// What is written to the FIFO at PATH, which is made with mode 0600, becomes messages
    #[arg(long, value_name = "PATH")]
    from_fifo: Option<PathBuf>,
    /// Messages can be read from the FIFO at PATH
    #[arg(long, value_name = "PATH")]
    to_fifo: Option<PathBuf>,
    /// What CMD writes to its output becomes messages
    #[arg(long, value_name = "CMD")]
    from_command: Option<String>,
    /// Messages are the input of CMD
    #[arg(long, value_name = "CMD")]
    to_command: Option<String>,
}

impl PipeArgs {
    /// A path is the daemon's to open: from here it is written from `/`.
    pub(crate) fn pipe(&self) -> Result<Option<Pipe>, Failure> {
        let path = |path: &PathBuf| {
            let absolute = std::path::absolute(path);
            let absolute =
                absolute.map_err(|error| Failure::new(Exit::Usage, format!("no path of a FIFO: {error}")))?;
            absolute.into_os_string().into_string().map_err(|path| {
                Failure::new(Exit::Usage, format!("the path {} of a FIFO is not UTF-8: choose another", path.display()))
            })
        };
        Ok(match self {
            Self { from_fifo: Some(fifo), .. } => Some(Pipe::FromFifo(path(fifo)?)),
            Self { to_fifo: Some(fifo), .. } => Some(Pipe::ToFifo(path(fifo)?)),
            Self { from_command: Some(command), .. } => Some(Pipe::FromCommand(command.clone())),
            Self { to_command, .. } => to_command.clone().map(Pipe::ToCommand),
        })
    }
}

/// End a gateway, by its number, or all of a channel
///
/// One that is kept, because `bus link --keep` or an administrator wrote it into the daemon's config file, is
/// removed from there too, or it would come back with the daemon; where that fails, nothing is ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus unlink 3
  bus unlink jobs
  bus unlink jobs --from-fifo ~/jobs.fifo
  bus unlink 3 --keep       # until the daemon starts again")]
#[command(mut_arg("from_fifo", |arg| arg.help("Of a channel, the one that reads the FIFO at PATH")))]
#[command(mut_arg("to_fifo", |arg| arg.help("Of a channel, the one that writes to the FIFO at PATH")))]
#[command(mut_arg("from_command", |arg| arg.help("Of a channel, the one that runs CMD and takes its output")))]
#[command(mut_arg("to_command", |arg| arg.help("Of a channel, the one that runs CMD and feeds its input")))]
pub(crate) struct UnlinkArgs {
    /// The number of a gateway, as `bus links` shows it, or a channel
    #[arg(value_name = "LINK|CHANNEL")]
    pub(crate) which: String,
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,
    /// Leave the config file as it is: what is kept there comes back with the next daemon
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the gateways: FIFOs and commands that are joined to channels
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bus links\n  bus links --json | jq '.[] | select(.state == \"ended\").last_exit'")]
pub(crate) struct LinksArgs {
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show the bus at work: a daemon, four producers and a consumer, each a process
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bus demo\n  bus demo --messages 5000000")]
pub(crate) struct DemoArgs {
    /// How many messages each producer sends at full speed
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) messages: u64,
}

/// What a producer of the demonstration is told.
#[derive(Debug, Args)]
pub(crate) struct DemoProducerArgs {
    pub(crate) channel: ChannelName,
    #[arg(long)]
    pub(crate) producer: u32,
    #[arg(long)]
    pub(crate) messages: u64,
    /// Messages a second; at full speed without.
    #[arg(long, value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
}

/// What the consumer of the demonstration is told.
#[derive(Debug, Args)]
pub(crate) struct DemoConsumerArgs {
    pub(crate) channel: ChannelName,
    #[arg(long)]
    pub(crate) producers: u32,
    /// Of each producer.
    #[arg(long)]
    pub(crate) messages: u64,
}

/// What the daemon of the demonstration is told.
#[derive(Debug, Args)]
pub(crate) struct DemoDaemonArgs {
    /// Its socket is made there, and the folder goes when the demonstration is killed.
    pub(crate) folder: PathBuf,
}

/// Write the completions of a shell to the output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus completions bash > ~/.local/share/bash-completion/completions/bus
  bus completions zsh > ~/.zfunc/_bus")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Write a manual page to the output
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bus man | man -l -
  bus man publish | man -l -
  bus man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The page of this verb; otherwise the main page
    pub(crate) verb: Option<String>,
    /// Write all pages into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    pub(crate) dir: Option<PathBuf>,
}

/// The command line without the verbs that only this program types.
pub(crate) fn public_command() -> Command {
    let all = CommandLine::command();
    let about = all.get_about().cloned().unwrap_or_default();
    let after_help = all.get_after_help().cloned().unwrap_or_default();
    Command::new("bus")
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_help(after_help)
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned())
}

fn codec() -> impl TypedValueParser<Value = Codec> {
    PossibleValuesParser::new(Codec::ALL.map(Codec::name)).try_map(|name| name.parse::<Codec>())
}

fn restart() -> impl TypedValueParser<Value = Restart> {
    PossibleValuesParser::new(["never", "on-failure", "always"]).map(|name| match name.as_str() {
        "never" => Restart::Never,
        "always" => Restart::Always,
        _ => Restart::OnFailure,
    })
}

fn when_full() -> impl TypedValueParser<Value = WhenFull> {
    PossibleValuesParser::new(WhenFull::ALL.map(WhenFull::name)).try_map(|name| name.parse::<WhenFull>())
}

fn after_help() -> String {
    format!(
        "{}\n\nWithout --socket and BUS_SOCKET, a daemon is started for this user where none answers; it ends\n\
         after ten minutes without work. `bus completions SHELL` and `bus man` write completions and manuals.",
        Exit::table()
    )
}
