//! Questions and orders of the shell: list, show, create, delete, purge, skip, kick, peek, about.

use bus_core::limits::MESSAGE_MAX_BYTES_MAX;
use bus_core::wire::{ClosingCode, Kind, Refused, RefusedCode, Reply, Request};
use bus_core::{ChannelInfo, ChannelName, ChannelOptions, ChannelSummary, PeerInfo, Removed};

use super::channel::{Channel, ChannelId, Leaves, Recall, Seat};
use super::log::PREFIX_BYTES;
use super::peer::{Peer, PeerId, PeerRole};
use super::settle::peers;
use super::{Broker, Refusal};

/// How many senders `show` lists.
const SENDERS_SHOWN: usize = 1_000;

/// How many bytes of copies one `peek` gives at most, unless one message has more.
const PEEK_BYTES: usize = 1024 * 1024;

impl Broker {
    pub(super) fn carry_out(&mut self, id: PeerId, request: Request) {
        let reply = match request {
            Request::List => Ok(self.list()),
            Request::Show(name) => self.named(&name).map(|channel| Reply::Channel(Box::new(self.show(channel)))),
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
                ChannelSummary::new(channel.name.clone(), ledger, channel.log.bytes(), peers(channel))
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
        info.held_bytes = channel.log.bytes();
        info.oldest_ms = channel.log.entries().next().map(|entry| self.now_ms.saturating_sub(entry.accepted_at_ms));
        info.receiver = channel.seat.as_ref().map(|seat| {
            let mut receiver = self.peer_info(seat.peer);
            receiver.messages = seat.messages;
            receiver.outstanding = seat.taken().saturating_sub(channel.log.first());
            receiver
        });
        info.standby = channel.line.iter().map(|id| self.peer_info(*id)).collect();
        info.senders = self.sender_infos(channel);
        info.sender_count = channel.senders;
        info
    }

    fn sender_infos(&self, channel: &Channel) -> Vec<PeerInfo> {
        let connected = channel.accounts.iter().filter_map(|(_, account)| Some((account, account.peer?)));
        connected
            .take(SENDERS_SHOWN)
            .map(|(account, id)| {
                let mut sender = self.peer_info(id);
                sender.sender = format!("{:016x}", account.sender);
                sender.messages = account.messages;
                sender.outstanding = account.outstanding;
                sender.blocked_ms = self.peer(id).and_then(|peer| {
                    let asked_ms = peer.want.map(|(_, since_ms)| since_ms);
                    let blocked_ms = [peer.paused_at_ms, asked_ms, account.window_full_since_ms];
                    Some(self.now_ms.saturating_sub(blocked_ms.into_iter().flatten().min()?))
                });
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
                let text =
                    format!("channel {name} exists with other options: delete it first, or create it with the same");
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
        self.check_channels(uid)?;
        let channel = self.channel_or_new(name, options, uid);
        self.channel_mut(channel).declared = true;
        Ok(Reply::Created(true))
    }

    /// Ends a channel at once. A receiver that has not claimed what it was sent ahead gives it up when it
    /// reads the order, which it obeys before messages; what it has claimed it may hand out.
    fn delete(&mut self, id: ChannelId) -> Reply {
        let channel = self.channel(id);
        let (name, messages) = (channel.name.clone(), self.held(id));
        let text = format!("channel {name} was deleted");
        let senders: Vec<PeerId> = channel.accounts.iter().filter_map(|(_, account)| account.peer).collect();
        let receivers: Vec<PeerId> =
            channel.seat.iter().map(|seat| seat.peer).chain(channel.line.iter().copied()).collect();
        for sender in senders {
            if let Some(PeerRole::Sender { account, .. }) = self.peer(sender).map(|peer| peer.role) {
                // It learns what was accepted: the rest comes back to it.
                let settled = self.channel(id).account(account).settled();
                self.put(sender, Kind::Settled, &settled);
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
        Reply::Removed(Removed { messages, recalled: from - taken })
    }

    fn skip(&mut self, id: ChannelId) -> Reply {
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
            // What stays of the same sender is older: its acknowledgement covers this one.
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
            let text = format!("channel {} has no receiver", channel.name);
            return Err(Refusal::new(RefusedCode::NoSuchChannel, text));
        };
        let PeerInfo { pid, name, .. } = self.peer_info(seat.peer);
        let text = format!("the receiver of channel {} was removed by kick", channel.name);
        self.dismiss(id, ClosingCode::Kicked, &text);
        Ok(Reply::Kicked { pid, name })
    }

    fn peek(&mut self, id: PeerId, channel_id: ChannelId, after: u64, messages: u32) -> Reply {
        let channel = &self.channels[channel_id.0 as usize];
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
        let next = (position < channel.log.end()).then_some(position);
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.extend(&copies);
        }
        Reply::Peeked { next }
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
