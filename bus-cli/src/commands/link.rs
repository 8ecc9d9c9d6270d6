//! `bus link`, `bus unlink`, `bus links`.

use bus_core::{LinkInfo, LinkSpec, Unlink};
use serde::Serialize;

use crate::args::{LinkArgs, LinksArgs, UnlinkArgs};
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Answer, Table, heading, number, printable, text};

/// Makes a gateway.
pub(crate) fn link(args: &LinkArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let pipe = args.pipe.pipe()?.ok_or_else(|| Failure::new(Exit::Usage, "no pipe: give --from-fifo or another"))?;
    let mut spec = LinkSpec::new(args.channel.clone(), pipe);
    spec.framing = args.framing.framing();
    spec.restart = args.restart;
    spec.restart_limit = args.restart_limit;
    spec.ack_lines = args.ack.is_some();
    spec.keep = args.keep;
    let link = around.connect()?.link(spec)?;
    let kept = if link.spec.keep { ", kept" } else { "" };
    let sentence = format!("linked {}: {}{kept}{}", link.id, described(&link), noted(&link));
    output::report(&link, sentence, args.json, around)
}

/// Ends gateways.
pub(crate) fn unlink(args: &UnlinkArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let (bus, which) = (around.connect()?, args.which()?);
    let links = if args.keep { bus.unlink_for_now(which)? } else { bus.unlink(which)? };
    let sentence: Vec<String> =
        links.iter().map(|link| format!("unlinked {}: {}{}", link.id, described(link), noted(link))).collect();
    output::report(&links, sentence.join("\n"), args.json, around)
}

/// Lists the gateways.
pub(crate) fn list(args: &LinksArgs, around: &Surroundings) -> Result<Exit, Failure> {
    output::answer(&Links(around.connect()?.links()?), args.json)
}

impl UnlinkArgs {
    fn which(&self) -> Result<Unlink, Failure> {
        match (self.which.parse(), self.pipe.pipe()?) {
            (Ok(id), None) => Ok(Unlink::Id(id)),
            (_, pipe) => {
                let channel = bus_core::ChannelName::new(&self.which);
                let channel = channel.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
                Ok(Unlink::Channel { channel, pipe })
            }
        }
    }
}

fn described(link: &LinkInfo) -> String {
    format!("{} {} {}", link.spec.channel, link.spec.pipe.kind(), printable(link.spec.pipe.target()))
}

fn noted(link: &LinkInfo) -> String {
    if link.note.is_empty() { String::new() } else { format!(" ({})", printable(&link.note)) }
}

#[derive(Serialize)]
pub(crate) struct Links(pub(crate) Vec<LinkInfo>);

impl Answer for Links {
    fn text(&self) -> String {
        let mut headings = vec![heading("LINK"), text("CHANNEL"), text("PIPE"), text("KEPT"), text("STATE")];
        headings.extend([
            heading("PID"),
            heading("MESSAGES"),
            heading("REFUSED"),
            heading("RESTARTS"),
            text("LAST EXIT"),
            text("NOTE"),
        ]);
        let mut table = Table::new(headings);
        for link in &self.0 {
            table.row(vec![
                number(link.id),
                text(link.spec.channel.as_str()),
                text(&link.spec.pipe.to_string()),
                text(if link.spec.keep { "kept" } else { "" }),
                text(link.state.name()),
                text(&link.pid.map_or(String::new(), |pid| pid.to_string())),
                number(link.messages),
                number(link.refused),
                number(link.restarts),
                text(link.last_exit.as_deref().unwrap_or_default()),
                text(&link.note),
            ]);
        }
        table.render()
    }
}
