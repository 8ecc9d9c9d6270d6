//! What a peer says: each frame goes to the rule that it concerns.

use std::time::Duration;

use bus_core::wire::{FrameHeader, Kind, LaneNamed, Progress, Request, Want, read_control};

use super::leave::Parting;
use super::log::Content;
use super::peer::{PeerId, PeerRole};
use super::{Broker, Fault, Handled, Note, millis};

impl Broker {
    /// A peer has sent a frame, whose lengths were checked against [`Self::frame_limits`].
    pub fn frame<'a>(&mut self, now: Duration, id: PeerId, header: &FrameHeader, content: Content<'a>) -> Handled<'a> {
        self.now_ms = millis(now);
        self.now_ns = self.rules.nanoseconds(now);
        let Some(peer) = self.peer(id).filter(|peer| !peer.closing) else { return Handled::Taken };
        if peer.outbox.is_over() {
            self.stall(id);
            return Handled::NotNow(content);
        }
        match (peer.role, header.kind) {
            (PeerRole::Sender { channel, account, .. } | PeerRole::FormerSender { channel, account }, Kind::Data) => {
                self.publish(id, channel, account, header, content).unwrap_or_else(|fault| {
                    self.fault(id, fault);
                    Handled::Taken
                })
            }
            (role, kind) => {
                if let Err(fault) = self.control_frame(id, role, kind, content.bytes()) {
                    self.fault(id, fault);
                }
                Handled::Taken
            }
        }
    }

    /// A peer that does not read what it is told is not read.
    pub(super) fn stall(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.stalled = true;
            self.give_up_turn(id);
        }
    }

    pub(super) fn control_frame(&mut self, id: PeerId, role: PeerRole, kind: Kind, body: &[u8]) -> Result<(), Fault> {
        match (role, kind) {
            (PeerRole::Greeting { .. }, Kind::Hello) => read(Kind::Hello, body).map(|hello| self.greet(id, hello)),
            (PeerRole::Sender { channel, account, .. }, Kind::Want) => {
                read::<Want>(Kind::Want, body).map(|want| self.want(id, channel, account, want))
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Unwant) => {
                self.unwant(id, channel, account);
                Ok(())
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Confirm) => {
                self.confirm(channel, account);
                Ok(())
            }
            (PeerRole::Receiver { channel, .. }, Kind::Progress) => {
                read::<Progress>(Kind::Progress, body).and_then(|progress| self.progress(id, channel, progress))
            }
            (PeerRole::Receiver { channel, .. }, Kind::Recalled) => {
                read::<Progress>(Kind::Recalled, body).and_then(|progress| self.recalled(id, channel, progress))
            }
            (PeerRole::Receiver { channel, .. }, Kind::Goodbye) => read::<Progress>(Kind::Goodbye, body)
                .and_then(|progress| self.progress(id, channel, progress))
                .map(|()| {
                    self.note(Note::Left(self.who(id)));
                    self.receiver_leaves(id, channel, true);
                }),
            (PeerRole::Sender { channel, account, .. }, Kind::Goodbye) => {
                self.note(Note::Left(self.who(id)));
                self.sender_leaves(id, channel, account, Parting::ForGood);
                Ok(())
            }
            (PeerRole::Sender { channel, .. } | PeerRole::Receiver { channel, .. }, Kind::Watch) => {
                self.watch(id, channel);
                Ok(())
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Moved) => {
                let LaneNamed { lane } = read(Kind::Moved, body)?;
                self.moved(id, channel, account, lane);
                Ok(())
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Nudge) => {
                read::<LaneNamed>(Kind::Nudge, body).map(|named| self.nudge(channel, account, named.lane))
            }
            (PeerRole::Sender { channel, account, .. }, Kind::Turned) => {
                read(Kind::Turned, body).map(|turned| self.turned(channel, account, turned))
            }
            (PeerRole::Sender { channel, account, .. }, Kind::LaneDone) => {
                read(Kind::LaneDone, body).map(|done| self.lane_given_up(id, channel, account, done))
            }
            (PeerRole::Sender { channel, account, .. }, Kind::LaneLeft) => {
                read(Kind::LaneLeft, body).and_then(|left| self.lane_left(channel, account, left))
            }
            (PeerRole::Receiver { channel, .. }, Kind::Watching) => {
                read(Kind::Watching, body).map(|watching| self.watching(id, channel, watching))
            }
            (PeerRole::Receiver { channel, .. }, Kind::LaneDone) => {
                read(Kind::LaneDone, body).and_then(|done| self.lane_done(id, channel, done))
            }
            (PeerRole::Receiver { channel, .. }, Kind::LaneSkipped) => {
                read(Kind::LaneSkipped, body).and_then(|skipped| self.lane_skipped(id, channel, skipped))
            }
            (PeerRole::Bringing, Kind::Brought) => self.lane_comes(id),
            (PeerRole::Control, Kind::Request) => {
                read::<Request>(Kind::Request, body).map(|request| self.carry_out(id, request))
            }
            (PeerRole::FormerSender { channel, account }, Kind::Moved) => {
                // It counts as what it sent does; and is said again, if the sender lives.
                if let Ok(LaneNamed { lane }) = read(Kind::Moved, body) {
                    self.moved(id, channel, account, lane);
                }
                Ok(())
            }
            // What it asked is asked again over its present connection.
            (PeerRole::FormerSender { .. }, _) => Ok(()),
            (PeerRole::Greeting { .. }, kind) => {
                Err(Fault(format!("the first frame of a connection must be a Hello, and this one is a {kind:?}")))
            }
            (_, kind) => Err(Fault(format!("a {kind:?} frame does not belong here"))),
        }
    }

    /// A peer has read what it was told, or never will: it is read again, and told what it has missed.
    pub(super) fn outbox_has_drained(&mut self, id: PeerId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let stalled = std::mem::take(&mut peer.stalled);
        if std::mem::take(&mut peer.missed_peers) {
            self.tell_peers_to(id);
        }
        if stalled {
            self.actions.push_back(super::Action::Resume(id));
        }
    }

    /// Nobody reads at the other end of a peer's socket. What it has sent still counts.
    pub fn write_closed(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.outbox.close();
            self.outbox_has_drained(id);
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, Fault> {
    read_control(kind, body).map_err(|error| Fault(error.to_string()))
}
