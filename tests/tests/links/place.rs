//! [`Place`]: a daemon of its own for one test, and what the tests do with it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus_core::{Bus, ChannelName, LinkInfo, LinkSpec, LinkState, Pipe, Receiver, Unlink};
use bus_tests::{Daemon, eventually, watch};

/// A daemon, and what is done with it.
pub(crate) struct Place {
    pub(crate) daemon: Daemon,
    pub(crate) bus: Bus,
}

/// Runs a test with a daemon of its own, under the watchdog.
pub(crate) fn place(name: &str, test: fn(&Place)) {
    place_with(name, "", test);
}

pub(crate) fn place_with(name: &str, config: &str, test: fn(&Place)) {
    place_at(name, Daemon::start_with(config), test);
}

pub(crate) fn place_at(name: &str, daemon: Daemon, test: fn(&Place)) {
    let bus = Bus::connect_to(daemon.address()).unwrap();
    let place = Arc::new(Place { daemon, bus });
    let shared = Arc::clone(&place);
    let give_up = || {
        eprintln!("the daemon's log:\n{}", place.daemon.log());
        place.daemon.kill();
    };
    watch(name, move || test(&shared), give_up);
}

impl Place {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.folder().join(name)
    }

    pub(crate) fn fifo(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn link(&self, channel: &str, pipe: Pipe) -> LinkInfo {
        self.bus.link(spec(channel, pipe)).unwrap()
    }

    pub(crate) fn refusal(&self, channel: &str, pipe: Pipe) -> String {
        self.bus.link(spec(channel, pipe)).unwrap_err().to_string()
    }

    pub(crate) fn unlink(&self, link: &LinkInfo) -> LinkInfo {
        self.bus.unlink(Unlink::Id(link.id)).unwrap().remove(0)
    }

    pub(crate) fn info(&self, link: &LinkInfo) -> LinkInfo {
        self.bus.links().unwrap().into_iter().find(|it| it.id == link.id).unwrap()
    }

    pub(crate) fn await_state(&self, link: &LinkInfo, state: LinkState) -> LinkInfo {
        eventually(state.name(), || self.info(link).state == state);
        self.info(link)
    }

    pub(crate) fn receiver(&self, channel: &str) -> Receiver<Vec<u8>> {
        self.bus.raw_receiver(channel).open().unwrap()
    }

    pub(crate) fn send(&self, channel: &str, messages: impl IntoIterator<Item = impl Into<Vec<u8>>>) {
        let sender = self.bus.raw_sender(channel).open().unwrap();
        messages.into_iter().for_each(|message| sender.feed(message.into()).unwrap());
        sender.flush().unwrap();
    }

    pub(crate) fn await_acknowledged(&self, channel: &str, messages: u64) {
        eventually("everything is acknowledged", || {
            self.bus.show(channel).is_ok_and(|info| info.ledger.acknowledged == messages)
        });
        let ledger = self.bus.show(channel).unwrap().ledger;
        assert!(ledger.balances() && ledger.queued + ledger.in_delivery == 0, "{ledger:?}");
    }

    /// What the daemon has open once it has had a gateway, by what it is: connections come and go by themselves.
    pub(crate) fn descriptors_at_rest(&self) -> Vec<String> {
        let first = self.link("first", Pipe::FromFifo(self.fifo("first")));
        self.unlink(&first);
        // The thread of a gateway lets go of the last of them after it has said that it is over.
        let (mut last, mut since) = (self.descriptors(), Instant::now());
        while since.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.descriptors();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    pub(crate) fn descriptors(&self) -> Vec<String> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.daemon.pid())).unwrap();
        let kinds = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).filter_map(|target| {
            let target = target.to_str()?.to_owned();
            let kind = target.split(':').next()?.to_owned();
            (kind != "socket").then_some(kind)
        });
        let mut kinds: Vec<String> = kinds.collect();
        kinds.sort();
        kinds
    }

    /// The processes whose parent is the daemon, zombies included.
    pub(crate) fn children(&self) -> Vec<String> {
        let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon.pid())).unwrap();
        tasks
            .flat_map(|task| children(task.unwrap()).split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// A daemon without gateways has no more than before there were any.
    pub(crate) fn has_only(&self, descriptors: &[String]) {
        let until = Instant::now() + bus_tests::PATIENCE;
        // On a busy machine that thread may have slept through the rest, and be done by now: less is no leak.
        let is_more = || {
            let mut before = descriptors.to_vec();
            let was_there = |now: &String| before.iter().position(|it| it == now).map(|at| before.swap_remove(at));
            !self.descriptors().iter().map(was_there).all(|it| it.is_some())
        };
        while is_more() || !self.children().is_empty() {
            let (now, children) = (self.descriptors(), self.children());
            assert!(Instant::now() < until, "left behind: {now:?}, not {descriptors:?}; children {children:?}");
            std::thread::yield_now();
        }
    }
}

pub(crate) fn spec(channel: &str, pipe: Pipe) -> LinkSpec {
    LinkSpec::new(ChannelName::new(channel).unwrap(), pipe)
}

pub(crate) fn texts(receiver: &Receiver<Vec<u8>>, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(receiver.recv().unwrap()).unwrap()).collect()
}

pub(crate) fn writer(path: &str) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

pub(crate) fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A gateway that is to be written into the config.
pub(crate) fn kept(place: &Place, channel: &str, pipe: Pipe) -> LinkSpec {
    assert!(place.daemon.folder().exists());
    let mut spec = spec(channel, pipe);
    spec.keep = true;
    spec
}
