//! [`Channel`]: the rules of one channel: what is held, for whom, and who may have it.
//!
//! Positions count the messages that the channel has ever held. Of a seated receiver three of them
//! matter, in this order: `log.first()` (all before it are acknowledged), `taken` (all before it are
//! claimed) and `written` (all before it are in the receiver's socket).

use std::collections::{BTreeSet, HashMap, VecDeque};

use bus_core::wire::{LaneId, TypeDeclaration};
use bus_core::{ChannelName, ChannelOptions, Ledger, WhenFull};
use slab::Slab;

use super::account::{Account, AccountId, Left, Window};
use super::lanes::{Held, Lane};
use super::large::Reading;
use super::log::{Entry, MessageLog};
use super::peer::PeerId;
use super::rates::RateMeter;
use super::room::Waiter;

/// Place of a channel in the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChannelId(pub(super) u32);

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: ChannelName,
    pub(super) declared: bool,
    pub(super) options: ChannelOptions,
    pub(super) bounds: Bounds,
    pub(super) declares: Option<TypeDeclaration>,
    pub(super) log: MessageLog,
    pub(super) tally: Tally,
    pub(super) accounts: Slab<Account>,
    pub(super) by_sender: HashMap<u64, AccountId>,
    /// Accounts of which only the memory is left, by the time at which their senders have left.
    pub(super) departed: BTreeSet<(u64, AccountId)>,
    /// Connected senders.
    pub(super) senders: u32,
    /// Earlier connections of senders, of which not all is handed in.
    pub(super) former_senders: u32,
    /// A sender was here since a receiver last ended.
    pub(super) sender_seen: bool,
    /// Who stood in line when a receiver was told last that it ends: the senders of before were theirs as well.
    pub(super) outlives: Vec<PeerId>,
    /// Senders that a receiver of an earlier daemon named, and that count as present.
    pub(super) awaited: HashMap<u64, Awaited>,
    pub(super) seat: Option<Seat>,
    /// This daemon has seated a receiver here.
    pub(super) ever_seated: bool,
    /// Receivers in line.
    pub(super) line: VecDeque<PeerId>,
    /// Nobody from the line is seated before, in milliseconds: an earlier daemon's receiver may return.
    pub(super) seat_reserved_until_ms: u64,
    /// Senders that wait for room, in line.
    pub(super) waiting: VecDeque<Waiter>,
    /// Who was first in line, and has been told to hand its frame in again.
    pub(super) called: Option<PeerId>,
    /// Senders of whom a large message is read.
    pub(super) readings: Vec<(PeerId, Reading)>,
    /// Room that is granted and not used yet.
    pub(super) granted_messages: u64,
    pub(super) granted_bytes: u64,
    /// Senders that are told when the receivers change.
    pub(super) requirers: Vec<PeerId>,
    /// Ends that are told when the peers change.
    pub(super) watchers: Vec<PeerId>,
    /// What waits for the receiver to give messages back.
    pub(super) recall: Recall,
    pub(super) lanes: Vec<Lane>,
    /// In those of senders that have left, as last counted.
    pub(super) held_in_lanes: Held,
    /// Messages that went through lanes which are gone.
    pub(super) former_lane_messages: u64,
    /// Bytes that did.
    pub(super) former_lane_bytes: u64,
    pub(super) rates: RateMeter,
    /// Who made it, and is charged for it.
    pub(super) uid: u32,
}

/// A sender that may come back: of an earlier daemon, or one that hung up in the middle of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// It counts as present until then, in milliseconds.
    pub(super) until_ms: u64,
    /// Its process, where that is one that the kernel would tell us of.
    pub(super) pid: Option<u32>,
}

/// What limits a channel: its options, and the daemon's defaults where it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) window: u32,
    pub(super) window_bytes: u64,
    pub(super) message_max_bytes: u32,
    pub(super) when_full: WhenFull,
    pub(super) exact: bool,
    pub(super) push_ahead_messages: u64,
    pub(super) push_ahead_bytes: u64,
}

/// Which part of what bounds a flow a receiver may be behind in telling, in messages.
const LAG_PART: u64 = 16;

/// The same in bytes: fewer and larger messages are told more often for what they are.
const LAG_BYTES_PART: u64 = 8;

impl Bounds {
    pub(super) fn window(&self) -> Window {
        Window { messages: u64::from(self.window), bytes: self.window_bytes }
    }

    /// How many messages and bytes a receiver may acknowledge before it tells: so few that nobody waits
    /// for room that is there. Where the capacity is exact, one.
    pub(super) fn lag(&self) -> (u32, u32) {
        let messages = self.messages.min(u64::from(self.window)).min(self.push_ahead_messages) / LAG_PART;
        let bytes = self.bytes.min(self.window_bytes).min(self.push_ahead_bytes) / LAG_BYTES_PART;
        let messages = if self.exact { 1 } else { messages.max(1) };
        (u32::try_from(messages).unwrap_or(u32::MAX), u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

/// The terms of the ledger that are counted; the others are read from the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) acknowledged: u64,
    pub(super) dropped: u64,
    pub(super) purged: u64,
}

/// The receiver of a channel.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) peer: PeerId,
    /// Position of its first delivery.
    pub(super) base: u64,
    /// Position behind what it claims: further than what it was written when it waits for the next.
    pub(super) claimed: u64,
    pub(super) written: u64,
    /// Bytes of the message at `written` that are in the socket already.
    pub(super) offset: usize,
    /// Bytes of the messages from the oldest up to `written`.
    pub(super) ahead_bytes: u64,
    /// How often the head was given back.
    pub(super) head_given_back: u32,
    /// It has been asked to give back what it has not claimed; nothing is pushed until it answers.
    pub(super) recalling: bool,
    /// It has been told that all senders have left.
    pub(super) ended: bool,
    /// It has been told to leave, and is closed at the latest then, in milliseconds.
    pub(super) leaving_until_ms: Option<u64>,
    /// Acknowledged over this connection.
    pub(super) messages: u64,
    /// How many frames it was last shown to be due.
    pub(super) due_shown: u64,
    /// Lanes that are gone, and of which it may still say how much it was to pass over; with how many of their messages
    /// count as acknowledged.
    pub(super) read_lanes: Vec<(LaneId, u64)>,
}

/// What is to be done with messages that the receiver gives back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recall {
    /// All between these positions go. What had been claimed when that was ordered does not, also if
    /// it is given back: so many were named.
    pub(super) purge_from: u64,
    pub(super) purge_before: u64,
    /// So many of the first go.
    pub(super) skips: u64,
}

/// Why a message leaves the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    Acknowledged,
    Dropped,
    Purged,
}

impl Channel {
    pub(super) fn new(name: ChannelName, options: ChannelOptions, bounds: Bounds, uid: u32) -> Self {
        Self {
            name,
            declared: false,
            options,
            bounds,
            declares: None,
            log: MessageLog::default(),
            tally: Tally::default(),
            accounts: Slab::new(),
            by_sender: HashMap::new(),
            departed: BTreeSet::new(),
            senders: 0,
            former_senders: 0,
            sender_seen: false,
            outlives: Vec::new(),
            awaited: HashMap::new(),
            seat: None,
            ever_seated: false,
            line: VecDeque::new(),
            seat_reserved_until_ms: 0,
            waiting: VecDeque::new(),
            called: None,
            readings: Vec::new(),
            granted_messages: 0,
            granted_bytes: 0,
            requirers: Vec::new(),
            watchers: Vec::new(),
            recall: Recall::default(),
            lanes: Vec::new(),
            held_in_lanes: Held::default(),
            former_lane_messages: 0,
            former_lane_bytes: 0,
            rates: RateMeter::default(),
            uid,
        }
    }

    /// Nothing is here that would be missed.
    pub(super) fn is_idle(&self) -> bool {
        self.log.is_empty()
            && self.senders + self.former_senders == 0
            && self.seat.is_none()
            && self.line.is_empty()
            && self.watchers.is_empty()
            && self.awaited.is_empty()
            && self.lanes.is_empty()
    }

    pub(super) fn receivers(&self) -> u32 {
        u32::from(self.seat.is_some()) + self.line.len() as u32
    }

    /// Whether a message of `bytes` fits beside what is held and promised. An empty channel takes
    /// any legal message.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.has_room_beside((0, 0), bytes)
    }

    /// As [`Self::has_room`], beside messages and bytes that are expected as well.
    pub(super) fn has_room_beside(&self, (expected, expected_bytes): (u64, u64), bytes: u64) -> bool {
        let held = self.held();
        let messages = held.messages + self.granted_messages + expected;
        let held_bytes = held.bytes + self.granted_bytes + expected_bytes;
        messages == 0 || (messages < self.bounds.messages && held_bytes + bytes <= self.bounds.bytes)
    }

    /// What is held for it, and counts against its capacity: in the log, and in lanes that their senders have left.
    pub(super) fn held(&self) -> Held {
        let Held { messages, bytes } = self.held_in_lanes;
        Held { messages: self.log.len() + messages, bytes: self.log.bytes() + bytes }
    }

    pub(super) fn account(&self, id: AccountId) -> &Account {
        &self.accounts[id.0 as usize]
    }

    pub(super) fn account_mut(&mut self, id: AccountId) -> &mut Account {
        &mut self.accounts[id.0 as usize]
    }

    /// The account of a sender, made anew where there is none.
    pub(super) fn open_account(&mut self, sender: u64, pid: u32, accepted: u64) -> AccountId {
        if let Some(id) = self.by_sender.get(&sender) {
            return *id;
        }
        let id = AccountId(self.accounts.insert(Account::new(sender, pid, accepted)) as u32);
        self.by_sender.insert(sender, id);
        id
    }

    pub(super) fn close_account(&mut self, id: AccountId) {
        self.forget_departure(id);
        if let Some(account) = self.accounts.try_remove(id.0 as usize) {
            self.by_sender.remove(&account.sender);
        }
    }

    /// The connection of a sender goes.
    pub(super) fn remove_sender(&mut self, id: PeerId, account: AccountId) {
        self.senders -= 1;
        self.requirers.retain(|other| *other != id);
        self.watchers.retain(|other| *other != id);
        self.account_mut(account).peer = None;
    }

    /// A sender has left: its account stays while there are messages of it, and for a while.
    pub(super) fn depart(&mut self, id: AccountId, at_ms: u64) {
        self.account_mut(id).departed_at_ms = Some(at_ms);
        self.remember_departed(id);
    }

    /// Nothing may be left of a sender but the memory.
    pub(super) fn remember_departed(&mut self, id: AccountId) {
        let account = &self.accounts[id.0 as usize];
        if let Some(at_ms) = account.departed_at_ms.filter(|_| account.is_only_remembered()) {
            self.departed.insert((at_ms, id));
        }
    }

    /// A sender is back.
    pub(super) fn forget_departure(&mut self, id: AccountId) {
        if let Some(at_ms) = self.account_mut(id).departed_at_ms.take() {
            self.departed.remove(&(at_ms, id));
        }
    }

    /// The receiver has acknowledged the oldest `count` messages, which it was sent. Whose they were is
    /// told to `see`, as few times as they come in runs.
    pub(super) fn acknowledge(&mut self, count: u64, mut see: impl FnMut(AccountId, &mut Account)) {
        let window = self.bounds.window();
        let accounts = &mut self.accounts;
        let mut run: Option<Settling> = None;
        let mut left = Vec::new();
        let mut settle = |run: Settling| {
            let account = &mut accounts[run.account.0 as usize];
            account.resolve(run.messages, run.bytes, Left::UpTo(run.sequence), window);
            if account.outstanding == 0 && account.departed_at_ms.is_some() {
                left.push(run.account);
            }
            see(run.account, account);
        };
        let before = self.log.bytes();
        self.log.release(count, |entry| match &mut run {
            Some(run) if run.account == entry.account => run.add(entry),
            other => {
                if let Some(run) = other.replace(Settling::of(entry)) {
                    settle(run);
                }
            }
        });
        run.map(settle);
        left.into_iter().for_each(|account| self.remember_departed(account));
        self.tally.acknowledged += count;
        if let Some(seat) = &mut self.seat {
            seat.claimed = seat.claimed.max(self.log.first());
            seat.ahead_bytes -= before - self.log.bytes();
        }
    }

    /// Counts a message that has left the log.
    pub(super) fn count(&mut self, entry: &Entry, leaves: Leaves, was_oldest: bool) {
        match leaves {
            Leaves::Acknowledged => self.tally.acknowledged += 1,
            Leaves::Dropped => self.tally.dropped += 1,
            Leaves::Purged => self.tally.purged += 1,
        }
        let window = self.bounds.window();
        let account = &mut self.accounts[entry.account.0 as usize];
        account.dropped += u64::from(leaves == Leaves::Dropped);
        let left = if was_oldest { Left::UpTo(entry.sequence) } else { Left::Alone(entry.sequence) };
        account.resolve(1, u64::from(entry.message_bytes), left, window);
        if account.outstanding == 0 && account.departed_at_ms.is_some() {
            self.remember_departed(entry.account);
        }
    }

    /// Position from which on messages are not on their way to a receiver.
    pub(super) fn unsent_from(&self) -> u64 {
        self.seat.as_ref().map_or(self.log.first(), |seat| seat.written + u64::from(seat.offset > 0))
    }

    /// How far the receiver may be sent ahead.
    pub(super) fn push_limit(&self) -> u64 {
        let Some(seat) = &self.seat else { return self.log.first() };
        if seat.recalling || seat.ended || seat.leaving_until_ms.is_some() {
            // A message that has begun must end.
            return seat.written + u64::from(seat.offset > 0);
        }
        let most = self.log.end().min(self.log.first() + self.bounds.push_ahead_messages);
        if self.log.bytes() <= self.bounds.push_ahead_bytes {
            return most.max(seat.written);
        }
        let (mut ahead, reach) = (seat.ahead_bytes, seat.ahead_bytes + WRITE_BYTES);
        let mut limit = seat.written;
        while let Some(entry) = self.log.entry(limit).filter(|_| limit < most && ahead < reach) {
            ahead += u64::from(entry.message_bytes);
            let has_begun = limit == seat.written && seat.offset > 0;
            if ahead > self.bounds.push_ahead_bytes && limit > self.log.first() && !has_begun {
                break;
            }
            limit += 1;
        }
        limit
    }

    /// The receiver is gone. Returns the position behind what it had claimed.
    pub(super) fn vacate(&mut self, certain: bool) -> u64 {
        let first = self.log.first();
        let Some(seat) = self.seat.take() else { return first };
        // Where we cannot know what it has claimed, all that was sent may have been seen.
        let handed_out = if certain { seat.taken() } else { seat.written + u64::from(seat.offset > 0) };
        for position in first..handed_out.max(first) {
            self.log.count_attempts(position, 1);
        }
        if seat.head_given_back > 0 && !self.log.is_empty() {
            self.log.count_attempts(first, seat.head_given_back);
        }
        seat.taken()
    }

    pub(super) fn ledger(&self) -> Ledger {
        let taken = self.seat.as_ref().map_or(0, |seat| seat.taken().saturating_sub(self.log.first()));
        Ledger {
            accepted: self.tally.accepted,
            acknowledged: self.tally.acknowledged,
            queued: self.log.len() - taken,
            in_delivery: taken,
            dropped: self.tally.dropped,
            purged: self.tally.purged,
            ..Ledger::default()
        }
    }
}

impl Seat {
    /// Position behind what the receiver may have handed out.
    pub(super) fn taken(&self) -> u64 {
        self.claimed.min(self.written)
    }
}

/// Messages of one sender that are acknowledged one behind the other.
struct Settling {
    account: AccountId,
    messages: u64,
    bytes: u64,
    /// Of the last.
    sequence: u64,
}

impl Settling {
    fn of(entry: &Entry) -> Self {
        let Entry { account, sequence, message_bytes, .. } = *entry;
        Self { account, messages: 1, bytes: u64::from(message_bytes), sequence }
    }

    fn add(&mut self, entry: &Entry) {
        self.messages += 1;
        self.bytes += u64::from(entry.message_bytes);
        self.sequence = entry.sequence;
    }
}

/// How much one look at what may be sent ahead takes in, in bytes: more than a socket takes at once.
const WRITE_BYTES: u64 = 512 * 1024;

impl Channel {
    /// What must always hold.
    pub(super) fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let ledger = self.ledger();
        if !ledger.balances() {
            return Err(format!("the ledger of {name} does not balance: {ledger:?}"));
        }
        let outstanding: u64 = self.accounts.iter().map(|(_, account)| account.outstanding).sum();
        if outstanding != self.log.len() {
            return Err(format!("{name} holds {} messages, and its accounts say {outstanding}", self.log.len()));
        }
        for (_, account) in &self.accounts {
            if account.acked > account.accepted {
                return Err(format!("{name}: {} acknowledged of {} accepted", account.acked, account.accepted));
            }
        }
        let granted: u64 = self.accounts.iter().filter(|(_, account)| account.granted.is_some()).count() as u64;
        if granted != self.granted_messages {
            return Err(format!("{name} has granted {} rooms, and its accounts say {granted}", self.granted_messages));
        }
        let connected = self.accounts.iter().filter(|(_, account)| account.peer.is_some()).count();
        if connected != self.senders as usize {
            return Err(format!("{name} has {} senders, and its accounts say {connected}", self.senders));
        }
        let remembered = self.accounts.iter().filter(|(_, account)| account.is_only_remembered());
        let remembered: BTreeSet<(u64, AccountId)> =
            remembered.filter_map(|(slot, account)| Some((account.departed_at_ms?, AccountId(slot as u32)))).collect();
        if remembered != self.departed {
            return Err(format!("{name} remembers {:?}, and its accounts say {remembered:?}", self.departed));
        }
        let former: u32 = self.accounts.iter().map(|(_, account)| account.former_peers).sum();
        if former != self.former_senders {
            return Err(format!("{name} has {} former senders, and its accounts say {former}", self.former_senders));
        }
        if let Some(seat) = &self.seat {
            let (first, end) = (self.log.first(), self.log.end());
            let taken = seat.taken();
            if !(first <= taken && seat.claimed <= seat.written + u64::from(self.bounds.lag().0) && seat.written <= end)
            {
                return Err(format!("{name}: {first} <= {} <= {} <= {end} does not hold", seat.claimed, seat.written));
            }
            let ahead: u64 = (first..seat.written)
                .filter_map(|position| self.log.entry(position))
                .map(|entry| u64::from(entry.message_bytes))
                .sum();
            if ahead != seat.ahead_bytes {
                return Err(format!("{name}: {} bytes ahead, and the log says {ahead}", seat.ahead_bytes));
            }
        }
        Ok(())
    }
}
