//! Gateways as the file writes them: `[[link]]` tables.

use bus_core::framing::Framing;
use bus_core::limits::LINK_RESTARTS;
use bus_core::{ChannelName, LinkSpec, Pipe, Restart};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    channel: ChannelName,
    from_fifo: Option<String>,
    to_fifo: Option<String>,
    from_command: Option<String>,
    to_command: Option<String>,
    #[serde(default)]
    framing: NamedFraming,
    /// With `framing = "delimiter"`: TOML's own escapes name any character.
    delimiter: Option<String>,
    #[serde(default)]
    restart: Restart,
    #[serde(default = "restart_limit")]
    restart_limit: u32,
    ack: Option<Ack>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum NamedFraming {
    #[default]
    Lines,
    Null,
    Delimiter,
    Len32,
    Whole,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Ack {
    Line,
}

fn restart_limit() -> u32 {
    LINK_RESTARTS
}

impl Link {
    fn spec(self) -> Result<LinkSpec, String> {
        let Self { channel, from_fifo, to_fifo, from_command, to_command, framing, delimiter, .. } = self;
        let pipes = [
            from_fifo.map(Pipe::FromFifo),
            to_fifo.map(Pipe::ToFifo),
            from_command.map(Pipe::FromCommand),
            to_command.map(Pipe::ToCommand),
        ];
        let mut pipes = pipes.into_iter().flatten();
        let (Some(pipe), None) = (pipes.next(), pipes.next()) else {
            return Err(format!(
                "the link of channel {channel} needs one of from_fifo, to_fifo, from_command and to_command"
            ));
        };
        let mut spec = LinkSpec::new(channel, pipe);
        spec.framing = match (framing, delimiter) {
            (NamedFraming::Delimiter, Some(delimiter)) if !delimiter.is_empty() => {
                Framing::Delimited(delimiter.into_bytes())
            }
            (NamedFraming::Delimiter, _) => {
                return Err("framing \"delimiter\" needs a delimiter of at least one byte".to_owned());
            }
            (_, Some(_)) => return Err("a delimiter needs framing = \"delimiter\"".to_owned()),
            (NamedFraming::Lines, None) => Framing::lines(),
            (NamedFraming::Null, None) => Framing::null(),
            (NamedFraming::Len32, None) => Framing::Length32,
            (NamedFraming::Whole, None) => Framing::Whole,
        };
        spec.restart = self.restart;
        spec.restart_limit = self.restart_limit;
        spec.ack_lines = self.ack.is_some();
        crate::gateway::check(&spec)?;
        Ok(spec)
    }
}

pub(super) fn links<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LinkSpec>, D::Error> {
    let links = Vec::<Checked>::deserialize(deserializer)?;
    Ok(links.into_iter().map(|Checked(spec)| spec).collect())
}

/// Checked one by one, so that an error has the line of its own table.
struct Checked(LinkSpec);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Link::deserialize(deserializer)?.spec().map(Self).map_err(D::Error::custom)
    }
}
