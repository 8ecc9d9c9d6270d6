//! `bus list`.

use bus_core::ChannelSummary;
use serde::Serialize;

use crate::args::ListArgs;
use crate::connect::Surroundings;
use crate::exit::{Exit, Failure};
use crate::output::{self, Answer, Table, heading, number, text};

/// Lists the channels.
pub(crate) fn run(args: &ListArgs, around: &Surroundings) -> Result<Exit, Failure> {
    output::answer(&Channels(around.connect()?.list()?), args.json)
}

#[derive(Serialize)]
struct Channels(Vec<ChannelSummary>);

impl Answer for Channels {
    fn text(&self) -> String {
        let numbers = ["QUEUED", "IN DELIVERY", "BYTES", "ACCEPTED", "ACKNOWLEDGED", "SENDERS", "RECEIVERS"];
        let mut table = Table::new([text("CHANNEL")].into_iter().chain(numbers.map(heading)).collect());
        for ChannelSummary { channel, ledger, held_bytes, peers, .. } in &self.0 {
            table.row(vec![
                text(channel.as_str()),
                number(ledger.queued),
                number(ledger.in_delivery),
                number(*held_bytes),
                number(ledger.accepted),
                number(ledger.acknowledged),
                number(peers.senders),
                number(peers.receivers),
            ]);
        }
        table.render()
    }
}
