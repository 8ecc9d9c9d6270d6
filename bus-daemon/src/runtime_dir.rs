//! [`RuntimeDir`]: the folder of the socket, opened once and checked.
//!
//! Whoever may write to this folder may put a socket of his own in place of ours, so nothing is
//! done in it before owner and mode are known, and everything after goes through the descriptor:
//! a folder that is swapped later is another folder.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The checked folder.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    folder: OwnedFd,
    path: PathBuf,
}

impl RuntimeDir {
    /// Opens the folder of a socket at `socket`, and makes it where it is missing: with its parents
    /// when it is a default place, else itself alone.
    ///
    /// # Errors
    /// [`RuntimeDirError`] names the folder, its mode or owner, and the remedy.
    pub(crate) fn of_socket(socket: &Path) -> Result<Self, RuntimeDirError> {
        let path = socket.parent().unwrap_or(Path::new("/")).to_owned();
        let private = default_places().contains(&path);
        create(&path, private)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| refused(&path, errno))?;
        let runtime_dir = Self { folder, path };
        runtime_dir.check(rustix::process::geteuid().as_raw(), private)?;
        Ok(runtime_dir)
    }

    fn check(&self, uid: u32, private: bool) -> Result<(), RuntimeDirError> {
        let stat = rustix::fs::fstat(&self.folder).map_err(|errno| refused(&self.path, errno))?;
        let path = || self.path.clone();
        let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
        if stat.st_uid != uid && stat.st_uid != 0 {
            return Err(RuntimeDirError::Owner { path: path(), owner: stat.st_uid, uid });
        }
        if mode & 0o022 != 0 {
            return Err(RuntimeDirError::Writable { path: path(), mode });
        }
        if private && mode & 0o777 != 0o700 {
            return Err(RuntimeDirError::NotPrivate { path: path(), mode });
        }
        Ok(())
    }

    /// Its path, for messages and for `bind`, which has no form that takes a descriptor.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The folders that [`bus_core::Address::of_user`] chooses from, whichever way they were named: a
/// daemon that is started with `--socket` at the default place is held to the same rule.
fn default_places() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let uid = rustix::process::geteuid().as_raw();
    let run_user = PathBuf::from(format!("/run/user/{uid}/bus"));
    let runtime = variable("XDG_RUNTIME_DIR").filter(|folder| folder.is_absolute()).map(|folder| folder.join("bus"));
    let state = variable("HOME").map(|home| home.join(".local/state/bus"));
    [Some(run_user), runtime, state].into_iter().flatten().collect()
}

fn create(path: &Path, with_parents: bool) -> Result<(), RuntimeDirError> {
    match std::fs::DirBuilder::new().recursive(with_parents).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        // Whatever it is, opening it tells; so does a second daemon that made it first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(RuntimeDirError::Create { path: path.to_owned(), source }),
    }
}

/// Tells a link from a file: opening a link as a folder fails with the same error.
fn refused(path: &Path, errno: Errno) -> RuntimeDirError {
    let path = path.to_owned();
    match rustix::fs::lstat(&path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Symlink) => RuntimeDirError::Symlink { path },
        Ok(FileType::Directory) | Err(_) => RuntimeDirError::Open { path, source: errno.into() },
        Ok(_) => RuntimeDirError::NotAFolder { path },
    }
}

/// Why a folder cannot hold the socket.
///
/// ```
/// use bus_core::Address;
/// use bus_daemon::{ClaimError, Config, Daemon, RuntimeDirError, StartError};
///
/// let folder = tempfile::tempdir()?;
/// std::os::unix::fs::symlink(folder.path(), folder.path().join("link"))?;
/// let socket = Some(Address::new(folder.path().join("link/bus.sock"))?);
/// let refused = Daemon::start(Config { socket, ..Config::default() });
/// assert!(matches!(refused, Err(StartError::Claim(ClaimError::RuntimeDir(RuntimeDirError::Symlink { .. })))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeDirError {
    /// It is missing and cannot be made.
    #[error("cannot create runtime folder {}: create it with mode 0700, or choose another with --socket", path.display())]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open runtime folder {}: choose another with --socket", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link, which somebody could turn elsewhere.
    #[error(
        "runtime folder {} is a symbolic link, which could be turned elsewhere: name the folder itself with --socket",
        path.display()
    )]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A file of another kind.
    #[error("runtime folder {} is no folder: choose another with --socket", path.display())]
    NotAFolder {
        /// What is there.
        path: PathBuf,
    },
    /// Somebody else's folder.
    #[error(
        "runtime folder {} belongs to uid {owner}, and this daemon runs as uid {uid}: choose a folder of uid {uid} with --socket",
        path.display()
    )]
    Owner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose the daemon is.
        uid: u32,
    },
    /// Others could replace the socket.
    #[error(
        "runtime folder {} has mode {mode:04o}, so others could replace the socket: run chmod go-w on it, or choose another with --socket",
        path.display()
    )]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A default place that others may enter.
    #[error("runtime folder {} has mode {mode:04o}, and the default place must have 0700: run chmod 700 on it", path.display())]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A folder for the tests that nobody else may write to, whatever the umask.
#[cfg(test)]
pub(crate) fn private_folder() -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode_of(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    fn with_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_missing_folder_is_made_for_the_user_alone() {
        let place = private_folder();
        let socket = place.path().join("bus/bus.sock");
        let folder = RuntimeDir::of_socket(&socket).unwrap();
        assert_eq!(mode_of(folder.path()), 0o700);
        RuntimeDir::of_socket(&socket).unwrap();
    }

    #[test]
    fn the_parents_of_a_chosen_folder_are_not_made() {
        let place = private_folder();
        let error = RuntimeDir::of_socket(&place.path().join("no/bus/bus.sock")).unwrap_err();
        assert!(matches!(error, RuntimeDirError::Create { .. }), "{error}");
        assert!(!place.path().join("no").exists());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused_even_when_sticky() {
        let place = private_folder();
        for mode in [0o777, 0o1777, 0o720, 0o702] {
            with_mode(place.path(), mode);
            let error = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap_err();
            let text = format!(
                "runtime folder {} has mode {mode:04o}, so others could replace the socket: run chmod go-w on it, or choose another with --socket",
                place.path().display()
            );
            assert_eq!(error.to_string(), text);
        }
        with_mode(place.path(), 0o755);
        RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
    }

    #[test]
    fn a_default_place_must_be_closed_to_others() {
        let place = private_folder();
        let folder = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
        folder.check(rustix::process::geteuid().as_raw(), true).unwrap();
        with_mode(place.path(), 0o750);
        let error = folder.check(rustix::process::geteuid().as_raw(), true).unwrap_err();
        assert!(matches!(error, RuntimeDirError::NotPrivate { mode: 0o750, .. }), "{error}");
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let place = private_folder();
        let own = rustix::process::geteuid().as_raw();
        let folder = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
        match folder.check(own + 1, false) {
            // Root's folders may hold anybody's socket.
            Ok(()) => assert_eq!(own, 0),
            Err(RuntimeDirError::Owner { owner, uid, .. }) => assert_eq!((owner, uid), (own, own + 1)),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let place = private_folder();
        std::fs::DirBuilder::new().mode(0o700).create(place.path().join("real")).unwrap();
        symlink(place.path().join("real"), place.path().join("link")).unwrap();
        let error = RuntimeDir::of_socket(&place.path().join("link/bus.sock")).unwrap_err();
        assert!(matches!(error, RuntimeDirError::Symlink { .. }), "{error}");
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let place = private_folder();
        std::fs::write(place.path().join("bus"), "").unwrap();
        let error = RuntimeDir::of_socket(&place.path().join("bus/bus.sock")).unwrap_err();
        assert!(matches!(error, RuntimeDirError::NotAFolder { .. }), "{error}");
    }
}
