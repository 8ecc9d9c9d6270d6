//! What the broker orders to be done with the memory of lanes.

use std::io;

use bus_core::wire::{Kind, LaneId, Welcome, WelcomeRole, put_control};

use super::{EventLoop, Outside};
use crate::broker::{LaneAction, LanePart, NoLane, PeerId};

impl<O: Outside> EventLoop<O> {
    pub(super) fn do_lane(&mut self, action: LaneAction) {
        let now = self.started.elapsed();
        match action {
            LaneAction::Make(lane, size) => {
                let made = self.lanes.make(lane, size).map_err(|error| {
                    if is_passing(&error) {
                        tracing::debug!(%error, "there is no lane to be had now: a sender stays on the stream");
                        return NoLane::Now;
                    }
                    // Said once: the broker asks no more.
                    tracing::warn!(%error, "the system gives no memory for lanes: all senders stay on the stream");
                    NoLane::Ever
                });
                self.broker.lane_made(lane, made);
            }
            LaneAction::Expect(peer) => {
                let Some(key) = self.slot_of(peer) else { return };
                self.connections[key].connection.expect_descriptors();
            }
            LaneAction::Adopt(peer, lane, by, ring_bytes) => {
                let Some(key) = self.slot_of(peer) else { return };
                let descriptors = self.connections[key].connection.take_descriptors();
                let adopted = self.lanes.adopt(lane, by, ring_bytes, descriptors);
                if !self.broker.lane_adopted(now, peer, adopted) {
                    self.lanes.free(lane);
                }
            }
            LaneAction::HandOver(peer, lane, part) => self.hand_over(peer, lane, part),
            LaneAction::SealData(lane) => log(lane, "seal its data", self.lanes.seal_data(lane)),
            LaneAction::NewCursor(lane) => log(lane, "make a cursor", self.lanes.new_cursor(lane)),
            LaneAction::StandIn(lane, at) => log(lane, "write its cursor", self.lanes.stand_in(lane, at)),
            LaneAction::SealCursor(lane) => log(lane, "seal its cursor", self.lanes.seal_cursor(lane)),
            LaneAction::FreezeCursor(lane) => {
                let at_rest = self.lanes.freeze_cursor(lane).unwrap_or_else(|error| {
                    log(lane, "freeze its cursor", Err(error));
                    None
                });
                self.broker.cursor_at_rest(now, lane, at_rest);
            }
            LaneAction::ReadCursor(lane) => {
                let at_rest = self.lanes.read_cursor(lane);
                self.broker.cursor_at_rest(now, lane, Some(at_rest));
            }
            LaneAction::FreezeData(lane) => {
                let mut frozen = self.lanes.freeze_data(lane).unwrap_or_else(|error| {
                    log(lane, "freeze its data", Err(error));
                    false
                });
                if frozen {
                    // What its sender did before its end counts: it may have come back.
                    self.accept();
                    frozen = self.accept_again_at.is_none();
                }
                self.broker.data_at_rest(now, lane, frozen);
            }
            LaneAction::Ring(receiver) => self.lanes.ring(receiver),
            LaneAction::Free(lane) => self.lanes.free(lane),
        }
    }

    fn hand_over(&mut self, peer: PeerId, lane: LaneId, part: LanePart) {
        let Some(key) = self.slot_of(peer) else { return };
        let mut welcome = Vec::new();
        let body = Welcome { daemon: self.broker.run_id(), role: WelcomeRole::Lane };
        put_control(Kind::Welcome, &body, &mut welcome);
        let descriptors = self.lanes.descriptors(lane, part);
        let sent = descriptors.and_then(|fds| self.connections[key].connection.send_descriptors(&welcome, &fds));
        if let Err(error) = sent {
            log(lane, "hand it over", Err(error));
            self.connections[key].closing = Some(format!("lane {} cannot be handed over", lane.0));
            self.to_write.push(key);
        }
    }
}

/// Whether what there is too little of now there may be more of later.
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOSPC];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn log(lane: LaneId, what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(lane = lane.0, %error, "could not {what}");
    }
}
