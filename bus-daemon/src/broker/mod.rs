//! The rules of the bus: pure, without socket, thread or clock.
//!
//! **How it is driven.** Hand in one event ([`Broker::connected`], [`Broker::frame`], [`Broker::run`],
//! [`Broker::announced`], [`Broker::disconnected`], [`Broker::process_gone`], [`Broker::tick`]), then take all actions from
//! [`Broker::poll_action`], and what a log may tell of from [`Broker::poll_note`]. What a peer is to be sent is asked
//! by [`Broker::output`], and what its socket took is told by [`Broker::wrote`]. After a turn of the event loop, [`Broker::end_turn`]
//! lets senders know how far they are. Time is an argument, counted from the daemon's start.
//!
//! Payloads move through, and are neither cloned nor decoded.
//!
//! The rooms, in the way of a message: `attach` lets ends in, `hear` takes frames apart, `publish`,
//! `room`, for many at once `run` and for large ones `large` let messages in, `deliver` and `settle`
//! tell receivers and senders, `leave` and `close` see peers off. `orders` answers the shell; `registry` and `users`
//! keep what there is; `notes` says what has happened.

mod account;
mod attach;
mod channel;
mod close;
mod deliver;
mod hear;
mod lanes;
mod large;
mod leave;
mod links;
mod log;
mod notes;
mod orders;
mod outbox;
mod peer;
mod publish;
mod rates;
mod records;
mod registry;
mod room;
mod rules;
mod run;
mod settle;
mod tick;
mod users;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bus_core::wire::{FrameLimits, Hello, Kind, LaneBrought, LaneId, RefusedCode};
use bus_core::{ChannelName, LinkSpec, Unlink};
use slab::Slab;

pub use self::lanes::{AtRest, LaneAction, LaneBooks, LaneMessage, LanePart, LaneSize, NoLane};
pub use self::large::Announced;
pub use self::log::{Content, LARGE_BYTES, PREFIX_BYTES};
pub use self::notes::{Ending, InFlight, Note, Who};
pub use self::peer::PeerId;
pub use self::rules::Rules;
pub use self::run::Run;
pub use self::users::MESSAGE_COST_BYTES;

use self::account::AccountId;
use self::channel::{Channel, ChannelId};
use self::lanes::Ticket;
use self::leave::{Departures, Parting};
use self::peer::{Peer, PeerRole};
use self::records::Records;
use self::users::User;
use crate::peer::Credentials;

/// What the event loop is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write what [`Broker::output`] has for this peer.
    Write(PeerId),
    /// The peer's next frame may be handed in again, and what follows it.
    Resume(PeerId),
    /// Write what is there, as far as the socket takes it, and close.
    Close(PeerId, String),
    /// Read what the socket holds at this moment, close it, tell [`Broker::hung_up`], and hand in what
    /// was read. The peer is gone when that is done.
    HangUp(PeerId, String),
    /// Do this to the memory of a lane.
    Lane(LaneAction),
    /// Carry out this order for a peer, and give [`Broker::answer`] what came of it.
    Link(PeerId, LinkOrder),
}

/// An order about gateways, which are no matter of the broker's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOrder {
    /// Make one.
    Link(Box<LinkSpec>),
    /// End some.
    Unlink {
        /// Which.
        which: Unlink,
        /// The config is to know them no more.
        forget: bool,
    },
    /// Name them all.
    List,
    /// The end that has this name, in the daemon's own process, is gone for good.
    Parted {
        /// Its name.
        name: String,
        /// What has become of it.
        why: String,
    },
}

/// What became of a frame.
#[derive(Debug)]
#[must_use]
pub enum Handled<'a> {
    /// It is done with.
    Taken,
    /// There is no room, or its peer does not read what it is told: hand it in again after
    /// [`Action::Resume`], and nothing of this peer before.
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
    /// What a log may tell of.
    notes: VecDeque<Note>,
    /// When it was last noted that a user holds all that it may, in milliseconds.
    user_full_told_ms: Option<u64>,
    /// Accounts with news for their senders.
    to_tell: Vec<(ChannelId, AccountId)>,
    /// When those are told who do not wait for it, in milliseconds.
    tell_all_at_ms: Option<u64>,
    /// Senders that have been named so far; their ids are drawn from it.
    senders_named: u64,
    /// Senders that were here and have left, whatever has become of their channels.
    departures: Departures,
    /// Processes of awaited senders that are to be looked at now.
    processes_to_look_at: Vec<u32>,
    /// The last of them; the next in order are looked at next.
    last_looked_at: u32,
    shutting_down: bool,
    descriptors_short: bool,
    now_ms: u64,
    /// The same as `CLOCK_MONOTONIC` tells it, in nanoseconds: when a message is accepted.
    now_ns: u64,
    /// The earliest thing that time may bring.
    due_ms: Option<u64>,
    /// Used memory of large messages.
    records: Records,
    /// Channels that have lanes.
    laned: Vec<ChannelId>,
    /// What receivers of lanes are due whose channels are gone.
    last_dues: Vec<(PeerId, u64)>,
    /// Senders that have become busy.
    busy: Vec<(ChannelId, AccountId)>,
    /// Descriptors that wait to be fetched.
    tickets: Vec<Ticket>,
    tickets_made: u64,
    /// New receivers that wait for former ones.
    early: Vec<(PeerId, Hello)>,
    /// Lanes of an earlier daemon whose descriptors are to come.
    brought: Vec<(PeerId, LaneBrought)>,
    /// The same, whose descriptors are looked at.
    arriving: Vec<(PeerId, LaneBrought)>,
    /// Lanes that are no more: the last of them.
    former_lanes: VecDeque<LaneId>,
    lanes_made: u64,
    /// The system gives memory for lanes.
    lanes_possible: bool,
    lane_books: Option<Box<dyn LaneBooks>>,
    /// The largest message that any channel has ever taken.
    message_max_bytes: u32,
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
            notes: VecDeque::new(),
            user_full_told_ms: None,
            to_tell: Vec::new(),
            tell_all_at_ms: None,
            senders_named: 0,
            departures: Departures::default(),
            processes_to_look_at: Vec::new(),
            last_looked_at: 0,
            shutting_down: false,
            descriptors_short: false,
            now_ms: 0,
            now_ns: 0,
            due_ms: None,
            records: Records::default(),
            laned: Vec::new(),
            last_dues: Vec::new(),
            busy: Vec::new(),
            tickets: Vec::new(),
            tickets_made: 0,
            early: Vec::new(),
            brought: Vec::new(),
            arriving: Vec::new(),
            former_lanes: VecDeque::new(),
            lanes_made: 0,
            lanes_possible: true,
            lane_books: None,
            message_max_bytes,
        }
    }

    /// What tells this run of the daemon from others.
    #[must_use]
    pub fn run_id(&self) -> u64 {
        self.rules.seed
    }

    /// What `CLOCK_MONOTONIC` said when its time began, in nanoseconds.
    #[must_use]
    pub fn started_at_ns(&self) -> u64 {
        self.rules.started_at_ns
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
        let uid = credentials.uid;
        self.users.entry(uid).or_default().connections += 1;
        if !self.rules.allowed_uids.contains(&uid) {
            let text = format!("user {uid} may not use this bus: list it under allowed_uids in the daemon's config");
            self.refuse(id, RefusedCode::Denied, text);
        } else if let Err(Refusal { code, text }) = self.check_connections(uid) {
            self.refuse(id, code, text);
        }
        id
    }

    /// Memory for a large message: with anything in it, and as long as it is to be.
    #[must_use]
    pub fn record(&mut self, bytes: usize) -> Vec<u8> {
        self.records.take(bytes)
    }

    /// A connection is gone, and everything that it had sent has been handed in.
    pub fn disconnected(&mut self, now: Duration, id: PeerId) {
        self.now_ms = millis(now);
        let Some(peer) = self.peer(id) else { return };
        let (role, uid) = (peer.role, peer.credentials.uid);
        // One that was sent away for its fault does not come back at once.
        let may_be_back = !peer.closing;
        let was_in_a_message = self.end_reading(id).is_some();
        let parting = if was_in_a_message && may_be_back { Parting::InAMessage } else { Parting::HungUp };
        match role {
            PeerRole::Sender { channel, account, .. } => self.sender_leaves(id, channel, account, parting),
            PeerRole::FormerSender { channel, account } => self.former_sender_leaves(id, channel, account),
            PeerRole::Receiver { channel, .. } => self.receiver_leaves(id, channel, true),
            PeerRole::Bringing => {
                self.brought.retain(|(peer, _)| *peer != id);
                self.arriving.retain(|(peer, _)| *peer != id);
            }
            PeerRole::Early => self.early.retain(|(peer, _)| *peer != id),
            PeerRole::Greeting { .. } | PeerRole::Control => {}
        }
        let peer = self.peers.remove(id.slot as usize);
        self.discharge(uid, peer.charge);
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

    /// Whether nobody is connected and nothing is held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.peers.is_empty()
            && self.channels.iter().all(|(_, channel)| channel.log.is_empty() && channel.lanes.is_empty())
    }

    /// The daemon is to end: no new ends, no further messages; receivers may drain.
    pub fn begin_shutdown(&mut self) {
        self.shutting_down = true;
    }

    /// Whether no receiver has anything left to drain.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        // Whoever is in line has the seat in a moment: when it is known where the last receiver stood in its lanes.
        let nobody_reads = |channel: &Channel| channel.seat.is_none() && channel.line.is_empty();
        let drained =
            |(slot, channel): (usize, &Channel)| nobody_reads(channel) || self.held(ChannelId(slot as u32)) == 0;
        self.channels.iter().all(drained)
    }

    /// Whether there are receivers in other processes: they outlive the daemon.
    #[must_use]
    pub fn has_receivers_elsewhere(&self) -> bool {
        let receives = |peer: &Peer| matches!(peer.role, PeerRole::Receiver { .. } | PeerRole::Early);
        self.peers.iter().any(|(_, peer)| receives(peer) && peer.credentials.pid != self.rules.pid)
    }

    /// What is held, by channel.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Leftover> {
        let held = self.channels.iter().map(|(slot, channel)| (channel, self.held(ChannelId(slot as u32))));
        let held = held.filter(|(_, messages)| *messages > 0);
        held.map(|(channel, messages)| Leftover { channel: channel.name.clone(), messages }).collect()
    }

    /// Checks what must always hold. For tests: it costs as much as everything is large.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn check(&self) -> Result<(), String> {
        for (slot, channel) in &self.channels {
            channel.check()?;
            self.check_readings(ChannelId(slot as u32))?;
            self.check_turns(ChannelId(slot as u32))?;
        }
        self.check_users()
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

    /// Puts a control frame into a peer's outbox.
    fn put<T: serde::Serialize>(&mut self, id: PeerId, kind: Kind, body: &T) {
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.put(kind, body);
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
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
