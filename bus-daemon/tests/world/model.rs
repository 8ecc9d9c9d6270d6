//! [`Model`]: what was sent and what was handed out, kept beside the bus, and held against its
//! promises.
//!
//! The invariants have the numbers of the fault model: I1 what is delivered was sent; I2 what was
//! accepted is delivered, or counted as dropped, purged or deleted; I3 what was refused is never
//! delivered; I4 first deliveries of a sender are in order, and gaps are counted; I5 duplicates are
//! marked; I6 the ledger balances.

use std::collections::HashMap;

use bus_core::{ChannelSummary, Removed};

use crate::options::{Fault, Options};

#[derive(Debug)]
pub(crate) struct Model {
    messages: Vec<Message>,
    streams: HashMap<u64, Stream>,
    channels: Vec<Ledgers>,
    /// The highest sequence that each receiver has handed out, by sender.
    handed_by: HashMap<(usize, u64), u64>,
    /// There are senders of which nothing is known here, and to whom nothing is promised.
    hostiles: bool,
    exactly_once: bool,
    /// And no sender dies, so that every loss was told.
    nobody_dies: bool,
    pub(crate) deliveries: u64,
}

#[derive(Debug)]
struct Message {
    channel: usize,
    sender: u64,
    sequence: u64,
    bytes: usize,
    fate: Fate,
    handed_out: u32,
    /// How often without a mark.
    unmarked: u32,
    /// A later message of its sender was handed out first: it must have been removed.
    passed_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way.
    Sent,
    /// Given up before it was sent whole, or refused.
    NeverSent,
    /// All who held it are dead.
    Lost,
}

/// The messages of one sender id.
#[derive(Debug)]
struct Stream {
    channel: usize,
    /// By sequence, from 1.
    values: Vec<u64>,
    /// The highest that was handed out.
    handed_out: u64,
}

/// What a channel has removed, over all daemons.
#[derive(Debug, Default)]
struct Ledgers {
    /// Dropped in earlier lives of the channel, and in the present one.
    dropped_before: u64,
    dropped: u64,
    /// Of those that were dropped, known to have been dropped before they were sent.
    dropped_unsent: u64,
    accepted: u64,
    purged: u64,
    /// What orders have said that they removed or would remove.
    ordered: u64,
    purged_before: u64,
    deleted: u64,
    passed_over: u64,
    /// It was deleted under the living daemon: if it comes again, then with the options of any other.
    is_undeclared: bool,
}

impl Ledgers {
    /// How many messages that were sent have been dropped or purged.
    fn counted(&self) -> u64 {
        let dropped = (self.dropped_before + self.dropped).saturating_sub(self.dropped_unsent);
        dropped + self.purged_before + self.purged
    }

    /// How many may be missing at most: what is purged may be gone before it is seen in a ledger.
    fn removed(&self) -> u64 {
        (self.dropped_before + self.dropped).saturating_sub(self.dropped_unsent) + self.ordered + self.deleted
    }
}

/// What a receiver hands to its user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOut {
    pub(crate) receiver: usize,
    pub(crate) channel: usize,
    pub(crate) sender: u64,
    pub(crate) sequence: u64,
    pub(crate) value: u64,
    pub(crate) bytes: usize,
    pub(crate) attempt: u32,
    pub(crate) redelivered: bool,
    /// This receiver was removed, and does not know it: it had claimed the message before.
    pub(crate) removed: bool,
    /// This receiver has given it back before.
    pub(crate) given_back: bool,
}

impl Model {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            messages: Vec::new(),
            streams: HashMap::new(),
            channels: options.channels.iter().map(|_| Ledgers::default()).collect(),
            handed_by: HashMap::new(),
            hostiles: options.has(Fault::Hostile),
            exactly_once: options.is_exactly_once(),
            nobody_dies: options.is_exactly_once() && !options.has(Fault::SenderCrash),
            deliveries: 0,
        }
    }

    /// A sender begins a message; returns its value.
    pub(crate) fn send(&mut self, channel: usize, sender: u64, sequence: u64, bytes: usize) -> u64 {
        let value = self.messages.len() as u64;
        self.messages.push(Message {
            channel,
            sender,
            sequence,
            bytes,
            fate: Fate::Sent,
            handed_out: 0,
            unmarked: 0,
            passed_over: false,
        });
        let stream = self.streams.entry(sender).or_insert(Stream { channel, values: Vec::new(), handed_out: 0 });
        assert_eq!(stream.values.len() as u64 + 1, sequence, "a sender of the world counts");
        stream.values.push(value);
        value
    }

    /// A sender takes its last message back: it was not sent whole.
    pub(crate) fn give_up(&mut self, sender: u64, sequence: u64) -> Result<(), String> {
        let Some(value) = self.streams.get_mut(&sender).and_then(|stream| stream.values.pop()) else {
            return Err(format!("sender {sender:x} has no message {sequence} to give up"));
        };
        self.never_sent(value)
    }

    /// A sender is told that its messages after `accepted` are refused.
    pub(crate) fn refused_after(&mut self, sender: u64, accepted: u64) -> Result<(), String> {
        let values = self.streams.get(&sender).map_or(Vec::new(), |stream| stream.values.clone());
        values.into_iter().skip(accepted as usize).try_for_each(|value| self.never_sent(value))
    }

    fn never_sent(&mut self, value: u64) -> Result<(), String> {
        let message = &mut self.messages[value as usize];
        message.fate = Fate::NeverSent;
        if message.handed_out > 0 {
            return Err(format!("I3: {message:?} was handed out, and its sender is told that it was never sent"));
        }
        Ok(())
    }

    /// Whatever of a sender is after `safe` and was not handed out is lost with it.
    pub(crate) fn lost_after(&mut self, sender: u64, safe: u64) {
        let Some(stream) = self.streams.get(&sender) else { return };
        for value in stream.values.iter().skip(safe as usize) {
            let message = &mut self.messages[*value as usize];
            if message.fate == Fate::Sent && message.handed_out == 0 {
                message.fate = Fate::Lost;
            }
        }
    }

    /// A daemon has died: whatever it held of senders that are not `alive` is lost with it.
    pub(crate) fn daemon_died(&mut self, alive: &[u64]) {
        for channel in 0..self.channels.len() {
            self.end_life(channel);
            self.channels[channel].is_undeclared = false;
        }
        self.dead_lost(alive, |_| true);
    }

    fn dead_lost(&mut self, alive: &[u64], concerns: impl Fn(&Stream) -> bool) {
        let dead = self.streams.iter().filter(|(sender, stream)| !alive.contains(sender) && concerns(stream));
        let dead: Vec<u64> = dead.map(|(sender, _)| *sender).collect();
        dead.into_iter().for_each(|sender| self.lost_after(sender, 0));
    }

    pub(crate) fn hand_out(&mut self, delivery: HandedOut) -> Result<(), String> {
        self.deliveries += 1;
        let HandedOut { sender, sequence, value, .. } = delivery;
        if self.hostiles && !self.streams.contains_key(&sender) {
            return Ok(());
        }
        let Some(message) = self.messages.get_mut(value as usize) else {
            return Err(format!("I1: {delivery:?} was never sent"));
        };
        let sent = (message.channel, message.sender, message.sequence, message.bytes);
        if sent != (delivery.channel, sender, sequence, delivery.bytes) {
            return Err(format!("I1: {delivery:?} was sent as {message:?}"));
        }
        if message.fate == Fate::NeverSent {
            return Err(format!("I3: {delivery:?} was refused or given up, and is handed out"));
        }
        if (delivery.attempt > 1) && !delivery.redelivered {
            return Err(format!("I5: {delivery:?} is another attempt and not marked"));
        }
        // A process may stop for any time between its claim and its user: what others were handed meanwhile
        // is marked.
        let claimed_before_all = delivery.removed && message.unmarked == 0;
        if message.handed_out > 0 && !delivery.redelivered && !claimed_before_all {
            return Err(format!("I5: {delivery:?} was handed out before and is not marked"));
        }
        if self.exactly_once && (message.handed_out > 0 || delivery.redelivered) {
            return Err(format!("nothing was disturbed, and {delivery:?} comes again or is marked so"));
        }
        let is_first = message.handed_out == 0;
        message.handed_out += 1;
        message.unmarked += u32::from(!delivery.redelivered);
        let was_passed_over = std::mem::take(&mut message.passed_over);
        self.check_receivers_order(&delivery)?;
        if was_passed_over {
            if !delivery.redelivered {
                return Err(format!("I4: {delivery:?} comes after later messages of its sender, unmarked"));
            }
            self.channels[delivery.channel].passed_over -= 1;
        } else if is_first {
            self.check_first(&delivery)?;
        }
        Ok(())
    }

    /// What one receiver hands out of one sender only goes forward.
    fn check_receivers_order(&mut self, delivery: &HandedOut) -> Result<(), String> {
        let highest = self.handed_by.entry((delivery.receiver, delivery.sender)).or_insert(0);
        if delivery.sequence <= *highest && !delivery.given_back {
            return Err(format!("order: {delivery:?} after {highest} of the same sender, at one receiver"));
        }
        *highest = delivery.sequence;
        Ok(())
    }

    fn check_first(&mut self, delivery: &HandedOut) -> Result<(), String> {
        let stream = self.streams.get_mut(&delivery.sender).expect("its message is known");
        if delivery.sequence <= stream.handed_out {
            return Err(format!("I4: {delivery:?} is handed out first after {}", stream.handed_out));
        }
        let ledgers = &mut self.channels[delivery.channel];
        for value in &stream.values[stream.handed_out as usize..delivery.sequence as usize - 1] {
            let message = &mut self.messages[*value as usize];
            if message.fate == Fate::Sent && message.handed_out == 0 && !message.passed_over {
                message.passed_over = true;
                ledgers.passed_over += 1;
            }
        }
        stream.handed_out = delivery.sequence;
        if ledgers.passed_over > ledgers.removed() {
            let (gone, removed) = (ledgers.passed_over, ledgers.removed());
            return Err(format!("I4: {gone} messages are missing before {delivery:?}, and {removed} were removed"));
        }
        Ok(())
    }

    /// There was no room for a message, and the channel drops the newest: it was never sent.
    pub(crate) fn dropped_unsent(&mut self, channel: usize) {
        self.channels[channel].dropped_unsent += 1;
    }

    /// An order has removed messages, or will when the receiver has answered.
    pub(crate) fn ordered(&mut self, channel: usize, removed: Removed) {
        self.channels[channel].ordered += removed.messages + removed.recalled;
    }

    /// A channel was deleted with what it held. What senders that are not `alive` had still in their
    /// sockets is refused, and nobody is there to be told.
    pub(crate) fn deleted(&mut self, channel: usize, removed: Removed, alive: &[u64]) {
        self.dead_lost(alive, |stream| stream.channel == channel);
        self.channels[channel].deleted += removed.messages + removed.recalled;
        self.channels[channel].is_undeclared = true;
        self.end_life(channel);
    }

    /// The channel is gone: what it counted stays counted.
    fn end_life(&mut self, channel: usize) {
        let ledgers = &mut self.channels[channel];
        ledgers.dropped_before += std::mem::take(&mut ledgers.dropped);
        ledgers.purged_before += std::mem::take(&mut ledgers.purged);
        ledgers.accepted = 0;
    }

    /// Whether a channel stays when it is empty and nobody is there.
    pub(crate) fn is_declared(&self, options: &Options, channel: usize) -> bool {
        options.channels[channel].declared.is_some() && !self.channels[channel].is_undeclared
    }

    /// What the daemon says of its channels now.
    pub(crate) fn audit(&mut self, options: &Options, summaries: &[ChannelSummary]) -> Result<(), String> {
        for (index, plan) in options.channels.iter().enumerate() {
            let Some(summary) = summaries.iter().find(|summary| summary.channel == plan.name) else {
                self.end_life(index);
                continue;
            };
            let ledger = &summary.ledger;
            if !ledger.balances() {
                return Err(format!("I6: {ledger:?} does not balance"));
            }
            if ledger.accepted < self.channels[index].accepted {
                self.end_life(index);
            }
            let ledgers = &mut self.channels[index];
            (ledgers.accepted, ledgers.dropped, ledgers.purged) = (ledger.accepted, ledger.dropped, ledger.purged);
            if ledgers.purged_before + ledgers.purged > ledgers.ordered {
                return Err(format!("{} has purged more than orders said: {ledger:?}, {ledgers:?}", plan.name));
            }
            let declared = plan.declared.as_ref().filter(|_| !ledgers.is_undeclared);
            let capacity = declared.and_then(|it| it.capacity).unwrap_or(options.capacity_messages);
            let capacity_bytes = declared.and_then(|it| it.capacity_bytes).unwrap_or(options.capacity_bytes);
            let held = ledger.queued + ledger.in_delivery;
            if held > capacity || (held > 1 && summary.held_bytes > capacity_bytes) {
                let bytes = summary.held_bytes;
                return Err(format!("capacity: {} holds {held} messages and {bytes} bytes", plan.name));
            }
        }
        Ok(())
    }

    /// What the daemon shows of a channel is what was sent, in the order of each sender.
    pub(crate) fn check_peeked(&self, channel: usize, copies: &[(u64, u64, u64)]) -> Result<(), String> {
        let mut highest = HashMap::new();
        for (sender, sequence, value) in copies {
            if highest.insert(sender, sequence).is_some_and(|earlier| earlier >= sequence) {
                return Err(format!(
                    "order: peeked message {sequence} of sender {sender:x} is out of order: {copies:?}"
                ));
            }
            if self.hostiles && !self.streams.contains_key(sender) {
                continue;
            }
            let message = self.messages.get(*value as usize);
            let sent = message.map(|message| (message.channel, message.sender, message.sequence));
            if sent != Some((channel, *sender, *sequence)) {
                return Err(format!("I1: peeked {value} of sender {sender:x} was sent as {message:?}"));
            }
        }
        Ok(())
    }

    /// After everything has drained: what was sent was handed out, or removed and counted.
    pub(crate) fn check_end(&self) -> Result<(), String> {
        for (channel, ledgers) in self.channels.iter().enumerate() {
            let missing = |message: &&Message| {
                message.channel == channel && message.fate == Fate::Sent && message.handed_out == 0
            };
            let gone: Vec<&Message> = self.messages.iter().filter(missing).collect();
            let inexact = self.nobody_dies && gone.len() as u64 != ledgers.counted();
            if gone.len() as u64 > ledgers.removed() || inexact {
                let sample = &gone[..gone.len().min(5)];
                let count = gone.len();
                return Err(format!(
                    "I2: {count} messages of channel {channel} are gone, counted were {ledgers:?}: {sample:?}"
                ));
            }
        }
        Ok(())
    }
}
