//! [`Link`]: one gateway, as its threads and the registry share it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus_core::framing::Framing;
use bus_core::limits::LINK_TARGET_MAX_BYTES;
use bus_core::wire::RefusedCode;
use bus_core::{Address, Bus, LinkInfo, LinkSpec, LinkState, OpenError, Pipe};

use super::fifo::{Fifo, FifoError};
use super::scarcity::{is_caused_by_scarcity, is_scarcity, may_connect_later, may_open_later};
use super::stop::Stop;
use crate::config::KeepError;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) spec: LinkSpec,
    pub(super) stop: Stop,
    /// By a peer, and not by the config.
    pub(super) is_ordered: bool,
    /// It has been written into the config.
    pub(super) is_written: AtomicBool,
    /// It is to be in the config no more.
    pub(super) is_forgotten: AtomicBool,
    /// Why it stops, where nobody has ordered that.
    broken_off: Mutex<Option<String>>,
    info: Mutex<LinkInfo>,
    /// It waits for what the system is short of, and its note says so.
    pub(super) is_short: AtomicBool,
    messages: AtomicU64,
    refused: AtomicU64,
    /// Where there is one, from before the gateway is up until it is over.
    fifo: Mutex<Option<Arc<Fifo>>>,
}

impl Link {
    pub(super) fn new(id: u64, spec: LinkSpec, is_ordered: bool) -> io::Result<Self> {
        let info = Mutex::new(LinkInfo::new(id, spec.clone()));
        Ok(Self {
            id,
            spec,
            stop: Stop::new()?,
            is_ordered,
            is_written: AtomicBool::new(false),
            is_forgotten: AtomicBool::new(false),
            broken_off: Mutex::new(None),
            info,
            is_short: AtomicBool::new(false),
            messages: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            fifo: Mutex::new(None),
        })
    }

    /// Looks at the order itself.
    pub(super) fn check(spec: &LinkSpec) -> Result<(), NotUp> {
        let target = spec.pipe.target();
        let kind = spec.pipe.kind();
        let fault = |text: String| Err(NotUp::new(RefusedCode::Protocol, text));
        if target.is_empty() || target.contains('\0') {
            return fault(format!("--{kind} is empty or has a NUL: name a FIFO or a command"));
        }
        if target.len() > LINK_TARGET_MAX_BYTES {
            let bytes = target.len();
            return fault(format!(
                "--{kind} has {bytes} bytes, over the limit of {LINK_TARGET_MAX_BYTES}: put it in a file"
            ));
        }
        if matches!(spec.pipe, Pipe::FromFifo(_) | Pipe::ToFifo(_)) && !target.starts_with('/') {
            return fault(format!("the path {target} of a FIFO is relative: write it from /"));
        }
        if matches!(&spec.framing, Framing::Delimited(delimiter) if delimiter.is_empty()) {
            return fault("the delimiter is empty: it has at least one byte".to_owned());
        }
        if spec.ack_lines && !matches!(spec.pipe, Pipe::ToCommand(_)) {
            return fault(format!("--ack is for --to-command, and this is --{kind}"));
        }
        Ok(())
    }

    /// What stands before the name of its end, whatever of that is cut.
    pub(super) fn name_prefix(id: u64) -> String {
        format!("link {id}: ")
    }

    /// Its connection to the daemon.
    pub(super) fn connect(&self, address: &Address) -> Result<Bus, NotUp> {
        let name = Self::name_prefix(self.id) + &self.spec.pipe.to_string();
        let connected = Bus::builder().address(address.clone()).name(name).connect();
        connected.map_err(|error| NotUp {
            may_come_up: may_connect_later(&error),
            ..NotUp::new(RefusedCode::Limit, error.to_string())
        })
    }

    /// The FIFO at its path.
    pub(super) fn make_fifo(&self, path: &str) -> Result<Arc<Fifo>, NotUp> {
        let fifo = Arc::new(Fifo::at(path.as_ref())?);
        if !self.spec.pipe.is_source() {
            fifo.reserve()?;
        }
        *self.fifo() = Some(Arc::clone(&fifo));
        if self.stop.is_given() {
            fifo.release();
        }
        Ok(fifo)
    }

    /// Whether it has this FIFO, under whatever path.
    pub(super) fn has_fifo(&self, fifo: &Fifo) -> bool {
        self.fifo().as_ref().is_some_and(|own| own.is(fifo))
    }

    /// Orders it to end.
    pub(super) fn end(&self) {
        if self.stop.is_given() {
            return;
        }
        self.now(LinkState::Ending);
        self.stop.give();
        if let (Pipe::ToFifo(_), Some(fifo)) = (&self.spec.pipe, &*self.fifo()) {
            fifo.release();
        }
    }

    /// Ends it because its end at the channel is gone.
    pub(super) fn break_off(&self, why: &str) {
        if !self.stop.is_given() {
            *self.broken_off.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
            self.end();
        }
    }

    /// Why it was broken off, if it was.
    pub(super) fn broken_off(&self) -> Option<String> {
        self.broken_off.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is over: what it made is removed.
    pub(super) fn clear(&self) {
        drop(self.fifo().take());
    }

    fn fifo(&self) -> MutexGuard<'_, Option<Arc<Fifo>>> {
        self.fifo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many messages went through.
    pub(super) fn passed(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// Something did not become a message. Each is counted; of many in a row only some are logged.
    pub(super) fn refuse(&self, why: &dyn std::fmt::Display) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        self.note(why.to_string());
        if refused.is_power_of_two() {
            tracing::warn!(link = %self, refused, "{why}");
        }
    }

    pub(super) fn now(&self, state: LinkState) {
        self.change(|info| info.state = state);
    }

    /// Unless its end is ordered.
    pub(super) fn now_unless_ending(&self, state: LinkState) {
        self.change(|info| {
            if info.state != LinkState::Ending {
                info.state = state;
            }
        });
    }

    /// Why nobody can open its FIFO by the path any more, if that is so. Looks at the path.
    pub(super) fn fifo_gone(&self) -> Option<String> {
        let fifo = self.fifo().clone();
        fifo.and_then(|fifo| fifo.gone())
    }

    pub(super) fn note(&self, note: impl Into<String>) {
        self.change(|info| info.note = note.into());
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut LinkInfo)) {
        change(&mut self.info.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn info(&self) -> LinkInfo {
        let mut info = self.info.lock().unwrap_or_else(PoisonError::into_inner).clone();
        info.messages = self.messages.load(Ordering::Relaxed);
        info.refused = self.refused.load(Ordering::Relaxed);
        info
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.id, self.spec.channel, self.spec.pipe)
    }
}

/// Why a gateway did not come up: what whoever ordered it is told.
#[derive(Debug)]
pub(super) struct NotUp {
    pub(super) code: RefusedCode,
    pub(super) text: String,
    /// The system was short of what it needs.
    pub(super) may_come_up: bool,
}

impl NotUp {
    pub(super) fn new(code: RefusedCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), may_come_up: false }
    }
}

impl From<KeepError> for NotUp {
    fn from(error: KeepError) -> Self {
        Self::new(RefusedCode::Limit, error.to_string())
    }
}

impl From<FifoError> for NotUp {
    fn from(error: FifoError) -> Self {
        Self { may_come_up: is_caused_by_scarcity(&error), ..Self::new(RefusedCode::Exists, error.to_string()) }
    }
}

impl From<OpenError> for NotUp {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::ReceiverTaken { .. } => RefusedCode::ReceiverTaken,
            OpenError::Denied { .. } => RefusedCode::Denied,
            _ => RefusedCode::Limit,
        };
        Self { may_come_up: may_open_later(&error), ..Self::new(code, error.to_string()) }
    }
}

impl From<io::Error> for NotUp {
    fn from(error: io::Error) -> Self {
        let text = format!("the system refuses what a gateway needs: {error}");
        Self { may_come_up: is_scarcity(&error), ..Self::new(RefusedCode::Limit, text) }
    }
}

/// Why a gateway that was up is at its end.
#[derive(Debug)]
pub(super) enum Over {
    /// That was ordered.
    Stopped,
    /// By itself, for this reason.
    Because(String),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Because(error.to_string())
    }
}
