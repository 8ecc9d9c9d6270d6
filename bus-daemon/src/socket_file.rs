//! [`SocketFile`]: the name of the listening socket in its folder, from binding to removal.
//!
//! Everything here happens under the [`Lock`]: a socket that nobody answers was left by a daemon
//! that died, and only its successor may clear it away.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, Listener, ListenerNonblockingMode, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::lock::Lock;
use crate::runtime_dir::RuntimeDir;

/// The socket that this daemon bound, known by device and inode, because a name can change hands.
#[derive(Debug)]
pub(crate) struct SocketFile {
    name: OsString,
    device: u64,
    inode: u64,
    follows_death: bool,
}

/// Who may connect, as far as the file system decides it.
///
/// ```
/// let access = bus_daemon::Access { mode: 0o660, group: Some(100) };
/// assert_eq!(format!("{:04o}", access.mode), "0660");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Group by id; `None` leaves the process's own.
    pub group: Option<u32>,
}

impl SocketFile {
    /// Clears a stale socket away and listens at `name` in `folder`.
    ///
    /// # Errors
    /// [`SocketError`] names what is in the way.
    pub(crate) fn bind(
        folder: &RuntimeDir,
        name: &OsStr,
        access: Access,
        lock: &Lock,
    ) -> Result<(Self, Listener), SocketError> {
        let follows_death = clear(folder, name, lock)?;
        let path = folder.path().join(name);
        let bind_error = |source| SocketError::Bind { path: path.clone(), source };

        // Never `try_overwrite`: it would displace a living daemon, or a file that is no socket.
        // Never `reclaim_name`: it unlinks by path, so an old daemon could remove its successor's.
        let listener = ListenerOptions::new()
            .name(path.as_path().to_fs_name::<GenericFilePath>().map_err(bind_error)?)
            .reclaim_name(false)
            .try_overwrite(false)
            .nonblocking(ListenerNonblockingMode::Both)
            .mode(0o600)
            .create_sync()
            .map_err(bind_error)?;

        // `bind` took a path. Only if the name is now in the folder that was checked, was it there.
        let stat = match look(folder, name).map_err(bind_error)? {
            Some(stat) if is_socket(&stat) => stat,
            _ => return Err(SocketError::FolderSwapped { path: folder.path().to_owned() }),
        };
        let socket = Self { name: name.to_owned(), device: stat.st_dev, inode: stat.st_ino, follows_death };
        if let Err(errno) = open_up(folder, name, access) {
            socket.remove(folder, lock);
            return Err(SocketError::Access { path, access, source: errno.into() });
        }
        Ok((socket, listener))
    }

    /// Whether an earlier daemon had died here, and left its own.
    pub(crate) fn follows_death(&self) -> bool {
        self.follows_death
    }

    /// Removes the name, if it is still that of the socket which was bound.
    pub(crate) fn remove(&self, folder: &RuntimeDir, _lock: &Lock) {
        match look(folder, &self.name) {
            Ok(Some(stat)) if (stat.st_dev, stat.st_ino) == (self.device, self.inode) => {
                if let Err(errno) = rustix::fs::unlinkat(folder, &self.name, AtFlags::empty()) {
                    tracing::warn!(socket = ?self.name, %errno, "the socket stays behind");
                }
            }
            Ok(Some(_)) => tracing::warn!(socket = ?self.name, "the socket was replaced, so it is left alone"),
            Ok(None) => {}
            Err(error) => tracing::warn!(socket = ?self.name, %error, "the socket stays behind"),
        }
    }
}

/// Makes the name free, or says why it is not. Returns whether a daemon had died there.
fn clear(folder: &RuntimeDir, name: &OsStr, _lock: &Lock) -> Result<bool, SocketError> {
    let path = folder.path().join(name);
    let probe_error = |source| SocketError::Probe { path: path.clone(), source };
    let Some(stat) = look(folder, name).map_err(probe_error)? else { return Ok(false) };
    if !is_socket(&stat) {
        return Err(SocketError::Foreign { kind: kind(&stat), path });
    }
    if is_answered(&path).map_err(probe_error)? {
        return Err(SocketError::Answered { path });
    }
    tracing::info!(socket = %path.display(), "a daemon died here: its socket is removed");
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(errno) => Err(probe_error(errno.into())),
    }
}

/// Whether somebody listens at `path`. Does not wait: a stopped process with a full backlog would
/// hold a blocking `connect` for ever, and `AGAIN` says as much as success.
fn is_answered(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // A socket of another type, or one that we may not ask: not ours to judge.
        Err(errno) => Err(errno.into()),
    }
}

/// Widens access after the socket has its group, so that at no moment it is more open than asked.
fn open_up(folder: &RuntimeDir, name: &OsStr, access: Access) -> Result<(), Errno> {
    if let Some(group) = access.group {
        rustix::fs::chownat(folder, name, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if access.mode != 0o600 {
        rustix::fs::chmodat(folder, name, Mode::from_raw_mode(access.mode), AtFlags::empty())?;
    }
    Ok(())
}

fn look(folder: &RuntimeDir, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "a file of unknown kind",
    }
}

/// Why the daemon cannot listen.
///
/// ```
/// use bus_core::Address;
/// use bus_daemon::{ClaimError, Config, Daemon, SocketError, StartError};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("bus.sock");
/// std::fs::write(&path, "a letter")?;
/// let refused = Daemon::start(Config { socket: Some(Address::new(&path)?), ..Config::default() });
/// assert!(matches!(refused, Err(StartError::Claim(ClaimError::Socket(SocketError::Foreign { .. })))));
/// assert_eq!(std::fs::read(path)?, b"a letter");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Something that no daemon made.
    #[error("{} is {kind}, not a socket: move it away, or choose another path with --socket", path.display())]
    Foreign {
        /// What is in the way.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// Somebody listens there without holding the lock.
    #[error("somebody answers at {} without holding its lock: end that program, or choose another path with --socket", path.display())]
    Answered {
        /// The socket.
        path: PathBuf,
    },
    /// It is not known whether somebody listens.
    #[error("cannot tell whether {} is in use: remove it if it is not, or choose another path with --socket", path.display())]
    Probe {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses the address.
    #[error("cannot listen at {}: choose another path with --socket", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Between the check and `bind`, the path came to mean another folder.
    #[error("runtime folder {} was replaced while the daemon started: choose one that only you can move with --socket", path.display())]
    FolderSwapped {
        /// The folder.
        path: PathBuf,
    },
    /// Its group or mode cannot be set.
    #[error(
        "cannot give {} mode {:04o} and group {}: this user must be a member of the group",
        path.display(), access.mode, access.group.map_or("unchanged".to_owned(), |group| group.to_string())
    )]
    Access {
        /// The socket.
        path: PathBuf,
        /// What was asked for.
        access: Access,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_dir::private_folder;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    const OWN: Access = Access { mode: 0o600, group: None };

    struct Place {
        folder: RuntimeDir,
        lock: Lock,
        place: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let place = private_folder();
            let folder = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
            let lock = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
            Self { folder, lock, place }
        }

        fn path(&self) -> PathBuf {
            self.place.path().join("bus.sock")
        }

        fn bind(&self) -> Result<(SocketFile, Listener), SocketError> {
            self.bind_with(OWN)
        }

        fn bind_with(&self, access: Access) -> Result<(SocketFile, Listener), SocketError> {
            SocketFile::bind(&self.folder, OsStr::new("bus.sock"), access, &self.lock)
        }

        fn mode(&self) -> u32 {
            self.path().metadata().unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn the_socket_is_for_its_user_unless_asked() {
        let place = Place::new();
        let (socket, listener) = place.bind().unwrap();
        UnixStream::connect(place.path()).unwrap();
        assert_eq!(place.mode(), 0o600);
        socket.remove(&place.folder, &place.lock);
        drop(listener);

        let own_group = rustix::process::getegid().as_raw();
        let _bound = place.bind_with(Access { mode: 0o660, group: Some(own_group) }).unwrap();
        assert_eq!(place.mode(), 0o660);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let place = Place::new();
        drop(UnixListener::bind(place.path()).unwrap());
        let _bound = place.bind().unwrap();
        UnixStream::connect(place.path()).unwrap();
    }

    #[test]
    fn a_live_socket_is_left_alone_even_when_its_backlog_is_full() {
        let place = Place::new();
        let name = place.path();
        let live = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&live, &SocketAddrUnix::new(&name).unwrap()).unwrap();
        rustix::net::listen(&live, 0).unwrap();

        assert!(matches!(place.bind(), Err(SocketError::Answered { .. })));
        // That probe took the only place in the queue, and nobody accepts.
        let error = place.bind().unwrap_err();
        let text = format!(
            "somebody answers at {} without holding its lock: end that program, or choose another path with --socket",
            name.display()
        );
        assert_eq!(error.to_string(), text);
        assert!(name.exists());
    }

    #[test]
    fn a_foreign_file_is_named_and_left_alone() {
        let place = Place::new();
        std::fs::write(place.path(), "precious").unwrap();
        let error = place.bind().unwrap_err();
        let text = format!(
            "{} is a regular file, not a socket: move it away, or choose another path with --socket",
            place.path().display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(std::fs::read_to_string(place.path()).unwrap(), "precious");

        std::fs::remove_file(place.path()).unwrap();
        std::os::unix::fs::symlink("elsewhere", place.path()).unwrap();
        assert!(matches!(place.bind(), Err(SocketError::Foreign { kind: "a symbolic link", .. })));

        std::fs::remove_file(place.path()).unwrap();
        std::fs::create_dir(place.path()).unwrap();
        assert!(matches!(place.bind(), Err(SocketError::Foreign { kind: "a folder", .. })));
    }

    #[test]
    fn a_socket_of_another_type_is_not_judged_stale() {
        let place = Place::new();
        let _datagrams = UnixDatagram::bind(place.path()).unwrap();
        assert!(matches!(place.bind(), Err(SocketError::Probe { .. })));
        assert!(place.path().exists());
    }

    #[test]
    fn only_the_own_socket_is_removed() {
        let place = Place::new();
        let (socket, _listener) = place.bind().unwrap();
        // Kept under another name, so that its inode is not given to the next.
        std::fs::rename(place.path(), place.place.path().join("moved")).unwrap();
        let _successor = UnixListener::bind(place.path()).unwrap();
        socket.remove(&place.folder, &place.lock);
        UnixStream::connect(place.path()).unwrap();

        std::fs::rename(place.place.path().join("moved"), place.path()).unwrap();
        socket.remove(&place.folder, &place.lock);
        assert!(!place.path().exists());
    }

    #[test]
    fn a_folder_swapped_after_its_check_is_noticed() {
        let outer = private_folder();
        let (path, aside) = (outer.path().join("bus"), outer.path().join("aside"));
        let folder = RuntimeDir::of_socket(&path.join("bus.sock")).unwrap();
        let lock = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = SocketFile::bind(&folder, OsStr::new("bus.sock"), OWN, &lock).unwrap_err();
        assert!(matches!(error, SocketError::FolderSwapped { .. }), "{error}");
    }
}
