//! Lanes of an earlier daemon, which a receiver brings to the present one. A thread does it, so that no call waits for
//! a daemon that does not answer.
//!
//! Until it is known what became of them nothing is taken from these lanes, because the daemon may give them to another,
//! and nothing else is handed out, because it might come after what is in there: a try says that there is nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::lanes::Lane;
use super::{State, StreamReceiver};
use crate::stream::keeper;
use crate::stream::session::{Backoff, DialError, Dialer, lock};
use crate::wire::{LaneBrought, LaneId};

/// How long who leaves waits for it: what a dead sender left in a lane nobody else may have.
const FAREWELL: Duration = Duration::from_secs(2);

/// Lanes that are on their way.
#[derive(Debug, Default)]
pub(super) struct Bringing {
    errands: Mutex<Errands>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Errands {
    /// Counts the daemons that lanes were brought to: what an earlier one said is nothing to this.
    number: u64,
    /// Threads that are about it.
    under_way: usize,
    outcomes: Vec<Outcome>,
}

/// One lane on its way.
#[derive(Debug)]
pub(super) struct Errand {
    number: u64,
    brought: LaneBrought,
    descriptors: [OwnedFd; 2],
    /// Its receiver has the seat.
    seated: bool,
}

/// What became of it.
#[derive(Debug)]
struct Outcome {
    number: u64,
    lane: LaneId,
    seated: bool,
    taken: bool,
}

impl Bringing {
    /// Brings one lane after the other; once a daemon does not answer, none of the others.
    pub(super) fn bring(&self, dialer: &Dialer, errands: Vec<Errand>) {
        let mut answers = true;
        for Errand { number, brought, descriptors, seated } in errands {
            let lane = brought.lane;
            let descriptors = [descriptors[0].as_fd(), descriptors[1].as_fd()];
            let taken = answers.then(|| dialer.bring(brought, &descriptors));
            answers = matches!(taken, Some(Ok(()) | Err(DialError::Refused(_))));
            let taken = matches!(taken, Some(Ok(())));
            lock(&self.errands).outcomes.push(Outcome { number, lane, seated, taken });
        }
    }

    /// Waits until nothing is on its way any more, with a bound.
    pub(super) fn settle(&self) {
        let is_under_way = |errands: &mut Errands| errands.under_way > 0;
        // Also after a panic of another holder, as everywhere.
        drop(self.done.wait_timeout_while(lock(&self.errands), FAREWELL, is_under_way));
    }
}

/// A thread is about it, until this is dropped.
pub(super) struct UnderWay(Arc<Bringing>);

impl UnderWay {
    pub(super) fn new(bringing: &Arc<Bringing>) -> Self {
        lock(&bringing.errands).under_way += 1;
        Self(Arc::clone(bringing))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.0.errands).under_way -= 1;
        self.0.done.notify_all();
    }
}

impl StreamReceiver {
    /// Another connection is there: what becomes of the lanes that it had.
    pub(super) fn find_lanes_orphaned(&self, state: &mut State, daemon: u64, seated: bool) {
        state.note_lanes();
        let lanes = if std::mem::replace(&mut state.daemon, daemon) == daemon {
            // They are given again; but those of which nobody knows whether it has them.
            let unknown = state.lanes.take_all_brought();
            state.lanes.clear();
            unknown
        } else {
            state.lanes.take_all()
        };
        let errands = self.begin_to_bring(state, lanes, seated);
        if !errands.is_empty() {
            self.bring_meanwhile(state, errands);
        }
        state.filled_due = 0;
    }

    /// Lanes are to be brought to the daemon, which gives them to whoever has the seat. This one takes nothing more from
    /// them.
    pub(super) fn begin_to_bring(&self, state: &mut State, lanes: Vec<Lane>, seated: bool) -> Vec<Errand> {
        let mut told = lock(&self.bringing.errands);
        told.number += 1;
        told.outcomes.clear();
        let number = told.number;
        drop(told);
        let mut errands = Vec::new();
        for lane in lanes {
            let Some(brought) = lane.brought(&self.options.channel) else { continue };
            let [data, ringer] = lane.descriptors();
            let own = || -> io::Result<_> { Ok([data.try_clone_to_owned()?, ringer.try_clone_to_owned()?]) };
            match own() {
                Ok(descriptors) => {
                    errands.push(Errand { number, brought, descriptors, seated });
                    state.lanes.keep_bringing(lane);
                }
                Err(_) => not_taken(state, lane, seated),
            }
        }
        errands
    }

    fn bring_meanwhile(&self, state: &mut State, errands: Vec<Errand>) {
        let lanes: Vec<(LaneId, bool)> = errands.iter().map(|errand| (errand.brought.lane, errand.seated)).collect();
        let (endpoint, dialer) = (self.me.clone(), self.options.dialer.clone());
        let under_way = UnderWay::new(&self.bringing);
        let bring = move || {
            // Its user may let go of the endpoint meanwhile, and waits for this, with a bound.
            under_way.0.bring(&dialer, errands);
            drop(under_way);
            if let Some(endpoint) = endpoint.upgrade() {
                endpoint.lanes_were_brought();
            }
        };
        if std::thread::Builder::new().name("bus-bring".into()).spawn(bring).is_err() {
            for (lane, seated) in lanes {
                if let Some(lane) = state.lanes.take_brought(lane) {
                    not_taken(state, lane, seated);
                }
            }
        }
    }

    /// Takes notice of what became of lanes that were brought.
    pub(super) fn take_up_brought(&self, state: &mut State) {
        if !state.lanes.are_bringing() {
            return;
        }
        let mut told = lock(&self.bringing.errands);
        let (number, outcomes) = (told.number, std::mem::take(&mut told.outcomes));
        drop(told);
        for Outcome { lane, seated, taken, .. } in outcomes.into_iter().filter(|outcome| outcome.number == number) {
            // The daemon may have given it already.
            let Some(lane) = state.lanes.take_brought(lane) else { continue };
            match (taken, seated) {
                (true, true) => state.lanes.keep_handed_in(lane),
                (true, false) => {}
                (false, _) => not_taken(state, lane, seated),
            }
        }
    }

    /// It is known what became of them. Whoever has the state locked takes that up, and may keep it for long.
    fn lanes_were_brought(&self) {
        let mut pauses = Backoff::default();
        loop {
            if let Ok(mut state) = self.state.try_lock() {
                self.take_up_brought(&mut state);
                self.show_state(&mut state);
                self.changed.notify_all();
                self.take_lanes_back(state);
                break;
            }
            if lock(&self.bringing.errands).outcomes.is_empty() {
                break;
            }
            std::thread::sleep(pauses.next_delay());
        }
        // It listens for those that are to be given again.
        keeper::wake();
    }
}

/// The daemon does not take a lane, or does not say so.
fn not_taken(state: &mut State, lane: Lane, seated: bool) {
    if seated {
        let known_through = state.receiving.known_of(lane.origin().sender);
        state.lanes.keep_orphan(lane, known_through);
    } else {
        // It may be another's by now: nothing is taken from it.
        state.lanes.keep_handed_in(lane);
    }
}
