//! What users hold of the daemon: connections, channels and bytes, and the limits of each.

use bus_core::ChannelName;
use bus_core::wire::RefusedCode;

use super::channel::{Channel, ChannelId};
use super::peer::{Charge, PeerId, PeerRole};
use super::{Broker, Refusal};

/// Connections that are kept for receivers and for questions and orders when senders have used up
/// all others: a full channel can be drained only by those.
const RESERVED_CONNECTIONS: u32 = 16;

/// What a peer without a socket costs besides what it sent, in bytes.
const PEER_BYTES: u64 = 1024;

/// What a message costs besides its bytes, in bytes: its place in the log, and what stands before it in
/// memory. Users are charged for that too, or messages without content would be held for nothing.
pub const MESSAGE_COST_BYTES: u64 = 128;

/// What messages cost their user.
pub(super) fn cost(messages: u64, bytes: u64) -> u64 {
    messages * MESSAGE_COST_BYTES + bytes
}

impl Channel {
    /// What is held here costs its user.
    pub(super) fn cost(&self) -> u64 {
        cost(self.log.len(), self.log.bytes())
    }
}

/// What one user holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) connections: u32,
    pub(super) channels: u32,
    pub(super) bytes: u64,
    pub(super) lanes: u32,
    pub(super) lane_bytes: u64,
}

impl User {
    fn holds_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Broker {
    /// Whether one more connection of a user may stay, whatever it is for.
    pub(super) fn check_connections(&self, uid: u32) -> Result<(), Refusal> {
        let limit = self.rules.user_connections_max.saturating_add(RESERVED_CONNECTIONS);
        self.check_user_connections(uid, limit)
    }

    /// Whether there are only descriptors left that are kept for those who make room.
    pub fn descriptors_are_short(&mut self, short: bool) {
        self.descriptors_short = short;
    }

    /// Whether one more connection of a user may be a sender.
    pub(super) fn check_sender_connections(&self, uid: u32, channel: &ChannelName) -> Result<(), Refusal> {
        self.check_further_sender(uid).map_err(|Refusal { code, text }| {
            Refusal::new(code, format!("channel {channel} gets no further sender: {text}"))
        })
    }

    fn check_further_sender(&self, uid: u32) -> Result<(), Refusal> {
        self.check_user_connections(uid, self.rules.user_connections_max)?;
        if self.descriptors_short {
            let text = "the daemon has used up its descriptors, and keeps the last for receivers and orders: close some ends, or raise its limit (LimitNOFILE, ulimit -n)";
            return Err(Refusal::new(RefusedCode::Limit, text));
        }
        let (connections, most) = (self.connections(), self.rules.connections_max);
        let limit = most - RESERVED_CONNECTIONS.min(most / 2);
        if connections > limit {
            let text = format!(
                "the daemon has {connections} connections, and the limit for senders is {limit}: close some, or raise connections_max"
            );
            return Err(Refusal::new(RefusedCode::Limit, text));
        }
        Ok(())
    }

    fn check_user_connections(&self, uid: u32, most: u32) -> Result<(), Refusal> {
        let connections = self.users.get(&uid).map_or(0, |user| user.connections);
        if connections <= most {
            return Ok(());
        }
        let limit = self.rules.user_connections_max;
        let text = format!(
            "user {uid} has {connections} connections, and the limit is {limit}: close some, or raise per_user.connections_max"
        );
        Err(Refusal::new(RefusedCode::Limit, text))
    }

    pub(super) fn check_channels(&self, uid: u32, channel: &ChannelName) -> Result<(), Refusal> {
        let channels = self.users.get(&uid).map_or(0, |user| user.channels);
        let limit = self.rules.user_channels_max;
        if channels < limit {
            return Ok(());
        }
        let text = format!(
            "channel {channel} cannot be made: user {uid} has {channels} channels, and the limit is {limit}: delete some, or raise per_user.channels_max"
        );
        Err(Refusal::new(RefusedCode::Limit, text))
    }

    /// Whether a user may have `bytes` more in the daemon.
    pub(super) fn user_has_room(&self, uid: u32, bytes: u64) -> bool {
        let held = self.users.get(&uid).map_or(0, |user| user.bytes);
        held.saturating_add(bytes) <= self.rules.user_bytes_max
    }

    /// Connections of all users.
    pub(super) fn connections(&self) -> u32 {
        self.users.values().map(|user| user.connections).sum()
    }

    /// The socket of a peer is closed, and `bytes` that it had sent are kept until there is room for
    /// them. It costs its user bytes from now on, and no connection; a user that may hold no more bytes
    /// goes on paying with the connection.
    pub fn hung_up(&mut self, id: PeerId, bytes: u64) {
        let Some(peer) = self.peer(id).filter(|peer| peer.charge == Charge::Connection) else { return };
        let uid = peer.credentials.uid;
        let bytes = bytes.saturating_add(PEER_BYTES);
        let reading = self.end_reading(id);
        if self.user_has_room(uid, bytes) {
            self.exchange_charge(id, uid, Charge::Bytes(bytes));
            reading.inspect(|reading| self.give_room(reading.channel));
        } else if let Some(reading) = reading {
            self.charge_reading(id, reading);
        }
        self.write_closed(id);
    }

    fn exchange_charge(&mut self, id: PeerId, uid: u32, charge: Charge) {
        let Some(peer) = self.peer_mut(id) else { return };
        let earlier = std::mem::replace(&mut peer.charge, charge);
        self.discharge(uid, earlier);
        let user = self.users.entry(uid).or_default();
        match charge {
            Charge::Connection => user.connections += 1,
            Charge::Bytes(bytes) => user.bytes += bytes,
        }
    }

    /// A frame of a peer without a socket is taken: it is charged as a message now, if at all.
    pub(super) fn discharge_frame(&mut self, id: PeerId, frame_bytes: u64) {
        let Some(peer) = self.peer_mut(id) else { return };
        if let Charge::Bytes(bytes) = &mut peer.charge {
            let taken = frame_bytes.min(*bytes);
            *bytes -= taken;
            let uid = peer.credentials.uid;
            self.discharge(uid, Charge::Bytes(taken));
        }
    }

    /// What was charged is given back.
    pub(super) fn discharge(&mut self, uid: u32, charge: Charge) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        match charge {
            Charge::Connection => user.connections -= 1,
            Charge::Bytes(bytes) => user.bytes -= bytes,
        }
        self.forget_user_without_holdings(uid);
    }

    pub(super) fn forget_user_without_holdings(&mut self, uid: u32) {
        if self.users.get(&uid).is_some_and(User::holds_nothing) {
            self.users.remove(&uid);
        }
    }

    /// Charges the channel's user for what a change has added or taken.
    pub(super) fn charge(&mut self, id: ChannelId, before: u64) {
        let channel = &mut self.channels[id.0 as usize];
        channel.log.freed().for_each(|record| self.records.keep(record));
        let (uid, after) = (channel.uid, channel.cost());
        let user = self.users.entry(uid).or_default();
        user.bytes = user.bytes + after - before;
    }

    /// Connections, channels and bytes that a user is charged for; `None` when it is charged for nothing.
    #[must_use]
    pub fn usage(&self, uid: u32) -> Option<(u32, u32, u64)> {
        self.users.get(&uid).map(|user| (user.connections, user.channels, user.bytes))
    }

    /// What users are charged for is what there is.
    pub(super) fn check_users(&self) -> Result<(), String> {
        let mut counted = std::collections::BTreeMap::<u32, User>::new();
        for (_, peer) in &self.peers {
            let user = counted.entry(peer.credentials.uid).or_default();
            match peer.charge {
                Charge::Connection => user.connections += 1,
                Charge::Bytes(bytes) => user.bytes += bytes,
            }
            if let Some(reading) = peer.reading {
                counted.entry(self.channel(reading.channel).uid).or_default().bytes += cost(1, reading.bytes);
            }
        }
        for (_, channel) in &self.channels {
            let user = counted.entry(channel.uid).or_default();
            user.channels += 1;
            user.bytes += channel.cost();
            for (uid, lanes, bytes) in channel.lane_costs() {
                let user = counted.entry(uid).or_default();
                (user.lanes, user.lane_bytes) = (user.lanes + lanes, user.lane_bytes + bytes);
            }
        }
        counted.retain(|_, user| !user.holds_nothing());
        if counted == self.users {
            return Ok(());
        }
        Err(format!("I9: users are charged for {:?}, and hold {counted:?}", self.users))
    }

    /// Whether a peer is a sender's connection, present or former.
    pub(super) fn sends_for(&self, id: PeerId) -> Option<ChannelId> {
        match self.peer(id)?.role {
            PeerRole::Sender { channel, .. } | PeerRole::FormerSender { channel, .. } => Some(channel),
            PeerRole::Greeting { .. }
            | PeerRole::Early
            | PeerRole::Control
            | PeerRole::Bringing
            | PeerRole::Receiver { .. } => None,
        }
    }
}
