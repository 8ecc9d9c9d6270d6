//! Reads a config file: who may have written it, what it says, and where it is wrong.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use toml::de::{DeTable, DeValue};

use super::check::Key;
use super::{Config, InvalidConfig};

impl Config {
    /// Reads a TOML file. What it does not say keeps its default.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("busd.toml");
    /// std::fs::write(&path, "message_max_bytes = \"1MiB\"\n[channels.jobs]\ncapacity = 2\n")?;
    /// let config = bus_daemon::Config::load(&path)?;
    /// assert_eq!(config.message_max_bytes, 1024 * 1024);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] names the file and, where there is one, the line, the column and the key. A
    /// file that others could have written is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read_trusted(path)?;
        let config = parse(&text).map_err(|fault| fault.in_file(path, &text))?;
        // The daemon may go to another folder.
        Ok(Self { file: std::path::absolute(path).ok(), ..config })
    }
}

/// Opens first and asks about what was opened, so that nothing can be swapped in between.
pub(super) fn read_trusted(path: &Path) -> Result<String, ConfigError> {
    let read_error = |source: io::Error| ConfigError::Read { path: path.to_owned(), source };
    // Without NONBLOCK a pipe of that name would hold the daemon until somebody writes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| read_error(errno.into()))?);
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(ConfigError::NotAFile { path: path.to_owned() });
    }
    let uid = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != uid {
        return Err(ConfigError::Owner { path: path.to_owned(), owner: metadata.uid(), uid });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(ConfigError::Writable { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    (&file).take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes)
        .map_err(|error| ConfigError::NotText { path: path.to_owned(), at: error.utf8_error().valid_up_to() })
}

pub(super) fn parse(text: &str) -> Result<Config, Fault> {
    let config: Config = toml::from_str(text).map_err(|error| Fault::Toml(Box::new(error)))?;
    config.check().map_err(Fault::Invalid)?;
    Ok(config)
}

/// What is wrong, before it has a place.
pub(super) enum Fault {
    Toml(Box<toml::de::Error>),
    Invalid(InvalidConfig),
}

impl Fault {
    pub(super) fn in_file(self, path: &Path, text: &str) -> ConfigError {
        let path = path.to_owned();
        // A file that is not even TOML has the keys before the fault.
        let (table, _) = DeTable::parse_recoverable(text);
        match self {
            Self::Toml(error) => {
                let span = error.span().unwrap_or(0..0);
                let (line, column) = position(text, span.start);
                let message = error.message().trim_end().replace('\n', ", ");
                let problem = match key_at(table.get_ref(), span.start) {
                    Some(key) => format!("{}: {message}", Key::of(key)),
                    // The table has the first of the two, and the error the second.
                    None if message == "duplicate key" => format!("{message} {}", &text[span]),
                    None => message,
                };
                ConfigError::Syntax { path, line, column, problem }
            }
            Self::Invalid(problem) => {
                let offset = offset_of(table.get_ref(), problem.key().parts()).unwrap_or(0);
                let (line, column) = position(text, offset);
                ConfigError::Invalid { path, line, column, problem }
            }
        }
    }
}

/// The key whose name or value covers `offset`: the innermost one.
fn key_at<'t>(table: &'t DeTable<'_>, offset: usize) -> Option<Vec<&'t str>> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().as_ref();
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(path) = key_at(inner, offset)
        {
            return Some([vec![name], path].concat());
        }
        let covers = |span: std::ops::Range<usize>| (span.start..=span.end).contains(&offset);
        let is_header = matches!(value.get_ref(), DeValue::Table(_));
        (covers(key.span()) || (!is_header && covers(value.span()))).then(|| vec![name])
    })
}

/// Where the value of the key `path` stands.
fn offset_of(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first.as_str())?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => offset_of(inner, rest),
        _ => Some(value.span().start),
    }
}

/// Line and column of `offset`, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Why a config file was refused.
///
/// ```
/// use bus_daemon::{Config, ConfigError};
///
/// assert!(matches!(Config::load("/nonexistent/busd.toml"), Err(ConfigError::Read { .. })));
/// assert!(matches!(Config::load("/"), Err(ConfigError::NotAFile { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be opened or read.
    #[error("cannot read config file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("config {} is no regular file: name a TOML file with --config", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Somebody else's file.
    #[error(
        "config file {} belongs to uid {owner}, and only root or uid {uid} may set up this daemon: run chown {uid} on it",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose the daemon is.
        uid: u32,
    },
    /// Anybody could have written it.
    #[error("config file {} has mode {mode:04o}, so anybody may write to it: run chmod o-w on it", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Larger than any config.
    #[error("config file {} is over {FILE_MAX_BYTES} bytes: name a TOML file with --config", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("config file {} is not UTF-8 at byte {at}: TOML must be", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is wrong, from 0.
        at: usize,
    },
    /// It is no TOML, has an unknown key, or a value of the wrong kind.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The key, where one is known, and what is wrong.
        problem: String,
    },
    /// A value outside its limits.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The key, the figure, the limits.
        problem: InvalidConfig,
    },
}

/// Room for some ten thousand channels.
pub(super) const FILE_MAX_BYTES: u64 = 1024 * 1024;
