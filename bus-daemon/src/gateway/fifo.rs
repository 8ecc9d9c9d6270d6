//! [`Fifo`]: a FIFO that nobody but this user can open, put where nobody else could put another in its place.
//!
//! The folder is opened once, without following a link in its place, and must belong to this user or root and
//! be closed to writing by others, sticky or not: the same rule as for the daemon's socket. What is in the way
//! is never replaced. A FIFO that is there already is used when it is this user's alone, and stays; one that
//! was made here is removed at the end, if it is still the same.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::stop::Stop;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    folder: OwnedFd,
    name: PathBuf,
    /// The FIFO itself, opened for nothing: whatever becomes of its name.
    itself: OwnedFd,
    stat: Stat,
    made: bool,
    /// Holds a reader from the order to stop on, so that nobody waits for one. Until then something else, whose
    /// place among the descriptors it takes: a full table holds up no end.
    released: Mutex<Option<OwnedFd>>,
    /// That its path leads elsewhere has been logged.
    told_gone: AtomicBool,
}

impl Fifo {
    pub(super) fn at(path: &Path) -> Result<Self, FifoError> {
        let path = path.to_owned();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FifoError::NoName { path });
        };
        let folder = open_folder(parent)?;
        let name = PathBuf::from(name);
        let made = match rustix::fs::mknodat(&folder, &name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => {
                let room = if errno == Errno::NOSPC { room_of(&folder) } else { String::new() };
                return Err(FifoError::Make { path, source: errno.into(), room });
            }
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let itself = rustix::fs::openat(&folder, &name, flags, Mode::empty())
            .and_then(|itself| rustix::fs::fstat(&itself).map(|stat| (itself, stat)));
        let (itself, stat) = itself.map_err(|errno| FifoError::Open { path: path.clone(), source: errno.into() })?;
        let fifo = Self {
            path,
            folder,
            name,
            itself,
            stat,
            made,
            released: Mutex::new(None),
            told_gone: AtomicBool::new(false),
        };
        fifo.check()?;
        Ok(fifo)
    }

    /// Sees to it that whoever waits for a reader can be let go.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let place = rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)?;
        *self.released.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        Ok(())
    }

    fn check(&self) -> Result<(), FifoError> {
        let path = || self.path.clone();
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Fifo => {}
            FileType::Symlink => return Err(FifoError::Symlink { path: path() }),
            other => return Err(FifoError::Other { path: path(), what: name_of(other) }),
        }
        let (owner, uid) = (self.stat.st_uid, rustix::process::geteuid().as_raw());
        if owner != uid {
            return Err(FifoError::Owner { path: path(), owner, uid });
        }
        let mode = Mode::from_raw_mode(self.stat.st_mode).as_raw_mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FifoError::OpenToOthers { path: path(), mode });
        }
        Ok(())
    }

    /// Whether it is the same file, whatever it is called.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }

    /// Its reading end, which does not wait. It is not at its end before a writer was there.
    pub(super) fn open_reader(&self) -> io::Result<File> {
        self.open(OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
    }

    /// Its writing end, which does not wait from then on: waits for a reader, or the order to stop.
    pub(super) fn open_writer(&self, stop: &Stop) -> io::Result<Option<File>> {
        loop {
            if stop.is_given() {
                return Ok(None);
            }
            match self.open(OFlags::WRONLY) {
                Ok(_) if stop.is_given() => return Ok(None),
                Ok(writer) => {
                    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
                    return Ok(Some(writer.into()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets whoever waits for a reader go on, now and later. To be called after the order to stop.
    pub(super) fn release(self: &Arc<Self>) {
        if self.try_release().is_ok() {
            return;
        }
        // Another was faster to take the place.
        let fifo = Arc::downgrade(self);
        let again = move || {
            while fifo.upgrade().is_some_and(|fifo| fifo.try_release().is_err()) {
                std::thread::sleep(RELEASE_PAUSE);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("fifo release".to_owned()).spawn(again) {
            tracing::error!(path = %self.path.display(), %error, "a gateway could not be woken: open the FIFO to read");
        }
    }

    fn try_release(&self) -> io::Result<()> {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        // Its place is free now.
        released.take();
        *released = Some(self.open(OFlags::RDONLY | OFlags::NONBLOCK)?);
        Ok(())
    }

    /// Why nobody can open it by its path any more, if that is so. Logged the first time.
    pub(super) fn gone(&self) -> Option<String> {
        let what = match rustix::fs::lstat(&self.path) {
            Ok(there) if (there.st_dev, there.st_ino) == (self.stat.st_dev, self.stat.st_ino) => return None,
            Ok(there) => match FileType::from_raw_mode(there.st_mode) {
                FileType::Fifo => "another FIFO has taken its place".to_owned(),
                FileType::Symlink => "a symbolic link has taken its place".to_owned(),
                other => format!("{} has taken its place", name_of(other)),
            },
            Err(Errno::NOENT) => "it was removed".to_owned(),
            Err(errno) => format!("it cannot be found: {}", io::Error::from(errno)),
        };
        let text = format!(
            "nobody can open FIFO {} any more, {what}: unlink the gateway, and link it again",
            self.path.display()
        );
        if !self.told_gone.swap(true, Ordering::Relaxed) {
            tracing::warn!("{text}");
        }
        Some(text)
    }

    /// By its descriptor: the name may be another's by now.
    fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.itself.as_raw_fd());
        Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        let there = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (self.stat.st_dev, self.stat.st_ino))
            && let Err(error) = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty())
        {
            tracing::warn!(path = %self.path.display(), %error, "a FIFO could not be removed");
        }
    }
}

/// How soon a gateway is woken that could not be for lack of descriptors.
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

fn open_folder(path: &Path) -> Result<OwnedFd, FifoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())
        .and_then(|folder| rustix::fs::fstat(&folder).map(|stat| (folder, stat)));
    let (folder, stat) = match opened {
        Ok(opened) => opened,
        Err(errno) => {
            let is_link =
                rustix::fs::lstat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            let path = path.to_owned();
            return Err(match is_link {
                true => FifoError::FolderSymlink { path },
                false => FifoError::Folder { path, source: errno.into() },
            });
        }
    };
    let (owner, uid) = (stat.st_uid, rustix::process::geteuid().as_raw());
    if owner != uid && owner != 0 {
        return Err(FifoError::FolderOwner { path: path.to_owned(), owner, uid });
    }
    let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
    if mode & 0o022 != 0 {
        return Err(FifoError::FolderWritable { path: path.to_owned(), mode });
    }
    Ok(folder)
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

/// How much room the file system of a folder has, where it says so.
fn room_of(folder: &OwnedFd) -> String {
    rustix::fs::fstatvfs(folder).map_or_else(
        |_| String::new(),
        |room| {
            let (free, all) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
            format!(
                " ({free} of {all} bytes and {} of {} files are free on its file system)",
                room.f_favail, room.f_files
            )
        },
    )
}

/// Why there is no FIFO.
#[derive(Debug, thiserror::Error)]
pub(super) enum FifoError {
    #[error("{} names no file: name the FIFO itself", path.display())]
    NoName { path: PathBuf },
    #[error("cannot open folder {} of the FIFO: {source}: create it, or choose another", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("folder {} is a symbolic link, which could be turned elsewhere: name the folder itself", path.display())]
    FolderSymlink { path: PathBuf },
    #[error("folder {} belongs to uid {owner}, and the daemon runs as uid {uid}: choose a folder of uid {uid}", path.display())]
    FolderOwner { path: PathBuf, owner: u32, uid: u32 },
    #[error(
        "folder {} has mode {mode:04o}, so others could put a FIFO of their own there: run chmod go-w on it, or choose another",
        path.display()
    )]
    FolderWritable { path: PathBuf, mode: u32 },
    #[error(
        "cannot make FIFO {}: {source}{room}: choose a folder where this user may make files and has room",
        path.display()
    )]
    Make { path: PathBuf, source: io::Error, room: String },
    #[error("cannot open FIFO {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is a symbolic link, which is not followed: name the FIFO itself", path.display())]
    Symlink { path: PathBuf },
    #[error("{} is {what} and no FIFO, and stays as it is: choose another path", path.display())]
    Other { path: PathBuf, what: &'static str },
    #[error("FIFO {} belongs to uid {owner}, and the daemon runs as uid {uid}: remove it, or choose another path", path.display())]
    Owner { path: PathBuf, owner: u32, uid: u32 },
    #[error("FIFO {} has mode {mode:04o}, so others can open it: run chmod 600 on it, or choose another path", path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },
}
