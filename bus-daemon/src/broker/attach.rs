//! Ends that come: hello, types, the seat and the line.

use std::collections::HashMap;
use std::hash::Hasher;

use bus_core::ChannelOptions;
use bus_core::limits::{ENDPOINT_NAME_MAX_BYTES, TYPE_NAME_MAX_BYTES};
use bus_core::wire::{
    Hello, Kind, LaneWish, ReceiverHello, ReceiverWelcome, RefusedCode, Returning, Role, SenderHello, SenderWelcome,
    TypeDeclaration, Welcome, WelcomeRole,
};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::account::{AccountId, Brings};
use super::channel::{Awaited, ChannelId, Leaves, Seat};
use super::peer::{PeerId, PeerRole};
use super::tick::RETRY_PAUSED_MS;
use super::{Broker, Note, Refusal};

impl Broker {
    pub(super) fn greet(&mut self, id: PeerId, mut hello: Hello) {
        let has_other_clock = hello.clock != self.rules.clock;
        if has_other_clock {
            keep_from_lanes(&mut hello.role);
        }
        let Some(peer) = self.peer_mut(id) else { return };
        peer.name = cut(hello.name.clone(), ENDPOINT_NAME_MAX_BYTES);
        peer.was_end = !matches!(hello.role, Role::Control);
        let kernel_pid = peer.credentials.pid;
        if kernel_pid == 0 {
            // Another pid namespace: what it says of itself is better than nothing, and only shown.
            peer.credentials.pid = hello.pid;
        }
        let welcomed = match hello.role {
            Role::Control => {
                peer.role = PeerRole::Control;
                self.welcome(id, WelcomeRole::Control);
                Ok(())
            }
            Role::Sender(SenderHello { ref channel, .. }) | Role::Receiver(ReceiverHello { ref channel, .. })
                if self.shutting_down =>
            {
                let text = format!("the daemon is ending: open channel {channel} again when the next one serves");
                Err(Refusal::new(RefusedCode::ShuttingDown, text))
            }
            Role::LaneBrought(_) if self.shutting_down => {
                Err(Refusal::new(RefusedCode::ShuttingDown, "the daemon is ending: bring the lane to the next one"))
            }
            Role::Lane(hello) => self.fetch_lane(id, hello),
            Role::LaneBrought(_) if has_other_clock => Err(Refusal::new(RefusedCode::Denied, OTHER_CLOCK)),
            Role::Sender(SenderHello { lane: LaneWish::Has(_), .. }) if has_other_clock => {
                Err(Refusal::new(RefusedCode::LaneUnknown, OTHER_CLOCK))
            }
            Role::LaneBrought(brought) => self.hear_of_lane(id, *brought),
            Role::Sender(hello) => self.greet_sender(id, kernel_pid, hello),
            Role::Receiver(ref receiver) if self.early_until_ms(receiver) > self.now_ms => {
                let until_ms = self.early_until_ms(receiver);
                return self.let_wait(id, hello, until_ms);
            }
            Role::Receiver(receiver) => {
                let pids = if kernel_pid == hello.pid { Pids::Ours } else { Pids::Foreign };
                self.greet_receiver(id, pids, receiver)
            }
        };
        match welcomed {
            Ok(()) => self.note(Note::LetIn(self.who(id))),
            Err(Refusal { code, text }) => self.refuse(id, code, text),
        }
    }

    /// Until when a receiver is early. A new one may come when the daemon before has just died: whoever that had seated
    /// comes back before long, and first, for it may hold a message that nobody else is to have meanwhile. Or the present
    /// one is on its way out, by `kick`. Who would wait in line may do so meanwhile.
    fn early_until_ms(&self, hello: &ReceiverHello) -> u64 {
        if hello.returning.is_some() {
            return 0;
        }
        let channel = self.by_name.get(&hello.channel).filter(|_| !hello.standby).map(|id| self.channel(*id));
        let reserved_until_ms = channel.map_or(0, |channel| channel.seat_reserved_until_ms);
        let leaving = channel.and_then(|channel| channel.seat.as_ref()).and_then(|seat| seat.leaving_until_ms);
        reserved_until_ms.max(leaving.unwrap_or(0)).max(self.rules.former_receivers_ms)
    }

    fn let_wait(&mut self, id: PeerId, hello: Hello, until_ms: u64) {
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Early;
        }
        self.early.push((id, hello));
        self.due(until_ms);
    }

    /// Lets those in that had to wait; those who still have to, wait on.
    pub(super) fn greet_early(&mut self) {
        if self.now_ms >= self.rules.former_receivers_ms {
            for (id, hello) in std::mem::take(&mut self.early) {
                self.greet(id, hello);
            }
        }
    }

    /// When to look again at those that wait.
    pub(super) fn early_due_ms(&self) -> Option<u64> {
        let until_ms = self.early.iter().map(|(_, hello)| match &hello.role {
            Role::Receiver(receiver) => self.early_until_ms(receiver),
            _ => 0,
        });
        until_ms.min()
    }

    pub(super) fn welcome(&mut self, id: PeerId, role: WelcomeRole) {
        let daemon = self.rules.seed;
        self.put(id, Kind::Welcome, &Welcome { daemon, role });
    }

    fn greet_sender(&mut self, id: PeerId, pid: u32, hello: SenderHello) -> Result<(), Refusal> {
        let Some(peer) = self.peer(id) else { return Ok(()) };
        let uid = peer.credentials.uid;
        if !self.replaces_itself(&hello) {
            self.check_sender_connections(uid, &hello.channel)?;
        }
        check_sequences(hello.resume.iter().flat_map(|resume| [resume.next_sequence, resume.last_sequence]))?;
        let (sender, next_sequence) = match hello.resume {
            None => (self.name_sender(), 1),
            Some(resume) => {
                if self.token(resume.sender, hello.channel.as_str(), uid) != resume.token {
                    let text = format!(
                        "the token does not fit sender {:016x} of channel {}: open a new sender",
                        resume.sender, hello.channel
                    );
                    return Err(Refusal::new(RefusedCode::Denied, text));
                }
                (resume.sender, resume.next_sequence.max(1))
            }
        };
        // Before anybody counts it: it comes again at once.
        self.check_lane(&hello.channel, sender, hello.lane)?;
        let channel_id = self.enter_channel(id, &hello.channel, hello.declares)?;
        let token = self.token(sender, hello.channel.as_str(), uid);
        let until_ms = self.now_ms + self.rules.resume_grace_ms;
        let brings = hello.resume.map(|resume| Brings { last_sequence: resume.last_sequence, until_ms });
        let channel = self.channel_mut(channel_id);
        let account_id = channel.open_account(sender, pid, next_sequence - 1);
        let account = channel.account_mut(account_id);
        if let Some(earlier) = account.peer {
            self.replace_sender(earlier, channel_id, account_id);
        }
        let channel = self.channel_mut(channel_id);
        let account = channel.account_mut(account_id);
        if account.accepted < next_sequence - 1 {
            // An earlier daemon took these, and they were acknowledged.
            account.accepted = next_sequence - 1;
            if account.outstanding == 0 {
                account.acked = account.accepted;
            }
        }
        account.peer = Some(id);
        account.pid = pid;
        account.messages = 0;
        account.busy = None;
        account.lane_to_recall = None;
        account.brings = brings;
        account.confirm = 0;
        let settled = account.settled();
        account.told = settled;
        channel.forget_departure(account_id);
        channel.senders += 1;
        channel.sender_seen = true;
        channel.awaited.remove(&sender);
        if hello.require_receiver {
            channel.requirers.push(id);
        }
        let welcome = SenderWelcome {
            sender,
            token,
            window_messages: channel.bounds.window,
            window_bytes: channel.bounds.window_bytes,
            message_max_bytes: channel.bounds.message_max_bytes,
            exact: channel.bounds.exact && asks_first(channel.bounds.when_full),
            when_full: channel.bounds.when_full,
            settled,
            receivers: channel.receivers(),
        };
        let requires_receiver = hello.require_receiver;
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Sender { channel: channel_id, account: account_id, requires_receiver };
        }
        self.welcome(id, WelcomeRole::Sender(welcome));
        self.consider_lane(channel_id, account_id, hello.lane);
        self.tell_peers(channel_id);
        Ok(())
    }

    /// Whether a sender comes back while its earlier connection is here: then it is no further one.
    fn replaces_itself(&self, hello: &SenderHello) -> bool {
        let Some(channel) = self.by_name.get(&hello.channel).map(|id| self.channel(*id)) else { return false };
        let account = hello.resume.and_then(|resume| channel.by_sender.get(&resume.sender));
        account.is_some_and(|account| channel.account(*account).peer.is_some())
    }

    fn greet_receiver(&mut self, id: PeerId, pids: Pids, hello: ReceiverHello) -> Result<(), Refusal> {
        let known = hello.returning.iter().flat_map(|returning| &returning.senders);
        check_sequences(known.map(|known| known.sequence))?;
        let returns = hello.returning.is_some();
        let held_seat = hello.returning.as_ref().is_some_and(|returning| returning.seated);
        if let Some(holder) = self.by_name.get(&hello.channel).and_then(|channel| self.holder(*channel))
            && !hello.standby
            && !returns
        {
            let (pid, name) =
                self.peer(holder).map_or((0, String::new()), |peer| (peer.credentials.pid, peer.name.clone()));
            let text = format!(
                "channel {} has a receiver: {name} (pid {pid}); wait in line with --standby, or remove it with `bus kick {}`",
                hello.channel, hello.channel
            );
            return Err(Refusal::new(RefusedCode::ReceiverTaken, text));
        }
        if hello.returning.as_ref().is_some_and(|returning| returning.seated && returning.lanes) {
            self.check_place(id, &hello.channel)?;
        }
        let channel_id = self.enter_channel(id, &hello.channel, hello.declares)?;
        let now_ms = self.now_ms;
        if returns && !held_seat && !self.channel(channel_id).ever_seated {
            // Whoever was in line must not overtake the one that held the channel, if it lives.
            self.channel_mut(channel_id).seat_reserved_until_ms = now_ms + SEAT_RESERVED_MS;
            self.due(now_ms + SEAT_RESERVED_MS);
        }
        if let Some(returning) = hello.returning.filter(|_| self.may_know(channel_id)) {
            self.take_over_knowledge(channel_id, pids, &returning);
        }
        if !hello.reads_lanes {
            self.check_lanes(channel_id)?;
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.reads_lanes = hello.reads_lanes;
            let until_disconnected = hello.until_disconnected;
            peer.role = PeerRole::Receiver { channel: channel_id, until_disconnected };
        }
        let channel = self.channel_mut(channel_id);
        if held_seat {
            channel.line.push_front(id);
            if std::mem::take(&mut channel.seat_reserved_until_ms) > 0 {
                // Who waited for the seat is told who has it.
                self.due(now_ms);
            }
        } else {
            channel.line.push_back(id);
        }
        let channel = self.channel_mut(channel_id);
        let seat_is_free = channel.seat.is_none() && channel.seat_reserved_until_ms <= now_ms;
        let before_it = channel.line.iter().take_while(|other| **other != id).count() as u32;
        let place_in_line = before_it + u32::from(!seat_is_free);
        let message_max_bytes = channel.bounds.message_max_bytes;
        let (lag_messages, lag_bytes) = channel.bounds.lag();
        let welcome = ReceiverWelcome { message_max_bytes, place_in_line, lag_messages, lag_bytes };
        self.welcome(id, WelcomeRole::Receiver(welcome));
        self.seat_next(channel_id, place_in_line == 0);
        self.tell_peers(channel_id);
        Ok(())
    }

    /// Who has the seat, or will have it as soon as it is known where the last receiver stood in its lanes.
    fn holder(&self, channel_id: ChannelId) -> Option<PeerId> {
        let channel = self.channel(channel_id);
        let seated = channel.seat.as_ref().map(|seat| seat.peer);
        seated.or_else(|| channel.line.front().copied().filter(|_| !self.lanes_at_rest(channel_id)))
    }

    /// Whether the seat of a receiver of lanes that comes back is its own still: what it has not acknowledged may be in
    /// the hands of another. An earlier connection of its own process may not be known to be dead yet.
    fn check_place(&self, id: PeerId, name: &bus_core::ChannelName) -> Result<(), Refusal> {
        let pid = self.peer(id).map_or(0, |peer| peer.credentials.pid);
        let seat = self.by_name.get(name).and_then(|channel| self.channel(*channel).seat.as_ref());
        match seat.and_then(|seat| self.peer(seat.peer)).filter(|holder| holder.credentials.pid != pid) {
            None => Ok(()),
            Some(holder) => {
                let text = format!(
                    "channel {name} has another receiver by now: {} (pid {}); what this one had not acknowledged goes there",
                    holder.name, holder.credentials.pid
                );
                Err(Refusal::new(RefusedCode::ReceiverTaken, text))
            }
        }
    }

    /// Whether a receiver that comes back is believed what it says of the senders: as the next to have the
    /// seat, or while those of the former daemon are awaited. Else there is another that knows better.
    fn may_know(&self, channel_id: ChannelId) -> bool {
        self.channel(channel_id).seat.is_none() || self.now_ms <= self.rules.resume_grace_ms
    }

    /// Seats the first in line, if the seat is free.
    pub(super) fn seat_next(&mut self, channel_id: ChannelId, knows: bool) {
        let now_ms = self.now_ms;
        let channel = self.channel_mut(channel_id);
        let taken = channel.seat.is_some() || channel.seat_reserved_until_ms > now_ms;
        if taken || !self.lanes_at_rest(channel_id) {
            return;
        }
        let channel = self.channel_mut(channel_id);
        let Some(id) = channel.line.pop_front() else { return };
        let base = channel.log.first();
        channel.ever_seated = true;
        channel.seat = Some(Seat {
            peer: id,
            base,
            claimed: base,
            written: base,
            offset: 0,
            ahead_bytes: 0,
            head_given_back: 0,
            recalling: false,
            ended: false,
            leaving_until_ms: None,
            messages: 0,
            due_shown: 0,
            read_lanes: Vec::new(),
        });
        if !channel.log.is_empty() {
            channel.sender_seen = true;
        }
        if !knows {
            self.put(id, Kind::Seated, &());
        }
        self.give_lanes(channel_id);
        self.write(id);
        if self.channel(channel_id).waits_for_others() {
            self.due(now_ms + RETRY_PAUSED_MS);
        }
        self.end_if_deserted(channel_id);
    }

    /// What a receiver of an earlier daemon knows: messages that it acknowledged are not held for
    /// it again, and its senders count as present for a while, except those that were here already.
    fn take_over_knowledge(&mut self, channel_id: ChannelId, pids: Pids, returning: &Returning) {
        let until_ms = self.now_ms + self.rules.resume_grace_ms;
        // Their processes are looked at first.
        self.due(self.now_ms);
        let awaited_max = self.rules.departed_senders_max;
        let before = self.channel(channel_id).cost();
        let (channel, departures) = (&mut self.channels[channel_id.0 as usize], &self.departures);
        channel.sender_seen |= returning.sender_seen;
        for known in &returning.senders {
            let account_id = channel.open_account(known.sender, known.pid, known.sequence);
            let account = channel.account_mut(account_id);
            // What its receiver has acknowledged is not accepted again, also when it comes later.
            account.accepted = account.accepted.max(known.sequence);
            if account.outstanding == 0 {
                account.acked = account.accepted;
            }
            if account.peer.is_none() {
                if account.departed_at_ms.is_none() {
                    channel.depart(account_id, until_ms);
                }
                if !departures.contains(known.sender) && channel.awaited.len() < awaited_max {
                    let pid = Some(known.pid).filter(|pid| *pid != 0 && pids == Pids::Ours);
                    channel.awaited.entry(known.sender).or_insert(Awaited { until_ms, pid });
                }
            }
        }
        let acknowledged: HashMap<AccountId, u64> = returning
            .senders
            .iter()
            .filter_map(|known| Some((*channel.by_sender.get(&known.sender)?, known.sequence)))
            .collect();
        let from = channel.unsent_from();
        let gone = channel.log.remove_where(from, |entry| {
            acknowledged.get(&entry.account).is_some_and(|sequence| entry.sequence <= *sequence)
        });
        for entry in &gone {
            channel.count(entry, Leaves::Acknowledged, true);
        }
        for entry in gone {
            self.tell_later(channel_id, entry.account);
        }
        self.charge(channel_id, before);
        self.give_room(channel_id);
    }

    /// The channel of an end, made where there is none; checks the limits and the type.
    pub(super) fn enter_channel(
        &mut self,
        id: PeerId,
        name: &bus_core::ChannelName,
        declares: Option<TypeDeclaration>,
    ) -> Result<ChannelId, Refusal> {
        let uid = self.peer(id).map_or(0, |peer| peer.credentials.uid);
        if !self.by_name.contains_key(name) {
            self.check_channels(uid, name)?;
        }
        if let Some(theirs) = &declares {
            if theirs.type_name.len() > TYPE_NAME_MAX_BYTES {
                let text = format!(
                    "type name of {} bytes for channel {name} is over the limit of {TYPE_NAME_MAX_BYTES}: set a shorter one with `type_name`",
                    theirs.type_name.len()
                );
                return Err(Refusal::new(RefusedCode::Limit, text));
            }
            if let Some(ours) = self.by_name.get(name).and_then(|channel| self.channel(*channel).declares.as_ref())
                && ours != theirs
            {
                let text = format!(
                    "channel {name} carries {} in {}, and this end declares {} in {}: open it with the same type and codec, or as raw bytes",
                    ours.type_name, ours.codec, theirs.type_name, theirs.codec
                );
                return Err(Refusal::new(RefusedCode::TypeMismatch, text));
            }
        }
        let channel_id = self.channel_or_new(name, ChannelOptions::default(), uid);
        let channel = self.channel_mut(channel_id);
        if channel.declares.is_none() {
            channel.declares = declares;
        }
        Ok(channel_id)
    }

    /// A new sender's id: drawn by a keyed hash, so that ids of two daemons do not meet.
    fn name_sender(&mut self) -> u64 {
        self.senders_named += 1;
        let mut hasher = SipHasher24::new_with_key(&self.rules.token_key);
        hasher.write_u64(self.rules.seed);
        hasher.write_u64(self.senders_named);
        hasher.finish128().h1.max(1)
    }

    /// What a fetch of descriptors has to name: nobody can guess it.
    pub(super) fn next_ticket(&mut self, lane: u64) -> [u8; 16] {
        self.tickets_made += 1;
        let mut hasher = SipHasher24::new_with_key(&self.rules.token_key);
        hasher.write(b"lane ticket");
        hasher.write_u64(self.rules.seed);
        hasher.write_u64(lane);
        hasher.write_u64(self.tickets_made);
        hasher.finish128().as_bytes()
    }

    /// Proves that a daemon of this bus made a lane.
    pub(super) fn lane_token(&self, lane: u64, sender: u64, channel: &str, uid: u32, memory: u64) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.rules.token_key);
        hasher.write(b"lane proof");
        hasher.write_u64(lane);
        hasher.write_u64(sender);
        hasher.write_u64(memory);
        hasher.write_u32(uid);
        hasher.write(channel.as_bytes());
        hasher.finish128().as_bytes()
    }

    /// Proves that a sender is the one that was welcomed under this id.
    fn token(&self, sender: u64, channel: &str, uid: u32) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.rules.token_key);
        hasher.write(b"sender token");
        hasher.write_u64(sender);
        hasher.write_u32(uid);
        hasher.write(channel.as_bytes());
        hasher.finish128().as_bytes()
    }
}

/// Why a lane that somebody has is not taken.
const OTHER_CLOCK: &str = "its messages bear the time of another clock than the daemon's: they go by the stream";

/// An end whose clock is another than the daemon's, and most likely than that of all others (it is in a container with
/// a time namespace of its own), stays on the stream: by its stamps messages of several senders would be in no order.
fn keep_from_lanes(role: &mut Role) {
    match role {
        Role::Sender(SenderHello { lane: wish @ (LaneWish::AtOnce | LaneWish::WhenBusy), .. }) => {
            *wish = LaneWish::Never;
        }
        // One that it has it had from an earlier daemon, whose clock was another: it is refused, and comes without.
        Role::Sender(SenderHello { lane: LaneWish::Never | LaneWish::Has(_), .. }) => {}
        Role::Receiver(hello) => hello.reads_lanes = false,
        Role::Control | Role::Lane(_) | Role::LaneBrought(_) => {}
    }
}

/// Sequences start at one and grow by one: none that was counted is beyond this.
pub(super) const SEQUENCE_MAX: u64 = u64::MAX / 2;

fn check_sequences(named: impl IntoIterator<Item = u64>) -> Result<(), Refusal> {
    match named.into_iter().find(|sequence| *sequence > SEQUENCE_MAX) {
        None => Ok(()),
        Some(sequence) => {
            let text = format!("sequence {sequence} is over the limit of {SEQUENCE_MAX}: nobody has sent as much");
            Err(Refusal::new(RefusedCode::Protocol, text))
        }
    }
}

/// What the process ids mean that a receiver names.
///
/// They are what the kernel told the earlier daemon of its senders, and mean the same to us if that
/// was in our pid namespace. We take it that it was, if the receiver is: then its own id is the same to
/// itself and to our kernel. Were we wrong, as when a bus moves into a container while its receiver was
/// there already, a living sender could be taken for dead, and an `until_disconnected` receiver of an
/// empty channel be told too early that all have left. Nothing is lost: what comes later is for the
/// next receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pids {
    Ours,
    /// They are not looked at: such senders are awaited for their time.
    Foreign,
}

/// How long the receivers in line leave the seat to the one that held it under an earlier daemon,
/// in milliseconds: less than the second within which a standby takes over.
const SEAT_RESERVED_MS: u64 = 700;

/// Whether senders ask for room first: not where the oldest makes room.
fn asks_first(when_full: bus_core::WhenFull) -> bool {
    match when_full {
        bus_core::WhenFull::Block | bus_core::WhenFull::Reject | bus_core::WhenFull::DropNewest => true,
        bus_core::WhenFull::DropOldest => false,
    }
}

fn cut(mut text: String, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
