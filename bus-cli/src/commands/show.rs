//! `bus show`.

use bus_core::{AdminError, ChannelInfo, PeerInfo};
use serde::Serialize;

use super::link::Links;
use crate::args::ShowArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Answer, Table, heading, number, seconds, size, text};

/// Shows one channel.
pub(crate) fn run(args: &ShowArgs, around: &Surroundings) -> Result<Exit, Failure> {
    let bus = around.connect()?;
    let shown = bus.show(&args.channel);
    let links = Links(bus.links()?.into_iter().filter(|link| link.spec.channel == args.channel).collect());
    match shown {
        Ok(info) => output::answer(&Channel { info, links }, args.json),
        // What became of a gateway is asked for also when the last of its messages is gone, and the channel with it.
        Err(AdminError::NoSuchChannel { text }) if !links.0.is_empty() => {
            Err(Failure::new(Exit::Failed, format!("{text}; it had gateways:\n{}", links.text().trim_end())))
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Serialize)]
struct Channel {
    #[serde(flatten)]
    info: ChannelInfo,
    links: Links,
}

impl Answer for Channel {
    fn text(&self) -> String {
        let Self { info, links } = self;
        let mut out = facts(info);
        if info.receiver.is_some() || !info.standby.is_empty() || !info.senders.is_empty() {
            out.push('\n');
            out.push_str(&ends(info));
        }
        let hidden = (info.sender_count as usize).saturating_sub(info.senders.len());
        if hidden > 0 {
            out.push_str(&format!("and {hidden} more senders\n"));
        }
        if info.awaited > 0 {
            let senders = output::counted(info.awaited.into(), "sender");
            out.push_str(&format!("\n{senders} of an earlier daemon may still bring messages\n"));
        }
        if !links.0.is_empty() {
            out.push('\n');
            out.push_str(&links.text());
        }
        out
    }
}

fn facts(info: &ChannelInfo) -> String {
    let ledger = &info.ledger;
    let declared = if info.declared { ", declared" } else { "" };
    let of_type = match (&info.type_name, info.codec) {
        (Some(name), Some(codec)) => format!("{name} in {codec}"),
        (Some(name), None) => name.clone(),
        (None, Some(codec)) => codec.to_string(),
        (None, None) => "any".to_owned(),
    };
    let facts = [
        ("channel", info.channel.to_string()),
        ("kind", format!("{}{declared}", info.kind)),
        ("type", of_type),
        ("capacity", format!("{} messages, {}", info.capacity, size(info.capacity_bytes))),
        ("window", format!("{} messages", info.window)),
        ("largest message", size(info.message_max_bytes.into())),
        ("when full", info.when_full.to_string()),
        ("accepted", ledger.accepted.to_string()),
        ("acknowledged", ledger.acknowledged.to_string()),
        ("queued", ledger.queued.to_string()),
        ("in delivery", ledger.in_delivery.to_string()),
        ("dropped", ledger.dropped.to_string()),
        ("purged", ledger.purged.to_string()),
        ("expired", ledger.expired.to_string()),
        ("dead-lettered", ledger.dead_lettered.to_string()),
        ("held", size(info.held_bytes)),
        ("oldest", info.oldest_ms.map_or("-".to_owned(), seconds)),
    ];
    facts.map(|(name, value)| format!("{name:<15}  {}\n", output::printable(&value))).concat()
}

fn ends(info: &ChannelInfo) -> String {
    let mut headings = vec![text("END"), heading("PID"), heading("UID"), text("NAME"), text("SENDER"), text("ROUTE")];
    headings.extend([heading("MESSAGES"), heading("OUTSTANDING"), text("BLOCKED")]);
    let mut table = Table::new(headings);
    let mut add = |end: &str, peer: &PeerInfo| {
        let blocked = peer.blocked_ms.map_or(String::new(), seconds);
        table.row(vec![
            text(end),
            number(peer.pid),
            number(peer.uid),
            text(&peer.name),
            text(&peer.sender),
            text(&peer.route),
            number(peer.messages),
            number(peer.outstanding),
            text(&blocked),
        ]);
    };
    info.receiver.iter().for_each(|peer| add("receiver", peer));
    info.standby.iter().for_each(|peer| add("standby", peer));
    info.senders.iter().for_each(|peer| add("sender", peer));
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_core::ChannelName;

    #[test]
    fn an_end_cannot_steer_the_terminal_by_its_name() {
        let mut info = ChannelInfo::empty(ChannelName::new("jobs").unwrap());
        info.receiver = Some(PeerInfo::new(7, 0, "\x1b[2Jworker".to_owned()));
        let shown = Channel { info, links: Links(Vec::new()) }.text();
        assert!(shown.contains("receiver    7    0  \\u{1b}[2Jworker"), "{shown}");
    }

    #[test]
    fn senders_that_are_awaited_are_told() {
        let mut info = ChannelInfo::empty(ChannelName::new("jobs").unwrap());
        info.awaited = 1;
        let shown = Channel { info, links: Links(Vec::new()) }.text();
        assert!(shown.ends_with("\n\n1 sender of an earlier daemon may still bring messages\n"), "{shown}");
    }
}
