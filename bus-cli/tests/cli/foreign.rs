//! Four large files that nobody here wrote: sources of the dependencies as cargo has unpacked them, and one of their
//! compiled libraries for bytes that are no text and for lines beyond any reader's buffer.

use std::fs::{read, read_dir};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The four, with 400,000 lines in all. The first is not UTF-8.
pub(crate) static FILES: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let mut files = [compiled(), Vec::new(), Vec::new(), Vec::new()];
    let mut missing = files.each_ref().map(|file| LINES_EACH.saturating_sub(lines(file)));
    let roots = source_folders();
    for root in &roots {
        add_sources(root, &mut files, &mut missing);
    }
    assert_eq!(
        missing,
        [0; 4],
        "too few lines of foreign text in {roots:?}: {:?}",
        files.each_ref().map(|file| lines(file))
    );
    let has = |line: &dyn Fn(&[u8]) -> bool| files.iter().any(|file| file.split(|byte| *byte == b'\n').any(line));
    assert!(has(&<[u8]>::is_empty) && has(&|line| std::str::from_utf8(line).is_err()) && has(&is_long));
    files
});

/// More than a window takes, so that the shells wait for the consumer too.
const LINES_EACH: usize = 100_000;

/// So many lines of a file.
pub(crate) fn beginning(file: &[u8], lines: usize) -> &[u8] {
    let bytes: usize = file.split_inclusive(|byte| *byte == b'\n').take(lines).map(<[u8]>::len).sum();
    &file[..bytes]
}

/// A line that no pipe holds at once.
fn is_long(line: &[u8]) -> bool {
    line.len() > 64 << 10
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Where foreign text is: with cargo or beside this workspace where the dependencies are, with the toolchain and
/// with the system where they are not.
fn source_folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cargo = variable("CARGO_HOME").or_else(|| Some(variable("HOME")?.join(".cargo")));
    let toolchain = variable("CARGO").and_then(|cargo| Some(cargo.parent()?.parent()?.to_path_buf()));
    let of_cargo = cargo.into_iter().flat_map(|cargo| [cargo.join("registry/src"), cargo.join("git/checkouts")]);
    let of_toolchain = toolchain.into_iter().flat_map(|toolchain| [toolchain.join("share"), toolchain.join("lib")]);
    let vendored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vendor");
    let of_system = ["/usr/include", "/usr/share/doc"].map(PathBuf::from);
    of_cargo.chain([vendored]).chain(of_toolchain).chain(of_system).filter(|folder| folder.is_dir()).collect()
}

/// Adds each source below the folder to the file that misses most, until none misses anything.
fn add_sources(folder: &Path, files: &mut [Vec<u8>; 4], missing: &mut [usize; 4]) {
    let mut entries: Vec<_> = read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if *missing == [0; 4] {
            return;
        }
        if kind.is_dir() {
            add_sources(&path, files, missing);
        } else if kind.is_file() && is_source(&path) {
            let Ok(text) = read(&path) else { continue };
            let most = (0..4).max_by_key(|file| missing[*file]).unwrap();
            files[most].extend_from_slice(&text);
            missing[most] = missing[most].saturating_sub(lines(&text));
        }
    }
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["rs", "md", "txt", "c", "h"].iter().any(|source| ending == *source))
}

/// What a compiler made of a dependency, with a line that is long.
fn compiled() -> Vec<u8> {
    const BYTES_MAX: usize = 4 << 20;
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap();
    let mut libraries: Vec<_> = read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    libraries.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".rlib") && !name.starts_with("libbus")
    });
    libraries.sort();
    let mut beginnings = libraries.iter().map(|path| {
        let mut library = read(path).unwrap();
        library.truncate(BYTES_MAX);
        library
    });
    let found = beginnings.find(|library| library.split(|byte| *byte == b'\n').any(is_long));
    found.unwrap_or_else(|| panic!("no compiled dependency with a long line in {}", folder.display()))
}
