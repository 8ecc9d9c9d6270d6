//! [`Links`]: all gateways of a daemon. The event loop hands orders in and takes answers out; each gateway is a
//! thread of its own, which tells when it is up and when it is over.

mod keeping;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bus_core::wire::{Refused, RefusedCode, Reply};
use bus_core::{Address, LinkInfo, LinkSpec, LinkState, Pipe};
use rustix::event::{EventfdFlags, eventfd};

use super::fifo::Fifo;
use super::link::{Link, NotUp, Over};
use super::scarcity::Pauses;
use super::{sink, source};
use crate::broker::{LinkOrder, PeerId};
use crate::config::{KeepError, KeptLinks};

/// See the [module](self). Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Links(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: Address,
    links_max: u32,
    kept: KeptLinks,
    state: Mutex<State>,
    /// A gateway's thread has come to its end, or one that edited the config.
    ended: Condvar,
    /// Readable when there is news for the event loop.
    news: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    links: BTreeMap<u64, Entry>,
    unlinkings: Vec<Unlinking>,
    news: News,
    /// Threads that take gateways out of the config.
    edits: usize,
    /// None is made any more.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    /// Its thread is at work.
    lives: bool,
    /// Who waits to hear that it is up.
    orderer: Option<PeerId>,
    /// It has been up.
    was_up: bool,
}

/// A peer that waits until gateways are gone.
#[derive(Debug)]
struct Unlinking {
    peer: PeerId,
    left: BTreeSet<u64>,
    gone: Vec<LinkInfo>,
}

/// What the event loop is to do.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Tell these.
    pub(crate) answers: Vec<(PeerId, Reply)>,
    /// Part with the ends that begin their names so.
    pub(crate) to_part_with: Vec<String>,
}

impl Links {
    /// None yet; they connect to `address`.
    pub(crate) fn new(address: Address, links_max: u32, kept: KeptLinks) -> io::Result<Self> {
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (state, ended) = (Mutex::default(), Condvar::new());
        Ok(Self(Arc::new(Shared { address, links_max, kept, state, ended, news })))
    }

    /// Carries out an order of a peer.
    pub(crate) fn order(&self, peer: PeerId, order: LinkOrder) {
        match order {
            LinkOrder::Link(spec) => self.start(*spec, Some(peer)),
            LinkOrder::Unlink { which, forget } => self.unlink(peer, &which, forget),
            LinkOrder::Parted { name, why } => self.parted(&name, &why),
            LinkOrder::List => self.list(peer),
        }
    }

    /// Answers with all there are. Paths are looked at, for which a file system may take its time.
    fn list(&self, peer: PeerId) {
        let links: Vec<Arc<Link>> = self.lock().links.values().map(|entry| Arc::clone(&entry.link)).collect();
        let has_path = |link: &Arc<Link>| matches!(link.spec.pipe, Pipe::FromFifo(_) | Pipe::ToFifo(_));
        if !links.iter().any(has_path) {
            return self.answer(peer, Reply::Links(links.iter().map(|link| link.info()).collect()));
        }
        let registry = self.clone();
        let look = move || {
            let info = |link: &Arc<Link>| {
                let (mut info, gone) = (link.info(), link.fifo_gone());
                info.note = gone.unwrap_or(info.note);
                info
            };
            registry.answer(peer, Reply::Links(links.iter().map(info).collect()));
        };
        if let Err(error) = std::thread::Builder::new().name("links".to_owned()).spawn(look) {
            let NotUp { code, text, .. } = error.into();
            self.answer(peer, Reply::Refused(Refused { code, text }));
        }
    }

    /// Makes a gateway. Who did not order it by a peer finds what came of it in the log.
    pub(crate) fn start(&self, mut spec: LinkSpec, orderer: Option<PeerId>) {
        if orderer.is_none() {
            // An app may have its gateways from elsewhere.
            spec.keep &= self.0.kept.has_file();
        }
        let (channel, pipe) = (spec.channel.clone(), spec.pipe.clone());
        if let Err(NotUp { code, text, .. }) = self.try_start(spec, orderer) {
            tracing::warn!(%channel, %pipe, "not linked: {text}");
            if let Some(peer) = orderer {
                self.answer(peer, Reply::Refused(Refused { code, text }));
            }
        }
    }

    fn try_start(&self, spec: LinkSpec, orderer: Option<PeerId>) -> Result<(), NotUp> {
        Link::check(&spec)?;
        if spec.keep && !self.0.kept.has_file() {
            return Err(KeepError::NoFile.into());
        }
        let mut state = self.lock();
        if state.closed {
            return Err(NotUp::new(RefusedCode::ShuttingDown, "the daemon is ending"));
        }
        let (there, limit) = (state.links.len(), self.0.links_max);
        if there >= limit as usize {
            let text =
                format!("there are {there} gateways, the limit links_max: unlink one, or raise it in the config");
            return Err(NotUp::new(RefusedCode::Limit, text));
        }
        if let Pipe::FromFifo(path) | Pipe::ToFifo(path) = &spec.pipe {
            let has_it = |entry: &&Entry| {
                let pipe = &entry.link.spec.pipe;
                entry.lives && matches!(pipe, Pipe::FromFifo(_) | Pipe::ToFifo(_)) && pipe.target() == path
            };
            if let Some(entry) = state.links.values().find(has_it) {
                return Err(taken(&entry.link));
            }
        }
        let id = state.last_id + 1;
        let link = Arc::new(Link::new(id, spec, orderer.is_some())?);
        let (links, running) = (self.clone(), Arc::clone(&link));
        // It waits for the lock before it does anything that is to be found in the books.
        std::thread::Builder::new().name(format!("link {id}")).spawn(move || links.run(&running))?;
        state.last_id = id;
        state.links.insert(id, Entry { link, lives: true, orderer, was_up: false });
        Ok(())
    }

    /// The thread of a gateway.
    fn run(&self, link: &Arc<Link>) {
        drop(self.lock());
        let mut pauses = Pauses::default();
        let served = loop {
            let served = match link.spec.pipe.is_source() {
                true => source::serve(self, link),
                false => sink::serve(self, link),
            };
            match served {
                // Nobody waits for one of the config.
                Err(error) if error.may_come_up && !link.is_ordered => match pauses.wait(link, &error.text) {
                    Ok(false) => link.clear(),
                    Ok(true) => break Ok(Over::Stopped),
                    Err(_) => break Err(error),
                },
                served => break served,
            }
        };
        self.over(link, served);
    }

    /// A gateway is at work.
    pub(super) fn up(&self, link: &Link) {
        link.now_unless_ending(LinkState::Running);
        link.is_supplied();
        tracing::info!(%link, "linked");
        let mut state = self.lock();
        let Some(entry) = state.links.get_mut(&link.id) else { return };
        entry.was_up = true;
        let Some(peer) = entry.orderer.take() else { return };
        state.news.answers.push((peer, Reply::Linked(Box::new(link.info()))));
        self.ring();
    }

    /// The FIFO at a path, which no other gateway has under another.
    pub(super) fn make_fifo(&self, link: &Link, path: &str) -> Result<Arc<Fifo>, NotUp> {
        let fifo = link.make_fifo(path)?;
        let state = self.lock();
        let other = state.links.values().find(|entry| entry.link.id != link.id && entry.link.has_fifo(&fifo));
        match other {
            Some(entry) => Err(taken(&entry.link)),
            None => Ok(fifo),
        }
    }

    fn over(&self, link: &Link, served: Result<Over, NotUp>) {
        // Before anybody is told.
        link.clear();
        let served = match (served, link.broken_off()) {
            (Ok(Over::Stopped), Some(why)) => Ok(Over::Because(why)),
            (served, _) => served,
        };
        if served.is_err() {
            self.forget_written(link);
        }
        let mut state = self.lock();
        let Some(entry) = state.links.get_mut(&link.id) else { return };
        entry.lives = false;
        let orderer = entry.orderer.take();
        let keep = match served {
            Ok(Over::Stopped) => {
                tracing::info!(%link, "unlinked");
                false
            }
            Ok(Over::Because(reason)) => {
                tracing::warn!(%link, "ended: {reason}");
                link.note(reason);
                link.now(LinkState::Ended);
                true
            }
            Err(NotUp { code, text, .. }) => {
                tracing::warn!(%link, "not linked: {text}");
                link.note(&text);
                link.now(LinkState::Ended);
                if let Some(peer) = orderer {
                    state.news.answers.push((peer, Reply::Refused(Refused { code, text })));
                }
                // One of the config stays to be seen.
                orderer.is_none()
            }
        };
        let is_awaited = state.unlinkings.iter().any(|unlinking| unlinking.left.contains(&link.id));
        if !keep || is_awaited {
            state.links.remove(&link.id);
        }
        state.gone(link);
        self.ring();
        self.0.ended.notify_all();
    }

    /// The broker has closed the end of a gateway.
    fn parted(&self, name: &str, why: &str) {
        let state = self.lock();
        let mut living = state.links.values().filter(|entry| entry.lives);
        if let Some(entry) = living.find(|entry| name.starts_with(&Link::name_prefix(entry.link.id))) {
            entry.link.break_off(why);
        }
    }

    fn end(&self, state: &mut State, link: &Link) {
        link.end();
        if !link.spec.pipe.is_source() {
            state.news.to_part_with.push(Link::name_prefix(link.id));
        }
    }

    /// Has the broker part with the end of a gateway.
    pub(super) fn part_with(&self, id: u64) {
        self.lock().news.to_part_with.push(Link::name_prefix(id));
        self.ring();
    }

    /// Nothing more is to come from pipes.
    pub(crate) fn end_sources(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.living(|link| link.spec.pipe.is_source()).iter().for_each(|link| self.end(&mut state, link));
    }

    /// Whether something may still come from pipes.
    pub(crate) fn has_sources(&self) -> bool {
        !self.lock().living(|link| link.spec.pipe.is_source()).is_empty()
    }

    /// Everything is to end.
    pub(crate) fn end_all(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.living(|_| true).iter().for_each(|link| self.end(&mut state, link));
        self.ring();
    }

    /// Waits until everything has ended.
    pub(crate) fn wait_for_end(&self) {
        self.end_all();
        let until = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            let living = state.living(|_| true);
            if living.is_empty() && state.edits == 0 {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for link in living {
                    tracing::error!(%link, "a gateway has not ended within {} ms", PATIENCE.as_millis());
                }
                return;
            }
            let waited = self.0.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What there is for the event loop.
    pub(crate) fn take_news(&self) -> News {
        let mut counted = [0; 8];
        // It is empty when somebody else took the news.
        let _ = rustix::io::read(&self.0.news, &mut counted);
        std::mem::take(&mut self.lock().news)
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    fn answer(&self, peer: PeerId, reply: Reply) {
        self.lock().news.answers.push((peer, reply));
        self.ring();
    }

    fn ring(&self) {
        // It fails only when it is readable already, beyond all counting.
        let _ = rustix::io::write(&self.0.news, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.news.as_fd()
    }
}

impl State {
    fn living(&self, is_meant: impl Fn(&Link) -> bool) -> Vec<Arc<Link>> {
        let living = self.links.values().filter(|entry| entry.lives && is_meant(&entry.link));
        living.map(|entry| Arc::clone(&entry.link)).collect()
    }

    /// Tells those who wait for it that a gateway has ended.
    fn gone(&mut self, link: &Link) {
        for unlinking in &mut self.unlinkings {
            if unlinking.left.remove(&link.id) {
                unlinking.gone.push(link.info());
            }
        }
        let (done, waiting) = std::mem::take(&mut self.unlinkings).into_iter().partition(|it| it.left.is_empty());
        self.unlinkings = waiting;
        let done: Vec<Unlinking> = done;
        self.news.answers.extend(done.into_iter().map(|it| (it.peer, Reply::Links(it.gone))));
    }
}

fn taken(by: &Link) -> NotUp {
    let Link { id, spec, .. } = by;
    let text = format!("gateway {id} has {} for channel {}: `bus unlink {id}` first", spec.pipe.target(), spec.channel);
    NotUp::new(RefusedCode::Exists, text)
}

/// Longer than a gateway takes to end, its command killed at last.
const PATIENCE: Duration = Duration::from_secs(6);
