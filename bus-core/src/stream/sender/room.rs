//! Waiting for room: in the window; and in the channel, where its capacity is exact, or where a message
//! that may be late could be in the socket in part when it is. Half a message can be taken back only by
//! giving up the connection.
//!
//! Whoever waits for what another thread is about waits for that thread's word alone: it minds the
//! socket.

use std::time::Instant;

use super::mapped::SenderLane;
use super::sending::RoomAnswer;
use super::{Link, PushError, State, StreamSender, TRY_PATIENCE, Until, Wait, Written};
use crate::channel::WhenFull;
use crate::lane::biased::BiasedGuard;
use crate::limits::FEED_BUFFER_BYTES;
use crate::obstacle::{Closed, Hindrance, Obstacle};
use crate::stream::keeper;
use crate::wire::HEADER_BYTES;

/// What came of asking for room.
pub(super) enum Room<'a> {
    /// It is there for the next message that is pushed.
    Here(BiasedGuard<'a, State>),
    /// There is none, and the channel drops what is newest: the daemon has counted it.
    Dropped {
        /// Of the message that was sent before.
        last_sequence: u64,
    },
}

/// What one write puts into the socket whole or not at all, header included: the kernel's pieces of a
/// local stream are no smaller. What is larger may be there in part when a call's time is up.
const PIECE_BYTES: u64 = 32 * 1024;

/// A message on its way into the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entering {
    pub(super) bytes: u64,
    pub(super) wait: Wait,
    pub(super) until: Until,
}

impl Entering {
    /// Whether a call that gives up must find nothing of its message in the socket.
    fn may_be_late(self) -> bool {
        self.wait != Wait::Forever
    }

    /// Whether it goes into the socket together with what is buffered before it.
    fn joins(self, buffered: usize) -> bool {
        let room = FEED_BUFFER_BYTES.saturating_sub(buffered) as u64;
        !self.may_be_late() || (self.until.buffers() && self.bytes < room)
    }

    fn fits_one_piece(self) -> bool {
        self.bytes + HEADER_BYTES as u64 <= PIECE_BYTES
    }
}

impl StreamSender {
    /// Waits until there is room for a message.
    pub(super) fn await_room<'a>(
        &'a self,
        state: BiasedGuard<'a, State>,
        entering: Entering,
    ) -> Result<Room<'a>, PushError> {
        let state = self.await_window(state, entering)?;
        let asks = state.sending.rules().exact
            || entering.until == Until::WrittenToRoom
            || (entering.may_be_late() && !entering.fits_one_piece());
        if asks { self.await_grant(state, entering) } else { Ok(Room::Here(state)) }
    }

    /// Waits until the window has room for a message, nobody is in the middle of one, and nothing is
    /// before it that would be in its way.
    pub(super) fn await_window<'a>(
        &'a self,
        mut state: BiasedGuard<'a, State>,
        entering: Entering,
    ) -> Result<BiasedGuard<'a, State>, PushError> {
        let wait = entering.wait;
        let mut looked = false;
        let mut patience = None;
        loop {
            self.check_link(&mut state, entering)?;
            let others = state.writing || state.sending.wants_room();
            if !others && state.sending.has_room(entering.bytes) && self.may_begin(&mut state, entering) {
                return Ok(state);
            }
            if !looked {
                looked = true;
                self.pump(&mut state);
                continue;
            }
            // What is only buffered can never be acknowledged.
            self.write(&mut state);
            let deadline = match wait {
                // Whoever asks for room is answered at once, when all is well.
                Wait::Never if state.sending.wants_room() && !state.writing => {
                    Some(*patience.get_or_insert_with(|| Instant::now() + TRY_PATIENCE))
                }
                Wait::Never => {
                    state.hindrance = Some(in_the_way(&state, entering.bytes));
                    return Err(PushError::Full);
                }
                Wait::Until(_) | Wait::Forever => wait.deadline(),
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                state.hindrance = Some(in_the_way(&state, entering.bytes));
                return Err(late(wait));
            }
            state = match others {
                true => self.wait_for_others(state, deadline),
                false => self.wait_for_news(state, deadline),
            };
        }
    }

    /// Whether all is written that must be before a message can be: a piece of the socket then holds
    /// nothing else, and takes the message whole.
    fn may_begin(&self, state: &mut State, entering: Entering) -> bool {
        let unwritten = state.sending.unwritten();
        unwritten == 0 || entering.joins(unwritten) || self.write(state) == Written::All
    }

    /// Asks the daemon for room for one message, and waits for it.
    fn await_grant<'a>(&'a self, mut state: BiasedGuard<'a, State>, entering: Entering) -> Result<Room<'a>, PushError> {
        let wait = entering.wait;
        // The daemon answers a try at once; the bound is for one that does not answer at all.
        let deadline = match wait {
            Wait::Never => Some(Instant::now() + TRY_PATIENCE),
            Wait::Until(_) | Wait::Forever => wait.deadline(),
        };
        let when_full = state.sending.rules().when_full;
        state.sending.want_room(entering.bytes as u32, wait != Wait::Never && when_full == WhenFull::Block);
        let outcome = loop {
            if let Err(refusal) = self.check_link(&mut state, entering) {
                break Err(refusal);
            }
            if matches!(state.link, Link::Up(_)) {
                match state.sending.ask_for_room() {
                    Some(RoomAnswer::Granted) => return Ok(Room::Here(state)),
                    Some(RoomAnswer::Full) if when_full == WhenFull::DropNewest => {
                        break Ok(Room::Dropped { last_sequence: state.sending.last_sequence() });
                    }
                    Some(RoomAnswer::Full) => {
                        state.hindrance = Some(Hindrance::Capacity);
                        break Err(PushError::Full);
                    }
                    None => self.write(&mut state),
                };
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let is_up = matches!(state.link, Link::Up(_));
                state.hindrance = Some(match wait {
                    _ if !is_up => Hindrance::Away,
                    Wait::Never => Hindrance::Unread,
                    Wait::Until(_) | Wait::Forever => Hindrance::Capacity,
                });
                break Err(late(wait));
            }
            state = self.wait_for_news(state, deadline);
        };
        self.give_room_back(&mut state);
        self.wake_others(&state);
        outcome
    }

    /// Room is not wanted any more. What the socket does not take of that the keeper says later.
    pub(super) fn give_room_back(&self, state: &mut State) {
        state.sending.stop_wanting_room(false);
        if self.write(state) == Written::SocketFull {
            keeper::wake();
        }
    }

    fn check_link(&self, state: &mut State, entering: Entering) -> Result<(), PushError> {
        if self.lacks_receiver(state) {
            return Err(PushError::Disconnected);
        }
        match state.link {
            Link::Closed => Err(PushError::Disconnected),
            Link::Away if entering.wait == Wait::Never || entering.until == Until::BufferedWhileUp => {
                state.hindrance = Some(Hindrance::Away);
                Err(PushError::Away)
            }
            Link::Away | Link::Up(_) => Ok(()),
        }
    }

    /// What was in the way of the last message that was not sent.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let mut state = self.state.lock();
        let channel = self.options.channel.clone();
        match state.sending.closed() {
            Some(Closed::Deleted) => return Some(Obstacle::Deleted { channel }),
            Some(Closed::Refused(text)) => return Some(Obstacle::Refused { channel, text: text.clone() }),
            None => {}
        }
        let rules = state.sending.rules();
        let (messages, bytes) = (rules.window_messages.into(), rules.window_bytes);
        Some(match state.hindrance? {
            Hindrance::Window => Obstacle::Window { channel, messages },
            Hindrance::WindowBytes => Obstacle::WindowBytes { channel, bytes },
            Hindrance::Capacity => Obstacle::Capacity { channel, messages: None },
            Hindrance::Unread => Obstacle::Unread { channel },
            Hindrance::Lane => {
                let in_lane = state.lane.as_mut().map_or(0, SenderLane::unacknowledged);
                Obstacle::Lane { channel, unacknowledged: in_lane + state.sending.unacknowledged() as u64 }
            }
            Hindrance::Away => Obstacle::Away { channel },
            Hindrance::NoReceiver => Obstacle::NoReceiver { channel },
        })
    }
}

/// Why a message cannot go into the window now.
fn in_the_way(state: &State, bytes: u64) -> Hindrance {
    match state.sending.lacks_room(bytes) {
        _ if !matches!(state.link, Link::Up(_)) => Hindrance::Away,
        Some(lack) => lack,
        // Another thread, or what was sent before, waits for the socket.
        None => Hindrance::Unread,
    }
}

fn late(wait: Wait) -> PushError {
    if wait == Wait::Never { PushError::Full } else { PushError::Timeout }
}
