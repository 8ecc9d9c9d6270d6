//! [`Hostile`]: a peer that says what it likes.
//!
//! It does everything but acknowledge what others should have: that would be obeying the protocol.

use bus_core::wire::{
    Flags, Hello, Kind, LaneWish, Progress, ReceiverHello, Request, Resume, Role, SenderHello, Want, put_control,
};

use crate::daemon::Daemon;
use crate::options::Options;
use crate::rng::Rng;
use crate::sender::data;
use crate::wire::{WireId, Wires};

pub(crate) struct Hostile {
    wire: WireId,
    script: Script,
    unwritten: Vec<u8>,
    sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Noise,
    Sender,
    Receiver,
    Control,
    Impostor,
}

impl Hostile {
    pub(crate) fn connect(
        rng: &mut Rng,
        options: &Options,
        daemon: &mut Daemon,
        wires: &mut Wires,
        now_ms: u64,
    ) -> Self {
        let wire = wires.open();
        daemon.accept(wire, now_ms);
        let script = rng.pick(&[
            Script::Noise,
            Script::Sender,
            Script::Sender,
            Script::Receiver,
            Script::Control,
            Script::Impostor,
        ]);
        let mut hostile = Self { wire, script, unwritten: Vec::new(), sequence: 0 };
        hostile.greet(rng, options);
        hostile
    }

    fn greet(&mut self, rng: &mut Rng, options: &Options) {
        let plan = &options.channels[rng.index(options.channels.len())];
        let channel = plan.name.clone();
        let sender = SenderHello {
            channel: channel.clone(),
            declares: None,
            require_receiver: true,
            resume: None,
            lane: LaneWish::Never,
        };
        let role = match self.script {
            Script::Noise => return,
            Script::Sender => Role::Sender(sender),
            Script::Impostor => {
                let resume = Some(Resume {
                    sender: rng.next(),
                    token: [5; 16],
                    next_sequence: rng.next(),
                    last_sequence: rng.next(),
                });
                Role::Sender(SenderHello { resume, ..sender })
            }
            Script::Receiver => Role::Receiver(ReceiverHello {
                channel,
                declares: None,
                standby: rng.chance(70),
                until_disconnected: rng.chance(50),
                returning: None,
                reads_lanes: false,
            }),
            Script::Control => Role::Control,
        };
        put_control(Kind::Hello, &Hello { name: "hostile".repeat(20), pid: 5, role, clock: 0 }, &mut self.unwritten);
    }

    /// Says, writes or reads something.
    pub(crate) fn act(&mut self, rng: &mut Rng, options: &Options, wires: &mut Wires) {
        match rng.below(4) {
            0 => drop(wires.read_down(self.wire, rng.between(1, 200) as usize)),
            1 if self.unwritten.len() < 4_000 => self.say(rng, options),
            _ => {
                let most = rng.between(1, 120).min(self.unwritten.len() as u64) as usize;
                if let Ok(taken) = wires.write_up(self.wire, &self.unwritten[..most]) {
                    self.unwritten.drain(..taken);
                }
            }
        }
    }

    fn say(&mut self, rng: &mut Rng, options: &Options) {
        let begun = self.unwritten.len();
        let out = &mut self.unwritten;
        match self.script {
            Script::Noise | Script::Impostor => out.extend((0..rng.between(1, 60)).map(|_| rng.next() as u8)),
            Script::Sender => match rng.below(8) {
                0 => {
                    put_control(Kind::Want, &Want { number: rng.next(), bytes: rng.below(50) as u32, wait: true }, out)
                }
                1 => put_control(Kind::Unwant, &(), out),
                2 => put_control(Kind::Confirm, &(), out),
                3 => put_control(Kind::Watch, &(), out),
                4 => put_control(Kind::Progress, &Progress::default(), out),
                _ => {
                    // In sequence, again, or with a gap.
                    self.sequence += rng.pick(&[1, 1, 1, 1, 1, 1, 0, 2]);
                    let most = u64::from(options.message_max_bytes) + 1;
                    let bytes = if rng.chance(3) { most } else { rng.between(8, 40) } as usize;
                    out.extend(data(self.sequence, u64::MAX, bytes, Flags(rng.next() as u8)));
                }
            },
            Script::Receiver => {
                let taken = rng.pick(&[0, 0, 0, 1, u64::MAX]);
                let acked = if rng.chance(10) { u64::MAX } else { 0 };
                let progress = Progress { taken, acked, head_given_back: rng.below(3) as u32 };
                let kind = rng.pick(&[Kind::Progress, Kind::Progress, Kind::Recalled, Kind::Watch]);
                if kind == Kind::Watch { put_control(kind, &(), out) } else { put_control(kind, &progress, out) }
            }
            Script::Control => {
                let channel = options.channels[0].name.clone();
                let messages = rng.below(20) as u32;
                let request = match rng.below(5) {
                    0 => Request::List,
                    1 => Request::About,
                    2 => Request::Show(channel),
                    _ => Request::Peek { channel, after: rng.below(100), messages },
                };
                put_control(Kind::Request, &request, out);
            }
        }
        // A receiver's frame with another number in it might be a true acknowledgement.
        if self.script != Script::Receiver && rng.chance(5) && begun < self.unwritten.len() {
            let at = begun + rng.index(self.unwritten.len() - begun);
            self.unwritten[at] ^= 1 << rng.below(8);
        }
    }

    pub(crate) fn vanish(self, wires: &mut Wires) {
        wires.close_client(self.wire);
    }
}
