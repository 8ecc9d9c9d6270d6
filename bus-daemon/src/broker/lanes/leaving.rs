//! Who leaves a lane: where a receiver stood is found out before another has the seat, and of a sender what it left
//! is read to its end.

use std::time::Duration;

use bus_core::wire::{CursorGiven, Kind, LaneAttempts, LaneId, LaneNamed, LaneStart};

use super::orders::{AtRest, LaneAction};
use super::{ATTEMPTS_MAX, FREEZE_AGAIN_MS, State};
use crate::broker::account::AccountId;
use crate::broker::channel::{ChannelId, Tally};
use crate::broker::notes::Note;
use crate::broker::peer::PeerId;
use crate::broker::{Action, Broker, millis};

impl Broker {
    /// The receiver that had the seat has left it: where it stood in its lanes is to be found out.
    pub(in crate::broker) fn leave_lanes(&mut self, id: PeerId, channel_id: ChannelId) {
        self.forget_tickets_to(id);
        let who = self.who(id);
        for index in 0..self.channel(channel_id).lanes.len() {
            let lane = &mut self.channel_mut(channel_id).lanes[index];
            if matches!(lane.state, State::Given(_)) {
                lane.state = State::Leaving;
                lane.left_by = Some(who.clone());
                let lane = lane.id;
                self.actions.push_back(Action::Lane(LaneAction::FreezeCursor(lane)));
            }
        }
    }

    /// Whether the next receiver may have the seat: what the last one left in its lanes is known.
    pub(in crate::broker) fn lanes_at_rest(&self, channel_id: ChannelId) -> bool {
        self.channel(channel_id).lanes.iter().all(|lane| lane.state != State::Leaving)
    }

    /// The cursor of a receiver that left is frozen, or `None`: it has it mapped still.
    pub fn cursor_at_rest(&mut self, now: Duration, lane: LaneId, at_rest: Option<AtRest>) {
        self.now_ms = millis(now);
        let Some((channel_id, index)) = self.find_lane(lane) else { return };
        if self.channel(channel_id).lanes[index].state != State::Leaving {
            return;
        }
        match at_rest {
            Some(at_rest) => self.rests(lane, at_rest),
            None => {
                self.due(self.now_ms + FREEZE_AGAIN_MS);
                // A stopped process is not gone, and may stay so for long. Its sender can do without it.
                let channel = self.channel_mut(channel_id);
                let found = &mut channel.lanes[index];
                let asked = std::mem::replace(&mut found.turning, true);
                found.generation += u64::from(!asked);
                let (generation, account) = (found.generation, found.account);
                let sender = account.and_then(|account| channel.account(account).peer);
                if let Some(sender) = sender.filter(|_| !asked) {
                    self.put(sender, Kind::CursorGiven, &CursorGiven { lane, generation, ticket: None });
                }
            }
        }
    }

    /// It is known where the last receiver stood.
    fn rests(&mut self, lane: LaneId, at_rest: AtRest) {
        let Some((channel_id, index)) = self.find_lane(lane) else { return };
        let published = self.published(channel_id, lane);
        let books = self.books();
        let believed = books.and_then(|books| books.believed(lane));
        let record_end = |said| match books {
            Some(books) => books.record_end(lane, said, self.message_max_bytes),
            None => Some(said),
        };
        let true_end = at_rest.start.and_then(record_end);
        let found = &mut self.channel_mut(channel_id).lanes[index];
        found.state = State::Unread;
        let (begun, left_by) = (found.start, found.left_by.take());
        // A receiver can write anything there. Then the next begins where that one did, or where its sender believed it
        // last if that is behind, because what lies before is written over; and all it may have seen is marked. Where a
        // record ends it is the sender that says the rest, whatever else is a lie: so the sender believes it as well.
        let possible = |start: &LaneStart| (begun.messages..=published).contains(&start.messages);
        let last_true = believed.filter(possible).unwrap_or(begun);
        let lies = match at_rest.start {
            Some(start) => true_end != Some(start) || !possible(&start) || at_rest.taken > published,
            // It had begun, if its sender believed it.
            None => last_true.messages > begun.messages,
        };
        let true_end = true_end.filter(possible);
        let at_rest = if lies { AtRest { start: true_end, taken: published, given_back: 0 } } else { at_rest };
        let start = at_rest.start.unwrap_or(last_true);
        // What the receiver acknowledged its sender knows if it honoured it, by whichever of its words.
        let receiver = found.generation - u64::from(found.turning);
        let unhonoured = found.honoured < receiver;
        let unseen = start.messages > found.start.messages && unhonoured;
        // What it was to have of that receiver is forgotten.
        let asks_in_vain = unhonoured && !found.turning;
        found.start = start;
        if let Some(who) = left_by.filter(|_| lies) {
            let reason = format!(
                "it has written into its cursor of lane {} what no receiver writes, or the sender of that (pid {}) what no sender writes: the next receiver is given again what lies behind message {}",
                lane.0, found.pid, start.messages
            );
            self.note(Note::Disbelieved { who, reason });
        }
        let found = &mut self.channel_mut(channel_id).lanes[index];
        found.attempts.push(LaneAttempts { before: at_rest.taken, times: 1 });
        found.attempts.push(LaneAttempts { before: start.messages + 1, times: at_rest.given_back });
        found.attempts.retain(|seen| seen.before > start.messages && seen.times > 0);
        let excess = found.attempts.len().saturating_sub(ATTEMPTS_MAX);
        found.attempts.drain(..excess);
        found.turning = false;
        if found.is_doomed() {
            self.remove_doomed(channel_id, index);
        }
        self.free_finished(channel_id);
        self.go_on_when_at_rest(channel_id);
        if unseen {
            self.show_start(channel_id, lane);
        } else if asks_in_vain {
            self.turn_to_nobody(channel_id, lane);
        }
    }

    /// A receiver has left before its sender had its cursor, and with that what it had acknowledged. That is shown by
    /// the daemon, or by the next receiver, which begins there.
    fn show_start(&mut self, channel_id: ChannelId, id: LaneId) {
        let channel = self.channel_mut(channel_id);
        let Some(lane) = channel.lanes.iter_mut().find(|lane| lane.id == id) else { return };
        match lane.state {
            State::Unread if !lane.stands_in => self.stand_in(channel_id, id),
            State::Given(_) => self.turn_to_nobody(channel_id, id),
            State::Offered | State::Brought | State::Unread | State::Leaving => {}
        }
    }

    /// Tells a sender that the receiver which has left is nobody any more: its cursor is gone, and to ask for it ends in
    /// giving up the lane.
    fn turn_to_nobody(&mut self, channel_id: ChannelId, id: LaneId) {
        let channel = self.channel(channel_id);
        let Some(lane) = channel.lanes.iter().find(|lane| lane.id == id) else { return };
        let generation = match lane.state {
            State::Unread => lane.generation,
            // Of the next one.
            State::Given(_) => lane.generation - 1,
            State::Offered | State::Brought | State::Leaving => return,
        };
        if let Some(sender) = lane.account.and_then(|account| channel.account(account).peer) {
            self.put(sender, Kind::CursorGiven, &CursorGiven { lane: id, generation, ticket: None });
        }
    }

    /// The last lane that kept the seat free may be at rest, or gone.
    pub(super) fn go_on_when_at_rest(&mut self, channel_id: ChannelId) {
        if self.lanes_at_rest(channel_id) {
            self.seat_next(channel_id, false);
            self.open_unread_lanes(channel_id);
        }
    }

    /// A sender has left: nobody may write to its lane when that is proved.
    pub(in crate::broker) fn sender_leaves_lane(&mut self, channel_id: ChannelId, account: AccountId) {
        let channel = self.channel_mut(channel_id);
        let Some(lane) = channel.lanes.iter_mut().find(|lane| lane.account == Some(account)) else { return };
        let id = lane.id;
        if lane.state == State::Offered {
            return self.free_lane(channel_id, id);
        }
        (lane.sender_leaving, lane.account) = (true, None);
        self.count_held_in_lanes(channel_id);
        self.actions.push_back(Action::Lane(LaneAction::FreezeData(id)));
    }

    /// The data of a sender that left is frozen, or not: it has it mapped still.
    pub fn data_at_rest(&mut self, now: Duration, lane: LaneId, frozen: bool) {
        self.now_ms = millis(now);
        let Some((channel_id, index)) = self.find_lane(lane) else { return };
        let channel = self.channel_mut(channel_id);
        let found = &mut channel.lanes[index];
        if !found.sender_leaving || found.sender_gone {
            return;
        }
        if !frozen {
            return self.due(self.now_ms + FREEZE_AGAIN_MS);
        }
        let state = found.state;
        if self.may_be_at_the_door(&self.channel(channel_id).lanes[index]) {
            return self.due(self.now_ms + FREEZE_AGAIN_MS);
        }
        let channel = self.channel_mut(channel_id);
        channel.lanes[index].sender_gone = true;
        if state == State::Brought {
            return self.brought_lane_rests(channel_id, lane);
        }
        let given = matches!(state, State::Given(_));
        if let Some(receiver) = channel.seat.as_ref().map(|seat| seat.peer).filter(|_| given) {
            self.put(receiver, Kind::SenderGone, &LaneNamed { lane });
        }
        self.free_finished(channel_id);
        self.end_if_deserted(channel_id);
        self.vanish_if_idle(channel_id);
    }

    /// Frees lanes that nobody writes to any more, and in which nothing is left to read.
    pub(super) fn free_finished(&mut self, channel_id: ChannelId) {
        let finished = self.channel(channel_id).lanes.iter().filter_map(|lane| {
            let counts = self.counts(lane);
            // A receiver that has all of it need not say so: it may do something else for long.
            let read = match lane.state {
                State::Unread => counts.published <= lane.start.messages,
                State::Given(true) => counts.published == counts.acknowledged,
                State::Given(false) | State::Offered | State::Brought | State::Leaving => false,
            };
            let by_seated = if lane.state == State::Given(true) { counts.published - lane.start.messages } else { 0 };
            // It may have passed over some, and has not said so yet.
            let owes_word = lane.state == State::Given(true) && lane.has_orders();
            (lane.sender_gone && read).then_some((lane.id, counts.published, by_seated, owes_word))
        });
        let finished: Vec<(LaneId, u64, u64, bool)> = finished.collect();
        if finished.is_empty() {
            return;
        }
        for (id, published, by_seated, owes_word) in finished {
            let channel = self.channel_mut(channel_id);
            let Some(lane) = channel.lanes.iter().find(|lane| lane.id == id) else { continue };
            let (messages, purged) = (published - lane.counted_from, lane.purged);
            let before = lane.counted_from;
            if let Some(seat) = &mut channel.seat {
                seat.messages += by_seated;
                if owes_word {
                    seat.note_read_lane(id, messages - purged);
                }
            }
            channel
                .count_lane(before, Tally { accepted: messages, acknowledged: messages - purged, purged, dropped: 0 });
            self.free_lane(channel_id, id);
        }
        self.give_room(channel_id);
    }

    /// What could not be frozen is tried again.
    pub(in crate::broker) fn tick_lanes(&mut self, channel_id: ChannelId) {
        for lane in &self.channels[channel_id.0 as usize].lanes {
            if lane.state == State::Leaving {
                self.actions.push_back(Action::Lane(LaneAction::FreezeCursor(lane.id)));
            }
            if lane.sender_leaving && !lane.sender_gone {
                self.actions.push_back(Action::Lane(LaneAction::FreezeData(lane.id)));
            }
        }
        self.recall_idle_lanes(channel_id);
    }
}
