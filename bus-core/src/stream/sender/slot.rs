//! A message that is written in the lane's own memory before it is sent, and several that are sent together there.

use super::lane::InLane;
use super::mapped::SenderLane;
use super::room::Entering;
use super::{Encoded, Link, PushError, StreamSender, Until, Wait};
use crate::codec::Codec;
use crate::lane::layout::MessageHeader;
use crate::lane::ring::{NotWritten, Slot};
use crate::lane::stamp::now_ns;
use crate::stream::session::wall_clock_ns;
use crate::wire::{Flags, LaneId};

/// A place to write a message into.
#[derive(Debug)]
pub(crate) enum Loaned {
    /// In the lane, where the receiver reads it.
    InLane(LaneSlot),
    /// Of this process alone; sent as any other bytes are.
    Buffer(Vec<u8>),
}

/// A place in a lane. It is to be [committed](StreamSender::commit) or [given back](StreamSender::give_back).
#[derive(Debug)]
pub(crate) struct LaneSlot {
    lane: LaneId,
    slot: Slot,
}

impl LaneSlot {
    pub(crate) fn payload(&self) -> &[u8] {
        self.slot.payload()
    }

    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        self.slot.payload_mut()
    }
}

impl SenderLane {
    fn reserve(&mut self, header_block: &[u8], payload_bytes: u32, on_stream: u64) -> Result<LaneSlot, NotWritten> {
        if on_stream > 0 && on_stream + self.unacknowledged() + self.writer.reserved() >= self.window_messages {
            return Err(NotWritten::Full);
        }
        let slot = self.writer.reserve_slot(header_block, payload_bytes)?;
        Ok(LaneSlot { lane: self.id(), slot })
    }

    fn commit(&mut self, slot: Slot, codec: Codec, stamp_ns: u64) {
        self.sequence += 1;
        let header = MessageHeader {
            flags: Flags::default(),
            codec,
            sequence: self.sequence,
            stamp_ns,
            payload_bytes: slot.payload_bytes(),
            header_block_bytes: slot.header_block_bytes(),
        };
        self.writer.commit_slot(slot, &header);
        self.show();
    }
}

impl StreamSender {
    /// Waits for room, and lends a place for a message. In a lane its room is kept; elsewhere others may take it
    /// before the message is sent.
    pub(crate) fn loan(&self, header_block: &[u8], payload_bytes: u32, wait: Wait) -> Result<Loaned, PushError> {
        let bytes = header_block.len() as u64 + u64::from(payload_bytes);
        let mut state = self.state.lock();
        let limit = state.sending.rules().message_max_bytes;
        if bytes > u64::from(limit) {
            return Err(PushError::TooLarge { bytes, limit });
        }
        loop {
            if state.lane.is_some() {
                let reserve =
                    |lane: &mut SenderLane, _, on_stream| lane.reserve(header_block, payload_bytes, on_stream);
                state = match self.put_in_lane(state, bytes, reserve, wait)? {
                    InLane::Sent(slot) => return Ok(Loaned::InLane(slot)),
                    InLane::Gone(state) => state,
                };
            }
            state = self.look_for_lane(state, wall_clock_ns(), wait);
            if state.lane.is_none() {
                state = self.await_window(state, Entering { bytes, wait, until: Until::Written })?;
            }
            if state.lane.is_none() {
                drop(state);
                return Ok(Loaned::Buffer(vec![0; payload_bytes as usize]));
            }
        }
    }

    /// Sends what was written to a place in a lane. Should that be gone, it is sent as any other bytes are.
    pub(crate) fn commit(&self, slot: LaneSlot, codec: Codec, wait: Wait) -> Result<(), (LaneSlot, PushError)> {
        let mut state = self.state.lock();
        if matches!(state.link, Link::Closed) || self.lacks_receiver(&mut state) {
            return Err((slot, PushError::Disconnected));
        }
        let Some(lane) = state.lane.as_mut().filter(|lane| lane.id() == slot.lane) else {
            drop(state);
            let message = Encoded { codec, header_block: slot.slot.header_block(), payload: slot.payload() };
            return self.push(&message, wait, Until::Written).map(drop).map_err(|error| (slot, error));
        };
        let stamp_ns = now_ns();
        lane.commit(slot.slot, codec, stamp_ns);
        drop(self.after_sending(state, stamp_ns));
        Ok(())
    }

    /// Sends nothing: the place is free again, for whoever waits for one.
    pub(crate) fn give_back(&self, slot: LaneSlot) {
        let mut state = self.state.lock();
        let Some(lane) = state.lane.as_mut().filter(|lane| lane.id() == slot.lane) else { return };
        lane.writer.release_slot(slot.slot);
        if lane.writer.waits() {
            lane.bell_ringer.ring();
        }
        self.wake_others(&state);
    }
}
