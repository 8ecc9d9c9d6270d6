//! [`Loan`]: messages that are lent, and what becomes of them.

use std::sync::atomic::Ordering;

use super::receiving::Head;
use super::{CoarseTime, Copied, LentFrame, NoMessage, State, StreamReceiver, Wait};
use crate::lane::biased::BiasedGuard;

/// Messages lent from the head, with the endpoint locked. Dropped without being settled, also by a
/// panic, they are given back.
#[derive(Debug)]
pub(crate) struct Loan<'a> {
    endpoint: &'a StreamReceiver,
    /// Empty once it is settled.
    state: Option<BiasedGuard<'a, State>>,
    /// They came by the stream.
    of_stream: bool,
    /// What the keeper sees to meanwhile.
    held: Held,
}

/// What the keeper sees to while messages are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing.
    Nothing,
    /// It tells the daemon how far the receiver is.
    Progress,
    /// It rings for senders that wait for room.
    Rings,
}

impl<'a> Loan<'a> {
    pub(super) fn new(endpoint: &'a StreamReceiver, mut state: BiasedGuard<'a, State>, head: Head) -> Self {
        state.receiving.lend(1);
        // There, and not here: what is handed from function to function is to be small.
        state.lent_head = Some(head);
        Self { endpoint, state: Some(state), of_stream: true, held: Held::Nothing }
    }

    /// What the endpoint has lent from its lanes.
    pub(super) fn of_lane(endpoint: &'a StreamReceiver, state: BiasedGuard<'a, State>) -> Self {
        Self { endpoint, state: Some(state), of_stream: false, held: Held::Nothing }
    }

    pub(super) fn state(&self) -> &State {
        self.state.as_ref().expect("settling takes the loan by value")
    }

    /// The state, of which the keeper has taken its hands. `None` once it is settled, and in a forked child.
    fn release(&mut self) -> Option<BiasedGuard<'a, State>> {
        let mut state = self.state.take()?;
        if !self.endpoint.origin.is_here() {
            // Of the process that forked this one: what becomes of the messages it says itself.
            std::mem::forget(state);
            return None;
        }
        match self.held {
            Held::Nothing => {}
            Held::Progress => self.endpoint.take_back(&mut state),
            Held::Rings => {
                self.endpoint.take_rings_back(&mut state);
                // Once it had rung, the keeper had nothing more to see to, also of the stream.
                self.endpoint.leave_to_keeper(&state);
            }
        }
        Some(state)
    }

    /// The first message.
    pub(crate) fn frame(&self) -> LentFrame<'_> {
        let state = self.state();
        state.lane_loan.frames().next().unwrap_or_else(|| state.receiving.lent_frame())
    }

    /// All of them, in order.
    #[inline]
    pub(crate) fn frames(&self) -> impl Iterator<Item = LentFrame<'_>> {
        let state = self.state();
        state.lane_loan.frames().chain(state.receiving.lent_frames())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.state().lent()
    }

    /// Lends also those that follow the head and are here already: `most` in all at most.
    pub(crate) fn extend(&mut self, most: usize) {
        let Some(state) = &mut self.state else { return };
        let Some(head) = state.lent_head.filter(|_| self.of_stream) else {
            return self.endpoint.lend_more_from_lanes(state, most);
        };
        let count = state.receiving.lendable(&head, self.endpoint.streamed_together(state, most));
        if count > 1 {
            state.receiving.claim_through(count);
            if !state.receiving.is_claimed_through(count) {
                self.endpoint.tell(state, true);
            }
        }
        // Else the rest was not claimed in time: the head was.
        let claimed = state.connection.is_some() && state.receiving.is_claimed_through(count);
        state.receiving.lend(if claimed { count } else { 1 });
    }

    /// Its user may keep it for long: what is owed until now is told meanwhile.
    pub(crate) fn hold(mut self) -> Self {
        match &self.state {
            Some(state) if self.of_stream && state.receiving.may_be_told() => {
                self.endpoint.put_off(state);
                self.held = Held::Progress;
            }
            Some(state) if state.lanes.owe_rings() => {
                self.endpoint.put_off_rings(state);
                self.held = Held::Rings;
            }
            _ => {}
        }
        self
    }

    /// Acknowledges the first before its user sees it: on return the daemon's socket has that whole.
    pub(crate) fn take(mut self, wait: Wait) -> Result<(), NoMessage> {
        let Some(mut state) = self.release() else { return Err(NoMessage::Forked) };
        let Some(head) = state.lent_head.filter(|_| self.of_stream) else {
            self.endpoint.settle_in(&mut state, 1);
            return Ok(());
        };
        // Nobody has seen it yet: should the daemon order this receiver to go, it is another's.
        state.receiving.lend(0);
        while !state.receiving.is_claimed(&head) {
            let busy = state.told_at == CoarseTime::now();
            self.endpoint.write(&mut state);
            let Some(connection) = state.connection.clone() else { break };
            if state.receiving.control.is_empty() {
                let said = state.receiving.say_taken(busy);
                self.endpoint.write(&mut state);
                if state.connection.is_none() {
                    break;
                }
                if state.receiving.control.is_empty() || !state.receiving.unsay() {
                    state.receiving.taken(&head, said);
                    state.told_at = CoarseTime::now();
                    self.endpoint.pass_over_in_lanes(&mut state);
                    self.endpoint.leave_to_keeper(&state);
                    self.endpoint.show_state(&mut state);
                    return Ok(());
                }
            }
            self.endpoint.wait_for_room(&connection, wait)?;
        }
        if state.connection.is_none()
            && let Some(ended) = state.receiving.ended().cloned().filter(|_| state.receiving.waiting() == 0)
        {
            return Err(NoMessage::Ended(ended));
        }
        if state.connection.is_none() {
            // What the connection had brought lies elsewhere now, the head as well.
            state.receiving.lend(1);
            self.endpoint.settle_in(&mut state, 1);
            return Ok(());
        }
        state.receiving.settle_alone(&head);
        self.endpoint.tell(&mut state, false);
        self.endpoint.pass_over_in_lanes(&mut state);
        self.endpoint.settled(&mut state);
        Ok(())
    }

    /// Acknowledges the first `count`, and gives the others back.
    pub(crate) fn settle(mut self, count: usize) {
        self.settle_now(count);
    }

    /// `false` where it is not to be settled here: in a forked child, or once it is.
    #[inline]
    fn settle_now(&mut self, count: usize) -> bool {
        let Some(mut state) = self.release() else { return false };
        self.endpoint.settle_in(&mut state, count);
        true
    }

    /// Acknowledges the first `count`. Nobody has seen the others: they are not lent any more.
    pub(crate) fn settle_first(mut self, count: usize) {
        let Some(mut state) = self.release() else { return };
        let unseen = state.lane_loan.lend_only(count);
        if self.of_stream {
            state.receiving.lend(count);
        }
        self.endpoint.settle_unshown(&mut state, count);
        state.lanes.take_back(&unseen);
        self.endpoint.show_state(&mut state);
    }

    /// Leaves the message lent, to be settled by [`StreamReceiver::settle`].
    pub(crate) fn keep(mut self) {
        self.state = None;
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.settle_now(0);
    }
}

impl StreamReceiver {
    /// Takes the next message of a lane, where there is nothing to choose, to wait for, or to claim of the stream, and
    /// decodes it. `None` where that is not so.
    ///
    /// What becomes of nearly all messages that are taken one by one, without a loan or a value that is handed from function
    /// to function (`receiver/lanes/alone.rs` says what that costs).
    #[inline]
    pub(crate) fn take_alone<T, D, E: From<NoMessage>>(
        &self,
        decode: impl FnOnce(&LentFrame<'_>) -> Result<T, D>,
        failed: impl FnOnce(&LentFrame<'_>, D) -> E,
    ) -> Option<Result<T, E>> {
        if !self.had_lanes.load(Ordering::Relaxed) || self.readiness.get().is_some() {
            return None;
        }
        let mut state = self.state.try_lock()?;
        if state.lent() > 0 || !state.lend_alone(Copied::Small) {
            return None;
        }
        let mut loan = Loan::of_lane(self, state);
        let value = match decode(&loan.frame()) {
            Ok(value) => Ok(value),
            Err(error) => Err(failed(&loan.frame(), error)),
        };
        // Its user's code decodes, and may have forked.
        Some(if loan.settle_now(1) { value } else { Err(NoMessage::Forked.into()) })
    }

    /// Settles a message that was [kept](Loan::keep): acknowledges it, or gives it back.
    pub(crate) fn settle(&self, acknowledge: bool) {
        if self.origin.is_here() {
            self.settle_in(&mut self.state.lock(), usize::from(acknowledge));
        }
    }

    fn settle_in(&self, state: &mut State, count: usize) {
        self.settle_unshown(state, count);
        self.show_state(state);
    }

    /// Nothing is lent any more: others may go on.
    fn settled(&self, state: &mut State) {
        self.wake_waiting();
        self.show_state(state);
    }

    fn wake_waiting(&self) {
        // Who is about to wait has counted itself with the state locked.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.tell();
        }
    }

    fn settle_unshown(&self, state: &mut State, count: usize) {
        if state.lane_loan.is_empty() {
            let gives_back = state.receiving.settle(count);
            self.tell(state, gives_back);
            self.pass_over_in_lanes(state);
        } else {
            self.settle_lanes(state, count);
            if state.lanes.owe_rings() {
                // There may be no further call for long.
                self.defer();
            }
        }
        self.wake_waiting();
    }
}
