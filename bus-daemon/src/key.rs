//! [`TokenKey`]: the secret with which a daemon signs the tokens of its senders. It outlives the
//! daemon, so that a sender can prove to the next one who it is.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;

use crate::lock::Lock;
use crate::runtime_dir::RuntimeDir;

/// Random bytes that only this user can read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenKey([u8; KEY_BYTES]);

impl TokenKey {
    /// Reads the key of `folder`, or makes one.
    ///
    /// Daemons of different sockets in one folder share it and hold different locks, so a new key is
    /// written under a name of its own, told by `socket`, and then linked to the common one: it
    /// appears whole, and only if there is none.
    ///
    /// # Errors
    /// [`KeyError`] when others could have read or written it.
    pub(crate) fn open(folder: &RuntimeDir, socket: &OsStr, lock: &Lock) -> Result<Self, KeyError> {
        let path = folder.path().join(KEY_FILE);
        match rustix::fs::openat(folder, KEY_FILE, OFlags::RDONLY | OPEN_SAFELY, Mode::empty()) {
            Ok(descriptor) => Self::read(File::from(descriptor), &path),
            Err(Errno::NOENT) => {
                Self::create(folder, socket, lock).map_err(|source| KeyError::Create { path: path.clone(), source })?;
                // Another daemon may have been faster; its key is the one to use.
                let descriptor = rustix::fs::openat(folder, KEY_FILE, OFlags::RDONLY | OPEN_SAFELY, Mode::empty())
                    .map_err(|errno| KeyError::Open { path: path.clone(), source: errno.into() })?;
                Self::read(File::from(descriptor), &path)
            }
            Err(errno) => Err(KeyError::Open { path, source: errno.into() }),
        }
    }

    fn read(mut file: File, path: &Path) -> Result<Self, KeyError> {
        let path = || path.to_owned();
        let stat = rustix::fs::fstat(&file).map_err(|errno| KeyError::Open { path: path(), source: errno.into() })?;
        let uid = rustix::process::geteuid().as_raw();
        let mode = Mode::from_raw_mode(stat.st_mode).as_raw_mode();
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(KeyError::NotAFile { path: path() });
        }
        if stat.st_uid != uid {
            return Err(KeyError::Owner { path: path(), owner: stat.st_uid, uid });
        }
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path(), mode });
        }
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if length != KEY_BYTES as u64 {
            return Err(KeyError::Length { path: path(), length });
        }
        let mut key = [0; KEY_BYTES];
        file.read_exact(&mut key).map_err(|source| KeyError::Open { path: path(), source })?;
        Ok(Self(key))
    }

    fn create(folder: &RuntimeDir, socket: &OsStr, _lock: &Lock) -> io::Result<()> {
        let mut draft = OsString::from(socket);
        draft.push(".key");
        // Left by a daemon that died here; the name is ours as long as the lock is.
        match rustix::fs::unlinkat(folder, &draft, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OPEN_SAFELY;
        let descriptor = rustix::fs::openat(folder, &draft, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(descriptor).write_all(&random()?)?;
        let linked = match rustix::fs::linkat(folder, &draft, folder, KEY_FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        };
        rustix::fs::unlinkat(folder, &draft, AtFlags::empty())?;
        linked
    }

    /// The key itself.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Keeps the secret out of logs.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    let mut filled = 0;
    while filled < KEY_BYTES {
        match rustix::rand::getrandom(&mut key[filled..], GetRandomFlags::empty()) {
            Ok(bytes) => filled += bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(key)
}

/// The size of a SipHash key.
const KEY_BYTES: usize = 16;

const KEY_FILE: &str = "key";

/// Neither through a link, nor waiting for the writer of a pipe.
const OPEN_SAFELY: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Why there is no key.
///
/// ```
/// use bus_daemon::{ClaimError, StartError};
///
/// fn advice(error: &StartError) -> &'static str {
///     match error {
///         StartError::Claim(ClaimError::Key(_)) => "delete the key beside the socket, and a new one is made",
///         _ => "see the error",
///     }
/// }
/// # let _ = advice;
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be made.
    #[error("cannot create key file {}: this user must be able to write to its folder", path.display())]
    Create {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be opened or read.
    #[error("cannot read key file {}: delete it, and a new one is made", path.display())]
    Open {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pipe, a folder or a device.
    #[error("key file {} is no regular file: move it away, and a new one is made", path.display())]
    NotAFile {
        /// What lies there.
        path: PathBuf,
    },
    /// Somebody else knows it.
    #[error("key file {} belongs to uid {owner}, not to uid {uid}: delete it, and a new one is made", path.display())]
    Owner {
        /// The key file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose the daemon is.
        uid: u32,
    },
    /// Somebody else may know it.
    #[error("key file {} has mode {mode:04o}, so others may know the key: delete it, and a new one is made", path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Cut short, or something else.
    #[error("key file {} has {length} bytes, and a key has {KEY_BYTES}: delete it, and a new one is made", path.display())]
    Length {
        /// The key file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_dir::private_folder;
    use std::os::unix::fs::PermissionsExt;

    fn place() -> (tempfile::TempDir, RuntimeDir, Lock) {
        let place = private_folder();
        let folder = RuntimeDir::of_socket(&place.path().join("bus.sock")).unwrap();
        let lock = Lock::take(&folder, OsStr::new("bus.sock")).unwrap();
        (place, folder, lock)
    }

    fn open(folder: &RuntimeDir, lock: &Lock) -> Result<TokenKey, KeyError> {
        TokenKey::open(folder, OsStr::new("bus.sock"), lock)
    }

    #[test]
    fn the_key_is_random_private_and_the_same_for_the_next_daemon() {
        let (place, folder, lock) = place();
        let key = open(&folder, &lock).unwrap();
        assert_eq!(open(&folder, &lock).unwrap(), key);
        let metadata = place.path().join("key").metadata().unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, metadata.len()), (0o600, 16));
        assert!(!place.path().join("bus.sock.key").exists());

        let (_elsewhere, folder, lock) = self::place();
        assert_ne!(open(&folder, &lock).unwrap(), key);
        assert_eq!(format!("{key:?}"), "TokenKey(..)");
    }

    #[test]
    fn a_draft_left_by_a_dead_daemon_is_no_hindrance() {
        let (place, folder, lock) = place();
        std::fs::write(place.path().join("bus.sock.key"), "short").unwrap();
        open(&folder, &lock).unwrap();
        assert!(!place.path().join("bus.sock.key").exists());
    }

    #[test]
    fn daemons_of_one_folder_that_start_together_agree() {
        for _ in 0..50 {
            let (_place, folder, _lock) = place();
            let start = std::sync::Barrier::new(4);
            let open = |socket: String| {
                let lock = Lock::take(&folder, OsStr::new(&socket)).unwrap();
                start.wait();
                TokenKey::open(&folder, OsStr::new(&socket), &lock).unwrap()
            };
            let open = &open;
            let keys: Vec<TokenKey> = std::thread::scope(|scope| {
                let openers: Vec<_> = (0..4).map(|at| scope.spawn(move || open(format!("{at}.sock")))).collect();
                openers.into_iter().map(|opener| opener.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]));
        }
    }

    #[test]
    fn a_key_that_others_may_know_is_refused() {
        let (place, folder, lock) = place();
        open(&folder, &lock).unwrap();
        let path = place.path().join("key");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let text = format!(
            "key file {} has mode 0640, so others may know the key: delete it, and a new one is made",
            path.display()
        );
        assert_eq!(open(&folder, &lock).unwrap_err().to_string(), text);
    }

    #[test]
    fn a_key_of_another_length_or_behind_a_link_is_refused() {
        let (place, folder, lock) = place();
        let path = place.path().join("key");
        let secret = place.path().join("secret");
        std::fs::write(&secret, "0123456789abcde").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(matches!(open(&folder, &lock), Err(KeyError::Open { .. })));
        std::fs::rename(&secret, &path).unwrap();
        assert!(matches!(open(&folder, &lock), Err(KeyError::Length { length: 15, .. })));
    }
}
