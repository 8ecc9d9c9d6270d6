//! Channels by name: made when the first end opens them, gone when nothing holds them.

use bus_core::{ChannelName, ChannelOptions};

use super::channel::{Bounds, Channel, ChannelId};
use super::{Broker, Note};

impl Broker {
    /// Declares a channel of the configuration.
    pub fn declare(&mut self, name: ChannelName, options: ChannelOptions) {
        let uid = self.rules.allowed_uids.first().copied().unwrap_or_default();
        let id = self.channel_or_new(&name, options, uid);
        self.channels[id.0 as usize].declared = true;
    }

    pub(super) fn bounds(&self, options: &ChannelOptions) -> Bounds {
        let exact = options.is_exact();
        Bounds {
            messages: options.capacity.unwrap_or(self.rules.capacity_messages),
            bytes: options.capacity_bytes.unwrap_or(self.rules.capacity_bytes),
            window: options.window.unwrap_or(self.rules.window_messages),
            window_bytes: self.rules.window_bytes,
            message_max_bytes: options.message_max_bytes.unwrap_or(self.rules.message_max_bytes),
            when_full: options.when_full,
            exact,
            // What is on its way cannot be dropped or counted exactly any more.
            push_ahead_messages: if exact { 1 } else { self.rules.push_ahead_messages },
            push_ahead_bytes: self.rules.push_ahead_bytes,
        }
    }

    pub(super) fn channel_or_new(&mut self, name: &ChannelName, options: ChannelOptions, uid: u32) -> ChannelId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let bounds = self.bounds(&options);
        self.message_max_bytes = self.message_max_bytes.max(bounds.message_max_bytes);
        let id = ChannelId(self.channels.insert(Channel::new(name.clone(), options, bounds, uid)) as u32);
        self.by_name.insert(name.clone(), id);
        self.note(Note::ChannelMade(name.clone()));
        self.users.entry(uid).or_default().channels += 1;
        id
    }

    pub(super) fn channel(&self, id: ChannelId) -> &Channel {
        &self.channels[id.0 as usize]
    }

    pub(super) fn channel_mut(&mut self, id: ChannelId) -> &mut Channel {
        &mut self.channels[id.0 as usize]
    }

    /// Forgets a channel that nobody declared, holds or attends.
    pub(super) fn vanish_if_idle(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get(id.0 as usize) else { return };
        if !channel.is_idle() {
            return;
        }
        if channel.declared {
            let channel = self.channel_mut(id);
            channel.declares = None;
            channel.sender_seen = false;
            return;
        }
        let name = channel.name.clone();
        self.remove_channel(id);
        self.note(Note::ChannelVanished(name));
    }

    pub(super) fn remove_channel(&mut self, id: ChannelId) {
        self.forget_lanes(id);
        let channel = self.channels.remove(id.0 as usize);
        self.by_name.remove(&channel.name);
        if let Some(user) = self.users.get_mut(&channel.uid) {
            user.channels -= 1;
            user.bytes -= channel.cost();
        }
        self.forget_user_without_holdings(channel.uid);
    }
}
