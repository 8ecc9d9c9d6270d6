//! The socket of a receiver: writing what is owed, reading what comes, and waiting for either.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::Ended;
use crate::lane::biased::BiasedGuard;

use super::{CoarseTime, Link, NoMessage, State, StreamReceiver, Wait};
use crate::stream::inbox::Fill;
use crate::stream::keeper;
use crate::stream::session::lock;
use crate::transport::{Connection, Interest};

impl StreamReceiver {
    /// Says how far this receiver is, as far as the socket takes it.
    pub(super) fn say(&self, state: &mut State) {
        self.write(state);
        state.receiving.say_progress();
        self.write(state);
    }

    /// Writes what the socket takes now of what was said.
    pub(super) fn write(&self, state: &mut State) {
        let Some(connection) = state.connection.clone() else { return };
        while !state.receiving.control.is_empty() {
            match connection.send(&[IoSlice::new(state.receiving.control.unwritten())]) {
                Ok(bytes) => state.receiving.control.wrote(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.lose_link(state),
            }
        }
    }

    /// Waits until the socket takes more.
    pub(super) fn wait_for_room(&self, connection: &Connection, wait: Wait) -> Result<(), NoMessage> {
        let deadline = match wait {
            Wait::Never => return Err(NoMessage::Empty),
            Wait::Forever => None,
            Wait::Until(deadline) => Some(deadline),
        };
        match connection.wait(Interest::Writable, deadline) {
            Ok(None) => Err(NoMessage::Timeout),
            // A failure shows in the next write.
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    /// Reads what comes, and waits for it.
    pub(super) fn read_more<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        if wait != Wait::Never {
            let busy = state.told_at == CoarseTime::now();
            state.receiving.claim_next(busy);
        }
        let untold = wait != Wait::Never && state.receiving.may_wait_untold();
        let was_up = state.connection.is_some();
        self.tell(&mut state, !untold);
        let Some(connection) = state.connection.clone() else {
            return match wait {
                // Lost while it was told: with its last words, which may be the end.
                _ if was_up => Ok(state),
                Wait::Never => Err(NoMessage::Away),
                Wait::Forever | Wait::Until(_) => self.wait_for_change(state, wait),
            };
        };
        let said = state.receiving.control.is_empty();
        let filled = match wait {
            Wait::Forever if said => {
                self.put_off(&state);
                let filled = state.receiving.inbox.fill_blocking(&connection);
                self.take_back(&mut state);
                filled
            }
            Wait::Never => state.receiving.inbox.fill(&connection),
            Wait::Forever | Wait::Until(_) => match state.receiving.inbox.fill(&connection) {
                Ok(Fill::Nothing) => return self.wait_for_more(state, &connection, wait),
                filled => filled,
            },
        };
        match filled {
            Ok(Fill::Nothing) if wait == Wait::Never => return Err(NoMessage::Empty),
            Ok(Fill::Bytes | Fill::Nothing) => state.read_at = CoarseTime::now(),
            Ok(Fill::Closed) | Err(_) => self.lose_link(&mut state),
        }
        Ok(state)
    }

    /// Waits until there is something to read, or room for what could not be said yet.
    fn wait_for_more<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        connection: &Connection,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        let said = state.receiving.control.is_empty();
        let interest = if said { Interest::Readable } else { Interest::Either };
        if said {
            self.put_off(&state);
        }
        let woken = connection.wait(interest, wait.deadline());
        if said {
            self.take_back(&mut state);
        }
        match woken {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.leave_to_keeper(&state);
                return Err(NoMessage::Timeout);
            }
            Err(_) => self.lose_link(&mut state),
        }
        Ok(state)
    }

    /// There may be no further call for long: then the keeper says what is not said yet, and takes back what
    /// is claimed and not lent.
    pub(super) fn leave_to_keeper(&self, state: &State) {
        let receiving = &state.receiving;
        if receiving.owes_progress() || receiving.is_claimed_ahead() || !receiving.control.is_empty() {
            self.defer_awake();
        }
    }

    /// The keeper is to look in, of a thread that goes on.
    #[inline]
    fn defer_awake(&self) {
        if self.deferral.defer_awake() {
            keeper::wake();
        }
    }

    /// The keeper is to look in.
    pub(super) fn defer(&self) {
        if self.deferral.defer() {
            keeper::wake();
        }
    }

    /// Waits until what is lent is settled, or the daemon is back.
    pub(super) fn wait_for_change<'a>(
        &'a self,
        state: BiasedGuard<'a, State>,
        wait: Wait,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        self.wait_for_change_within(state, wait, None)
    }

    /// The same, and looks again after a while. It is the call's own deadline that ends the call.
    pub(super) fn wait_for_change_within<'a>(
        &'a self,
        state: BiasedGuard<'a, State>,
        wait: Wait,
        look_after: Option<Duration>,
    ) -> Result<BiasedGuard<'a, State>, NoMessage> {
        if wait == Wait::Never {
            return Err(NoMessage::Empty);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let late = wait.deadline().is_some_and(|deadline| deadline <= now);
        let until = wait.deadline().into_iter().chain(look_after.map(|after| now + after)).min();
        let seen = self.changed.seen();
        drop(state);
        self.changed.wait(seen, until);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let state = self.lock_within(wait)?;
        if late { Err(NoMessage::Timeout) } else { Ok(state) }
    }

    /// The connection is gone. What it had brought whole stays, to be handed out first; unless the
    /// daemon had said that it goes to another.
    pub(super) fn lose_link(&self, state: &mut State) {
        let Some(connection) = state.connection.take() else { return };
        state.post = None;
        while !state.receiving.inbox.is_broken() && matches!(state.receiving.inbox.fill(&connection), Ok(Fill::Bytes)) {
        }
        if state.receiving.ended().is_some() {
            // In order: the daemon learns how far this receiver came, if it still listens.
            state.receiving.say_goodbye();
            let _ = connection.send(&[IoSlice::new(state.receiving.control.unwritten())]);
        }
        connection.hang_up();
        self.forget_coming(state);
        state.receiving.disconnected();
        state.note_lanes();
        state.lost_lanes |= !state.lanes.is_empty();
        if state.lanes.are_revoked() {
            // It was told to go, and did not in time: others have gone on without it.
            state.receiving.is_replaced();
        }
        state.forget_revoked_lanes();
        match state.receiving.ended() {
            // What is in them is another's, or nobody's.
            Some(Ended::Kicked | Ended::Replaced | Ended::Deleted | Ended::Refused(_)) => state.lanes.clear(),
            Some(Ended::Disconnected) | None => state.lanes.disconnected(),
        }
        *lock(&self.link) = if state.receiving.ended().is_some() { Link::Over } else { Link::Away };
        keeper::wake();
    }
}
