//! [`StreamReceiver`]: the receiving endpoint on a socket.
//!
//! What the endpoint has, knows and owes is in [`receiving`]; here are its thread and its socket.
//! Messages are handed out from the inbox, one at a time and in order. Before the first of them is
//! handed out, the daemon is told how far the receiver *claims* (`taken`); so it knows after the
//! receiver's death which messages may have been seen. Given back, a message simply stays at the
//! head of the inbox.
//!
//! One thread uses a receiver, and holds the lock of its state also while it waits for messages; the
//! keeper and owned deliveries come in between.

mod beside;
mod coming;
mod deferral;
mod drained;
mod in_place;
mod kept;
mod known;
mod lanes;
mod lending;
mod lent_frame;
mod loan;
mod put_off;
mod readiness;
pub(crate) mod receiving;
mod skips;
mod socket;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::coming::{Coming, Errands};
use self::deferral::Deferral;
pub(crate) use self::in_place::Copied;
use self::kept::Left;
use self::lanes::Lanes;
use self::lending::{Beside, LaneLoan};
pub use self::lent_frame::LentFrame;
pub(crate) use self::loan::Loan;
use self::put_off::PutOff;
use self::readiness::Readiness;
use self::receiving::{Broken, Head, Receiving};
use super::changes::Changes;
use super::keeper;
use super::sentry::Post;
use super::session::{DialError, Dialer, Session, lock};
use crate::channel::Peers;
use crate::error::{Ended, OpenError, PeersError};
use crate::lane::biased::{BiasedGuard, BiasedMutex};
use crate::lane::forked::Origin;
use crate::name::ChannelName;
use crate::transport::{Connection, Interest};
use crate::waiting::Waiting;
use crate::wire::{ReceiverHello, Returning, Role, TypeDeclaration, WelcomeRole};

pub(crate) use super::sender::Wait;

/// What opens a receiver.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverOptions {
    pub(crate) dialer: Dialer,
    pub(crate) channel: ChannelName,
    pub(crate) declares: Option<TypeDeclaration>,
    pub(crate) standby: bool,
    pub(crate) until_disconnected: bool,
    pub(crate) waiting: Waiting,
}

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoMessage {
    Empty,
    Timeout,
    Away,
    Ended(Ended),
    Forked,
}

/// A receiver in the hands of its user, and of whoever has a delivery of it.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<StreamReceiver>);

impl std::ops::Deref for Held {
    type Target = StreamReceiver;

    fn deref(&self) -> &StreamReceiver {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.0.origin.is_here() && Arc::strong_count(&self.0) == 1 {
            // As for a sender in a forked child: nothing is said, but the daemon is to notice when the parent dies.
            std::mem::forget(Arc::clone(&self.0));
            if let (Some(mut state), Ok(mut link)) = (self.0.state.try_lock(), self.0.link.try_lock()) {
                (state.connection, *link) = (None, Link::Over);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct StreamReceiver {
    /// Where it may be used: whoever holds it asks before each call.
    pub(crate) origin: Origin,
    options: ReceiverOptions,
    /// For threads that work for it, and do not keep it.
    me: Weak<Self>,
    /// The thread that receives locks it, and the keeper now and then.
    state: BiasedMutex<State>,
    /// Lanes that are fetched for it.
    errands: Mutex<Errands>,
    /// How the endpoint stands, readable while a thread has the state locked.
    link: Mutex<Link>,
    /// A new connection, until whoever next has the state takes it into use.
    arrived: Mutex<Option<Session>>,
    /// What the keeper needs for the next.
    left: Mutex<Left>,
    /// Whether something is put off that the daemon is to be told.
    deferral: Deferral,
    /// What a waiting thread has put off.
    put_off: Mutex<PutOff>,
    changed: Changes,
    /// Threads that wait until what is lent is settled, the daemon is back, or a lane is here.
    waiting: AtomicUsize,
    /// Whoever has the state locked brings lanes to the next daemon: for 2 s at most, beside one that stops.
    bringing: AtomicBool,
    /// It had lanes when it looked for a message last: a hint, for who takes one alone.
    had_lanes: AtomicBool,
    /// For those who poll; made when somebody asks.
    readiness: OnceLock<Readiness>,
}

#[derive(Clone, Debug)]
enum Link {
    Up(Arc<Connection>),
    Away,
    Over,
}

#[derive(Debug)]
struct State {
    connection: Option<Arc<Connection>>,
    receiving: Receiving,
    told_at: CoarseTime,
    /// When its socket was read last.
    read_at: CoarseTime,
    lanes: Lanes,
    /// Lanes that are not here yet.
    coming: Coming,
    /// It had lanes when its connection was lost, or has lost them since.
    lost_lanes: bool,
    /// The first of the messages of the stream that were lent last.
    lent_head: Option<Head>,
    /// Messages of lanes that are lent.
    lane_loan: LaneLoan,
    /// Who watches its socket while it sleeps on words of its lanes.
    post: Option<Post>,
    /// How often in a row lanes have woken it.
    woken_by_lanes: u32,
    /// How many frames it was due when its socket was read last.
    filled_due: u64,
    /// When that was.
    filled_at: Instant,
    /// The run of the daemon that it was last connected to.
    daemon: u64,
    /// When it looked last whether a lane has come to its end.
    ended_at: CoarseTime,
}

impl StreamReceiver {
    pub(crate) fn open(options: ReceiverOptions) -> Result<Held, OpenError> {
        let role = Role::Receiver(hello(&options, None));
        let session = options.dialer.dial_end(&role, &options.channel)?;
        let state = State {
            connection: None,
            receiving: Receiving::default(),
            told_at: CoarseTime::default(),
            read_at: CoarseTime::default(),
            lanes: Lanes::default(),
            coming: Coming::default(),
            lost_lanes: false,
            lent_head: None,
            lane_loan: LaneLoan::default(),
            post: None,
            woken_by_lanes: 0,
            filled_due: 0,
            filled_at: Instant::now(),
            daemon: 0,
            ended_at: CoarseTime::default(),
        };
        let receiver = Arc::new_cyclic(|me| Self {
            origin: Origin::here(),
            options,
            me: me.clone(),
            state: BiasedMutex::new(state),
            errands: Mutex::default(),
            link: Mutex::new(Link::Away),
            arrived: Mutex::new(Some(session)),
            left: Mutex::default(),
            deferral: Deferral::default(),
            put_off: Mutex::default(),
            changed: Changes::default(),
            waiting: AtomicUsize::new(0),
            bringing: AtomicBool::new(false),
            had_lanes: AtomicBool::new(false),
            readiness: OnceLock::new(),
        });
        if !receiver.adopt(&mut receiver.state.lock()) {
            let text = "the daemon did not welcome a receiver".to_owned();
            return Err(receiver.options.dialer.connect_error(DialError::Protocol(text)).into());
        }
        let weak: Weak<Self> = Arc::downgrade(&receiver);
        keeper::keep(weak);
        Ok(Held(receiver))
    }

    /// Takes a new connection into use, if there is one.
    fn adopt(&self, state: &mut State) -> bool {
        self.adopt_within(state, Wait::Forever)
    }

    fn adopt_session(&self, state: &mut State, session: Session) -> bool {
        let Session { connection, inbox, welcome } = session;
        // What was left for this connection is too old for the next.
        *lock(&self.left) = Left::Nothing;
        if matches!(*lock(&self.link), Link::Over) {
            // Its user let go of it while the keeper connected: the seat is given back with the connection.
            return false;
        }
        let daemon = welcome.daemon;
        let WelcomeRole::Receiver(welcome) = welcome.role else { return false };
        self.forget_coming(state);
        self.find_lanes_orphaned(state, daemon, welcome.place_in_line == 0);
        state.receiving.connected(welcome, inbox);
        state.lost_lanes = false;
        let connection = Arc::new(connection);
        state.connection = Some(Arc::clone(&connection));
        *lock(&self.link) = Link::Up(connection);
        true
    }

    /// The same in a call, which leaves it to the keeper where it may take longer than the call may.
    fn adopt_within(&self, state: &mut State, wait: Wait) -> bool {
        let may_bring = wait == Wait::Forever || !state.lanes.are_any_held();
        let daemon = state.daemon;
        let session = lock(&self.arrived).take_if(|session| may_bring || session.welcome.daemon == daemon);
        session.is_some_and(|session| self.adopt_session(state, session))
    }

    /// Locks the state, for a call that may be let in too late: whoever has it may bring lanes to a daemon that does not
    /// answer.
    fn lock_within(&self, wait: Wait) -> Result<BiasedGuard<'_, State>, NoMessage> {
        if wait == Wait::Forever {
            return Ok(self.state.lock());
        }
        match self.state.try_lock() {
            Some(state) => Ok(state),
            None => self.lock_in_time(wait),
        }
    }

    #[cold]
    fn lock_in_time(&self, wait: Wait) -> Result<BiasedGuard<'_, State>, NoMessage> {
        let (begun, mut pause) = (Instant::now(), Duration::from_micros(10));
        loop {
            match wait {
                // Nothing is handed out meanwhile.
                Wait::Never if self.bringing.load(Ordering::Relaxed) => return Err(NoMessage::Away),
                // By another thread, which waits for what comes, or whose user has what is lent.
                Wait::Never if self.deferral.is_asleep() || begun.elapsed() > LOCK_PATIENCE => {
                    return Err(NoMessage::Empty);
                }
                Wait::Until(deadline) if Instant::now() >= deadline => return Err(NoMessage::Timeout),
                Wait::Never | Wait::Until(_) | Wait::Forever => std::thread::sleep(pause),
            }
            if let Some(state) = self.state.try_lock() {
                return Ok(state);
            }
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }

    /// Waits for the next message, and lends it: it stays at the head until it is settled.
    ///
    /// A message that is acknowledged before its user sees it need not be claimed first.
    pub(crate) fn next(&self, wait: Wait, claim: bool, copied: Copied) -> Result<Loan<'_>, NoMessage> {
        let mut state = self.lock_within(wait)?;
        state.receiving.will_lend(claim);
        // Its socket was read, or waited for, in the round before: what is here was looked at then.
        let mut has_read = false;
        loop {
            if state.connection.is_none() {
                self.leave_returning(&mut state);
                if self.adopt_within(&mut state, wait) {
                    keeper::wake();
                }
            }
            if state.lent() > 0 {
                // An owned delivery is out: order waits for it.
                state = self.wait_for_change(state, wait)?;
                continue;
            }
            if self.look_for_orders(&mut state, std::mem::take(&mut has_read)).is_err() {
                self.lose_link(&mut state);
            }
            let has_lanes = state.has_lanes() || state.receiving.inbox.has_lane_news();
            self.had_lanes.store(has_lanes, Ordering::Relaxed);
            if has_lanes {
                if state.lend_alone(copied) {
                    return Ok(Loan::of_lane(self, state));
                }
                match self.next_beside_lanes(state, wait, copied)? {
                    Beside::Lent(loan) => return Ok(loan),
                    Beside::Again(again) => {
                        state = again;
                        continue;
                    }
                    Beside::Stream(rest) => state = rest,
                }
            }
            match state.receiving.head() {
                Ok(Some(head)) if state.receiving.is_known(&head) => {
                    state.receiving.settle_head(&head);
                    self.tell(&mut state, false);
                }
                Ok(Some(head)) => {
                    if !claim || self.claim(&mut state, &head, wait)? {
                        return Ok(Loan::new(self, state, head));
                    }
                }
                Ok(None) => {
                    if let Some(ended) = state.receiving.ended().cloned() {
                        self.lose_link(&mut state);
                        return Err(NoMessage::Ended(state.receiving.ended().cloned().unwrap_or(ended)));
                    }
                    state = self.read_more(state, wait)?;
                    has_read = true;
                }
                Err(Broken) => self.lose_link(&mut state),
            }
        }
    }

    /// Takes notice of an order that stands behind messages which are not claimed: those go back.
    fn look_for_orders(&self, state: &mut State, has_read: bool) -> Result<(), Broken> {
        if !state.receiving.may_obey() {
            return Ok(());
        }
        // Behind messages that are here, orders may wait unread: a slow consumer looks before each.
        if !has_read
            && state.receiving.inbox.deliveries() > 0
            && std::mem::replace(&mut state.read_at, CoarseTime::now()) != state.read_at
            && let Some(connection) = state.connection.clone()
        {
            // A failure shows again where more is read.
            let _ = state.receiving.inbox.fill(&connection);
        }
        if state.receiving.inbox.has_order() {
            state.receiving.obey()?;
            self.write(state);
        }
        Ok(())
    }

    /// Tells the daemon that the receiver claims the head, before it is handed out. `false` when the
    /// connection is gone, and with it the claim.
    fn claim(&self, state: &mut State, head: &Head, wait: Wait) -> Result<bool, NoMessage> {
        while !state.receiving.is_claimed(head) {
            let now = CoarseTime::now();
            state.receiving.claim(state.told_at == now);
            state.told_at = now;
            self.say(state);
            let Some(connection) = state.connection.clone() else { return Ok(false) };
            if !state.receiving.is_claimed(head) {
                self.wait_for_room(&connection, wait)?;
            }
        }
        Ok(true)
    }

    /// Tells the daemon how far this receiver is: at once when it `must`, or when it was last told before
    /// the clock ticked; else later, together with more or with the claim of the next message.
    fn tell(&self, state: &mut State, must: bool) {
        if !state.receiving.owes_progress() && state.receiving.control.is_empty() {
            return;
        }
        let now = CoarseTime::now();
        if must || state.receiving.owes_much() || now != state.told_at {
            if !must {
                state.receiving.claim_ahead(now == state.told_at);
            }
            state.told_at = now;
            self.say(state);
        }
        self.leave_to_keeper(state);
    }

    /// How many messages are here.
    pub(crate) fn len(&self) -> usize {
        let mut state = self.state.lock();
        if state.lent() == 0
            && let Some(connection) = state.connection.clone()
        {
            // A failure shows again where more is read.
            let _ = state.receiving.inbox.fill(&connection);
        }
        if state.receiving.inbox.has_lane_news() || !state.coming.is_empty() {
            self.take_up_lanes(&mut state);
        }
        let in_lanes = usize::try_from(state.lanes.waiting()).unwrap_or(usize::MAX);
        // As many as a liar says.
        state.receiving.waiting().saturating_add(in_lanes)
    }

    pub(crate) fn is_seated(&self) -> bool {
        let mut state = self.state.lock();
        if !state.receiving.is_seated()
            && let Some(connection) = state.connection.clone()
        {
            // Failures show again where messages are read.
            let _ = state.receiving.inbox.fill(&connection);
            let _ = state.receiving.head();
        }
        state.receiving.is_seated()
    }

    /// The peers of the channel; with `from`, once they differ from it. Messages that arrive
    /// meanwhile stay in the inbox.
    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        let wait = deadline.map_or(Wait::Forever, Wait::Until);
        let lock = || self.lock_within(wait).map_err(|_| PeersError::Timeout);
        let mut state = lock()?;
        loop {
            if state.connection.is_none() && self.adopt_within(&mut state, wait) {
                keeper::wake();
            }
            if let Some(connection) = state.connection.clone() {
                match state.receiving.inbox.fill(&connection) {
                    Ok(super::inbox::Fill::Bytes | super::inbox::Fill::Nothing) => {}
                    Ok(super::inbox::Fill::Closed) | Err(_) => self.lose_link(&mut state),
                }
            }
            if let Some(peers) = state.receiving.peers().filter(|peers| Some(*peers) != from) {
                return Ok(peers);
            }
            if state.receiving.ended().is_some() {
                return Err(PeersError::Disconnected);
            }
            if state.connection.is_none() && from.is_none() {
                return Err(PeersError::Away);
            }
            state.receiving.watch_peers();
            self.write(&mut state);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PeersError::Timeout);
            }
            state = match state.connection.clone() {
                None => match self.wait_for_change(state, wait) {
                    Ok(state) => state,
                    Err(_) => return Err(PeersError::Timeout),
                },
                Some(connection) => {
                    let writes = !state.receiving.control.is_empty();
                    // An owned delivery may be settled meanwhile.
                    drop(state);
                    // A failure shows in the next reading.
                    let _ = connection.wait(if writes { Interest::Either } else { Interest::Readable }, deadline);
                    lock()?
                }
            };
        }
    }
}

impl StreamReceiver {
    /// Its user has let go of it, and may open another at once: the seat is given back before that, although a thread
    /// that works for this one may hold it for a moment. A message that is held alone keeps it.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock();
        if state.lent() == 0 {
            self.say_farewell(&mut state);
        }
    }

    fn say_farewell(&self, state: &mut State) {
        // Its memory first: the daemon finds where it stood, and nobody who could change that.
        if state.lent() == 0 {
            state.lanes.end_claims();
        }
        state.lanes.clear();
        self.forget_coming(state);
        if let Some(connection) = state.connection.clone() {
            state.receiving.say_goodbye();
            self.write(state);
            connection.hang_up();
        }
        (state.connection, *lock(&self.link)) = (None, Link::Over);
        // Perhaps the keeper has connected it anew.
        *lock(&self.arrived) = None;
        keeper::wake();
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        self.say_farewell(&mut self.state.lock());
    }
}

/// How long a try waits for whoever has the state locked, and is neither asleep nor brings lanes: far longer than anything
/// else takes.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// Milliseconds by a clock that ticks with the kernel and costs a quarter of the precise one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CoarseTime {
    ticks: (i64, i64),
}

impl CoarseTime {
    fn now() -> Self {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        Self { ticks: (time.tv_sec, time.tv_nsec) }
    }
}

fn hello(options: &ReceiverOptions, returning: Option<Returning>) -> ReceiverHello {
    ReceiverHello {
        channel: options.channel.clone(),
        declares: options.declares.clone(),
        standby: options.standby,
        until_disconnected: options.until_disconnected,
        returning,
        reads_lanes: true,
    }
}
