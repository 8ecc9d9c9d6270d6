//! [`LocalBus`]: the channels of a process by name: who may open an end, and when a channel goes.

use std::any::{Any, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::mailbox::{AnyMailbox, Mailbox, ReceiverId, Seated};
use super::receiver::LocalReceiver;
use super::sender::LocalSender;
use crate::channel::{ChannelOptions, Removed};
use crate::error::{AdminError, OpenError};
use crate::message::SenderId;
use crate::name::ChannelName;
use crate::stream::session::lock;
use crate::wire::TypeDeclaration;

/// The channels of one process.
#[derive(Debug, Default)]
pub(crate) struct LocalBus {
    registry: Arc<Registry>,
    ends_opened: AtomicU64,
}

/// Shared with every end: the last of them removes its channel.
#[derive(Debug, Default)]
pub(super) struct Registry {
    channels: Mutex<HashMap<ChannelName, Entry>>,
}

/// A channel that was declared, or is in use, or both.
#[derive(Default)]
struct Entry {
    /// `Some` when it was declared.
    options: Option<ChannelOptions>,
    /// What its first typed end declared.
    declares: Option<TypeDeclaration>,
    /// While it is not in use: a sender was here since a receiver last ended.
    sender_seen: bool,
    /// `Some` while it is in use. An idle channel may be used with another type.
    mailbox: Option<Arc<dyn AnyMailbox>>,
}

impl LocalBus {
    pub(crate) fn create(&self, name: &ChannelName, options: ChannelOptions) -> Result<bool, AdminError> {
        check_options(name, &options)?;
        let mut channels = lock(&self.registry.channels);
        let entry = channels.entry(name.clone()).or_default();
        match &entry.options {
            Some(known) if *known == options => return Ok(false),
            Some(known) => {
                let text = format!(
                    "channel {name} exists with other options: {}; delete it first, or create it with the same",
                    options.unlike(known)
                );
                return Err(AdminError::Refused { text });
            }
            None if entry.mailbox.is_some() && options != ChannelOptions::default() => {
                let text = format!(
                    "channel {name} is in use with the default options: create it before its first end opens it"
                );
                return Err(AdminError::Refused { text });
            }
            None => entry.options = Some(options),
        }
        Ok(true)
    }

    pub(crate) fn delete(&self, name: &ChannelName) -> Result<Removed, AdminError> {
        let removed = lock(&self.registry.channels).remove(name);
        let Some(entry) = removed else {
            return Err(AdminError::NoSuchChannel { text: format!("no channel is called {name} in this process") });
        };
        let messages = entry.mailbox.map_or(0, |mailbox| mailbox.close());
        Ok(Removed { messages, recalled: 0 })
    }

    pub(crate) fn sender<T: Send + 'static>(
        &self,
        name: &ChannelName,
        declares: Option<TypeDeclaration>,
        require_receiver: bool,
    ) -> Result<LocalSender<T>, OpenError> {
        let id = SenderId(self.next_number());
        let registry = &self.registry;
        registry.open(name, declares, |mailbox| {
            Ok(LocalSender::attach(Arc::clone(registry), Arc::clone(mailbox), id, require_receiver))
        })
    }

    pub(crate) fn receiver<T: Send + 'static>(
        &self,
        name: &ChannelName,
        declares: Option<TypeDeclaration>,
        standby: bool,
        until_disconnected: bool,
    ) -> Result<LocalReceiver<T>, OpenError> {
        let id = ReceiverId(self.next_number());
        let registry = &self.registry;
        registry.open(name, declares, |mailbox: &Arc<Mailbox<T>>| {
            if let Some(holder) = mailbox.control().holder()
                && !standby
            {
                let text = format!(
                    "channel {name} has a receiver: thread {} of this process (pid {}) opened it; wait in line with standby",
                    holder.thread,
                    std::process::id()
                );
                return Err(OpenError::ReceiverTaken { channel: name.clone(), text });
            }
            let receiver = Seated { id, thread: thread_name(), outlives: false };
            Ok(LocalReceiver::attach(Arc::clone(registry), Arc::clone(mailbox), receiver, until_disconnected))
        })
    }

    fn next_number(&self) -> u64 {
        self.ends_opened.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Registry {
    /// Opens an end of a channel that carries `T`; makes the channel where there is none.
    fn open<T: Send + 'static, E>(
        &self,
        name: &ChannelName,
        declares: Option<TypeDeclaration>,
        attach: impl FnOnce(&Arc<Mailbox<T>>) -> Result<E, OpenError>,
    ) -> Result<E, OpenError> {
        let mut channels = lock(&self.channels);
        let Some(entry) = channels.get_mut(name).filter(|entry| entry.mailbox.is_some()) else {
            let entry = channels.entry(name.clone()).or_default();
            let options = entry.options.clone().unwrap_or_default();
            let mailbox = Arc::new(Mailbox::new(name.clone(), &options, entry.sender_seen));
            // Nobody is there who could be in the way.
            let end = attach(&mailbox)?;
            entry.declares = declares;
            entry.mailbox = Some(mailbox);
            return Ok(end);
        };
        check_declaration(name, entry.declares.as_ref(), declares.as_ref())?;
        let mailbox: Arc<dyn Any + Send + Sync> = match &entry.mailbox {
            Some(mailbox) => Arc::clone(mailbox) as _,
            None => unreachable!("an entry without a mailbox was filtered out"),
        };
        let Ok(mailbox) = mailbox.downcast::<Mailbox<T>>() else {
            let theirs = entry.mailbox.as_ref().map_or("", |mailbox| mailbox.value_type());
            return Err(other_type(name, theirs, type_name::<T>()));
        };
        let end = attach(&mailbox)?;
        entry.declares = entry.declares.take().or(declares);
        Ok(end)
    }

    /// An end has left `mailbox`.
    pub(super) fn left<T>(&self, mailbox: &Arc<Mailbox<T>>) {
        let mut channels = lock(&self.channels);
        let Some(entry) = channels.get_mut(&mailbox.name) else { return };
        // After a deletion another channel may have the name.
        let is_this =
            |other: &Arc<dyn AnyMailbox>| Arc::as_ptr(other).cast::<()>() == Arc::as_ptr(mailbox).cast::<()>();
        if !entry.mailbox.as_ref().is_some_and(|other| is_this(other) && other.is_idle()) {
            return;
        }
        entry.sender_seen = entry.mailbox.take().is_some_and(|idle| idle.sender_seen());
        entry.declares = None;
        if entry.options.is_none() {
            channels.remove(&mailbox.name);
        }
    }
}

fn check_declaration(
    name: &ChannelName,
    ours: Option<&TypeDeclaration>,
    theirs: Option<&TypeDeclaration>,
) -> Result<(), OpenError> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            let text = format!(
                "channel {name} carries {} in {}, and this end declares {} in {}: open it with the same type and codec",
                ours.type_name, ours.codec, theirs.type_name, theirs.codec
            );
            Err(OpenError::TypeMismatch { channel: name.clone(), text })
        }
        _ => Ok(()),
    }
}

fn other_type(name: &ChannelName, ours: &str, theirs: &str) -> OpenError {
    let text = format!(
        "channel {name} carries values of {ours}, and this end is for {theirs}: within a process values are moved, \
         not encoded, so all ends must have the very same type, raw ends too"
    );
    OpenError::TypeMismatch { channel: name.clone(), text }
}

fn check_options(name: &ChannelName, options: &ChannelOptions) -> Result<(), AdminError> {
    let zero = [
        ("capacity", options.capacity == Some(0)),
        ("capacity-bytes", options.capacity_bytes == Some(0)),
        ("window", options.window == Some(0)),
        ("max-message", options.message_max_bytes == Some(0)),
    ];
    match zero.iter().find(|(_, is_zero)| *is_zero) {
        Some((option, _)) => {
            let text = format!("{option} 0 of channel {name} would let nothing through: give 1 or more");
            Err(AdminError::Refused { text })
        }
        None => Ok(()),
    }
}

fn thread_name() -> String {
    let thread = thread::current();
    thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned)
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("options", &self.options)
            .field("declares", &self.declares)
            .field("in_use", &self.mailbox.is_some())
            .finish()
    }
}
