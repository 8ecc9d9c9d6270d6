//! The way out: what a peer is sent next, and what its receiver has claimed and acknowledged.

use std::io::IoSlice;

use bus_core::wire::{Kind, Progress};

use super::channel::ChannelId;
use super::peer::{PeerId, PeerRole};
use super::{Broker, Fault};

/// How many slices one write takes at most: more is not faster, and fewer than the kernel's 1,024.
const SLICES_MAX: usize = 64;

/// How much may wait for a receiver that is reading before its senders are not read for a moment, in
/// bytes: what has just been written is still in the processor's cache when it is sent.
const WARM_BYTES: u64 = 192 * 1024;

/// From which length on a message is written by itself where it is the next, in bytes: then the kernel cuts it into pages as it did when it
/// was sent, and those that its receiver gives back are of the kind that the sender beside it takes next, while they
/// are warm. Several together come in other cuts, and the sender copies into cold memory (64 KiB, one to one, two
/// processors of Zen 4: 2.4 to 2.8 GiB/s together, 3.4 to 3.6 one by one).
const LONG_BYTES: u64 = 64 * 1024;

impl Broker {
    /// What to write to a peer next. The caller tells by [`Self::wrote`] what the socket took.
    pub fn output<'a>(&'a mut self, id: PeerId, out: &mut Vec<IoSlice<'a>>) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.write_queued = false;
        let this = &*self;
        let Some(peer) = this.peer(id) else { return };
        let Some(channel) = this.seated_at(id).map(|channel| this.channel(channel)) else {
            if !peer.outbox.unwritten().is_empty() {
                out.push(IoSlice::new(peer.outbox.unwritten()));
            }
            return;
        };
        let Some(seat) = &channel.seat else { return };
        let limit = channel.push_limit();
        // A message that has begun comes first, then what has to be said, then further messages.
        let begun = seat.written + u64::from(seat.offset > 0);
        channel.log.slices(seat.written, begun, seat.offset, SLICES_MAX, out);
        if !peer.outbox.unwritten().is_empty() {
            out.push(IoSlice::new(peer.outbox.unwritten()));
        }
        let is_long = channel.log.entry(begun).is_some_and(|entry| u64::from(entry.message_bytes) >= LONG_BYTES);
        let limit = match is_long {
            true if out.is_empty() => limit.min(begun + 1),
            true => begun,
            false => limit,
        };
        if limit > begun {
            channel.log.slices(begun, limit, 0, SLICES_MAX, out);
        }
    }

    /// The socket has taken `bytes` of what [`Self::output`] gave.
    pub fn wrote(&mut self, id: PeerId, mut bytes: usize) {
        let channel_id = self.seated_at(id);
        if let Some(channel_id) = channel_id {
            self.wrote_begun(channel_id, &mut bytes);
        }
        let Some(peer) = self.peer_mut(id) else { return };
        let control = bytes.min(peer.outbox.unwritten().len());
        if control > 0 {
            peer.outbox.wrote(control);
            bytes -= control;
            if (peer.stalled || peer.missed_peers) && peer.outbox.has_drained() {
                self.outbox_has_drained(id);
            }
        }
        if let Some(channel_id) = channel_id {
            self.wrote_messages(channel_id, bytes);
        }
    }

    fn wrote_begun(&mut self, channel_id: ChannelId, bytes: &mut usize) {
        let channel = self.channel_mut(channel_id);
        let Some(seat) = &mut channel.seat else { return };
        if seat.offset == 0 || *bytes == 0 {
            return;
        }
        let Some(entry) = channel.log.entry(seat.written) else { return };
        let rest = entry.frame_bytes as usize - seat.offset;
        if *bytes < rest {
            seat.offset += *bytes;
            *bytes = 0;
        } else {
            *bytes -= rest;
            seat.written += 1;
            seat.offset = 0;
            seat.ahead_bytes += u64::from(entry.message_bytes);
        }
    }

    fn wrote_messages(&mut self, channel_id: ChannelId, mut bytes: usize) {
        let channel = self.channel_mut(channel_id);
        let Some(seat) = &mut channel.seat else { return };
        while bytes > 0 {
            let Some(entry) = channel.log.entry(seat.written) else { return };
            let frame_bytes = entry.frame_bytes as usize;
            if bytes < frame_bytes {
                seat.offset = bytes;
                return;
            }
            bytes -= frame_bytes;
            seat.written += 1;
            seat.ahead_bytes += u64::from(entry.message_bytes);
        }
    }

    /// Whether there is something to write to a peer.
    #[must_use]
    pub fn has_output(&self, id: PeerId) -> bool {
        let Some(peer) = self.peer(id) else { return false };
        if !peer.outbox.unwritten().is_empty() {
            return true;
        }
        self.seated_at(id).is_some_and(|channel| {
            let channel = self.channel(channel);
            channel.seat.as_ref().is_some_and(|seat| seat.offset > 0 || channel.push_limit() > seat.written)
        })
    }

    /// The receiver that a sender's messages wait for, when that is so far behind that to take in more
    /// would only fill memory.
    #[must_use]
    pub fn receiver_behind(&self, sender: PeerId) -> Option<PeerId> {
        let channel = self.channel(self.sends_for(sender)?);
        let seat = channel.seat.as_ref()?;
        (channel.log.bytes() - seat.ahead_bytes > WARM_BYTES).then_some(seat.peer)
    }

    /// The channel whose seat a peer has.
    pub(super) fn seated_at(&self, id: PeerId) -> Option<ChannelId> {
        match self.peer(id)?.role {
            PeerRole::Receiver { channel, .. } => {
                let seat = self.channel(channel).seat.as_ref()?;
                (seat.peer == id).then_some(channel)
            }
            PeerRole::Greeting { .. }
            | PeerRole::Early
            | PeerRole::Control
            | PeerRole::Bringing
            | PeerRole::Sender { .. }
            | PeerRole::FormerSender { .. } => None,
        }
    }

    /// A receiver tells how far it is.
    pub(super) fn progress(&mut self, id: PeerId, channel_id: ChannelId, progress: Progress) -> Result<(), Fault> {
        let before = self.channel(channel_id).cost();
        let channel = &mut self.channels[channel_id.0 as usize];
        let first = channel.log.first();
        let lag_messages = u64::from(channel.bounds.lag().0);
        let Some(seat) = channel.seat.as_mut().filter(|seat| seat.peer == id) else {
            // In line it has nothing to tell but that it has nothing.
            return if progress.acked == 0 { Ok(()) } else { Err(Fault("progress of a receiver in line".to_owned())) };
        };
        let (Some(acked), Some(taken)) = (seat.base.checked_add(progress.acked), seat.base.checked_add(progress.taken))
        else {
            return Err(Fault("progress out of range".to_owned()));
        };
        if acked < first || acked > seat.written || taken < acked || taken > seat.written + lag_messages {
            return Err(Fault(format!(
                "progress to {acked} and {taken} is not within {first} and {}: a receiver settles what it was sent, in order",
                seat.written
            )));
        }
        seat.claimed = taken;
        seat.head_given_back = progress.head_given_back;
        seat.messages += acked - first;
        let to_tell = &mut self.to_tell;
        channel.acknowledge(acked - first, |account_id, account| {
            if account.peer.is_some() && !account.queued {
                account.queued = true;
                to_tell.push((channel_id, account_id));
            }
        });
        if acked > first {
            self.charge(channel_id, before);
            self.give_room(channel_id);
            self.write(id);
            self.end_if_deserted(channel_id);
        }
        Ok(())
    }

    /// Asks the receiver to give back what it has not claimed.
    pub(super) fn recall(&mut self, channel_id: ChannelId) {
        let channel = self.channel_mut(channel_id);
        let Some(seat) = &mut channel.seat else { return };
        if !std::mem::replace(&mut seat.recalling, true) {
            let id = seat.peer;
            self.put(id, Kind::Recall, &());
        }
    }

    /// The receiver has given back what it had not claimed.
    pub(super) fn recalled(&mut self, id: PeerId, channel_id: ChannelId, progress: Progress) -> Result<(), Fault> {
        self.progress(id, channel_id, progress)?;
        let channel = self.channel_mut(channel_id);
        let Some(seat) = channel.seat.as_mut().filter(|seat| seat.peer == id && seat.recalling) else {
            return Err(Fault("nothing was recalled".to_owned()));
        };
        seat.recalling = false;
        // It answers after everything that was written before, so nothing is half written.
        seat.written = seat.taken();
        seat.offset = 0;
        let taken = seat.taken();
        let given_back = std::mem::take(&mut seat.head_given_back);
        seat.ahead_bytes = (channel.log.first()..taken)
            .filter_map(|position| channel.log.entry(position))
            .map(|entry| u64::from(entry.message_bytes))
            .sum();
        if given_back > 0 {
            channel.log.count_attempts(channel.log.first(), given_back);
        }
        self.remove_recalled(channel_id, taken);
        self.write(id);
        self.end_if_deserted(channel_id);
        Ok(())
    }
}
