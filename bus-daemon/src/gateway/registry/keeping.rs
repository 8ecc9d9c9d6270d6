//! Gateways in the config: written before they are up, and taken out before they are ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus_core::wire::{Refused, RefusedCode, Reply};
use bus_core::{LinkSpec, Unlink};

use super::{Entry, Links, State, Unlinking};
use crate::broker::PeerId;
use crate::gateway::link::{Link, NotUp};

impl Links {
    /// Writes a gateway into the config, if it is to be kept: as the last step but one, so that what is written
    /// can come up.
    pub(in crate::gateway) fn keep(&self, link: &Link) -> Result<(), NotUp> {
        if !(link.spec.keep && link.is_ordered) {
            return Ok(());
        }
        let alike = self.lock().links.values().filter(|entry| entry.link.spec == link.spec).count();
        self.0.kept.add(&link.spec, alike)?;
        link.is_written.store(true, Ordering::SeqCst);
        if link.is_forgotten.load(Ordering::SeqCst) {
            self.forget_written(link);
        }
        Ok(())
    }

    /// It was written too soon.
    pub(super) fn forget_written(&self, link: &Link) {
        if link.is_written.swap(false, Ordering::SeqCst)
            && let Err(error) = self.0.kept.remove(std::slice::from_ref(&link.spec))
        {
            tracing::error!(%link, "it is over and stands in the config: {error}");
        }
    }

    /// Carries out the order to end some, and answers when they are gone.
    pub(super) fn unlink(&self, peer: PeerId, which: &Unlink, forget: bool) {
        let mut state = self.lock();
        let is_meant = |entry: &&Entry| match which {
            Unlink::Id(id) => entry.link.id == *id,
            Unlink::Channel { channel, pipe } => {
                let spec = &entry.link.spec;
                spec.channel == *channel && pipe.as_ref().is_none_or(|pipe| *pipe == spec.pipe)
            }
        };
        let meant: Vec<Arc<Link>> =
            state.links.values().filter(is_meant).map(|entry| Arc::clone(&entry.link)).collect();
        if meant.is_empty() {
            let what = match which {
                Unlink::Id(id) => format!("there is no gateway {id}"),
                Unlink::Channel { channel, pipe: None } => format!("channel {channel} has no gateway"),
                Unlink::Channel { channel, pipe: Some(pipe) } => format!("channel {channel} has no gateway {pipe}"),
            };
            let text = format!("{what}: `bus links` shows those that are");
            state.news.answers.push((peer, Reply::Refused(Refused { code: RefusedCode::NoSuchChannel, text })));
            return self.ring();
        }
        if !(forget && meant.iter().any(|link| link.spec.keep)) {
            return self.end_these(&mut state, peer, meant);
        }
        // A disk may take its time, which the event loop does not have.
        state.edits += 1;
        drop(state);
        let links = self.clone();
        let edit = move || {
            let forgotten = links.forget(&meant);
            let mut state = links.lock();
            match forgotten {
                Ok(()) => links.end_these(&mut state, peer, meant),
                Err(NotUp { code, text, .. }) => {
                    state.news.answers.push((peer, Reply::Refused(Refused { code, text })));
                    links.ring();
                }
            }
            state.edits -= 1;
            links.0.ended.notify_all();
        };
        if let Err(error) = std::thread::Builder::new().name("unlink".to_owned()).spawn(edit) {
            let NotUp { code, text, .. } = error.into();
            self.lock().edits -= 1;
            self.answer(peer, Reply::Refused(Refused { code, text }));
        }
    }

    /// Takes gateways out of the config, all or none.
    fn forget(&self, links: &[Arc<Link>]) -> Result<(), NotUp> {
        let kept: Vec<&Arc<Link>> = links.iter().filter(|link| link.spec.keep).collect();
        // Before: one that is just being written sees it.
        kept.iter().for_each(|link| link.is_forgotten.store(true, Ordering::SeqCst));
        let specs: Vec<LinkSpec> = kept.iter().map(|link| link.spec.clone()).collect();
        self.0.kept.remove(&specs).map_err(|error| {
            kept.iter().for_each(|link| link.is_forgotten.store(false, Ordering::SeqCst));
            let NotUp { code, text, .. } = error.into();
            NotUp::new(code, format!("nothing is unlinked, as it would come back with the daemon: {text}; or unlink it for now with --keep"))
        })
    }

    fn end_these(&self, state: &mut State, peer: PeerId, meant: Vec<Arc<Link>>) {
        let left = meant.iter().map(|link| link.id).collect();
        state.unlinkings.push(Unlinking { peer, left, gone: Vec::new() });
        for link in meant {
            if state.links.get(&link.id).is_some_and(|entry| entry.lives) {
                self.end(state, &link);
            } else {
                state.links.remove(&link.id);
                state.gone(&link);
            }
        }
        self.ring();
    }
}
