//! [`Lock`]: who is the daemon of a socket.
//!
//! The kernel drops the lock when its holder dies, however it dies, so a held lock always means a
//! living daemon and a free one never needs cleaning up.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};

use crate::runtime_dir::RuntimeDir;

/// The held lock. It is let go when this is dropped, or when the process ends.
///
/// The file stays for ever. Were it removed, a process that had already opened it would lock a file
/// that no longer has a name while the next one locks a new file of the same name: two daemons.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    follows_ends: bool,
}

impl Lock {
    /// Takes the lock of the socket `socket` in `folder`, without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] names the daemon that has it.
    pub(crate) fn take(folder: &RuntimeDir, socket: &OsStr) -> Result<Self, LockError> {
        let mut name = OsString::from(socket);
        name.push(".lock");
        let path = folder.path().join(&name);
        let open_error = |source| LockError::Open { path: path.clone(), source };

        // NONBLOCK: a pipe of that name must not hold us.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let descriptor = rustix::fs::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| open_error(errno.into()))?;
        let stat = rustix::fs::fstat(&descriptor).map_err(|errno| open_error(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(LockError::NotAFile { path });
        }
        let file = File::from(descriptor);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { socket: folder.path().join(socket), holder: holder(&file) });
            }
            Err(TryLockError::Error(source)) => return Err(open_error(source)),
        }
        // The pid is a note to people. In the microseconds before it is written, a second daemon
        // reads the former one's, or none.
        let follows_ends = holder(&file).is_some();
        let note = format!("{}\n", std::process::id());
        file.set_len(0).and_then(|()| file.write_all_at(note.as_bytes(), 0)).map_err(open_error)?;
        Ok(Self { file, follows_ends })
    }

    /// Whether the one that held it before has not said that it left no ends behind. Those of one that died, or that
    /// ended while they were there, come back to the next.
    pub(crate) fn follows_ends(&self) -> bool {
        self.follows_ends
    }

    /// The holder ends, and nobody is left who comes back to the next.
    pub(crate) fn leave_nobody(&self) {
        // Where it fails the next waits for a moment, in vain.
        let _ = self.file.set_len(0);
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut note = String::new();
    file.take(32).read_to_string(&mut note).ok()?;
    note.trim().parse().ok()
}

/// Why the lock was not taken.
///
/// ```
/// use bus_daemon::LockError;
///
/// let error = LockError::Held { socket: "/run/bus/bus.sock".into(), holder: Some(7) };
/// assert!(error.to_string().contains("the daemon with pid 7"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "{} is already served by {}: use that daemon, end it, or choose another socket with --socket",
        socket.display(),
        holder.map_or_else(|| "a daemon that is just starting".to_owned(), |pid| format!("the daemon with pid {pid}"))
    )]
    Held {
        /// The socket that both want.
        socket: PathBuf,
        /// The pid that it wrote, when it had written it.
        holder: Option<u32>,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot take lock file {}: this user must be able to write to it, or choose another folder with --socket", path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pipe or a device lies there.
    #[error("lock file {} is no regular file: move it away", path.display())]
    NotAFile {
        /// What lies there.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_dir::private_folder;
    use std::sync::Barrier;

    fn folder() -> (tempfile::TempDir, RuntimeDir) {
        let place = private_folder();
        let folder = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
        (place, folder)
    }

    #[test]
    fn the_second_is_told_who_was_first() {
        let (place, folder) = folder();
        let _lock = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
        let error = Lock::take(&folder, OsStr::new("bus.sock")).unwrap_err();
        let text = format!(
            "{}/bus.sock is already served by the daemon with pid {}: use that daemon, end it, or choose another socket with --socket",
            place.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn sockets_in_one_folder_have_a_lock_each() {
        let (_place, folder) = folder();
        let _one = Lock::take(&folder, OsStr::new("one.sock")).unwrap();
        let _two = Lock::take(&folder, OsStr::new("two.sock")).unwrap();
    }

    #[test]
    fn the_lock_is_free_again_and_its_file_the_same_after_the_holder() {
        let (place, folder) = folder();
        let inode = || std::os::unix::fs::MetadataExt::ino(&place.path().join("bus.sock.lock").metadata().unwrap());
        drop(Lock::take(&folder, OsStr::new("bus.sock")).unwrap());
        let before = inode();
        drop(Lock::take(&folder, OsStr::new("bus.sock")).unwrap());
        assert_eq!(before, inode());
    }

    #[test]
    fn the_next_knows_whether_ends_of_the_former_may_come_back() {
        let (_place, folder) = folder();
        let first = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
        assert!(!first.follows_ends(), "nobody was here before");
        drop(first);
        let second = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
        assert!(second.follows_ends(), "the first has said nothing");
        second.leave_nobody();
        drop(second);
        assert!(!Lock::take(&folder, OsStr::new("bus.sock")).unwrap().follows_ends());
    }

    #[test]
    fn of_racing_daemons_exactly_one_wins() {
        const RACERS: usize = 8;
        let (_place, folder) = folder();
        for _ in 0..100 {
            let start = Barrier::new(RACERS);
            let finish = Barrier::new(RACERS);
            let winners: usize = std::thread::scope(|scope| {
                let race = || {
                    start.wait();
                    let lock = Lock::take(&folder, OsStr::new("bus.sock"));
                    finish.wait();
                    usize::from(lock.is_ok())
                };
                let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(winners, 1);
        }
    }

    #[test]
    fn a_link_or_a_pipe_in_its_place_is_refused() {
        let (place, folder) = folder();
        let target = place.path().join("precious");
        std::fs::write(&target, "keep").unwrap();
        std::os::unix::fs::symlink(&target, place.path().join("link.lock")).unwrap();
        assert!(matches!(Lock::take(&folder, OsStr::new("link")), Err(LockError::Open { .. })));
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");

        rustix::fs::mknodat(&folder, "pipe.lock", FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(Lock::take(&folder, OsStr::new("pipe")), Err(LockError::NotAFile { .. })));
    }
}
