//! What the broker orders to be done with the memory of lanes.

use std::io;

use bus_core::wire::{Kind, LaneId, Welcome, WelcomeRole, put_control};

use super::telling::tell_frame_out;
use super::{EventLoop, Outside};
use crate::broker::{LaneAction, LanePart, NoLane, PeerId};
use crate::lanes::Frozen;

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
                    self.free_lane(lane);
                }
            }
            LaneAction::HandOver(peer, lane, part) => self.hand_over(peer, lane, part),
            LaneAction::SealData(lane) => {
                if let Err(error) = self.lanes.seal_data(lane) {
                    self.condemn(lane, format_args!("its data cannot be sealed: {error}"));
                }
            }
            LaneAction::NewCursor(lane) => log(lane, "make a cursor", self.lanes.new_cursor(lane)),
            LaneAction::StandIn(lane, at) => log(lane, "write its cursor", self.lanes.stand_in(lane, at)),
            LaneAction::SealCursor(lane) => log(lane, "seal its cursor", self.lanes.seal_cursor(lane)),
            LaneAction::FreezeCursor(lane) if !self.lanes.has_cursor(lane) => {
                // Its receiver never had one.
                let at_rest = self.lanes.read_cursor(lane);
                self.broker.cursor_at_rest(now, lane, Some(at_rest));
            }
            LaneAction::FreezeCursor(lane) => self.freeze(lane, Frozen::Cursor),
            LaneAction::ReadCursor(lane) => {
                let at_rest = self.lanes.read_cursor(lane);
                self.broker.cursor_at_rest(now, lane, Some(at_rest));
            }
            LaneAction::FreezeData(lane) => self.freeze(lane, Frozen::Data),
            LaneAction::Ring(receiver) => self.lanes.ring(receiver),
            LaneAction::Free(lane) => self.free_lane(lane),
        }
    }

    fn freeze(&mut self, lane: LaneId, which: Frozen) {
        if let Some(to_freeze) = self.lanes.begin_to_freeze(lane, which) {
            let file = to_freeze.clone();
            self.sealer.seal(to_freeze, move || file.freeze());
        }
    }

    /// Nobody is to wait for that, and the log is to tell of it once.
    fn condemn(&mut self, lane: LaneId, fault: std::fmt::Arguments<'_>) {
        tracing::warn!(lane = lane.0, "a lane is given up: {fault}");
        self.broker.lane_condemned(self.started.elapsed(), lane, &fault.to_string());
    }

    /// Takes notice of what was frozen, and what could not be.
    pub(super) fn look_at_sealed(&mut self) {
        for (tried, result) in self.sealer.results() {
            if !self.lanes.was_frozen(&tried) {
                // This may be the last that holds it.
                self.sealer.let_go(tried);
                continue;
            }
            let (lane, now) = (tried.lane, self.started.elapsed());
            // Its writer has forbidden seals, and will not allow them again.
            let forbidden = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            if let (Frozen::Data, Err(error), true) = (tried.which, &result, forbidden) {
                self.condemn(lane, format_args!("its data cannot be frozen: {error}"));
                continue;
            }
            let mut frozen = result.unwrap_or_else(|error| {
                log(lane, "freeze it", Err(error));
                false
            });
            match tried.which {
                Frozen::Cursor => {
                    let mut at_rest = frozen.then(|| self.lanes.read_cursor(lane));
                    // When this daemon ends, lanes go on without it.
                    if at_rest.is_none() && (forbidden || self.ends_at.is_none()) {
                        at_rest = self.lanes.revoke_reader(lane);
                    }
                    if forbidden {
                        // It says what its receiver liked to write, as ever, and nothing else will.
                        at_rest.get_or_insert_with(|| self.lanes.read_cursor(lane));
                    }
                    self.broker.cursor_at_rest(now, lane, at_rest);
                }
                Frozen::Data => {
                    if frozen {
                        // What its sender did before its end counts: it may have come back.
                        self.accept();
                        frozen = self.accept_again_at.is_none();
                    }
                    self.broker.data_at_rest(now, lane, frozen);
                }
            }
        }
    }

    fn free_lane(&mut self, lane: LaneId) {
        let memory = self.lanes.free(lane);
        self.sealer.let_go(memory);
    }

    fn hand_over(&mut self, peer: PeerId, lane: LaneId, part: LanePart) {
        let Some(key) = self.slot_of(peer) else { return };
        if let LanePart::ForReceiver(receiver) = part
            && self.slot_of(receiver).is_none()
        {
            // It was closed after it had asked: what was made for it now, nobody would take down.
            self.connections[key].closing = Some(format!("lane {} is for a receiver that is gone", lane.0));
            self.to_write.push(key);
            return;
        }
        let mut welcome = Vec::new();
        let body = Welcome { daemon: self.broker.run_id(), role: WelcomeRole::Lane };
        put_control(Kind::Welcome, &body, &mut welcome);
        let descriptors = self.lanes.descriptors(lane, part);
        let sent = descriptors.and_then(|fds| self.connections[key].connection.send_descriptors(&welcome, &fds));
        if sent.is_ok() {
            tell_frame_out(&self.broker, peer, Kind::Welcome, welcome.len());
        }
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

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_call_that_is_forbidden_or_unknown_is_so_for_ever_and_a_full_table_is_not() {
        for errno in [Errno::NOSYS, Errno::PERM, Errno::ACCESS, Errno::INVAL] {
            assert!(!is_passing(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(is_passing(&errno.into()), "{errno:?}");
        }
    }
}
