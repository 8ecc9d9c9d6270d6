//! A receiver in the keeper's care.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CoarseTime, Link, State, StreamReceiver, hello};
use crate::address::Address;
use crate::lane::biased::BiasedGuard;
use crate::stream::inbox::Fill;
use crate::stream::keeper::{Kept, Reattached, Standing, Tended};
use crate::stream::session::{DialError, is_final, lock};
use crate::transport::Interest;
use crate::wire::{RefusedCode, Returning, Role};

impl Kept for StreamReceiver {
    fn address(&self) -> &Address {
        &self.options.dialer.address
    }

    fn standing(&self) -> Standing {
        match &*lock(&self.link) {
            Link::Up(connection) => {
                // A lane that it has brought may be given to it again only once its sender is back.
                let wants_news = self.state.try_lock().is_some_and(|state| state.lanes.are_handed_in());
                Standing::Up { connection: Arc::clone(connection), wants_room: false, wants_news }
            }
            Link::Away => Standing::Away,
            Link::Over => Standing::Over,
        }
    }

    fn news(&self) -> bool {
        let Some(mut state) = self.state.try_lock() else { return false };
        self.fill(&mut state);
        self.take_up_lanes(&mut state);
        self.show_state(&mut state);
        true
    }

    fn tend(&self) -> Tended {
        if !self.deferral.is_deferred() {
            return Tended::Nothing;
        }
        let Some(mut state) = self.state.try_lock() else {
            if self.deferral.is_asleep()
                && let Some(tended) = self.tell_put_off()
            {
                return tended;
            }
            // In use, it is looked at again soon: its user may stop.
            return if self.deferral.rests() { Tended::Nothing } else { Tended::NotNow };
        };
        self.deferral.is_awake();
        state.lanes.ring_for_those_who_wait();
        if state.connection.is_some() {
            if state.told_at == CoarseTime::now() {
                return Tended::Soon;
            }
            state.receiving.claim_no_more();
            self.say(&mut state);
        }
        if state.connection.is_none() || state.receiving.control.is_empty() {
            self.deferral.settle();
            return Tended::Told;
        }
        Tended::NotNow
    }

    fn hung_up(&self) -> bool {
        let Some(mut state) = self.state.try_lock() else { return false };
        let Some(connection) = state.connection.clone() else { return true };
        // What is still in the socket belongs to the deliveries: read it to its end.
        loop {
            match state.receiving.inbox.fill(&connection) {
                Ok(Fill::Bytes) => {}
                Ok(Fill::Nothing) => {
                    self.show_state(&mut state);
                    return true;
                }
                Ok(Fill::Closed) | Err(_) => {
                    self.lose_link(&mut state);
                    self.show_state(&mut state);
                    self.changed.tell();
                    return true;
                }
            }
        }
    }

    fn reattach(&self) -> Reattached {
        if lock(&self.arrived).is_none() {
            let Some(returning) = self.returning() else { return Reattached::NotNow };
            match self.options.dialer.dial(&Role::Receiver(hello(&self.options, Some(returning)))) {
                Ok(session) => *lock(&self.arrived) = Some(session),
                Err(DialError::Refused(refused)) if is_final(refused.code) => {
                    let Some(mut state) = self.state.try_lock() else { return Reattached::NotNow };
                    match refused.code {
                        RefusedCode::ReceiverTaken => state.receiving.replace(),
                        _ => state.receiving.refuse(refused.text),
                    }
                    state.note_lanes();
                    // What a dead sender left in them nobody else may have.
                    self.bring_lanes(&mut state, false);
                    state.lanes.clear();
                    *lock(&self.link) = Link::Over;
                    self.show_state(&mut state);
                    self.changed.tell();
                    return Reattached::Done;
                }
                Err(DialError::Refused(_)) => return Reattached::NotNow,
                Err(DialError::Unreachable(_) | DialError::Protocol(_)) => return Reattached::NobodyThere,
            }
        }
        // Whoever has the state locked takes the connection into use with the next call, unless that may not wait.
        let Some(mut state) = self.lock_for_a_moment() else { return Reattached::NotNow };
        let adopted = state.connection.is_some() || self.adopt(&mut state);
        self.show_state(&mut state);
        self.changed.tell();
        if !adopted {
            return Reattached::NotNow;
        }
        self.take_lanes_back(state);
        Reattached::Done
    }
}

impl StreamReceiver {
    /// Locks the state of a receiver that is in use all the time, but for moments.
    fn lock_for_a_moment(&self) -> Option<BiasedGuard<'_, State>> {
        let until = Instant::now() + MOMENT;
        loop {
            match self.state.try_lock() {
                None if Instant::now() < until && !self.deferral.is_asleep() => std::thread::sleep(MOMENT / 100),
                locked => return locked,
            }
        }
    }

    /// What it tells the next daemon. While its user holds a message that is what was left for the keeper before.
    fn returning(&self) -> Option<Returning> {
        let Some(mut state) = self.state.try_lock() else {
            return match std::mem::replace(&mut *lock(&self.left), Left::Wanted) {
                Left::Returning(returning) => Some(returning),
                Left::Nothing | Left::Wanted => None,
            };
        };
        *lock(&self.left) = Left::Nothing;
        Some(state.returning())
    }

    /// Leaves for the keeper what it wants and could not have, because messages are held for most of the time.
    ///
    /// What is acknowledged after this comes again from the next daemon, and is known here.
    pub(super) fn leave_returning(&self, state: &mut State) {
        let mut left = lock(&self.left);
        if matches!(*left, Left::Wanted) {
            *left = Left::Returning(state.returning());
        }
    }

    /// Takes up the lanes that were handed in, where that takes no time: its user may do something else for long,
    /// and should this daemon die meanwhile they are to go on.
    fn take_lanes_back<'a>(&'a self, mut state: BiasedGuard<'a, State>) {
        let until = Instant::now() + LANES_BACK;
        while state.lanes.are_handed_in() && Instant::now() < until {
            let Some(connection) = state.connection.clone() else { return };
            // What fails shows again where more is read.
            let _ = state.receiving.inbox.fill(&connection);
            self.take_up_lanes(&mut state);
            if !state.lanes.are_handed_in() {
                return;
            }
            drop(state);
            let _ = connection.wait(Interest::Readable, Some(until));
            state = match self.state.try_lock() {
                Some(state) => state,
                // Somebody uses it, and takes them up.
                None => return,
            };
        }
    }
}

impl State {
    fn returning(&mut self) -> Returning {
        self.note_lanes();
        let lanes = self.lost_lanes || !self.lanes.is_empty();
        Returning { lanes, ..self.receiving.returning() }
    }
}

/// What a thread that has the state leaves for the keeper, which needs it to connect again.
#[derive(Debug, Default)]
pub(super) enum Left {
    #[default]
    Nothing,
    /// The keeper found the state locked.
    Wanted,
    Returning(Returning),
}

/// How long the keeper tries to be let in by a receiver that asks again and again.
const MOMENT: Duration = Duration::from_millis(10);

/// How long lanes are waited for that were handed in to a new daemon.
const LANES_BACK: Duration = Duration::from_millis(20);
