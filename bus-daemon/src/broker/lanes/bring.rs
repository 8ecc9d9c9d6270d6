//! Lanes of an earlier daemon, which their ends bring: what is in them is theirs, and goes on from here.
//!
//! What an end says is believed as far as it is its own loss if it is not true. That an earlier daemon made the
//! lane, for that sender and that channel, it proves by a keyed hash; what its memory is the event loop looks
//! at. What was handed out before nobody knows for certain any more: all that is in the lane comes marked.

use std::io;
use std::time::Duration;

use bus_core::wire::{
    Kind, LaneAttempts, LaneBrought, LaneEnd, LaneId, LaneNamed, LaneProof, LaneStart, RefusedCode, WelcomeRole,
};

use super::idle::Idle;
use super::shell::Doomed;
use super::{Lane, LaneAction, LaneSize, RING_BYTES_MAX, State};
use crate::broker::channel::ChannelId;
use crate::broker::notes::Note;
use crate::broker::peer::{Peer, PeerId, PeerRole};
use crate::broker::{Action, Broker, Fault, Refusal, millis};

impl Broker {
    /// Somebody has a lane of an earlier daemon. Its descriptors come when that is answered.
    pub(in crate::broker) fn hear_of_lane(&mut self, id: PeerId, brought: LaneBrought) -> Result<(), Refusal> {
        if self.find_lane(brought.lane).is_some() {
            // The other end was faster.
            self.put(id, Kind::LaneKept, &LaneNamed { lane: brought.lane });
            return Ok(());
        }
        if brought.ring_bytes == 0 || brought.ring_bytes > RING_BYTES_MAX || !brought.ring_bytes.is_multiple_of(4096) {
            let text =
                format!("lane {} is said to have {} bytes, which no lane has", brought.lane.0, brought.ring_bytes);
            return Err(Refusal::new(RefusedCode::Protocol, text));
        }
        if brought.generation > self.now_ns {
            let text = format!("lane {} is said to have had {} receivers", brought.lane.0, brought.generation);
            return Err(Refusal::new(RefusedCode::Protocol, text));
        }
        if self.former_lanes.contains(&brought.lane) {
            // Broken, and what is in it goes by the stream; or read to its end, by another receiver than this.
            let text = format!("lane {} is no more: come without it", brought.lane.0);
            return Err(Refusal::new(RefusedCode::Denied, text));
        }
        if !self.lanes_possible {
            return Err(Refusal::new(
                RefusedCode::Limit,
                "the system gives no memory for lanes: what is in it goes by the stream",
            ));
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.role = PeerRole::Bringing;
        }
        self.brought.retain(|(other, _)| *other != id);
        self.brought.push((id, brought));
        self.actions.push_back(Action::Lane(LaneAction::Expect(id)));
        self.welcome(id, WelcomeRole::Lane);
        Ok(())
    }

    /// The descriptors of a lane are here.
    pub(in crate::broker) fn lane_comes(&mut self, id: PeerId) -> Result<(), Fault> {
        let Some(index) = self.brought.iter().position(|(peer, _)| *peer == id) else {
            return Err(Fault("descriptors came, and no lane was named".into()));
        };
        let (_, brought) = self.brought.swap_remove(index);
        let lane = brought.lane;
        if self.find_lane(lane).is_some() {
            self.put(id, Kind::LaneKept, &LaneNamed { lane });
            return Ok(());
        }
        let adopt = LaneAction::Adopt(id, lane, brought.by, brought.ring_bytes);
        self.arriving.push((id, brought));
        self.actions.push_back(Action::Lane(adopt));
        Ok(())
    }

    /// The memory of a lane that was brought is looked at: a file of this number, `None` when it is here already,
    /// or not what it is said to be. Returns whether it is kept.
    pub fn lane_adopted(&mut self, now: Duration, id: PeerId, memory: io::Result<Option<u64>>) -> bool {
        self.now_ms = millis(now);
        self.now_ns = self.rules.nanoseconds(now);
        let Some(index) = self.arriving.iter().position(|(peer, _)| *peer == id) else {
            return matches!(memory, Ok(None));
        };
        let (_, brought) = self.arriving.swap_remove(index);
        let lane = brought.lane;
        let taken = match memory {
            Ok(None) => Ok(()),
            Ok(Some(number)) => self.take_lane(id, &brought, number),
            Err(error) => Err(Refusal::new(RefusedCode::Denied, format!("lane {} is none: {error}", lane.0))),
        };
        match taken {
            Ok(()) => {
                self.put(id, Kind::LaneKept, &LaneNamed { lane });
                true
            }
            Err(Refusal { code, text }) => {
                self.refuse(id, code, text);
                false
            }
        }
    }

    fn take_lane(&mut self, id: PeerId, brought: &LaneBrought, number: u64) -> Result<(), Refusal> {
        let LaneBrought { lane, proof, sender, .. } = *brought;
        let denied = |text: String| Err(Refusal::new(RefusedCode::Denied, text));
        if self.prove(lane, sender, brought.channel.as_str(), proof.uid, number) != proof {
            return denied(format!("lane {} of channel {} was made by no daemon of this bus", lane.0, brought.channel));
        }
        if brought.by == LaneEnd::Sender && self.peer(id).is_none_or(|peer| peer.credentials.uid != proof.uid) {
            return denied(format!("lane {} of channel {} is another user's", lane.0, brought.channel));
        }
        let channel_id = self.enter_channel(id, &brought.channel, None)?;
        let published = self.lane_books.as_ref().map_or(0, |books| books.counts(lane).published);
        if let Err(refusal) = self.check_takes_lane(channel_id, proof.uid, brought.ring_bytes) {
            self.vanish_if_idle(channel_id);
            return Err(refusal);
        }
        let Some(start) = self.believable_start(id, brought, published) else {
            self.vanish_if_idle(channel_id);
            return denied(format!(
                "lane {} of channel {} has {published} messages, and is said to be read up to {}",
                lane.0, brought.channel, brought.start.messages
            ));
        };
        let by_sender = brought.by == LaneEnd::Sender;
        let (now_ms, now_ns) = (self.now_ms, self.now_ns);
        let channel = self.channel_mut(channel_id);
        channel.sender_seen = true;
        let mut new = Lane {
            id: lane,
            sender,
            pid: brought.pid,
            account: None,
            state: if by_sender { State::Brought } else { State::Unread },
            sender_gone: false,
            // Until it is here, it may be dead.
            sender_leaving: true,
            turning: false,
            // Later than all that an earlier daemon counted.
            generation: brought.generation.max(now_ns).saturating_add(1),
            start,
            counted_from: start.messages,
            counted_from_bytes: start.logical,
            purged: 0,
            doomed: Doomed::default(),
            skips_ordered: 0,
            stands_in: false,
            // Whether it was asked for its sender knows.
            idle: Idle::since(now_ms),
            attempts: believable(&brought.attempts),
            size: LaneSize { ring_bytes: brought.ring_bytes, message_max_bytes: 0 },
            not_before_ns: brought.not_before_ns,
            brought: true,
            open: true,
            proof,
            honoured: 0,
            left_by: None,
        };
        if !by_sender {
            new.mark(published);
        }
        self.add_lane(channel_id, new);
        self.actions.push_back(Action::Lane(LaneAction::FreezeData(lane)));
        self.give_lanes(channel_id);
        Ok(())
    }

    /// Where a lane goes on that was brought, `None` where that cannot be. A receiver is believed where a record of the
    /// sender ends, and then it is the sender that says the rest; where none ends it has lied, and it goes on where the
    /// sender believed it last: what lies before that is written over. A sender that lies harms its own lane alone.
    fn believable_start(&mut self, id: PeerId, brought: &LaneBrought, published: u64) -> Option<LaneStart> {
        let said = brought.start;
        let possible = |start: &LaneStart| start.messages <= published;
        let books = self.books().filter(|_| brought.by == LaneEnd::Receiver);
        let true_end = books.map_or(Some(said), |books| books.record_end(brought.lane, said, self.message_max_bytes));
        let true_end = true_end.filter(possible);
        if true_end == Some(said) {
            return true_end;
        }
        let start = true_end.or_else(|| books?.believed(brought.lane).filter(possible))?;
        let reason = format!(
            "it has said of lane {} what no receiver says, or the sender of that (pid {}) has written what no sender writes: what lies behind message {} is given again",
            brought.lane.0, brought.pid, start.messages
        );
        let who = self.who(id);
        self.note(Note::Disbelieved { who, reason });
        Some(start)
    }

    /// Whoever read a brought lane under an earlier daemon takes nothing more: it may be given.
    pub(super) fn brought_lane_rests(&mut self, channel_id: ChannelId, lane: LaneId) {
        let published = self.published(channel_id, lane);
        let Some((_, index)) = self.find_lane(lane) else { return };
        let found = &mut self.channel_mut(channel_id).lanes[index];
        found.state = State::Unread;
        found.mark(published);
        if found.is_doomed() {
            self.remove_doomed(channel_id, index);
        }
        self.free_finished(channel_id);
        self.give_lanes(channel_id);
    }

    /// Whether the sender of a brought lane may be about to say hello, though its memory has no writer any more:
    /// what it said before its end counts. Everything that connected before must have been told by
    /// [`Self::connected`].
    pub(super) fn may_be_at_the_door(&self, lane: &Lane) -> bool {
        let greets = |peer: &Peer| {
            peer.credentials.pid == lane.pid && !peer.closing && matches!(peer.role, PeerRole::Greeting { .. })
        };
        lane.brought && lane.account.is_none() && self.peers.iter().any(|(_, peer)| greets(peer))
    }

    /// What proves to a later daemon that this one, or an earlier one, made a lane.
    pub(super) fn prove(&self, lane: LaneId, sender: u64, channel: &str, uid: u32, number: u64) -> LaneProof {
        LaneProof { uid, token: self.lane_token(lane.0, sender, channel, uid, number) }
    }
}

/// What an end says of attempts, within bounds.
fn believable(attempts: &[LaneAttempts]) -> Vec<LaneAttempts> {
    let bounded = |seen: &LaneAttempts| LaneAttempts { times: seen.times.min(ATTEMPTS_BROUGHT_MAX), ..*seen };
    attempts.iter().take(super::ATTEMPTS_MAX - 1).map(bounded).collect()
}

/// How often a message may be said to have been handed out under earlier daemons.
const ATTEMPTS_BROUGHT_MAX: u32 = 1_000;

impl Lane {
    /// Notes that everything before a message may have been handed out.
    fn mark(&mut self, before: u64) {
        let start = self.start.messages;
        self.attempts.truncate(super::ATTEMPTS_MAX - 1);
        self.attempts.push(LaneAttempts { before, times: 1 });
        self.attempts.retain(|seen| seen.before > start && seen.times > 0);
    }
}
