//! [`LocalSender`]: one sending endpoint within the process, shared by the clones of a `Sender`.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Instant, SystemTime};

use super::account::{Account, Order};
use super::mailbox::{Envelope, Mailbox, Moment};
use super::registry::Registry;
use crate::channel::{Peers, WhenFull};
use crate::codec::Codec;
use crate::error::PeersError;
use crate::lane::forked::Origin;
use crate::message::{Headers, MessageInfo, SenderId};
use crate::obstacle::Obstacle;
use crate::stream::sender::{PushError, Wait};
use crate::stream::session::lock;

pub(crate) struct LocalSender<T> {
    endpoint: Arc<Endpoint<T>>,
}

struct Endpoint<T> {
    origin: Origin,
    registry: Arc<Registry>,
    mailbox: Arc<Mailbox<T>>,
    account: Arc<Account>,
    id: SenderId,
    /// Asked once: it is a system call.
    pid: u32,
    require_receiver: bool,
    /// What was in the way of the last message that was not sent: one of the figures below.
    hindered: AtomicU8,
}

/// Why a message cannot go into the queue now.
enum Refusal<T> {
    /// The channel is deleted, or has no receiver and must have one.
    Closed,
    /// The window is used up.
    WindowUsedUp,
    /// The channel is full.
    Full,
    /// The channel is full, and made to reject then.
    Rejected,
    /// The channel is full, and made to drop this message then; it is counted.
    Dropped(u64),
    /// This older message has made room.
    Evicted(Envelope<T>),
}

const NOTHING: u8 = 0;
const WINDOW: u8 = 1;
const CAPACITY: u8 = 2;
/// Where the channel was not deleted.
const NO_RECEIVER: u8 = 3;

/// What the caller gives of a message.
struct Outgoing<T> {
    value: T,
    headers: Headers,
    codec: Codec,
    sent_at: SystemTime,
}

/// A place in the queue. While it is held, the message goes in.
struct Admission<'a> {
    _turn: Option<MutexGuard<'a, ()>>,
    order: MutexGuard<'a, Order>,
}

impl<T> LocalSender<T> {
    pub(super) fn attach(
        registry: Arc<Registry>,
        mailbox: Arc<Mailbox<T>>,
        id: SenderId,
        require_receiver: bool,
    ) -> Self {
        let account = mailbox.admit_sender(id);
        let pid = std::process::id();
        Self {
            endpoint: Arc::new(Endpoint {
                origin: Origin::here(),
                registry,
                mailbox,
                account,
                id,
                pid,
                require_receiver,
                hindered: AtomicU8::new(NOTHING),
            }),
        }
    }

    /// Whether it was opened in this process.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.endpoint.origin.is_here()
    }

    /// Sends one message. `Ok` has its sequence.
    pub(crate) fn push(&self, value: T, headers: Headers, codec: Codec, wait: Wait) -> Result<u64, (T, PushError)> {
        let endpoint = &*self.endpoint;
        let sent_at = SystemTime::now();
        let mut moment = None;
        loop {
            match endpoint.admit() {
                Ok(admission) => {
                    let message = Outgoing { value, headers, codec, sent_at };
                    return Ok(endpoint.enqueue(admission, message));
                }
                Err(Refusal::Evicted(oldest)) => drop(oldest),
                Err(Refusal::Dropped(sequence)) => return Ok(sequence),
                Err(Refusal::Rejected) => {
                    endpoint.hindered.store(CAPACITY, Ordering::Relaxed);
                    return Err((value, PushError::Full));
                }
                Err(Refusal::Closed) => {
                    endpoint.hindered.store(NO_RECEIVER, Ordering::Relaxed);
                    return Err((value, PushError::Disconnected));
                }
                Err(full @ (Refusal::Full | Refusal::WindowUsedUp)) => match endpoint.wait_for_room(wait, moment) {
                    Ok(now) => moment = Some(now),
                    Err(why) => {
                        let hindrance = if matches!(full, Refusal::Full) { CAPACITY } else { WINDOW };
                        endpoint.hindered.store(hindrance, Ordering::Relaxed);
                        return Err((value, why));
                    }
                },
            }
        }
    }

    /// Waits until the window has room for a message. Others may take it.
    pub(crate) fn await_window(&self, wait: Wait) -> Result<(), PushError> {
        let endpoint = &*self.endpoint;
        let mut moment = None;
        loop {
            if endpoint.is_closed() {
                endpoint.hindered.store(NO_RECEIVER, Ordering::Relaxed);
                return Err(PushError::Disconnected);
            }
            if endpoint.account.window_is_open(&mut lock(&endpoint.account.order.0), endpoint.mailbox.window) {
                return Ok(());
            }
            let waited = endpoint.wait_for_room(wait, moment);
            moment = Some(waited.inspect_err(|_| endpoint.hindered.store(WINDOW, Ordering::Relaxed))?);
        }
    }

    /// What was in the way of the last message that was not sent.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let mailbox = &*self.endpoint.mailbox;
        let channel = mailbox.name.clone();
        if mailbox.is_deleted() {
            return Some(Obstacle::Deleted { channel });
        }
        match self.endpoint.hindered.load(Ordering::Relaxed) {
            NO_RECEIVER => Some(Obstacle::NoReceiver { channel }),
            WINDOW => Some(Obstacle::Window { channel, messages: mailbox.window }),
            CAPACITY => Some(Obstacle::Capacity { channel, messages: Some(mailbox.gate.capacity()) }),
            _ => None,
        }
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.endpoint.account.last_sequence()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.endpoint.account.dropped()
    }

    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        self.endpoint.mailbox.peers(from, deadline)
    }

    /// Disconnected once the channel is deleted.
    pub(crate) fn closed(&self) -> crossbeam_channel::Receiver<Infallible> {
        self.endpoint.mailbox.control().closing.watch()
    }

    pub(crate) fn id(&self) -> SenderId {
        self.endpoint.id
    }

    pub(crate) fn unacknowledged(&self) -> usize {
        usize::try_from(self.endpoint.account.unacknowledged()).unwrap_or(usize::MAX)
    }
}

impl<T> Endpoint<T> {
    /// Asks for a place in the queue, by the rules of the channel.
    fn admit(&self) -> Result<Admission<'_>, Refusal<T>> {
        let mailbox = &*self.mailbox;
        let turn = (mailbox.when_full == WhenFull::DropOldest).then(|| lock(&mailbox.turn));
        let mut order = lock(&self.account.order.0);
        if self.is_closed() {
            return Err(Refusal::Closed);
        }
        if !self.account.window_is_open(&mut order, mailbox.window) {
            return Err(Refusal::WindowUsedUp);
        }
        if mailbox.gate.enter(&mut order.room_until) {
            return Ok(Admission { _turn: turn, order });
        }
        Err(match mailbox.when_full {
            WhenFull::Block => Refusal::Full,
            WhenFull::Reject => Refusal::Rejected,
            WhenFull::DropOldest => mailbox.evict().map_or(Refusal::Full, Refusal::Evicted),
            WhenFull::DropNewest => {
                self.account.count_dropped();
                Refusal::Dropped(order.next_sequence())
            }
        })
    }

    fn enqueue(&self, mut admission: Admission<'_>, message: Outgoing<T>) -> u64 {
        let sequence = admission.order.next_sequence();
        let Outgoing { value, headers, codec, sent_at } = message;
        let (sender, pid) = (self.id, self.pid);
        let info = MessageInfo { sender, pid, sequence, sent_at, attempt: 1, redelivered: false, codec };
        // The mailbox holds the other end: this cannot fail.
        let sent = self.mailbox.inlet.send(Envelope { value, headers, info });
        self.mailbox.show_change();
        debug_assert!(sent.is_ok(), "the mailbox has dropped its own outlet");
        sequence
    }

    fn is_closed(&self) -> bool {
        self.mailbox.is_deleted() || (self.require_receiver && !self.mailbox.has_receiver())
    }

    /// Waits until there may be room. The first time it only takes note of the `moment`, for a
    /// second look: what happens after that wakes.
    fn wait_for_room(&self, wait: Wait, moment: Option<Moment>) -> Result<Moment, PushError> {
        let deadline = match wait {
            Wait::Never => return Err(PushError::Full),
            Wait::Forever => None,
            Wait::Until(deadline) if Instant::now() >= deadline => return Err(PushError::Timeout),
            Wait::Until(deadline) => Some(deadline),
        };
        Ok(match moment {
            None => self.mailbox.moment(),
            Some(moment) => self.mailbox.wait_for_room(moment, deadline),
        })
    }
}

impl<T> Clone for LocalSender<T> {
    fn clone(&self) -> Self {
        Self { endpoint: Arc::clone(&self.endpoint) }
    }
}

impl<T> Drop for Endpoint<T> {
    fn drop(&mut self) {
        // In a forked child another thread may hold what this would wait for, and is not there.
        if self.origin.is_here() {
            self.mailbox.dismiss_sender(self.id);
            self.registry.left(&self.mailbox);
        }
    }
}

impl<T> fmt::Debug for LocalSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSender").field("id", &self.endpoint.id).finish_non_exhaustive()
    }
}
