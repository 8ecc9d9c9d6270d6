//! A sender that leaves its lane, because it sends too little to need one, and goes on by the stream.

use super::mapped::SenderLane;
use super::{State, StreamSender};
use crate::stream::keeper;
use crate::wire::{Kind, LaneId, LaneNamed, LaneWish};

impl StreamSender {
    /// The daemon wants a lane back in which nothing was sent for a while.
    ///
    /// It is left only when all that was sent is acknowledged, in the lane and before it by the stream: so nothing of
    /// it is needed any more, by whomever dies next, and nothing is sent twice. Where something was sent since, it is
    /// in use after all: the sender says again that it is there.
    pub(super) fn leave_lane(&self, state: &mut State, id: LaneId) {
        if self.options.lane == LaneWish::AtOnce {
            return;
        }
        let at_rest = state.sending.unacknowledged() == 0 && state.lane_of(id).is_some_and(SenderLane::is_at_rest);
        if !at_rest {
            if state.lane_of(id).is_some() {
                // It stays, and the daemon looks again for how long it rests.
                state.sending.say(Kind::Moved, &LaneNamed { lane: id });
                self.write(state);
                keeper::wake();
            }
            return;
        }
        let sequence = state.last_sequence();
        let its = |lane: &mut SenderLane| lane.id() == id;
        let Some(lane) = state.lane.take_if(its).or_else(|| state.mapped.take_if(its)) else { return };
        // Its memory first: the daemon finds nobody who could write to it.
        drop(lane);
        state.sending.leave_lane(id, sequence);
        self.write(state);
        // It need not listen for this end any more, and may have to write what the socket did not take.
        keeper::wake();
        self.wake_others(state);
    }
}
