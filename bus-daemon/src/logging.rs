//! Where log lines go: to stderr, as text for people or as JSON for machines. Payloads are never
//! logged, at any level.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

/// How much is logged.
///
/// ```
/// assert_eq!(bus_daemon::LogLevel::default().to_string(), "info");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What made the daemon stop, or lose something.
    Error,
    /// And what an administrator should look at: peers closed for their fault, limits met.
    Warn,
    /// And peers refused, removed, or gone with something under way; the daemon's coming and going.
    #[default]
    Info,
    /// And every connection, end and channel that comes and goes.
    Debug,
    /// And every frame in and out, without its payload.
    Trace,
}

impl LogLevel {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// How a log line looks.
///
/// ```
/// assert_eq!(bus_daemon::LogFormat::Json.to_string(), "json");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(self, f)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(self, f)
    }
}

/// The name that the command line knows.
fn named(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    value.to_possible_value().map_or(Ok(()), |possible| f.pad(possible.get_name()))
}

/// Starts logging for the whole process. In one that logs already, nothing changes.
pub(crate) fn start(level: LogLevel, format: LogFormat) {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Told on stderr by a macro that panics when stderr is gone, as it is after a logout.
        .log_internal_errors(false);
    // The only failure is that a logger is set: the app that embeds us has its own.
    let _ = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}
