//! [`KeptLinks`]: the gateways in the config file of a daemon, added and removed while it serves.
//!
//! The file is read anew each time, so what somebody has changed since is kept, and replaced in one step by a file
//! beside it: whoever reads it, and a daemon after a crash, finds it as it was before or as it is after.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bus_core::LinkSpec;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::edit::{self, EditError};
use super::file::{ConfigError, FILE_MAX_BYTES, read_trusted};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct KeptLinks {
    file: Option<PathBuf>,
}

impl KeptLinks {
    /// In this config file; without one, nothing can be kept.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// Whether there is a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Has a gateway in the file `times` times at least: it may be there from before.
    pub(crate) fn add(&self, spec: &LinkSpec, times: usize) -> Result<(), KeepError> {
        self.edit(|text| edit::with(text, spec, times))
    }

    /// Removes gateways from the file.
    pub(crate) fn remove(&self, specs: &[LinkSpec]) -> Result<(), KeepError> {
        self.edit(|text| edit::without(text, specs))
    }

    fn edit(&self, edit: impl Fn(&str) -> Result<String, EditError>) -> Result<(), KeepError> {
        let path = self.file.as_deref().ok_or(KeepError::NoFile)?;
        let _alone = EDITING.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            // A link to the file stays one.
            let target = path.canonicalize().map_err(|source| KeepError::write(path, source))?;
            let metadata = std::fs::metadata(&target).map_err(|source| KeepError::write(path, source))?;
            let text = read_trusted(&target)?;
            let edited = edit(&text).map_err(|error| KeepError::of(error, path, &text))?;
            if edited == text {
                return Ok(());
            }
            if edited.len() as u64 > FILE_MAX_BYTES {
                return Err(ConfigError::TooLarge { path: path.to_owned() }.into());
            }
            let replaced = replace(&target, &metadata, edited.as_bytes());
            if replaced.map_err(|source| KeepError::write(path, source))? {
                return Ok(());
            }
        }
        Err(KeepError::Busy { path: path.to_owned() })
    }
}

/// Puts a new file in the place of `target`, with its mode and owner. `false` when that is not what it was.
fn replace(target: &Path, before: &Metadata, bytes: &[u8]) -> io::Result<bool> {
    let Some((folder, name)) = target.parent().zip(target.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // To be replaced, a file need not be writable, but whoever made it read-only has meant it; root may anything.
    if before.mode() & 0o222 == 0 {
        return Err(Errno::ACCESS.into());
    }
    drop(rustix::fs::open(target, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    let new_name = format!(".{}.{}.new", name.display(), std::process::id());
    let new = NewFile::beside(&folder, &new_name)?;
    let (uid, gid) = (before.uid(), before.gid());
    let made = new.file.metadata()?;
    if (made.uid(), made.gid()) != (uid, gid) {
        rustix::fs::fchown(&new.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(&new.file, Mode::from_raw_mode(before.mode() & 0o7777))?;
    (&new.file).write_all(bytes)?;
    new.file.sync_all()?;
    let now = std::fs::metadata(target)?;
    let version = |it: &Metadata| (it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec(), it.ctime_nsec());
    if version(&now) != version(before) {
        return Ok(false);
    }
    new.rename_to(name.as_ref())?;
    // What was renamed is there; whether a crash of the machine leaves it so is the folder's matter.
    if let Err(errno) = rustix::fs::fsync(&folder) {
        tracing::warn!(config = %target.display(), %errno, "its folder could not be synced");
    }
    Ok(true)
}

/// A file that is removed again, unless it takes the place of another.
struct NewFile<'a> {
    folder: &'a OwnedFd,
    name: &'a str,
    file: File,
    renamed: bool,
}

impl<'a> NewFile<'a> {
    fn beside(folder: &'a OwnedFd, name: &'a str) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR);
        let opened = match open() {
            Err(Errno::EXIST) => {
                // A daemon with this number ended while it wrote.
                rustix::fs::unlinkat(folder, name, rustix::fs::AtFlags::empty())?;
                open()
            }
            opened => opened,
        };
        Ok(Self { folder, name, file: opened?.into(), renamed: false })
    }

    fn rename_to(mut self, name: &Path) -> io::Result<()> {
        rustix::fs::renameat(self.folder, self.name, self.folder, name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // It is in nobody's way.
            let _ = rustix::fs::unlinkat(self.folder, self.name, rustix::fs::AtFlags::empty());
        }
    }
}

/// Why the config file stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(
        "the daemon was started without a config file: end it and start `busd --config PATH`, where PATH may be an empty file, or link without --keep"
    )]
    NoFile,
    #[error("{}", with_source(.0))]
    Config(#[from] ConfigError),
    #[error(
        "cannot write config file {}: {source}: make the file and its folder writable for uid {uid} and see that there is room",
        path.display()
    )]
    Write { path: PathBuf, uid: u32, source: io::Error },
    #[error("config file {} cannot be edited: have each gateway in a [[link]] table of its own lines", path.display())]
    Shape { path: PathBuf },
    #[error("the gateway does not fit into config file {}: {reason}", path.display())]
    Table { path: PathBuf, reason: String },
    #[error("config file {} changes again and again: try again", path.display())]
    Busy { path: PathBuf },
}

fn with_source(error: &ConfigError) -> String {
    let source = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}")
}

impl KeepError {
    fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), uid: rustix::process::geteuid().as_raw(), source }
    }

    fn of(error: EditError, path: &Path, text: &str) -> Self {
        let to_owned = || path.to_owned();
        match error {
            EditError::Before(fault) => fault.in_file(path, text).into(),
            EditError::Table(reason) => Self::Table { path: to_owned(), reason },
            EditError::Shape => Self::Shape { path: to_owned() },
        }
    }
}

/// One edit at a time in this process.
static EDITING: Mutex<()> = Mutex::new(());

/// How often an edit begins anew because the file has changed meanwhile.
const TRIES: u32 = 5;
