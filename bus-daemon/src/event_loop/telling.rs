//! What the log is told of peers, channels and frames, and how loudly. Payloads are never told.
//!
//! Nothing is formatted that is not written: the macros ask first, and what they do not ask for is asked here.

use std::io::IoSlice;

use bus_core::wire::{FrameHeader, FrameLimits, HEADER_BYTES, Kind};
use tracing::Level;

use super::{EventLoop, Outside, Slot};
use crate::broker::{Broker, Ending, InFlight, Note, PeerId, Who};

/// Whether every frame is told.
pub(super) fn tells_frames() -> bool {
    tracing::enabled!(Level::TRACE)
}

/// Tells of a frame that a peer has sent.
pub(super) fn tell_frame_in(broker: &Broker, peer: PeerId, header: &FrameHeader) {
    tracing::trace!(peer = %broker.who(peer), kind = ?header.kind, bytes = header.frame_bytes(), "frame in");
}

/// Tells of whole frames that a peer has sent.
pub(super) fn tell_frames_in(broker: &Broker, peer: PeerId, mut bytes: &[u8]) {
    while let Ok(Some(header)) = FrameHeader::decode(bytes, ANY_LENGTH) {
        tell_frame_in(broker, peer, &header);
        bytes = bytes.get(header.frame_bytes()..).unwrap_or_default();
    }
}

/// Tells of a frame that a peer is sent.
pub(super) fn tell_frame_out(broker: &Broker, peer: PeerId, kind: Kind, bytes: usize) {
    tracing::trace!(peer = %broker.who(peer), ?kind, bytes, "frame out");
}

/// Their lengths were checked when they came.
const ANY_LENGTH: FrameLimits = FrameLimits { message_max_bytes: u32::MAX, control_max_bytes: u32::MAX };

/// Finds the frames in what is written to a connection, piece by piece. There is one only where frames are told.
#[derive(Debug, Default)]
pub(super) struct FramesOut {
    /// The header that is written in part.
    header: Vec<u8>,
    /// What is left of the frame whose header is written.
    rest: usize,
}

impl FramesOut {
    /// Takes notice of the first `bytes` of what was offered. Returns kind and length of each frame that begins there,
    /// and whose header is whole by now.
    pub(super) fn wrote(&mut self, slices: &[IoSlice<'_>], bytes: usize) -> Vec<(Kind, usize)> {
        let (mut frames, mut left) = (Vec::new(), bytes);
        for slice in slices {
            let mut written = &slice[..left.min(slice.len())];
            left -= written.len();
            while !written.is_empty() {
                let of_frame = self.rest.min(written.len());
                self.rest -= of_frame;
                written = &written[of_frame..];
                let of_header = written.len().min(HEADER_BYTES - self.header.len());
                self.header.extend_from_slice(&written[..of_header]);
                written = &written[of_header..];
                if let Ok(Some(header)) = FrameHeader::decode(&self.header, ANY_LENGTH) {
                    frames.push((header.kind, header.frame_bytes()));
                    self.rest = header.frame_bytes() - HEADER_BYTES;
                    self.header.clear();
                }
            }
        }
        frames
    }
}

impl<O: Outside> EventLoop<O> {
    /// Tells what has happened in the broker.
    pub(super) fn tell_notes(&mut self) {
        while let Some(note) = self.broker.poll_note() {
            tell(note);
        }
    }

    /// Tells that a connection is gone: also what its peer leaves undone, where it went by itself.
    pub(super) fn tell_of_end(&self, slot: &Slot, reason: Option<&str>) {
        let InFlight { unacknowledged, claimed } = self.broker.in_flight(slot.peer);
        let unfinished_bytes = slot.connection.unfinished_bytes();
        if reason.is_none() && unacknowledged + claimed + unfinished_bytes as u64 > 0 {
            let Who { role, channel, pid, uid, name } = self.broker.who(slot.peer);
            let channel = channel.as_ref().map(|channel| channel.as_str());
            tracing::info!(
                role,
                channel,
                pid,
                uid,
                name,
                unacknowledged,
                claimed,
                unfinished_bytes,
                "a peer hung up without a goodbye"
            );
        } else {
            tracing::debug!(peer = %self.broker.who(slot.peer), reason, "a connection has ended");
        }
    }
}

fn tell(note: Note) {
    match note {
        Note::LetIn(Who { role, channel, pid, uid, name }) => {
            let channel = channel.as_ref().map(|channel| channel.as_str());
            tracing::debug!(role, channel, pid, uid, name, "let in");
        }
        Note::Left(Who { role, channel, pid, uid, name }) => {
            let channel = channel.as_ref().map(|channel| channel.as_str());
            tracing::debug!(role, channel, pid, uid, name, "left");
        }
        Note::Ending { who: Who { role, channel, pid, uid, name }, ending, reason } => {
            let channel = channel.as_ref().map(|channel| channel.as_str());
            match ending {
                Ending::Fault => tracing::warn!(role, channel, pid, uid, name, reason, "closed a peer"),
                Ending::Order => tracing::info!(role, channel, pid, uid, name, reason, "closed a peer"),
            }
        }
        Note::LimitMet { who: Who { role, channel, pid, uid, name }, reason } => {
            let channel = channel.as_ref().map(|channel| channel.as_str());
            tracing::warn!(role, channel, pid, uid, name, reason, "a limit is met");
        }
        Note::Disbelieved { who: Who { role, channel, pid, uid, name }, reason } => {
            let channel = channel.as_ref().map(|channel| channel.as_str());
            tracing::warn!(role, channel, pid, uid, name, reason, "what a receiver has left in a lane is not believed");
        }
        Note::ChannelMade(channel) => tracing::debug!(%channel, "a channel was created"),
        Note::ChannelVanished(channel) => tracing::debug!(%channel, "a channel vanished: nothing held it any more"),
        Note::ChannelDeleted { channel, messages } => tracing::debug!(%channel, messages, "a channel was deleted"),
    }
}

#[cfg(test)]
mod tests {
    use bus_core::wire::put_control;

    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        for kind in [Kind::Ended, Kind::Seated, Kind::Ended] {
            put_control(kind, &7_u64, &mut bytes);
        }
        let expected = [Kind::Ended, Kind::Seated, Kind::Ended].map(|kind| (kind, bytes.len() / 3));
        for piece in 1..=bytes.len() {
            let mut frames = FramesOut::default();
            let found = bytes.chunks(piece).flat_map(|piece| {
                let (first, second) = piece.split_at(piece.len() / 2);
                frames.wrote(&[IoSlice::new(first), IoSlice::new(second), IoSlice::new(b"not taken")], piece.len())
            });
            assert_eq!(found.collect::<Vec<_>>(), expected, "in pieces of {piece}");
        }
    }
}
