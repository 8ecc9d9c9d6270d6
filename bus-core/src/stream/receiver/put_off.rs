//! What a receiver puts off while its thread waits for messages, or its user works on one that is lent.
//!
//! The state is locked then. How far the receiver is lies here meanwhile, for the keeper to tell when some
//! milliseconds have passed: each frame that is not sent is a wake-up that the daemon is spared.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::{CoarseTime, Link, State, StreamReceiver};
use crate::lane::doorbell::Ringer;
use crate::stream::control_queue::ControlQueue;
use crate::stream::keeper::Tended;
use crate::stream::session::lock;
use crate::wire::{Kind, Progress};

#[derive(Debug, Default)]
pub(super) struct PutOff {
    /// What the daemon is to be told, and when that was put off.
    progress: Option<(Progress, CoarseTime)>,
    /// The frame that tells it, when the socket has taken a part.
    begun: ControlQueue,
    /// By what senders are rung for that wait in lanes for what is acknowledged; and since when that is owed to them,
    /// unless it was done.
    rings: Vec<Arc<Ringer>>,
    rings_owed_since: Option<CoarseTime>,
}

impl StreamReceiver {
    /// Leaves it to the keeper to tell how far this receiver is. The state stays locked, and as it is, until
    /// [`Self::take_back`].
    pub(super) fn put_off(&self, state: &State) {
        if let Some(untold) = state.receiving.untold() {
            lock(&self.put_off).progress = Some((untold, CoarseTime::now()));
            self.defer();
        }
        if state.lanes.owe_rings() {
            return self.put_off_rings(state);
        }
        self.deferral.sleep();
    }

    /// Leaves it to the keeper to ring for senders that wait for what is acknowledged, until
    /// [`Self::take_rings_back`].
    pub(super) fn put_off_rings(&self, state: &State) {
        let mut put_off = lock(&self.put_off);
        put_off.rings.clear();
        put_off.rings.extend(state.lanes.owed_rings());
        put_off.rings_owed_since = Some(CoarseTime::now());
        drop(put_off);
        self.defer();
        self.deferral.sleep();
    }

    /// What the keeper has not rung is this thread's again.
    pub(super) fn take_rings_back(&self, state: &mut State) {
        self.deferral.wake();
        if !state.lanes.is_empty() && lock(&self.put_off).rings_owed_since.take().is_none() {
            state.lanes.have_rung();
        }
    }

    /// What the keeper has not told is this thread's again.
    pub(super) fn take_back(&self, state: &mut State) {
        self.take_rings_back(state);
        let Some(told) = state.receiving.untold() else { return };
        let mut put_off = lock(&self.put_off);
        let untold = put_off.progress.take();
        let rest = std::mem::take(&mut put_off.begun);
        if untold.is_none() || rest.has_begun() {
            state.receiving.was_told(told, rest);
            state.told_at = CoarseTime::now();
        }
    }

    /// The keeper tells what a waiting thread has put off; `None` when there is nothing.
    pub(super) fn tell_put_off(&self) -> Option<Tended> {
        let mut put_off = lock(&self.put_off);
        if let Some(since) = put_off.rings_owed_since {
            if since == CoarseTime::now() {
                return Some(Tended::Soon);
            }
            put_off.rings.drain(..).for_each(|ringer| ringer.ring());
            put_off.rings_owed_since = None;
            if put_off.progress.is_none() {
                self.deferral.settle();
                return Some(Tended::Told);
            }
        }
        let (progress, at) = put_off.progress?;
        if at == CoarseTime::now() {
            // The thread waits for very little: it tells by itself what is due.
            return Some(Tended::Soon);
        }
        let Link::Up(connection) = lock(&self.link).clone() else { return Some(Tended::NotNow) };
        if put_off.begun.is_empty() {
            put_off.begun.push(Kind::Progress, &progress);
        }
        let outcome = connection.send(&[IoSlice::new(put_off.begun.unwritten())]);
        match outcome {
            Ok(bytes) => put_off.begun.wrote(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Whoever waits there notices as well.
            Err(_) => return Some(Tended::NotNow),
        }
        if put_off.begun.is_empty() {
            put_off.progress = None;
            self.deferral.settle();
            return Some(Tended::Told);
        }
        if !put_off.begun.has_begun() {
            put_off.begun.clear();
        }
        Some(Tended::NotNow)
    }
}
