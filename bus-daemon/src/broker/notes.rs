//! [`Note`]: what a log may tell of: ends and channels that come and go, and limits that are met.
//!
//! The broker says what has happened; how loudly that is told is a matter of whoever asks for it by
//! [`Broker::poll_note`]. Nothing is noted for a message.

use bus_core::ChannelName;

use super::Broker;
use super::channel::ChannelId;
use super::peer::{PeerId, PeerRole};
use super::room::Need;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An end was let in, or somebody with questions and orders.
    LetIn(Who),
    /// An end has said goodbye.
    Left(Who),
    /// A peer is to be closed.
    Ending {
        /// Who.
        who: Who,
        /// Whose doing it is.
        ending: Ending,
        /// What the peer is told.
        reason: String,
    },
    /// A peer has to wait, or is not given what it asked for.
    LimitMet {
        /// Who.
        who: Who,
        /// The limit, the figure and the remedy.
        reason: String,
    },
    /// What a receiver that has left had written in its lane cannot be.
    Disbelieved {
        /// Who.
        who: Who,
        /// What, and what becomes of it.
        reason: String,
    },
    /// A channel was made.
    ChannelMade(ChannelName),
    /// A channel has gone by itself: nothing held it any more.
    ChannelVanished(ChannelName),
    /// A channel was deleted.
    ChannelDeleted {
        /// Which.
        channel: ChannelName,
        /// How many messages went with it.
        messages: u64,
    },
}

/// Whose doing it is that a peer is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its own: it broke a rule, or met a limit.
    Fault,
    /// It came at the wrong time, or was removed by order.
    Order,
}

/// A peer as a log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// What it is.
    pub role: &'static str,
    /// Where it is, if it is an end.
    pub channel: Option<ChannelName>,
    /// Its process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// What it calls itself.
    pub name: String,
}

/// What a peer leaves undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Messages that a sender sent, and that no receiver has acknowledged.
    pub unacknowledged: u64,
    /// Messages that a receiver has claimed, and not acknowledged.
    pub claimed: u64,
}

/// How often it is told at most that a user holds all that it may, in milliseconds.
const USER_FULL_PAUSE_MS: u64 = 10_000;

impl Broker {
    /// The next thing that has happened.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push_back(note);
    }

    /// A peer as a log names it.
    #[must_use]
    pub fn who(&self, id: PeerId) -> Who {
        let Some(peer) = self.peer(id) else {
            return Who { role: "former peer", channel: None, pid: 0, uid: 0, name: String::new() };
        };
        let (role, channel) = match peer.role {
            PeerRole::Greeting { .. } | PeerRole::Early => ("connection", None),
            PeerRole::Control if peer.was_end => ("former end", None),
            PeerRole::Control => ("control", None),
            PeerRole::Bringing => ("former end of a lane", None),
            PeerRole::Sender { channel, .. } => ("sender", Some(channel)),
            PeerRole::FormerSender { channel, .. } => ("former connection of sender", Some(channel)),
            PeerRole::Receiver { channel, .. } => ("receiver", Some(channel)),
        };
        let channel = channel.map(|channel| self.channel(channel).name.clone());
        Who { role, channel, pid: peer.credentials.pid, uid: peer.credentials.uid, name: peer.name.clone() }
    }

    /// What a peer would leave undone if it went now.
    #[must_use]
    pub fn in_flight(&self, id: PeerId) -> InFlight {
        match self.peer(id).map(|peer| peer.role) {
            Some(PeerRole::Sender { channel, account, .. }) => {
                let in_lane = self.in_lane(channel, account).map_or(0, |in_lane| in_lane.outstanding);
                let unacknowledged = self.channel(channel).account(account).outstanding + in_lane;
                InFlight { unacknowledged, claimed: 0 }
            }
            Some(PeerRole::Receiver { channel, .. }) => {
                let (log, seat) = (&self.channel(channel).log, self.channel(channel).seat.as_ref());
                let Some(seat) = seat.filter(|seat| seat.peer == id) else { return InFlight::default() };
                let in_lanes = self.read_in_lanes(channel).map_or(0, |(claimed, _)| claimed);
                InFlight { unacknowledged: 0, claimed: seat.taken().saturating_sub(log.first()) + in_lanes }
            }
            _ => InFlight::default(),
        }
    }

    /// A sender waits: if that is because of its channel's user, that is worth a note, once in a while.
    pub(super) fn note_user_limit(&mut self, id: PeerId, channel_id: ChannelId, need: Need) {
        let lately = self.user_full_told_ms.is_some_and(|at_ms| self.now_ms < at_ms + USER_FULL_PAUSE_MS);
        if lately || !self.is_over_user(channel_id, need.bytes, id) {
            return;
        }
        self.user_full_told_ms = Some(self.now_ms);
        let uid = self.channel(channel_id).uid;
        let (held, limit) = (self.users.get(&uid).map_or(0, |user| user.bytes), self.rules.user_bytes_max);
        let reason = format!(
            "user {uid} holds {held} of {limit} bytes in the daemon, and a message of {} bytes waits: receive some, or raise per_user.queued_bytes_max",
            need.bytes
        );
        self.note(Note::LimitMet { who: self.who(id), reason });
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { role, channel, pid, uid, name } = self;
        match channel {
            Some(channel) => write!(f, "{role} {name:?} of {channel} (pid {pid}, uid {uid})"),
            None => write!(f, "{role} {name:?} (pid {pid}, uid {uid})"),
        }
    }
}
