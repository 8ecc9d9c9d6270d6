//! Gateways as the file writes them: `[[link]]` tables.

use bus_core::framing::Framing;
use bus_core::limits::LINK_RESTARTS;
use bus_core::{ChannelName, LinkSpec, Pipe, Restart};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Written with what differs from its default, and nothing else.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Link {
    channel: ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_fifo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_fifo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_command: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    framing: NamedFraming,
    /// With `framing = "delimiter"`: TOML's own escapes name any character.
    #[serde(skip_serializing_if = "Option::is_none")]
    delimiter: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    restart: Restart,
    #[serde(default = "restart_limit", skip_serializing_if = "is_restart_limit")]
    restart_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<Ack>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum NamedFraming {
    #[default]
    Lines,
    Null,
    Delimiter,
    Len32,
    Whole,
    Jsonl,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ack {
    Line,
}

fn restart_limit() -> u32 {
    LINK_RESTARTS
}

fn is_restart_limit(limit: &u32) -> bool {
    *limit == LINK_RESTARTS
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Link {
    fn of(spec: &LinkSpec) -> Result<Self, String> {
        let target = |kind: &str| (spec.pipe.kind() == kind).then(|| spec.pipe.target().to_owned());
        let (framing, delimiter) = match &spec.framing {
            framing if *framing == Framing::lines() => (NamedFraming::Lines, None),
            framing if *framing == Framing::null() => (NamedFraming::Null, None),
            Framing::Length32 => (NamedFraming::Len32, None),
            Framing::Whole => (NamedFraming::Whole, None),
            Framing::JsonLines => (NamedFraming::Jsonl, None),
            Framing::Delimited(delimiter) => {
                let delimiter = String::from_utf8(delimiter.clone());
                let delimiter =
                    delimiter.map_err(|_| "its delimiter is not UTF-8, as a config must be: choose another")?;
                (NamedFraming::Delimiter, Some(delimiter))
            }
        };
        Ok(Self {
            channel: spec.channel.clone(),
            from_fifo: target("from-fifo"),
            to_fifo: target("to-fifo"),
            from_command: target("from-command"),
            to_command: target("to-command"),
            framing,
            delimiter,
            restart: spec.restart,
            restart_limit: spec.restart_limit,
            ack: spec.ack_lines.then_some(Ack::Line),
        })
    }

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
            (NamedFraming::Jsonl, None) => Framing::JsonLines,
        };
        spec.restart = self.restart;
        spec.restart_limit = self.restart_limit;
        spec.ack_lines = self.ack.is_some();
        spec.keep = true;
        crate::gateway::check(&spec)?;
        Ok(spec)
    }
}

/// The table of a gateway, as text.
pub(super) fn table(spec: &LinkSpec) -> Result<String, String> {
    #[derive(Serialize)]
    struct File {
        link: [Link; 1],
    }
    toml::to_string(&File { link: [Link::of(spec)?] }).map_err(|error| error.to_string())
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
