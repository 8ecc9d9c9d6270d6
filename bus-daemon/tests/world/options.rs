//! [`Options`]: what a world is like, drawn from its seed and printed in full when it fails.

use bus_core::{ChannelName, ChannelOptions, WhenFull};
use bus_daemon::broker::Rules;

use crate::rng::Rng;

pub(crate) const UID: u32 = 1_000;

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The daemon is killed, and another starts.
    DaemonCrash,
    /// A sender is killed, at any byte.
    SenderCrash,
    /// A receiver is killed.
    ReceiverCrash,
    /// A sender loses its connection and resumes.
    SenderCut,
    /// A sender gives a half-written message up.
    GiveUp,
    /// Receivers give deliveries back.
    GiveBack,
    /// Peers that break the protocol.
    Hostile,
    /// Orders to purge and to skip.
    Remove,
    /// Orders to kick the receiver.
    Kick,
    /// Orders to delete the channel.
    Delete,
    /// Sockets take and give few bytes at a time.
    SlowPeers,
    /// The user may hold little.
    SmallQuota,
    /// Departed senders are hardly remembered.
    Forgetful,
    /// Time makes leaps.
    TimeLeap,
}

impl Fault {
    pub(crate) const ALL: [Self; 14] = [
        Self::DaemonCrash,
        Self::SenderCrash,
        Self::ReceiverCrash,
        Self::SenderCut,
        Self::GiveUp,
        Self::GiveBack,
        Self::Hostile,
        Self::Remove,
        Self::Kick,
        Self::Delete,
        Self::SlowPeers,
        Self::SmallQuota,
        Self::Forgetful,
        Self::TimeLeap,
    ];
}

/// A channel of the world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: ChannelName,
    /// Declared by the daemon's configuration with these.
    pub(crate) declared: Option<ChannelOptions>,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) channels: Vec<Plan>,
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    pub(crate) window_messages: u32,
    pub(crate) window_bytes: u64,
    pub(crate) capacity_messages: u64,
    pub(crate) capacity_bytes: u64,
    pub(crate) push_ahead_messages: u64,
    pub(crate) push_ahead_bytes: u64,
    pub(crate) message_max_bytes: u32,
    pub(crate) socket_bytes: usize,
    pub(crate) bug: Option<Bug>,
}

/// A bug planted in a peer of the world, to show that the checks see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A sender sends another message in the place of one.
    SenderLosesOne,
    /// A receiver hands two deliveries out in the wrong order.
    ReceiverSwapsTwo,
    /// A receiver acknowledges a delivery that nobody has seen.
    ReceiverLosesOne,
    /// A receiver hands a delivery out again after it was acknowledged.
    ReceiverRepeatsOne,
    /// A receiver hands out other bytes than it was sent.
    ReceiverChangesOne,
    /// A sender has more unacknowledged than it may.
    SenderIgnoresWindow,
}

impl Options {
    pub(crate) fn draw(seed: u64, steps: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x6f70_7469_6f6e_7300);
        let share = rng.pick(&[0, 20, 50, 80]);
        let faults = Fault::ALL.into_iter().filter(|_| rng.chance(share)).collect();
        let channels = (0..rng.between(1, 3)).map(|index| Plan::draw(rng, index)).collect();
        Self {
            seed,
            steps,
            faults,
            channels,
            senders: rng.between(1, 5) as usize,
            receivers: rng.between(1, 4) as usize,
            window_messages: rng.pick(&[1, 2, 8, 40]),
            window_bytes: rng.pick(&[200, 2_000, 100_000]),
            capacity_messages: rng.pick(&[1, 3, 20, 60]),
            capacity_bytes: rng.pick(&[100, 2_000, 100_000]),
            push_ahead_messages: rng.pick(&[1, 4, 30]),
            push_ahead_bytes: rng.pick(&[50, 400, 100_000]),
            message_max_bytes: rng.pick(&[60, 400, 20_000]),
            socket_bytes: rng.pick(&[64, 300, 3_000, 50_000]),
            bug: None,
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether nothing happens that may make a message come twice.
    pub(crate) fn is_exactly_once(&self) -> bool {
        use Fault::{DaemonCrash, Delete, GiveBack, Hostile, Kick, ReceiverCrash};
        ![DaemonCrash, ReceiverCrash, GiveBack, Kick, Delete, Hostile].iter().any(|fault| self.has(*fault))
            // A sender that is forgotten sends again what was acknowledged, marked.
            && !self.has(Fault::SenderCut)
            && !self.has(Fault::GiveUp)
    }

    /// The rules of the `generation`-th daemon of this world.
    pub(crate) fn rules(&self, generation: u64) -> Rules {
        Rules {
            message_max_bytes: self.message_max_bytes,
            window_messages: self.window_messages,
            window_bytes: self.window_bytes,
            capacity_messages: self.capacity_messages,
            capacity_bytes: self.capacity_bytes,
            push_ahead_messages: self.push_ahead_messages,
            push_ahead_bytes: self.push_ahead_bytes,
            user_bytes_max: if self.has(Fault::SmallQuota) { 4_000 } else { u64::MAX / 2 },
            departed_senders_max: if self.has(Fault::Forgetful) { 1 } else { 10_000 },
            resume_grace_ms: 400,
            // Whoever is slow here is not to be refused for it.
            hello_timeout_ms: u64::MAX / 4,
            allowed_uids: vec![UID],
            token_key: [9; 16],
            seed: self.seed.wrapping_add(generation),
            ..Rules::default()
        }
    }
}

impl Plan {
    fn draw(rng: &mut Rng, index: u64) -> Self {
        let name = ChannelName::new(format!("channel.{index}")).expect("the name is well formed");
        let declared = rng.chance(60).then(|| ChannelOptions {
            capacity: rng.chance(60).then(|| rng.between(1, 6)),
            capacity_bytes: rng.chance(20).then(|| rng.between(20, 600)),
            window: rng.chance(30).then(|| rng.between(1, 20) as u32),
            message_max_bytes: None,
            when_full: rng.pick(&WhenFull::ALL),
        });
        Self { name, declared }
    }
}
