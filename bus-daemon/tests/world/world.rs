//! [`World`]: a daemon, its peers and the wires between them, moved one step at a time.
//!
//! First things go wrong, as the options allow; then faults stop, and everything must drain within a
//! bounded number of rounds and leave nothing behind.

use std::collections::VecDeque;

use bus_core::ChannelName;
use bus_core::wire::{Reply, Request};

use crate::daemon::{Daemon, Frames};
use crate::hostile::Hostile;
use crate::model::Model;
use crate::options::{Fault, Options};
use crate::receiver::{Manner, Receiver, Taking};
use crate::rng::Rng;
use crate::sender::{Link, Outcome, Sender};
use crate::wire::Wires;

/// How many steps a failure shows.
const SHOWN_STEPS: usize = 50;

/// How often the daemon is asked to show what it holds, in steps.
const PEEK_STEPS: u64 = 50;

/// How many rounds everything has to drain in, once faults have stopped: each moves every peer, and
/// lets a tenth of a second pass.
const DRAIN_ROUNDS: u64 = 1_000;

pub(crate) struct World {
    options: Options,
    rng: Rng,
    now_ms: u64,
    daemon: Option<Daemon>,
    generation: u64,
    wires: Wires,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    receivers_made: usize,
    hostiles: Vec<Hostile>,
    model: Model,
    step: u64,
    journal: VecDeque<Entry>,
}

/// A step that changed something.
struct Entry {
    number: u64,
    now_ms: u64,
    step: Step,
    frames: Frames,
}

/// What moves, and how.
#[derive(Clone, Copy, Debug)]
enum Step {
    DaemonReads(usize, usize),
    DaemonWrites(usize, usize),
    DaemonCutsLingering(usize),
    DaemonIdles,
    DaemonDies,
    DaemonStarts,
    TimePasses(u64),
    SenderConnects(usize),
    SenderWrites(usize, usize),
    SenderReads(usize, usize),
    SenderSends(usize),
    SenderAsksForConfirmation(usize),
    SenderIsCut(usize),
    SenderGivesUp(usize),
    SenderCrashes(usize),
    SenderLeaves(usize),
    ReceiverConnects(usize),
    ReceiverReads(usize, usize),
    ReceiverTakes(usize, Taking),
    /// Acknowledges so many of what it holds, and gives the others back.
    ReceiverSettles(usize, usize, bool),
    KeeperTends(usize, bool),
    ReceiverCrashes(usize),
    ReceiverLeaves(usize),
    HostileConnects,
    HostileActs(usize),
    HostileVanishes(usize),
    Purge(usize),
    Skip(usize),
    Kick(usize),
    Delete(usize),
}

/// What a world has been through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) steps: u64,
    pub(crate) deliveries: u64,
    pub(crate) daemons: u64,
}

impl World {
    pub(crate) fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let channels = options.channels.len();
        let senders = (0..options.senders).map(|_| Sender::new(rng.index(channels))).collect();
        let mut world = Self {
            rng,
            now_ms: 1_000,
            daemon: None,
            generation: 0,
            wires: Wires::new(options.socket_bytes),
            senders,
            receivers: Vec::new(),
            receivers_made: 0,
            hostiles: Vec::new(),
            model: Model::new(options),
            step: 0,
            journal: VecDeque::with_capacity(SHOWN_STEPS + 1),
            options: options.clone(),
        };
        for _ in 0..options.receivers {
            let channel = world.rng.index(channels);
            world.add_receiver(channel);
        }
        world
    }

    fn add_receiver(&mut self, channel: usize) {
        self.receivers_made += 1;
        let manner = Manner { standby: self.rng.chance(60), until_disconnected: self.rng.chance(30) };
        self.receivers.push(Receiver::new(self.receivers_made, channel, manner));
    }

    pub(crate) fn run(&mut self) -> Result<Summary, String> {
        while self.step < self.options.steps {
            let step = self.choose();
            self.perform(step)?;
        }
        self.drain()?;
        self.model.check_end()?;
        self.everybody_leaves()?;
        Ok(Summary { steps: self.step, deliveries: self.model.deliveries, daemons: self.generation })
    }

    /// The last steps, and how everybody stands.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for Entry { number, now_ms, step, frames } in &self.journal {
            text.push_str(&format!("  {number} at {now_ms} ms: {step:?} {frames:?}\n"));
        }
        let senders = self.senders.iter().map(Sender::describe);
        let receivers = self.receivers.iter().map(Receiver::describe);
        senders.chain(receivers).for_each(|line| text.push_str(&format!("  {line}\n")));
        text
    }

    /// How many bytes a socket takes or gives this time.
    fn some_bytes(&mut self) -> usize {
        if self.options.has(Fault::SlowPeers) && self.rng.chance(70) {
            self.rng.between(1, 60) as usize
        } else {
            self.rng.pick(&[100, 1_000, 100_000])
        }
    }

    fn choose(&mut self) -> Step {
        let bytes = self.some_bytes();
        let connections = self.daemon.as_ref().map_or(0, |daemon| daemon.connections.len());
        if self.daemon.is_none() && self.rng.chance(10) {
            return Step::DaemonStarts;
        }
        match self.rng.below(1_000) {
            0..300 if connections > 0 => match self.rng.below(20) {
                0..9 => Step::DaemonReads(self.rng.index(connections), bytes),
                9..18 => Step::DaemonWrites(self.rng.index(connections), bytes),
                18 => Step::DaemonIdles,
                _ => Step::DaemonCutsLingering(self.rng.index(connections)),
            },
            300..620 => self.choose_for_sender(bytes),
            620..920 => self.choose_for_receiver(bytes),
            920..960 => Step::TimePasses(if self.options.has(Fault::TimeLeap) && self.rng.chance(3) {
                self.rng.between(100, 200_000)
            } else {
                self.rng.between(1, 20)
            }),
            960..990 if self.options.has(Fault::Hostile) => match self.rng.below(12) {
                0 if self.hostiles.len() < 4 => Step::HostileConnects,
                1 if !self.hostiles.is_empty() => Step::HostileVanishes(self.rng.index(self.hostiles.len())),
                _ if !self.hostiles.is_empty() => Step::HostileActs(self.rng.index(self.hostiles.len())),
                _ => Step::HostileConnects,
            },
            990..998 => self.choose_order(),
            998 if self.options.has(Fault::DaemonCrash) && self.rng.chance(60) => Step::DaemonDies,
            _ => Step::DaemonIdles,
        }
    }

    fn choose_for_sender(&mut self, bytes: usize) -> Step {
        let sender = self.rng.index(self.senders.len());
        let roll = self.rng.below(1_000);
        match (self.senders[sender].link, roll) {
            (Link::Away | Link::Over, _) => Step::SenderConnects(sender),
            (_, 0..300) => Step::SenderReads(sender, bytes),
            (_, 300..600) => Step::SenderWrites(sender, bytes),
            (_, 600..970) => Step::SenderSends(sender),
            (_, 970..980) => Step::SenderAsksForConfirmation(sender),
            (_, 980..985) if self.options.has(Fault::SenderCrash) => Step::SenderCrashes(sender),
            (_, 985..990) if self.options.has(Fault::SenderCut) => Step::SenderIsCut(sender),
            (_, 990..995) if self.options.has(Fault::GiveUp) => Step::SenderGivesUp(sender),
            (_, 995..997) => Step::SenderLeaves(sender),
            _ => Step::SenderSends(sender),
        }
    }

    fn choose_for_receiver(&mut self, bytes: usize) -> Step {
        let receiver = self.rng.index(self.receivers.len());
        let roll = self.rng.below(1_000);
        let (link, holds) = (self.receivers[receiver].link, self.receivers[receiver].holds());
        match (link, roll) {
            (_, 0..3) if self.options.has(Fault::ReceiverCrash) => Step::ReceiverCrashes(receiver),
            (_, 3..5) => Step::ReceiverLeaves(receiver),
            (Link::Away | Link::Over, 5..400) => Step::ReceiverConnects(receiver),
            (_, 0..400) => Step::ReceiverReads(receiver, bytes),
            (_, 980..) => Step::KeeperTends(receiver, self.rng.chance(50)),
            _ if holds == 0 => Step::ReceiverTakes(receiver, self.choose_taking()),
            (_, 400..500) if self.options.has(Fault::GiveBack) => {
                let settled = self.rng.index(holds);
                Step::ReceiverSettles(receiver, settled, self.rng.chance(50))
            }
            _ => Step::ReceiverSettles(receiver, usize::MAX, self.rng.chance(50)),
        }
    }

    fn choose_taking(&mut self) -> Taking {
        Taking {
            busy: self.rng.chance(50),
            as_value: self.rng.chance(25),
            most: self.rng.pick(&[1, 1, 3, 64]),
            waits: self.rng.chance(50),
        }
    }

    fn choose_order(&mut self) -> Step {
        let channel = self.rng.index(self.options.channels.len());
        match self.rng.below(8) {
            0 | 1 if self.options.has(Fault::Remove) => Step::Purge(channel),
            2..5 if self.options.has(Fault::Remove) => Step::Skip(channel),
            5 | 6 if self.options.has(Fault::Kick) => Step::Kick(channel),
            7 if self.options.has(Fault::Delete) && self.rng.chance(30) => Step::Delete(channel),
            _ => Step::DaemonIdles,
        }
    }

    fn perform(&mut self, step: Step) -> Outcome {
        self.step += 1;
        let outcome = self.carry_out(step);
        self.note(step);
        outcome?;
        self.check()
    }

    /// Writes a step down, if it did anything.
    fn note(&mut self, step: Step) {
        let frames = match step {
            Step::DaemonReads(..) => self.daemon.as_mut().map(|daemon| std::mem::take(&mut daemon.frames)),
            Step::SenderReads(sender, _) => Some(std::mem::take(&mut self.senders[sender].frames)),
            Step::ReceiverReads(receiver, _)
            | Step::ReceiverTakes(receiver, _)
            | Step::ReceiverSettles(receiver, ..) => Some(std::mem::take(&mut self.receivers[receiver].frames)),
            Step::DaemonIdles | Step::SenderSends(_) | Step::DaemonWrites(..) | Step::SenderWrites(..) => return,
            _ => {
                self.journal.push_back(Entry { number: self.step, now_ms: self.now_ms, step, frames: Frames::new() });
                None
            }
        };
        if let Some(frames) = frames.filter(|frames| !frames.is_empty()) {
            self.journal.push_back(Entry { number: self.step, now_ms: self.now_ms, step, frames });
        }
        if self.journal.len() > SHOWN_STEPS {
            self.journal.pop_front();
        }
    }

    fn carry_out(&mut self, step: Step) -> Outcome {
        let Self { options, wires, senders, receivers, model, rng, now_ms, .. } = self;
        let now_ms = *now_ms;
        match step {
            Step::DaemonStarts => {
                self.generation += 1;
                self.daemon = Some(Daemon::start(options, self.generation, now_ms));
            }
            Step::TimePasses(ms) => self.now_ms += ms,
            Step::SenderWrites(sender, bytes) => drop(senders[sender].write(bytes, wires)),
            Step::SenderReads(sender, bytes) => senders[sender].read(bytes, wires, model)?,
            Step::SenderSends(sender) => senders[sender].send(rng, options, model)?,
            Step::SenderAsksForConfirmation(sender) => senders[sender].ask_for_confirmation(),
            Step::SenderIsCut(sender) => senders[sender].cut(wires),
            Step::SenderGivesUp(sender) => senders[sender].give_up(wires, model)?,
            Step::SenderCrashes(sender) => senders[sender].crash(self.daemon.is_some(), wires, model),
            Step::SenderLeaves(sender) => {
                if senders[sender].is_done() {
                    senders[sender].leave(wires);
                }
            }
            Step::ReceiverReads(receiver, bytes) => receivers[receiver].read(bytes, wires)?,
            Step::ReceiverTakes(receiver, how) => {
                let removed = |wire| self.daemon.as_ref().is_some_and(|daemon| daemon.has_removed(wire));
                receivers[receiver].removed = receivers[receiver].wire().is_some_and(removed);
                receivers[receiver].take(how, wires, model, options.bug)?;
            }
            Step::ReceiverSettles(receiver, count, busy) => receivers[receiver].settle(count, busy, wires),
            Step::KeeperTends(receiver, in_use) => receivers[receiver].tend(in_use, wires),
            Step::ReceiverCrashes(receiver) => receivers[receiver].crash(wires),
            Step::ReceiverLeaves(receiver) => {
                if receivers[receiver].holds() == 0 {
                    receivers[receiver].leave(wires);
                }
            }
            Step::HostileActs(hostile) => self.hostiles[hostile].act(rng, options, wires),
            Step::HostileVanishes(hostile) => self.hostiles.swap_remove(hostile).vanish(wires),
            _ => return self.carry_out_at_daemon(step),
        }
        Ok(())
    }

    /// What needs a living daemon; without one it comes to nothing.
    fn carry_out_at_daemon(&mut self, step: Step) -> Outcome {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let Self { options, wires, senders, receivers, rng, now_ms, .. } = self;
        let now_ms = *now_ms;
        match step {
            Step::DaemonReads(index, bytes) => daemon.read(index, bytes, wires, now_ms),
            Step::DaemonWrites(index, bytes) => drop(daemon.write(index, bytes, wires, now_ms)),
            Step::DaemonCutsLingering(index) => daemon.cut_lingering(index, wires, now_ms),
            Step::DaemonIdles => daemon.be_idle(),
            Step::DaemonDies => self.kill_daemon(),
            Step::SenderConnects(sender) => {
                let sender = &mut senders[sender];
                if sender.link == Link::Over {
                    *sender = Sender::new(rng.index(options.channels.len()));
                }
                sender.connect(options, daemon, wires, now_ms);
            }
            Step::ReceiverConnects(index) => {
                if receivers[index].is_over() {
                    receivers.swap_remove(index);
                    let channel = rng.index(options.channels.len());
                    self.add_receiver(channel);
                } else {
                    receivers[index].connect(options, daemon, wires, now_ms);
                }
            }
            Step::HostileConnects => {
                let hostile = Hostile::connect(rng, options, daemon, wires, now_ms);
                self.hostiles.push(hostile);
            }
            Step::Purge(channel) => self.order(channel, Request::Purge),
            Step::Skip(channel) => self.order(channel, Request::Skip),
            Step::Kick(channel) => self.order(channel, Request::Kick),
            Step::Delete(channel) => self.order(channel, Request::Delete),
            _ => {}
        }
        Ok(())
    }

    fn order(&mut self, channel: usize, order: fn(ChannelName) -> Request) {
        let Some(daemon) = &mut self.daemon else { return };
        let alive: Vec<u64> = self.senders.iter().filter_map(Sender::id_to_resume).collect();
        let request = order(self.options.channels[channel].name.clone());
        if let Reply::Removed(removed) = daemon.ask(&request, self.now_ms) {
            match request {
                Request::Delete(_) => {
                    self.model.deleted(channel, removed, &alive);
                    self.senders.iter_mut().for_each(|sender| sender.channel_deleted(channel));
                }
                _ => self.model.ordered(channel, removed),
            }
        }
    }

    fn kill_daemon(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        daemon.die(&mut self.wires);
        // Whoever is dead had left its messages to this daemon alone.
        let alive: Vec<u64> = self.senders.iter().filter_map(Sender::id_to_resume).collect();
        self.model.daemon_died(&alive);
        self.senders.iter_mut().for_each(Sender::daemon_died);
    }

    fn check(&mut self) -> Outcome {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.tick(self.now_ms);
        daemon.hang_up(&mut self.wires);
        daemon.broker.check()?;
        let summaries = match daemon.ask(&Request::List, self.now_ms) {
            Reply::Channels(summaries) => summaries,
            reply => return Err(format!("asked for a list, the daemon replies {reply:?}")),
        };
        self.model.audit(&self.options, &summaries)?;
        if self.step.is_multiple_of(PEEK_STEPS) {
            for (index, plan) in self.options.channels.iter().enumerate() {
                self.model.check_peeked(index, &daemon.peek(plan.name.clone(), self.now_ms))?;
            }
        }
        Ok(())
    }

    /// Once everything is drained and told, senders that want to know have heard of the receivers.
    fn check_told(&mut self) -> Outcome {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let Reply::Channels(summaries) = daemon.ask(&Request::List, self.now_ms) else { return Ok(()) };
        for sender in &self.senders {
            let name = &self.options.channels[sender.channel].name;
            let channel = summaries.iter().find(|summary| summary.channel == *name);
            if let (Some(told), Some(channel)) = (sender.receivers_told(), channel)
                && told != channel.peers.receivers
            {
                return Err(format!("receivers: {} were told, of {:?}: {}", told, channel.peers, sender.describe()));
            }
        }
        Ok(())
    }

    /// Faults have stopped: everybody who lives goes on until nothing is left to do.
    fn drain(&mut self) -> Outcome {
        self.options.faults.retain(|fault| *fault == Fault::SlowPeers || *fault == Fault::SmallQuota);
        for hostile in self.hostiles.drain(..) {
            hostile.vanish(&mut self.wires);
        }
        if self.daemon.is_none() {
            self.perform(Step::DaemonStarts)?;
        }
        self.wires.widen();
        for round in 0..DRAIN_ROUNDS {
            // What was on its way when faults stopped needs a few rounds to be noticed at all.
            if round > 3 && self.is_drained() {
                return self.check_told();
            }
            self.senders.iter_mut().for_each(Sender::stop_sending);
            self.round()?;
        }
        Err(format!("I8: not drained after {DRAIN_ROUNDS} rounds: {}", self.what_is_held()))
    }

    fn round(&mut self) -> Outcome {
        self.perform(Step::TimePasses(100))?;
        for channel in 0..self.options.channels.len() {
            if !self.receivers.iter().any(|receiver| receiver.channel == channel && !receiver.is_over()) {
                self.add_receiver(channel);
            }
        }
        for sender in 0..self.senders.len() {
            if self.senders[sender].link == Link::Away {
                self.perform(Step::SenderConnects(sender))?;
            }
            self.perform(Step::SenderWrites(sender, usize::MAX))?;
        }
        let connections = self.daemon.as_ref().map_or(0, |daemon| daemon.connections.len());
        for index in (0..connections).rev() {
            self.perform(Step::DaemonReads(index, usize::MAX))?;
        }
        self.perform(Step::DaemonIdles)?;
        let connections = self.daemon.as_ref().map_or(0, |daemon| daemon.connections.len());
        for index in (0..connections).rev() {
            self.perform(Step::DaemonWrites(index, usize::MAX))?;
        }
        for sender in 0..self.senders.len() {
            self.perform(Step::SenderReads(sender, usize::MAX))?;
        }
        for receiver in 0..self.receivers.len() {
            if self.receivers[receiver].link == Link::Away {
                self.perform(Step::ReceiverConnects(receiver))?;
            }
            self.perform(Step::ReceiverReads(receiver, usize::MAX))?;
            for _ in 0..4 {
                let taking = Taking { busy: true, as_value: false, most: 64, waits: false };
                self.perform(Step::ReceiverTakes(receiver, taking))?;
                self.perform(Step::ReceiverSettles(receiver, usize::MAX, true))?;
            }
            self.perform(Step::KeeperTends(receiver, false))?;
        }
        Ok(())
    }

    fn is_drained(&mut self) -> bool {
        let senders_done = self.senders.iter().all(|sender| sender.is_done());
        let Some(daemon) = &mut self.daemon else { return false };
        let Reply::Channels(summaries) = daemon.ask(&Request::List, self.now_ms) else { return false };
        let empty = summaries.iter().all(|summary| summary.ledger.queued + summary.ledger.in_delivery == 0);
        let quiet = !(0..daemon.connections.len()).any(|index| daemon.is_busy(index, &mut self.wires));
        senders_done && empty && quiet && self.receivers.iter().all(Receiver::has_nothing)
    }

    fn what_is_held(&mut self) -> String {
        let Some(daemon) = &mut self.daemon else { return "no daemon".to_owned() };
        format!("{:?}", daemon.ask(&Request::List, self.now_ms))
    }

    /// I9: nothing is left of what everybody had.
    fn everybody_leaves(&mut self) -> Outcome {
        self.senders.iter_mut().for_each(|sender| sender.leave(&mut self.wires));
        self.receivers.iter_mut().for_each(|receiver| receiver.leave(&mut self.wires));
        for _ in 0..20 {
            self.perform(Step::TimePasses(60_000))?;
            let connections = self.daemon.as_ref().map_or(0, |daemon| daemon.connections.len());
            for index in (0..connections).rev() {
                self.perform(Step::DaemonWrites(index, usize::MAX))?;
                self.perform(Step::DaemonReads(index, usize::MAX))?;
            }
        }
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        match daemon.ask(&Request::About, self.now_ms) {
            Reply::About { connections: 1, .. } => {}
            reply => return Err(format!("I9: everybody has left but the auditor, and {reply:?}")),
        }
        let Reply::Channels(left) = daemon.ask(&Request::List, self.now_ms) else { return Ok(()) };
        let is_declared = |name: &ChannelName| {
            let index = self.options.channels.iter().position(|plan| plan.name == *name);
            index.is_some_and(|index| self.model.is_declared(&self.options, index))
        };
        match left.into_iter().find(|summary| summary.held_bytes > 0 || !is_declared(&summary.channel)) {
            Some(summary) => Err(format!("I9: everybody has left, and {summary:?} is there")),
            None => Ok(()),
        }
    }
}
