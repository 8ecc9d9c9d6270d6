//! [`LocalReceiver`]: the receiving endpoint within the process.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Instant;

use super::mailbox::{Control, Envelope, Mailbox, ReceiverId, Seated};
use super::registry::Registry;
use crate::channel::Peers;
use crate::error::{Ended, PeersError};
use crate::lane::forked::Origin;
use crate::signal::Signal;
use crate::stream::receiver::{NoMessage, Wait};

/// A handle to the endpoint. The receiver has one and each owned delivery another; the last of them
/// to go gives the seat up.
pub(crate) struct LocalReceiver<T> {
    endpoint: Arc<Endpoint<T>>,
}

struct Endpoint<T> {
    origin: Origin,
    registry: Arc<Registry>,
    mailbox: Arc<Mailbox<T>>,
    id: ReceiverId,
    until_disconnected: bool,
    /// Set once, and then the answer to every call.
    ended: OnceLock<Ended>,
    /// Raised while a call would give something; made when somebody polls.
    signal: OnceLock<Arc<Signal>>,
}

impl<T> LocalReceiver<T> {
    /// Takes the seat, or a place in line.
    pub(super) fn attach(
        registry: Arc<Registry>,
        mailbox: Arc<Mailbox<T>>,
        receiver: Seated,
        until_disconnected: bool,
    ) -> Self {
        let id = receiver.id;
        mailbox.admit_receiver(receiver);
        let (ended, signal) = (OnceLock::new(), OnceLock::new());
        let origin = Origin::here();
        Self { endpoint: Arc::new(Endpoint { origin, registry, mailbox, id, until_disconnected, ended, signal }) }
    }

    /// Whether it was opened in this process.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.endpoint.origin.is_here()
    }

    /// The descriptor that shows whether a call would give something.
    pub(crate) fn readiness(&self) -> io::Result<BorrowedFd<'_>> {
        let endpoint = &*self.endpoint;
        if endpoint.signal.get().is_none() {
            let signal = Arc::new(Signal::new()?);
            endpoint.mailbox.add_signal(&signal);
            // Another may have been as fast.
            let _ = endpoint.signal.set(signal);
            endpoint.show();
        }
        endpoint.signal.get().map(|signal| signal.as_fd()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The next message, acknowledged.
    pub(crate) fn take(&self, wait: Wait) -> Result<Envelope<T>, NoMessage> {
        let (control, envelope) = self.endpoint.next(wait).inspect_err(|_| self.endpoint.show())?;
        self.endpoint.mailbox.settle(control, envelope.info.sender);
        self.endpoint.show();
        Ok(envelope)
    }

    /// The next message, on loan: nothing further comes until it is acknowledged or given back.
    pub(crate) fn lend(&self, wait: Wait) -> Result<Envelope<T>, NoMessage> {
        let (mut control, envelope) = self.endpoint.next(wait).inspect_err(|_| self.endpoint.show())?;
        control.lent = Some(envelope.info.sender);
        Ok(envelope)
    }

    /// The message that is lent is done with.
    pub(crate) fn acknowledge(&self) {
        if !self.is_here() {
            return;
        }
        let mailbox = &self.endpoint.mailbox;
        let mut control = mailbox.control();
        if let Some(sender) = control.lent.take() {
            mailbox.announce();
            mailbox.settle(control, sender);
        }
        self.endpoint.show();
    }

    /// The message that is lent comes again, first; after a deletion it goes.
    pub(crate) fn give_back(&self, mut envelope: Envelope<T>) {
        if !self.is_here() {
            return;
        }
        let mailbox = &self.endpoint.mailbox;
        let mut control = mailbox.control();
        control.lent = None;
        mailbox.announce();
        if mailbox.is_deleted() {
            drop(control);
            return self.endpoint.show();
        }
        envelope.info.attempt += 1;
        envelope.info.redelivered = true;
        control.returned = Some(envelope);
        drop(control);
        self.endpoint.show();
    }

    /// How many messages are here.
    pub(crate) fn len(&self) -> usize {
        let Endpoint { mailbox, id, .. } = &*self.endpoint;
        let control = mailbox.control();
        if !control.is_seated(*id) {
            return 0;
        }
        mailbox.outlet.len() + usize::from(control.returned.is_some())
    }

    /// Whether it holds the channel, and nothing is queued, lent or given back.
    pub(crate) fn is_drained(&self) -> bool {
        let Endpoint { mailbox, id, .. } = &*self.endpoint;
        let control = mailbox.control();
        let nothing_out = control.lent.is_none() && control.returned.is_none();
        control.is_seated(*id) && nothing_out && mailbox.outlet.is_empty()
    }

    pub(crate) fn is_seated(&self) -> bool {
        self.endpoint.mailbox.control().is_seated(self.endpoint.id)
    }

    pub(crate) fn peers(&self, from: Option<Peers>, deadline: Option<Instant>) -> Result<Peers, PeersError> {
        self.endpoint.mailbox.peers(from, deadline)
    }
}

impl<T> Endpoint<T> {
    /// The next message, with the control locked, so that the caller can say what becomes of it.
    fn next(&self, wait: Wait) -> Result<(MutexGuard<'_, Control<T>>, Envelope<T>), NoMessage> {
        let mailbox = &*self.mailbox;
        loop {
            let mut control = mailbox.control();
            if let Some(ended) = self.ended() {
                return Err(NoMessage::Ended(ended));
            }
            if control.lent.is_some() || !control.is_seated(self.id) {
                self.wait_for_change(control, wait)?;
                continue;
            }
            // Looked at before the queue: what a sender sent, it sent before it left.
            let deserted = self.until_disconnected && control.is_deserted();
            if let Some(envelope) = control.returned.take().or_else(|| mailbox.outlet.try_recv().ok()) {
                return Ok((control, envelope));
            }
            if deserted {
                control.end_with_senders();
                drop(control);
                self.end(Ended::Disconnected);
                continue;
            }
            drop(control);
            mailbox.wait_for_message(wait)?;
        }
    }

    /// Shows to those who poll whether a call would give something.
    fn show(&self) {
        let Some(signal) = self.signal.get() else { return };
        if !self.has_something() {
            signal.lower();
            self.mailbox.watch();
            if !self.has_something() {
                return;
            }
        }
        signal.raise();
    }

    /// Whether a call would give a message, or say that there are no more.
    fn has_something(&self) -> bool {
        let control = self.mailbox.control();
        let may_take = || control.lent.is_none() && control.is_seated(self.id);
        let holds = || control.returned.is_some() || !self.mailbox.outlet.is_empty();
        let deserted = || self.until_disconnected && control.is_deserted();
        self.ended().is_some() || (may_take() && (holds() || deserted()))
    }

    fn ended(&self) -> Option<Ended> {
        if self.mailbox.is_deleted() {
            return Some(self.ended.get_or_init(|| Ended::Deleted).clone());
        }
        self.ended.get().cloned()
    }

    /// Ends for good, and makes room for the next.
    fn end(&self, ended: Ended) {
        self.ended.get_or_init(|| ended);
        self.leave();
    }

    fn leave(&self) {
        self.mailbox.dismiss_receiver(self.id);
        self.registry.left(&self.mailbox);
    }

    /// Waits for the seat, or for a loan to be settled.
    fn wait_for_change<'a>(&'a self, control: MutexGuard<'a, Control<T>>, wait: Wait) -> Result<(), NoMessage> {
        let deadline = match wait {
            Wait::Never => return Err(NoMessage::Empty),
            Wait::Forever => None,
            Wait::Until(deadline) if Instant::now() >= deadline => return Err(NoMessage::Timeout),
            Wait::Until(deadline) => Some(deadline),
        };
        drop(self.mailbox.wait_for_change(control, deadline));
        Ok(())
    }
}

impl<T> Clone for LocalReceiver<T> {
    fn clone(&self) -> Self {
        Self { endpoint: Arc::clone(&self.endpoint) }
    }
}

impl<T> Drop for Endpoint<T> {
    fn drop(&mut self) {
        // In a forked child another thread may hold what this would wait for, and is not there.
        if self.origin.is_here() {
            self.leave();
        }
    }
}

impl<T> fmt::Debug for LocalReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalReceiver").field("id", &self.endpoint.id).finish_non_exhaustive()
    }
}
