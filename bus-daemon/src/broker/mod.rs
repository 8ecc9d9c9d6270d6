//! The rules of the bus: pure, without socket, thread or clock.
//!
//! **How it is driven.** Hand in one event ([`Broker::connected`], [`Broker::frame`],
//! [`Broker::disconnected`], [`Broker::tick`]), then take all actions from
//! [`Broker::poll_action`]. What a peer is to be sent is asked by [`Broker::output`], and what its
//! socket took is told by [`Broker::wrote`]. After a turn of the event loop, [`Broker::end_turn`]
//! lets senders know how far they are. Time is an argument, counted from the daemon's start.
//!
//! Payloads move through, and are neither cloned nor decoded.

mod account;
mod attach;
mod channel;
mod deliver;
mod leave;
mod log;
mod orders;
mod peer;
mod publish;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bus_core::wire::{
    Closing, ClosingCode, FrameHeader, FrameLimits, Kind, Progress, Refused, RefusedCode, Request, Want, read_control,
};
use bus_core::{ChannelName, ChannelOptions};
use slab::Slab;

pub use self::log::{Content, LARGE_BYTES, PREFIX_BYTES};
pub use self::peer::PeerId;

use self::account::AccountId;
use self::channel::{Bounds, Channel, ChannelId};
use self::peer::{Peer, PeerRole};
use crate::peer::Credentials;

/// Limits and keys of a broker. The daemon's configuration fills it.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Largest message, in bytes.
    pub message_max_bytes: u32,
    /// How many messages one sender may have unacknowledged.
    pub window_messages: u32,
    /// How many bytes one sender may have unacknowledged.
    pub window_bytes: u64,
    /// How many messages are held for a channel.
    pub capacity_messages: u64,
    /// How many bytes are held for a channel.
    pub capacity_bytes: u64,
    /// How many messages a receiver is sent ahead.
    pub push_ahead_messages: u64,
    /// How many bytes a receiver is sent ahead.
    pub push_ahead_bytes: u64,
    /// Connections of one user.
    pub user_connections_max: u32,
    /// Channels of one user.
    pub user_channels_max: u32,
    /// Bytes held for one user's channels.
    pub user_bytes_max: u64,
    /// How long a connection may stay without a hello, in milliseconds.
    pub hello_timeout_ms: u64,
    /// How long senders of an earlier daemon count as present, in milliseconds.
    pub resume_grace_ms: u64,
    /// How many departed senders a channel remembers.
    pub departed_senders_max: usize,
    /// How long a departed sender is remembered, in milliseconds.
    pub departed_senders_ttl_ms: u64,
    /// Users that may connect.
    pub allowed_uids: Vec<u32>,
    /// Key of the senders' tokens.
    pub token_key: [u8; 16],
    /// Seed of the senders' ids; differs at each start.
    pub seed: u64,
    /// The release that `about` tells.
    pub version: String,
    /// The process that `about` tells.
    pub pid: u32,
}

impl Default for Rules {
    fn default() -> Self {
        use bus_core::limits;
        Self {
            message_max_bytes: limits::MESSAGE_MAX_BYTES,
            window_messages: limits::WINDOW_MESSAGES,
            window_bytes: limits::WINDOW_BYTES,
            capacity_messages: limits::CAPACITY_MESSAGES,
            capacity_bytes: limits::CAPACITY_BYTES,
            push_ahead_messages: limits::PUSH_AHEAD_MESSAGES,
            push_ahead_bytes: limits::PUSH_AHEAD_BYTES,
            user_connections_max: 4_096,
            user_channels_max: 4_096,
            user_bytes_max: 1024 * 1024 * 1024,
            hello_timeout_ms: limits::HELLO_TIMEOUT_MS,
            resume_grace_ms: limits::RESUME_GRACE_MS,
            departed_senders_max: limits::DEPARTED_SENDERS_MAX,
            departed_senders_ttl_ms: limits::DEPARTED_SENDERS_TTL_MS,
            allowed_uids: Vec::new(),
            token_key: [0; 16],
            seed: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 0,
        }
    }
}

/// What the event loop is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write what [`Broker::output`] has for this peer.
    Write(PeerId),
    /// The peer's next frame may be handed in again, and what follows it.
    Resume(PeerId),
    /// Write what is there, as far as the socket takes it, and close.
    Close(PeerId, String),
}

/// What became of a frame.
#[derive(Debug)]
#[must_use]
pub enum Handled<'a> {
    /// It is done with.
    Taken,
    /// There is no room: hand it in again after [`Action::Resume`], and nothing of this peer before.
    NotNow(Content<'a>),
}

/// What is left of a channel when the daemon ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The channel.
    pub channel: ChannelName,
    /// Messages that are lost unless a sender or receiver still holds them.
    pub messages: u64,
}

/// The rules of the bus. See the [module](self) for how it is driven.
#[derive(Debug)]
pub struct Broker {
    rules: Rules,
    peers: Slab<Peer>,
    next_generation: u32,
    channels: Slab<Channel>,
    by_name: HashMap<ChannelName, ChannelId>,
    /// Few, and looked up for each message.
    users: BTreeMap<u32, User>,
    actions: VecDeque<Action>,
    /// Accounts with news for their senders.
    to_tell: Vec<(ChannelId, AccountId)>,
    /// Senders that have been named so far; their ids are drawn from it.
    senders_named: u64,
    shutting_down: bool,
    now_ms: u64,
    /// The earliest thing that time may bring.
    due_ms: Option<u64>,
    /// The largest message that any channel has ever taken.
    message_max_bytes: u32,
}

/// What one user holds.
#[derive(Clone, Copy, Debug, Default)]
struct User {
    connections: u32,
    channels: u32,
    bytes: u64,
}

/// Why an end is not let in, or an order is not carried out.
struct Refusal {
    code: RefusedCode,
    text: String,
}

impl Refusal {
    fn new(code: RefusedCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Why a peer is closed: its own fault, with the text that it and the log are told.
struct Fault(String);

impl Broker {
    /// A broker without channels.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let message_max_bytes = rules.message_max_bytes;
        Self {
            rules,
            peers: Slab::new(),
            next_generation: 1,
            channels: Slab::new(),
            by_name: HashMap::new(),
            users: BTreeMap::new(),
            actions: VecDeque::new(),
            to_tell: Vec::new(),
            senders_named: 0,
            shutting_down: false,
            now_ms: 0,
            due_ms: None,
            message_max_bytes,
        }
    }

    /// Declares a channel of the configuration.
    pub fn declare(&mut self, name: ChannelName, options: ChannelOptions) {
        let uid = self.rules.allowed_uids.first().copied().unwrap_or_default();
        let id = self.channel_or_new(&name, options, uid);
        self.channels[id.0 as usize].declared = true;
    }

    /// What frames of clients are held to.
    #[must_use]
    pub fn frame_limits(&self) -> FrameLimits {
        FrameLimits {
            message_max_bytes: self.message_max_bytes,
            control_max_bytes: bus_core::limits::CONTROL_MAX_BYTES,
        }
    }

    /// Somebody has connected.
    pub fn connected(&mut self, now: Duration, credentials: Credentials) -> PeerId {
        self.now_ms = millis(now);
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let slot = self.peers.insert(Peer::new(generation, credentials, self.now_ms)) as u32;
        let id = PeerId { slot, generation };
        self.due(self.now_ms + self.rules.hello_timeout_ms);
        let user = self.users.entry(credentials.uid).or_default();
        user.connections += 1;
        let connections = user.connections;
        let uid = credentials.uid;
        if !self.rules.allowed_uids.contains(&uid) {
            let text = format!("user {uid} may not use this bus: list it under allowed_uids in the daemon's config");
            self.refuse(id, RefusedCode::Denied, text);
        } else if connections > self.rules.user_connections_max {
            let limit = self.rules.user_connections_max;
            let text = format!(
                "user {uid} has {connections} connections, and the limit is {limit}: close some, or raise user_connections_max"
            );
            self.refuse(id, RefusedCode::Limit, text);
        }
        id
    }

    /// A peer has sent a frame, whose lengths were checked against [`Self::frame_limits`].
    pub fn frame<'a>(&mut self, now: Duration, id: PeerId, header: &FrameHeader, content: Content<'a>) -> Handled<'a> {
        self.now_ms = millis(now);
        let Some(peer) = self.peer(id).filter(|peer| !peer.closing) else { return Handled::Taken };
        let role = peer.role;
        if let (PeerRole::Sender { channel, account, .. }, Kind::Data) = (role, header.kind) {
            return self.publish(id, channel, account, header, content).unwrap_or_else(|fault| {
                self.fault(id, fault);
                Handled::Taken
            });
        }
        if let Err(fault) = self.control_frame(id, role, header.kind, content.bytes()) {
            self.fault(id, fault);
        }
        Handled::Taken
    }

    fn control_frame(&mut self, id: PeerId, role: PeerRole, kind: Kind, body: &[u8]) -> Result<(), Fault> {
        match (role, kind) {
            (PeerRole::Greeting { .. }, Kind::Hello) => read(Kind::Hello, body).map(|hello| self.greet(id, hello)),
            (PeerRole::Sender { channel, account, .. }, Kind::Want) => {
                read::<Want>(Kind::Want, body).map(|want| self.want(id, channel, account, want))
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Unwant) => {
                self.unwant(id, channel, account);
                Ok(())
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Confirm) => {
                self.confirm(channel, account);
                Ok(())
            }
            (PeerRole::Receiver { channel, .. }, Kind::Progress) => {
                read::<Progress>(Kind::Progress, body).and_then(|progress| self.progress(id, channel, progress))
            }
            (PeerRole::Receiver { channel, .. }, Kind::Recalled) => {
                read::<Progress>(Kind::Recalled, body).and_then(|progress| self.recalled(id, channel, progress))
            }
            (PeerRole::Receiver { channel, .. }, Kind::Goodbye) => read::<Progress>(Kind::Goodbye, body)
                .and_then(|progress| self.progress(id, channel, progress))
                .map(|()| self.receiver_leaves(id, channel, true)),
            (PeerRole::Sender { channel, account, .. }, Kind::Goodbye) => {
                self.sender_leaves(id, channel, account, true);
                Ok(())
            }
            (PeerRole::Sender { channel, .. } | PeerRole::Receiver { channel, .. }, Kind::Watch) => {
                self.watch(id, channel);
                Ok(())
            }
            (PeerRole::Control, Kind::Request) => {
                read::<Request>(Kind::Request, body).map(|request| self.carry_out(id, request))
            }
            (PeerRole::Greeting { .. }, kind) => {
                Err(Fault(format!("the first frame of a connection must be a Hello, and this one is a {kind:?}")))
            }
            (_, kind) => Err(Fault(format!("a {kind:?} frame does not belong here"))),
        }
    }

    /// A connection is gone, and everything that it had sent has been handed in.
    pub fn disconnected(&mut self, now: Duration, id: PeerId) {
        self.now_ms = millis(now);
        let Some(peer) = self.peer(id) else { return };
        let (role, uid) = (peer.role, peer.credentials.uid);
        match role {
            PeerRole::Sender { channel, account, .. } => self.sender_leaves(id, channel, account, false),
            PeerRole::Receiver { channel, .. } => self.receiver_leaves(id, channel, true),
            PeerRole::Greeting { .. } | PeerRole::Control => {}
        }
        self.peers.remove(id.slot as usize);
        if let Some(user) = self.users.get_mut(&uid) {
            user.connections -= 1;
            if user.connections == 0 && user.channels == 0 && user.bytes == 0 {
                self.users.remove(&uid);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        self.now_ms = millis(now);
        self.time_out_greetings();
        let channels: Vec<ChannelId> = self.channels.iter().map(|(slot, _)| ChannelId(slot as u32)).collect();
        for channel in channels {
            self.tick_channel(channel);
        }
        let greetings = self.peers.iter().filter_map(|(_, peer)| match peer.role {
            PeerRole::Greeting { since_ms } if !peer.closing => Some(since_ms + self.rules.hello_timeout_ms),
            _ => None,
        });
        let channels = self.channels.iter().filter_map(|(_, channel)| self.next_channel_tick(channel));
        self.due_ms = greetings.chain(channels).min();
    }

    /// When [`Self::tick`] may have something to do next.
    #[must_use]
    pub fn next_tick(&self) -> Option<Duration> {
        self.due_ms.map(Duration::from_millis)
    }

    fn due(&mut self, at_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`Self::poll_action`] has more.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What a log line calls a peer.
    #[must_use]
    pub fn describe(&self, id: PeerId) -> String {
        let Some(peer) = self.peer(id) else { return "a former peer".to_owned() };
        let role = match peer.role {
            PeerRole::Greeting { .. } => "connection",
            PeerRole::Control => "former end",
            PeerRole::Sender { .. } => "sender",
            PeerRole::Receiver { .. } => "receiver",
        };
        format!("{role} {:?} (pid {}, uid {})", peer.name, peer.credentials.pid, peer.credentials.uid)
    }

    /// Lets senders know how far they are: those who wait for it or have come a good way, and, when
    /// the loop is `idle`, all others with news.
    pub fn end_turn(&mut self, idle: bool) {
        let mut to_tell = std::mem::take(&mut self.to_tell);
        to_tell.retain(|(channel_id, account_id)| {
            let Some(channel) = self.channels.get_mut(channel_id.0 as usize) else { return false };
            let window = u64::from(channel.bounds.window);
            let Some(account) = channel.accounts.get_mut(account_id.0 as usize) else { return false };
            if !idle && !account.wants_to_know(window) {
                return true;
            }
            account.queued = false;
            let settled = account.settled();
            if let Some(id) = account.peer
                && (settled != account.told || account.confirm > 0)
            {
                account.told = settled;
                account.confirm = 0;
                self.put(id, Kind::Settled, &settled);
            }
            false
        });
        to_tell.append(&mut self.to_tell);
        self.to_tell = to_tell;
    }

    /// Whether nobody is connected and nothing is held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.peers.is_empty() && self.channels.iter().all(|(_, channel)| channel.log.is_empty())
    }

    /// The daemon is to end: no new ends, no further messages; receivers may drain.
    pub fn begin_shutdown(&mut self) {
        self.shutting_down = true;
    }

    /// Whether no receiver has anything left to drain.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.channels.iter().all(|(_, channel)| channel.seat.is_none() || channel.log.is_empty())
    }

    /// Tells every peer that the daemon ends.
    pub fn close_all(&mut self) {
        let text = "the daemon is ending".to_owned();
        let ids: Vec<PeerId> = self.peer_ids().collect();
        for id in ids {
            self.close(id, ClosingCode::ShuttingDown, text.clone());
        }
    }

    /// What is held, by channel.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Leftover> {
        let held = self.channels.iter().filter(|(_, channel)| !channel.log.is_empty());
        held.map(|(_, channel)| Leftover { channel: channel.name.clone(), messages: channel.log.len() }).collect()
    }

    /// Connections, channels and bytes that a user is charged for; `None` when it is charged for nothing.
    #[must_use]
    pub fn usage(&self, uid: u32) -> Option<(u32, u32, u64)> {
        self.users.get(&uid).map(|user| (user.connections, user.channels, user.bytes))
    }

    /// Checks what must always hold. For tests: it costs as much as everything is large.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn check(&self) -> Result<(), String> {
        for (_, channel) in &self.channels {
            channel.check()?;
        }
        Ok(())
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id.slot as usize).filter(|peer| peer.generation == id.generation)
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.slot as usize).filter(|peer| peer.generation == id.generation)
    }

    fn peer_ids(&self) -> impl Iterator<Item = PeerId> {
        self.peers.iter().map(|(slot, peer)| PeerId { slot: slot as u32, generation: peer.generation })
    }

    fn channel(&self, id: ChannelId) -> &Channel {
        &self.channels[id.0 as usize]
    }

    fn channel_mut(&mut self, id: ChannelId) -> &mut Channel {
        &mut self.channels[id.0 as usize]
    }

    /// Puts a control frame into a peer's outbox.
    fn put<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        if let Some(peer) = self.peer_mut(id) {
            peer.put(kind, body);
            self.write(id);
        }
    }

    fn write(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id)
            && !std::mem::replace(&mut peer.write_queued, true)
        {
            self.actions.push_back(Action::Write(id));
        }
    }

    fn fault(&mut self, id: PeerId, Fault(text): Fault) {
        match self.peer(id).map(|peer| peer.role) {
            Some(PeerRole::Greeting { .. }) => self.refuse(id, RefusedCode::Protocol, text),
            Some(_) => self.close(id, ClosingCode::Fault, text),
            None => {}
        }
    }

    /// A frame of this peer was malformed: it is told, and closed.
    pub fn malformed(&mut self, now: Duration, id: PeerId, error: &bus_core::wire::FrameError) {
        self.now_ms = millis(now);
        let code = match error {
            bus_core::wire::FrameError::Protocol { .. } => RefusedCode::Version,
            _ => RefusedCode::Protocol,
        };
        match self.peer(id).map(|peer| peer.role) {
            Some(PeerRole::Greeting { .. }) => self.refuse(id, code, error.to_string()),
            Some(_) => self.close(id, ClosingCode::Fault, error.to_string()),
            None => {}
        }
    }

    fn refuse(&mut self, id: PeerId, code: RefusedCode, text: String) {
        if self.peer(id).is_none_or(|peer| peer.closing) {
            return;
        }
        self.put(id, Kind::Refused, &Refused { code, text: text.clone() });
        self.end_peer(id, text);
    }

    fn close(&mut self, id: PeerId, code: ClosingCode, text: String) {
        if self.peer(id).is_none_or(|peer| peer.closing) {
            return;
        }
        self.put(id, Kind::Closing, &Closing { code, text: text.clone() });
        self.end_peer(id, text);
    }

    fn end_peer(&mut self, id: PeerId, text: String) {
        if let Some(peer) = self.peer_mut(id)
            && !std::mem::replace(&mut peer.closing, true)
        {
            self.actions.push_back(Action::Close(id, text));
        }
    }

    fn time_out_greetings(&mut self) {
        let limit = self.rules.hello_timeout_ms;
        let late: Vec<PeerId> = self
            .peer_ids()
            .filter(|id| {
                self.peer(*id).is_some_and(|peer| match peer.role {
                    PeerRole::Greeting { since_ms } => !peer.closing && since_ms + limit <= self.now_ms,
                    _ => false,
                })
            })
            .collect();
        for id in late {
            let text = format!("no hello came within {limit} ms of connecting (hello_timeout)");
            // Not for good: a client that was stopped meanwhile may try again.
            self.refuse(id, RefusedCode::Limit, text);
        }
    }

    fn bounds(&self, options: &ChannelOptions) -> Bounds {
        let exact = options.is_exact();
        Bounds {
            messages: options.capacity.unwrap_or(self.rules.capacity_messages),
            bytes: options.capacity_bytes.unwrap_or(self.rules.capacity_bytes),
            window: options.window.unwrap_or(self.rules.window_messages),
            window_bytes: self.rules.window_bytes,
            message_max_bytes: options.message_max_bytes.unwrap_or(self.rules.message_max_bytes),
            when_full: options.when_full,
            exact,
            // What is on its way cannot be dropped or counted exactly any more.
            push_ahead_messages: if exact { 1 } else { self.rules.push_ahead_messages },
            push_ahead_bytes: self.rules.push_ahead_bytes,
        }
    }

    fn channel_or_new(&mut self, name: &ChannelName, options: ChannelOptions, uid: u32) -> ChannelId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let bounds = self.bounds(&options);
        self.message_max_bytes = self.message_max_bytes.max(bounds.message_max_bytes);
        let id = ChannelId(self.channels.insert(Channel::new(name.clone(), options, bounds, uid)) as u32);
        self.by_name.insert(name.clone(), id);
        self.users.entry(uid).or_default().channels += 1;
        id
    }

    /// Forgets a channel that nobody declared, holds or attends.
    fn vanish_if_idle(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get(id.0 as usize) else { return };
        if !channel.is_idle() {
            return;
        }
        if channel.declared {
            let channel = self.channel_mut(id);
            channel.declares = None;
            channel.sender_seen = false;
            return;
        }
        self.remove_channel(id);
    }

    fn remove_channel(&mut self, id: ChannelId) {
        let channel = self.channels.remove(id.0 as usize);
        self.by_name.remove(&channel.name);
        if let Some(user) = self.users.get_mut(&channel.uid) {
            user.channels -= 1;
            user.bytes -= channel.log.bytes();
        }
    }

    /// Charges the channel's user for what a change has added or taken.
    fn charge(&mut self, id: ChannelId, before: u64) {
        let channel = self.channel(id);
        let (uid, after) = (channel.uid, channel.log.bytes());
        let user = self.users.entry(uid).or_default();
        user.bytes = user.bytes + after - before;
    }
}

fn read<T: serde::de::DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, Fault> {
    read_control(kind, body).map_err(|error| Fault(error.to_string()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
