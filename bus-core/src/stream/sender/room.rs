//! Waiting for room: in the window, and in an exact channel.
//!
//! Whoever waits for what another thread is about does so on the condition variable alone: that
//! thread minds the socket.

use std::sync::MutexGuard;
use std::time::Instant;

use super::sending::RoomAnswer;
use super::{Link, PushError, State, StreamSender, TRY_PATIENCE, Wait, Written};
use crate::channel::WhenFull;

/// What came of asking for room.
pub(super) enum Room<'a> {
    /// It is there for the next message that is pushed.
    Here(MutexGuard<'a, State>),
    /// There is none, and the channel drops what is newest: the daemon has counted it.
    Dropped {
        /// Of the message that was sent before.
        last_sequence: u64,
    },
}

impl StreamSender {
    /// Waits until there is room for a message.
    pub(super) fn await_room<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        bytes: u64,
        wait: Wait,
    ) -> Result<Room<'a>, PushError> {
        let state = self.await_window(state, bytes, wait)?;
        if state.sending.rules().exact { self.await_grant(state, bytes as u32, wait) } else { Ok(Room::Here(state)) }
    }

    /// Waits until the window has room for a message, and nobody is in the middle of one.
    fn await_window<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u64,
        wait: Wait,
    ) -> Result<MutexGuard<'a, State>, PushError> {
        let mut looked = false;
        loop {
            self.check_link(&state, wait)?;
            if !state.writing && state.sending.has_room(bytes) {
                // A try must not find itself behind bytes that the socket does not take.
                let behind = wait == Wait::Never && state.sending.unwritten() > 0;
                if behind && self.write(&mut state) == Written::SocketFull {
                    return Err(PushError::Full);
                }
                return Ok(state);
            }
            if !looked {
                looked = true;
                self.pump(&mut state);
                continue;
            }
            // What is only buffered can never be acknowledged.
            self.write(&mut state);
            if wait == Wait::Never {
                return Err(PushError::Full);
            }
            let deadline = wait.deadline();
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PushError::Timeout);
            }
            state = match state.writing {
                true => self.wait_for_others(state, deadline),
                false => self.wait_for_news(state, deadline),
            };
        }
    }

    /// Asks an exact channel for room for one message, and waits for it.
    fn await_grant<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bytes: u32,
        wait: Wait,
    ) -> Result<Room<'a>, PushError> {
        // The daemon answers a try at once; the bound is for one that does not answer at all.
        let deadline = match wait {
            Wait::Never => Some(Instant::now() + TRY_PATIENCE),
            Wait::Until(_) | Wait::Forever => wait.deadline(),
        };
        let late = if wait == Wait::Never { PushError::Full } else { PushError::Timeout };
        while state.sending.wants_room() || state.writing {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(late);
            }
            state = self.wait_for_others(state, deadline);
        }
        let when_full = state.sending.rules().when_full;
        state.sending.want_room(bytes, wait != Wait::Never && when_full == WhenFull::Block);
        let outcome = loop {
            if let Err(refusal) = self.check_link(&state, wait) {
                break Err(refusal);
            }
            if matches!(state.link, Link::Up(_)) {
                match state.sending.ask_for_room() {
                    Some(RoomAnswer::Granted) => return Ok(Room::Here(state)),
                    Some(RoomAnswer::Full) if when_full == WhenFull::DropNewest => {
                        break Ok(Room::Dropped { last_sequence: state.sending.last_sequence() });
                    }
                    Some(RoomAnswer::Full) => break Err(PushError::Full),
                    None => self.write(&mut state),
                };
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break Err(late);
            }
            state = self.wait_for_news(state, deadline);
        };
        state.sending.stop_wanting_room(false);
        self.write(&mut state);
        self.changed.notify_all();
        outcome
    }

    fn check_link(&self, state: &State, wait: Wait) -> Result<(), PushError> {
        match state.link {
            Link::Closed => Err(PushError::Disconnected),
            _ if self.options.require_receiver && state.sending.receivers() == 0 => Err(PushError::Disconnected),
            Link::Away if wait == Wait::Never => Err(PushError::Away),
            Link::Away | Link::Up(_) => Ok(()),
        }
    }
}
