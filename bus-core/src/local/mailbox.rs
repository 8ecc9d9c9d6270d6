//! [`Mailbox`]: one channel: its queue, its seat, and who is there.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, Sender};

use super::account::Account;
use super::gate::{Gate, OwnLine};
use crate::channel::{ChannelOptions, Peers, WhenFull};
use crate::closing::Closing;
use crate::error::PeersError;
use crate::limits::{CAPACITY_MESSAGES, WINDOW_MESSAGES};
use crate::message::{Headers, MessageInfo, SenderId};
use crate::name::ChannelName;
use crate::signal::Signal;
use crate::stream::receiver::{NoMessage, Wait};
use crate::stream::session::lock;

/// A message: the value itself, and what comes with it.
#[derive(Debug)]
pub(crate) struct Envelope<T> {
    pub(crate) value: T,
    pub(crate) headers: Headers,
    pub(crate) info: MessageInfo,
}

pub(super) struct Mailbox<T> {
    pub(super) name: ChannelName,
    pub(super) when_full: WhenFull,
    pub(super) window: u64,
    pub(super) gate: Gate,
    pub(super) inlet: Sender<Envelope<T>>,
    pub(super) outlet: Receiver<Envelope<T>>,
    /// Rung, it makes the seated receiver look up from an empty queue.
    bell: (Sender<()>, Receiver<()>),
    /// Senders take turns where one may have to drop another's message.
    pub(super) turn: Mutex<()>,
    /// Apart from what senders read: the receiver writes here for each message.
    pub(super) control: OwnLine<Mutex<Control<T>>>,
    /// The seat, the loan or the peers have changed.
    changed: Condvar,
    /// There may be room, or none any more for good.
    room: Condvar,
    deleted: AtomicBool,
    /// `Control::line`'s length, for senders that look before each message.
    receivers: AtomicUsize,
    /// Receivers that are polled, and whether one of them is to be told of the next change.
    polled: Mutex<Vec<Weak<Signal>>>,
    is_watched: AtomicBool,
}

/// What changes seldom, and the receiver's own side.
#[derive(Debug)]
pub(super) struct Control<T> {
    /// Senders that are here.
    accounts: HashMap<SenderId, Arc<Account>>,
    /// The account of the last message, because most come in runs.
    recent: Option<(SenderId, Arc<Account>)>,
    /// A sender was here since a receiver last ended.
    pub(super) sender_seen: bool,
    /// Receivers; the first has the seat.
    line: VecDeque<Seated>,
    /// Whose message is lent to the receiver.
    pub(super) lent: Option<SenderId>,
    /// A message that was given back: it comes first.
    pub(super) returned: Option<Envelope<T>>,
    /// How often a sender that waits had reason to look again.
    moments: u64,
    /// A sender waits. Cleared by the one who wakes them all.
    sender_waits: bool,
    pub(super) closing: Closing,
}

/// How far `Control::moments` was. Take it, look for room, then wait for what happens after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// A receiver, for those who ask.
#[derive(Clone, Debug)]
pub(super) struct Seated {
    pub(super) id: ReceiverId,
    /// The thread that opened it.
    pub(super) thread: String,
    /// It stood in line when another ended: the senders of before were its own as well.
    pub(super) outlives: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiverId(pub(super) u64);

impl<T> Mailbox<T> {
    pub(super) fn new(name: ChannelName, options: &ChannelOptions, sender_seen: bool) -> Self {
        let control = Control {
            accounts: HashMap::new(),
            recent: None,
            sender_seen,
            line: VecDeque::new(),
            lent: None,
            returned: None,
            moments: 0,
            sender_waits: false,
            closing: Closing::default(),
        };
        let (inlet, outlet) = crossbeam_channel::unbounded();
        Self {
            name,
            when_full: options.when_full,
            window: u64::from(options.window.unwrap_or(WINDOW_MESSAGES)),
            gate: Gate::new(options.capacity.unwrap_or(CAPACITY_MESSAGES)),
            inlet,
            outlet,
            bell: crossbeam_channel::bounded(1),
            turn: Mutex::new(()),
            control: OwnLine(Mutex::new(control)),
            changed: Condvar::new(),
            room: Condvar::new(),
            deleted: AtomicBool::new(false),
            receivers: AtomicUsize::new(0),
            polled: Mutex::default(),
            is_watched: AtomicBool::new(false),
        }
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control<T>> {
        lock(&self.control.0)
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(super) fn has_receiver(&self) -> bool {
        self.receivers.load(Ordering::Acquire) > 0
    }

    pub(super) fn admit_sender(&self, id: SenderId) -> Arc<Account> {
        let account = Arc::new(Account::default());
        let mut control = self.control();
        control.accounts.insert(id, Arc::clone(&account));
        control.sender_seen = true;
        self.changed.notify_all();
        account
    }

    pub(super) fn dismiss_sender(&self, id: SenderId) {
        let mut control = self.control();
        control.accounts.remove(&id);
        control.recent.take_if(|(recent, _)| *recent == id);
        self.changed.notify_all();
        self.ring();
    }

    /// Puts a receiver at the end of the line.
    pub(super) fn admit_receiver(&self, receiver: Seated) {
        let mut control = self.control();
        control.line.push_back(receiver);
        self.line_changed(&control);
    }

    pub(super) fn dismiss_receiver(&self, id: ReceiverId) {
        let mut control = self.control();
        control.line.retain(|receiver| receiver.id != id);
        self.line_changed(&control);
        // Senders that require a receiver may have lost it.
        self.wake_senders(control);
    }

    fn line_changed(&self, control: &Control<T>) {
        self.receivers.store(control.line.len(), Ordering::Release);
        self.show_change();
        self.changed.notify_all();
    }

    /// Something has happened that a waiting sender must see.
    fn wake_senders(&self, mut control: MutexGuard<'_, Control<T>>) {
        control.moments += 1;
        let waits = std::mem::take(&mut control.sender_waits);
        drop(control);
        if waits {
            self.room.notify_all();
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment(self.control().moments)
    }

    /// Waits, for a sender, until something has happened since `moment`; until `deadline` at most.
    pub(super) fn wait_for_room(&self, moment: Moment, deadline: Option<Instant>) -> Moment {
        let mut control = self.control();
        while Moment(control.moments) == moment && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            control.sender_waits = true;
            control = wait(&self.room, control, deadline);
        }
        Moment(control.moments)
    }

    /// Removes what is held, and wakes everybody: the channel is no more. Returns what it held.
    pub(super) fn close(&self) -> u64 {
        let (accounts, returned, lent) = {
            let mut control = self.control();
            self.deleted.store(true, Ordering::Release);
            control.closing.close();
            self.changed.notify_all();
            let accounts: Vec<_> = control.accounts.values().cloned().collect();
            let held = (accounts, control.returned.take(), control.lent.is_some());
            self.wake_senders(control);
            held
        };
        for account in accounts {
            // Whoever is in the middle of a push comes to its end; the next sees the flag.
            drop(lock(&account.order.0));
        }
        let queued: Vec<_> = self.outlet.try_iter().collect();
        self.ring();
        queued.len() as u64 + u64::from(returned.is_some()) + u64::from(lent)
    }

    /// Takes out the oldest message that is not on its way to a receiver, for a newer one.
    pub(super) fn evict(&self) -> Option<Envelope<T>> {
        let mut control = self.control();
        let given_back = if control.line.is_empty() { control.returned.take() } else { None };
        let oldest = given_back.or_else(|| self.outlet.try_recv().ok())?;
        if let Some(account) = control.account(oldest.info.sender) {
            account.count_dropped();
        }
        self.gate.leave();
        self.wake_senders(control);
        Some(oldest)
    }

    /// A message is acknowledged.
    pub(super) fn settle(&self, mut control: MutexGuard<'_, Control<T>>, sender: SenderId) {
        if let Some(account) = control.account(sender) {
            account.acknowledge();
        }
        self.gate.leave();
        self.wake_senders(control);
    }

    fn ring(&self) {
        // Full: it is ringing already.
        let _ = self.bell.0.try_send(());
        self.show_change();
    }

    /// Shows to those who poll that there is something to look at.
    ///
    /// Whoever watches says so before it looks, and here the change comes before the look at the watch, all of
    /// it in the one order of sequential consistency (the queue's as well): one of the two sees the other.
    pub(super) fn show_change(&self) {
        if self.is_watched.load(Ordering::SeqCst) && self.is_watched.swap(false, Ordering::SeqCst) {
            lock(&self.polled).iter().filter_map(Weak::upgrade).for_each(|signal| signal.raise());
        }
    }

    /// Shows the next change by all signals.
    pub(super) fn watch(&self) {
        self.is_watched.store(true, Ordering::SeqCst);
    }

    pub(super) fn add_signal(&self, signal: &Arc<Signal>) {
        let mut polled = lock(&self.polled);
        polled.retain(|signal| signal.strong_count() > 0);
        polled.push(Arc::downgrade(signal));
    }

    /// Waits, for the seated receiver, until there is a message or the bell rings.
    pub(super) fn wait_for_message(&self, wait: Wait) -> Result<(), NoMessage> {
        let mut select = Select::new();
        select.recv(&self.outlet);
        let bell = select.recv(&self.bell.1);
        let ready = match wait {
            Wait::Never => return Err(NoMessage::Empty),
            Wait::Forever => select.ready(),
            Wait::Until(deadline) => select.ready_deadline(deadline).map_err(|_| NoMessage::Timeout)?,
        };
        if ready == bell {
            let _ = self.bell.1.try_recv();
        }
        Ok(())
    }

    /// Says that the seat, the loan or the peers have changed.
    pub(super) fn announce(&self) {
        self.changed.notify_all();
    }

    /// Waits until the seat, the loan or the peers have changed.
    pub(super) fn wait_for_change<'a>(
        &self,
        control: MutexGuard<'a, Control<T>>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, Control<T>> {
        wait(&self.changed, control, deadline)
    }

    /// The peers; with `from`, once they differ from it.
    pub(super) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        let mut control = self.control();
        loop {
            if self.is_deleted() {
                return Err(PeersError::Disconnected);
            }
            let peers = control.peers();
            if Some(peers) != from {
                return Ok(peers);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(PeersError::Timeout);
            }
            control = self.wait_for_change(control, deadline);
        }
    }
}

impl<T> Control<T> {
    fn account(&mut self, sender: SenderId) -> Option<&Account> {
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != sender) {
            let account = self.accounts.get(&sender)?;
            self.recent = Some((sender, Arc::clone(account)));
        }
        self.recent.as_ref().map(|(_, account)| &**account)
    }

    pub(super) fn holder(&self) -> Option<&Seated> {
        self.line.front()
    }

    pub(super) fn is_seated(&self, id: ReceiverId) -> bool {
        self.holder().is_some_and(|holder| holder.id == id)
    }

    /// Senders were here, and all have left.
    pub(super) fn is_deserted(&self) -> bool {
        let seen = self.sender_seen || self.holder().is_some_and(|holder| holder.outlives);
        seen && self.accounts.is_empty()
    }

    /// The one that has the seat ends with its senders.
    pub(super) fn end_with_senders(&mut self) {
        self.sender_seen = false;
        self.line.iter_mut().for_each(|receiver| receiver.outlives = true);
    }

    fn peers(&self) -> Peers {
        Peers::new(self.accounts.len() as u32, self.line.len() as u32)
    }
}

fn wait<'a, C>(condition: &Condvar, guard: MutexGuard<'a, C>, deadline: Option<Instant>) -> MutexGuard<'a, C> {
    match deadline {
        None => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(deadline) => {
            let rest = deadline.saturating_duration_since(Instant::now());
            condition.wait_timeout(guard, rest).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

/// A mailbox of whatever type, for the registry.
pub(super) trait AnyMailbox: std::any::Any + Send + Sync {
    /// Empty, and nobody is there.
    fn is_idle(&self) -> bool;

    /// A sender was here since a receiver last ended.
    fn sender_seen(&self) -> bool;

    fn close(&self) -> u64;

    /// The full path of the type of its values.
    fn value_type(&self) -> &'static str;
}

impl<T: Send + 'static> AnyMailbox for Mailbox<T> {
    fn is_idle(&self) -> bool {
        let control = self.control();
        control.accounts.is_empty() && control.line.is_empty() && control.returned.is_none() && self.outlet.is_empty()
    }

    fn sender_seen(&self) -> bool {
        self.control().sender_seen
    }

    fn close(&self) -> u64 {
        Mailbox::close(self)
    }

    fn value_type(&self) -> &'static str {
        std::any::type_name::<T>()
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("name", &self.name).finish_non_exhaustive()
    }
}
