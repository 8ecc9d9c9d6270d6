//! Questions and orders of the shell: list, show, create, delete, purge, skip, kick, peek, about.

use bus_core::limits::MESSAGE_MAX_BYTES_MAX;
use bus_core::wire::{ClosingCode, Kind, Refused, RefusedCode, Reply, Request};
use bus_core::{ChannelInfo, ChannelName, ChannelOptions, ChannelSummary, PeerInfo, Removed};

use super::account::AccountId;
use super::channel::{Channel, ChannelId, Leaves, Recall, Seat};
use super::lanes::{InLanes, accepted_at_ns};
use super::log::PREFIX_BYTES;
use super::peer::{Peer, PeerId, PeerRole};
use super::settle::peers;
use super::{Broker, LinkOrder, Note, Refusal};

/// How many senders `show` lists.
const SENDERS_SHOWN: usize = 1_000;

/// How many bytes of copies one `peek` gives at most, unless one message has more.
const PEEK_BYTES: usize = 1024 * 1024;

/// How the messages of an end in a lane travel.
const LANE: &str = "lane";

impl Broker {
    pub(super) fn carry_out(&mut self, id: PeerId, request: Request) {
        let reply = match request {
            Request::List => Ok(self.list()),
            Request::Show(name) => self.named(&name).map(|channel| {
                let info = self.show(channel);
                // Who asks again is told what has passed since.
                self.look_at_rate(channel);
                Reply::Channel(Box::new(info))
            }),
            Request::Create(name, options) => self.create(id, &name, options),
            Request::Delete(name) => self.named(&name).map(|channel| self.delete(channel)),
            Request::Purge(name) => self.named(&name).map(|channel| {
                let reply = self.purge(channel);
                self.vanish_if_idle(channel);
                reply
            }),
            Request::Skip(name) => self.named(&name).map(|channel| {
                let reply = self.skip(channel);
                self.vanish_if_idle(channel);
                reply
            }),
            Request::Kick(name) => self.named(&name).and_then(|channel| self.kick(channel)),
            Request::Peek { channel, after, messages } => {
                self.named(&channel).map(|channel| self.peek(id, channel, after, messages))
            }
            Request::About => Ok(self.about()),
            Request::Link(spec) => return self.order_link(id, LinkOrder::Link(spec)),
            Request::Unlink(which) => return self.order_link(id, LinkOrder::Unlink { which, forget: true }),
            Request::UnlinkForNow(which) => return self.order_link(id, LinkOrder::Unlink { which, forget: false }),
            Request::Links => return self.order_link(id, LinkOrder::List),
        };
        let reply = reply.unwrap_or_else(|Refusal { code, text }| Reply::Refused(Refused { code, text }));
        self.put(id, Kind::Reply, &reply);
    }

    fn named(&self, name: &ChannelName) -> Result<ChannelId, Refusal> {
        self.by_name.get(name).copied().ok_or_else(|| {
            let text = format!("no channel is called {name}: `bus list` shows those that are");
            Refusal::new(RefusedCode::NoSuchChannel, text)
        })
    }

    fn list(&self) -> Reply {
        let mut channels: Vec<ChannelSummary> = self
            .channels
            .iter()
            .map(|(slot, channel)| {
                let ledger = self.ledger(ChannelId(slot as u32));
                let held_bytes = channel.log.bytes() + self.bytes_in_lanes(ChannelId(slot as u32));
                ChannelSummary::new(channel.name.clone(), ledger, held_bytes, peers(channel))
            })
            .collect();
        channels.sort_by(|a, b| a.channel.cmp(&b.channel));
        Reply::Channels(channels)
    }

    fn show(&self, id: ChannelId) -> ChannelInfo {
        let channel = self.channel(id);
        let mut info = ChannelInfo::empty(channel.name.clone());
        info.declared = channel.declared;
        info.codec = channel.declares.as_ref().map(|declares| declares.codec);
        info.type_name = channel.declares.as_ref().map(|declares| declares.type_name.clone());
        info.capacity = channel.bounds.messages;
        info.capacity_bytes = channel.bounds.bytes;
        info.window = channel.bounds.window;
        info.message_max_bytes = channel.bounds.message_max_bytes;
        info.when_full = channel.bounds.when_full;
        info.ledger = self.ledger(id);
        info.held_bytes = channel.log.bytes() + self.bytes_in_lanes(id);
        let in_log = channel.log.entries().next().map(|entry| self.now_ms.saturating_sub(entry.accepted_at_ms));
        let in_lanes = self.oldest_in_lanes_ns(id).map(|sent_ns| self.milliseconds_since(sent_ns));
        info.oldest_ms = in_log.into_iter().chain(in_lanes).max();
        info.receiver = channel.seat.as_ref().map(|seat| {
            let mut receiver = self.peer_info(seat.peer);
            receiver.messages = seat.messages;
            receiver.outstanding = seat.taken().saturating_sub(channel.log.first());
            if let Some((claimed, acknowledged)) = self.read_in_lanes(id) {
                receiver.route = LANE.to_owned();
                receiver.messages += acknowledged;
                receiver.outstanding += claimed;
            }
            receiver
        });
        info.standby = channel.line.iter().map(|id| self.peer_info(*id)).collect();
        info.senders = self.sender_infos(id, channel);
        info.sender_count = channel.senders;
        info.awaited = self.awaited(channel);
        info.rates = self.rates(id);
        info.lanes = channel.lanes.len() as u32;
        info.no_lane = self.no_lane(id);
        info
    }

    /// How many senders that are not here may still bring messages.
    fn awaited(&self, channel: &Channel) -> u32 {
        let back = channel.accounts.iter().filter(|(_, account)| account.still_brings(self.now_ms)).count();
        // Receivers know the senders of what has come to them, and no others. Those have tried to come back by the
        // time of former receivers, and as long again is theirs to be heard.
        let may_be_unnamed = self.now_ms < 2 * self.rules.former_receivers_ms;
        let awaited = (channel.awaited.len() + back).max(usize::from(may_be_unnamed));
        u32::try_from(awaited).unwrap_or(u32::MAX)
    }

    /// How long ago that was, in milliseconds.
    fn milliseconds_since(&self, at_ns: u64) -> u64 {
        (self.rules.started_at_ns / 1_000_000 + self.now_ms).saturating_sub(at_ns / 1_000_000)
    }

    fn sender_infos(&self, channel_id: ChannelId, channel: &Channel) -> Vec<PeerInfo> {
        let connected = channel.accounts.iter().filter_map(|(slot, account)| Some((slot, account, account.peer?)));
        connected
            .take(SENDERS_SHOWN)
            .map(|(slot, account, id)| {
                let mut sender = self.peer_info(id);
                sender.sender = format!("{:016x}", account.sender);
                sender.messages = account.messages;
                sender.outstanding = account.outstanding;
                sender.blocked_ms = self.peer(id).and_then(|peer| {
                    let asked_ms = peer.want.map(|(_, since_ms)| since_ms);
                    let blocked_ms = [peer.paused_at_ms, asked_ms, account.window_full_since_ms];
                    Some(self.now_ms.saturating_sub(blocked_ms.into_iter().flatten().min()?))
                });
                if let Some(in_lane) = self.in_lane(channel_id, AccountId(slot as u32)) {
                    sender.route = LANE.to_owned();
                    sender.messages += in_lane.messages;
                    sender.outstanding += in_lane.outstanding;
                    sender.blocked_ms = in_lane.waits_since_ns.map(|since_ns| self.milliseconds_since(since_ns));
                }
                sender
            })
            .collect()
    }

    fn peer_info(&self, id: PeerId) -> PeerInfo {
        self.peer(id).map_or_else(
            || PeerInfo::new(0, 0, String::new()),
            |peer| PeerInfo::new(peer.credentials.pid, peer.credentials.uid, peer.name.clone()),
        )
    }

    fn create(&mut self, id: PeerId, name: &ChannelName, options: ChannelOptions) -> Result<Reply, Refusal> {
        check_options(name, &options)?;
        let uid = self.peer(id).map_or(0, |peer| peer.credentials.uid);
        if let Some(known) = self.by_name.get(name).copied() {
            let bounds = self.bounds(&options);
            self.message_max_bytes = self.message_max_bytes.max(bounds.message_max_bytes);
            let channel = self.channel_mut(known);
            if channel.declared && channel.options != options {
                let text = format!(
                    "channel {name} exists with other options: {}; delete it first, or create it with the same",
                    options.unlike(&channel.options)
                );
                return Err(Refusal::new(RefusedCode::Exists, text));
            }
            let new = !channel.declared;
            if new && channel.options != options && !channel.is_idle() {
                let text = format!(
                    "channel {name} is in use with the default options: create it before its first end opens it"
                );
                return Err(Refusal::new(RefusedCode::Exists, text));
            }
            channel.declared = true;
            channel.options = options;
            channel.bounds = bounds;
            return Ok(Reply::Created(new));
        }
        if let Err(refusal) = self.check_channels(uid, name) {
            self.note(Note::LimitMet { who: self.who(id), reason: refusal.text.clone() });
            return Err(refusal);
        }
        let channel = self.channel_or_new(name, options, uid);
        self.channel_mut(channel).declared = true;
        Ok(Reply::Created(true))
    }

    /// Ends a channel at once. A receiver that has not claimed what it was sent ahead gives it up when it
    /// reads the order, which it obeys before messages; what it has claimed it may hand out.
    fn delete(&mut self, id: ChannelId) -> Reply {
        let channel = self.channel(id);
        let (in_lanes, lanes_end) = self.lanes_end(id);
        let (name, messages) = (channel.name.clone(), channel.log.len() + in_lanes);
        let text = format!("channel {name} was deleted");
        let senders: Vec<PeerId> = channel.accounts.iter().filter_map(|(_, account)| account.peer).collect();
        let receivers: Vec<PeerId> =
            channel.seat.iter().map(|seat| seat.peer).chain(channel.line.iter().copied()).collect();
        for end in senders.iter().chain(&receivers) {
            self.tell_gateway(*end, "the channel was deleted");
        }
        for sender in senders {
            if let Some(PeerRole::Sender { account, .. }) = self.peer(sender).map(|peer| peer.role) {
                // It learns what was accepted: the rest comes back to it.
                let settled = self.channel(id).account(account).settled();
                self.put(sender, Kind::Settled, &settled);
                if let Some((_, ended)) = lanes_end.iter().find(|(of, _)| *of == account) {
                    self.put(sender, Kind::LaneEnded, ended);
                }
            }
            self.part(sender);
            self.close(sender, ClosingCode::Deleted, text.clone());
        }
        for former in self.former_senders_of(id) {
            self.part(former);
            self.end_peer(former, text.clone());
        }
        for receiver in receivers {
            self.finish_frame(receiver);
            self.close(receiver, ClosingCode::Deleted, text.clone());
        }
        self.show_the_last(id);
        for (_, peer) in &mut self.peers {
            match peer.role {
                PeerRole::Sender { channel, .. }
                | PeerRole::FormerSender { channel, .. }
                | PeerRole::Receiver { channel, .. }
                    if channel == id =>
                {
                    peer.role = PeerRole::Control;
                }
                _ => {}
            }
        }
        self.to_tell.retain(|(channel, _)| *channel != id);
        self.remove_channel(id);
        self.note(Note::ChannelDeleted { channel: name, messages });
        Reply::Removed(Removed { messages, recalled: 0 })
    }

    fn former_senders_of(&self, id: ChannelId) -> Vec<PeerId> {
        let is_former = |peer: &Peer| matches!(peer.role, PeerRole::FormerSender { channel, .. } if channel == id);
        self.peer_ids().filter(|peer| self.peer(*peer).is_some_and(is_former)).collect()
    }

    /// Takes a sender's claims on a channel back that is about to go.
    fn part(&mut self, id: PeerId) {
        self.end_reading(id);
        if let Some(peer) = self.peer_mut(id) {
            (peer.want, peer.paused_at_ms) = (None, None);
            // What it has sent meanwhile is read, and comes to nothing.
            self.actions.push_back(super::Action::Resume(id));
        }
    }

    fn purge(&mut self, id: ChannelId) -> Reply {
        let from = self.channel(id).unsent_from();
        let messages = self.remove_from(id, from, |_| true);
        let channel = self.channel_mut(id);
        let taken = channel.seat.as_ref().map_or(from, Seat::taken);
        if taken < from {
            let recall = &mut channel.recall;
            recall.purge_from = if recall.purge_before > taken { recall.purge_from.min(taken) } else { taken };
            recall.purge_before = from;
            self.recall(id);
        }
        let in_lanes = self.purge_lanes(id);
        let (messages, recalled) = (messages + in_lanes.removed, from - taken + in_lanes.recalled);
        Reply::Removed(Removed { messages, recalled })
    }

    fn skip(&mut self, id: ChannelId) -> Reply {
        if !self.channel(id).lanes.is_empty() {
            let channel = self.channel(id);
            let taken = channel.seat.as_ref().map_or(channel.log.first(), Seat::taken);
            let streamed_ns = channel.log.frame_at(taken).map(accepted_at_ns);
            if let Some(InLanes { removed, recalled }) = self.skip_in_lanes(id, streamed_ns) {
                return Reply::Removed(Removed { messages: removed, recalled });
            }
        }
        let channel = self.channel_mut(id);
        let from = channel.unsent_from();
        let taken = channel.seat.as_ref().map_or(from, Seat::taken);
        if (channel.recall.purge_from..channel.recall.purge_before).contains(&taken) {
            // The head is about to go already.
            return Reply::Removed(Removed::default());
        }
        if from - taken > channel.recall.skips {
            channel.recall.skips += 1;
            self.recall(id);
            return Reply::Removed(Removed { messages: 0, recalled: 1 });
        }
        let mut first = true;
        let messages = self.remove_from(id, from, |_| std::mem::take(&mut first));
        Reply::Removed(Removed { messages, recalled: 0 })
    }

    /// Removes messages that no receiver has, from a position on.
    fn remove_from(&mut self, id: ChannelId, from: u64, goes: impl FnMut(&super::log::Entry) -> bool) -> u64 {
        let before = self.channel(id).cost();
        let gone = self.channel_mut(id).log.remove_where(from, goes);
        for entry in &gone {
            self.channel_mut(id).count(entry, Leaves::Purged, false);
            self.tell_later(id, entry.account);
        }
        self.charge(id, before);
        self.give_room(id);
        self.end_if_deserted(id);
        gone.len() as u64
    }

    /// The receiver has given back what it had not claimed, or is gone: now it can be removed.
    pub(super) fn remove_recalled(&mut self, id: ChannelId, claimed: u64) {
        let Recall { purge_from, purge_before, skips } = std::mem::take(&mut self.channel_mut(id).recall);
        let mut position = claimed;
        self.remove_from(id, claimed, |_| {
            let at = position;
            position += 1;
            (purge_from..purge_before).contains(&at) || at < claimed + skips
        });
    }

    fn kick(&mut self, id: ChannelId) -> Result<Reply, Refusal> {
        let channel = self.channel(id);
        let Some(seat) = &channel.seat else {
            let text = format!(
                "channel {} has no receiver to remove: `bus show {}` shows its ends",
                channel.name, channel.name
            );
            return Err(Refusal::new(RefusedCode::NoSuchChannel, text));
        };
        let receiver = seat.peer;
        let PeerInfo { pid, name, .. } = self.peer_info(receiver);
        let text = format!("the receiver of channel {} was removed by kick", channel.name);
        self.dismiss(id, ClosingCode::Kicked, &text);
        self.tell_gateway(receiver, "the receiver was removed from the channel by kick");
        Ok(Reply::Kicked { pid, name })
    }

    fn peek(&mut self, id: PeerId, channel_id: ChannelId, after: u64, messages: u32) -> Reply {
        if !self.channel(channel_id).lanes.is_empty() {
            return self.peek_all(id, channel_id, after, messages);
        }
        let channel = &self.channels[channel_id.0 as usize];
        // Positions count what has left by lanes as well.
        let before = channel.former_lane_messages;
        let after = after.saturating_sub(before);
        let from = after.max(channel.log.first());
        let mut copies = Vec::new();
        let mut position = from;
        while position < channel.log.end() && position - from < u64::from(messages) {
            let Some(frame) = channel.log.frame_at(position) else { break };
            if !copies.is_empty() && copies.len() + frame.len() > PEEK_BYTES + PREFIX_BYTES {
                break;
            }
            copies.extend_from_slice(frame);
            position += 1;
        }
        let next = (position < channel.log.end()).then_some(position + before);
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.extend(&copies);
        }
        Reply::Peeked { next }
    }

    /// As [`peek`](Self::peek), of lanes and stream together: a position counts what has left by either.
    fn peek_all(&mut self, id: PeerId, channel_id: ChannelId, after: u64, messages: u32) -> Reply {
        let first = self.channel(channel_id).log.first() + self.passed_in_lanes(channel_id);
        let from = after.max(first);
        let mut copies = Vec::new();
        let most = PEEK_BYTES + PREFIX_BYTES;
        let (given, more) = self.peek_beside_lanes(channel_id, from - first, u64::from(messages), most, &mut copies);
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.extend(&copies);
        }
        Reply::Peeked { next: more.then_some(from + given) }
    }

    fn about(&self) -> Reply {
        Reply::About {
            version: self.rules.version.clone(),
            pid: self.rules.pid,
            uptime_ms: self.now_ms,
            connections: self.connections(),
        }
    }
}

fn check_options(name: &ChannelName, options: &ChannelOptions) -> Result<(), Refusal> {
    let zero = [
        ("capacity", options.capacity == Some(0)),
        ("capacity-bytes", options.capacity_bytes == Some(0)),
        ("window", options.window == Some(0)),
        ("max-message", options.message_max_bytes == Some(0)),
    ];
    if let Some((option, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
        let text = format!("{option} 0 of channel {name} would let nothing through: give 1 or more");
        return Err(Refusal::new(RefusedCode::Limit, text));
    }
    match options.message_max_bytes {
        Some(bytes) if bytes > MESSAGE_MAX_BYTES_MAX => {
            let text = format!(
                "max-message {bytes} of channel {name} is over the limit of {MESSAGE_MAX_BYTES_MAX} bytes: put larger ones in a file and send its name"
            );
            Err(Refusal::new(RefusedCode::Limit, text))
        }
        Some(_) | None => Ok(()),
    }
}
