//! [`Args`]: the command line of `busd` and of `bus daemon`, as typed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bus_core::Address;

use crate::config::{Config, parse_duration};
use crate::logging::{LogFormat, LogLevel};

/// Serves a bus at a local socket until it is told to end.
///
/// ```
/// use clap::Parser;
///
/// #[derive(clap::Parser)]
/// struct Cli {
///     #[command(flatten)]
///     args: bus_daemon::Args,
/// }
///
/// let cli = Cli::parse_from(["busd", "--idle-exit", "10m"]);
/// assert_eq!(cli.args.idle_exit, Some(std::time::Duration::from_secs(600)));
/// ```
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Path of the socket [env: BUS_SOCKET] [default: bus/bus.sock in the user's runtime folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// TOML file with settings; the flags here win over it
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// End after this long without a peer and without a message, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub idle_exit: Option<Duration>,

    /// Microseconds to look for more after traffic before sleeping; 0 sleeps at once
    /// [default: 50, and 0 on a single core]
    #[arg(long, value_name = "N")]
    pub poll_us: Option<u64>,

    /// How much is logged to stderr
    #[arg(long, value_name = "LEVEL", env = "BUS_LOG", default_value_t, value_enum)]
    pub log: LogLevel,

    /// How a log line looks
    #[arg(long, value_name = "FORMAT", default_value_t, value_enum)]
    pub log_format: LogFormat,

    /// Check the settings, say what is wrong with them, and end
    #[arg(long)]
    pub check_config: bool,

    /// Leave the session of the program that started the daemon
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl Args {
    /// The settings ready to use: defaults, then the file, then what was typed.
    ///
    /// ```
    /// let args = bus_daemon::Args { socket: Some("/run/bus/bus.sock".into()), ..Default::default() };
    /// assert_eq!(args.settings()?.address()?.to_string(), "/run/bus/bus.sock");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the file, or the whole, is not valid.
    pub fn settings(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        // Read here and not by clap, for which an empty variable is an error.
        let variable = || std::env::var_os(bus_core::SOCKET_VARIABLE).filter(|value| !value.is_empty());
        if let Some(path) = self.socket.clone().or_else(|| variable().map(PathBuf::from)) {
            config.socket = Some(Address::new(path)?);
        }
        if let Some(idle) = self.idle_exit {
            config.idle_exit_ms = Some(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(poll_us) = self.poll_us {
            config.poll_us = poll_us;
        }
        config.check().context("on the command line")?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from([&["busd"], line].concat()).map(|cli| cli.args)
    }

    #[test]
    fn what_is_typed_wins_over_the_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("busd.toml");
        std::fs::write(&file, "socket = \"/run/bus/file.sock\"\nidle_exit = \"1h\"\npoll = \"7us\"\n").unwrap();
        let file = file.to_str().unwrap();

        let config = parsed(&["--config", file, "--socket", "/run/bus/typed.sock", "--idle-exit", "10m"]);
        let config = config.unwrap().settings().unwrap();
        assert_eq!(config.address().unwrap().to_string(), "/run/bus/typed.sock");
        assert_eq!((config.idle_exit_ms, config.poll_us), (Some(600_000), 7));
    }

    #[test]
    fn a_typed_figure_has_the_limits_of_the_file() {
        let error = parsed(&["--poll-us", "20000"]).unwrap().settings().unwrap_err();
        assert_eq!(format!("{error:#}"), "on the command line: poll is 20000 us: give 0 to 10000");
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error() {
        for line in [["--idle-exit", "5"], ["--poll-us", "-1"], ["--log", "loud"], ["--log-format", "xml"]] {
            assert_eq!(parsed(&line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        let error = parsed(&["--idle-exit", "5"]).unwrap_err().to_string();
        assert!(error.contains("\"5\" is no duration: write a number with its unit"), "{error}");
    }

    #[test]
    fn logging_is_text_at_info_unless_said() {
        let args = parsed(&["--log-format", "json"]).unwrap();
        assert_eq!((args.log, args.log_format), (LogLevel::Info, LogFormat::Json));
    }
}
