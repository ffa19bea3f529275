//! bpffs: directories, pins and symlinks; nothing else can stand there, and no name may hold a dot.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{Call as _, SysError};

/// `BPF_FS_MAGIC`
const MAGIC: u64 = 0xcafe_4a11;

/// What the directory is mounted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// bpffs, as it must be.
    Bpffs,
    /// Some other file system: pins can't be made there.
    Other,
}

/// Looks whether a directory is on bpffs.
pub fn mount(dir: &Path) -> Result<Mount, SysError> {
    let stat = rustix::fs::statfs(dir).call(|| format!("statfs of {}", dir.display()))?;
    Ok(if stat.f_type as u64 & 0xffff_ffff == MAGIC { Mount::Bpffs } else { Mount::Other })
}

/// The names in a directory, sorted; none where there is no directory.
pub fn list(dir: &Path) -> Result<Vec<String>, SysError> {
    let named = || format!("read of {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.call(named)?,
    };
    let mut names = entries
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .call(named)?;
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory and those above it; it is well where it is already there.
pub fn make_dir(dir: &Path) -> Result<(), SysError> {
    fs::create_dir_all(dir).call(|| format!("mkdir of {}", dir.display()))
}

/// What a symlink says; nothing where there is none.
pub fn read_note(path: &Path) -> Result<Option<String>, SysError> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).call(|| format!("readlink of {}", path.display())),
    }
}

/// Writes a symlink whose target is the text, over what was there, in one step: made beside it and renamed over.
pub fn write_note(path: &Path, text: &str) -> Result<(), SysError> {
    let staged = staged(path);
    remove(&staged)?;
    symlink(text, &staged).call(|| format!("symlink at {}", staged.display()))?;
    rename(&staged, path)
}

/// Where something is made before it is renamed over `path`.
pub fn staged(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(STAGED);
    path.with_file_name(name)
}

/// How a staged name ends; it can't end a pin's name, which holds no `~`.
pub const STAGED: &str = "~new";

/// `rename(2)`: what was at `to` is gone in the same step.
pub fn rename(from: &Path, to: &Path) -> Result<(), SysError> {
    fs::rename(from, to).call(|| format!("rename of {} to {}", from.display(), to.display()))
}

/// Removes a pin or a symlink; it is well where there is none.
pub fn remove(path: &Path) -> Result<(), SysError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.call(|| format!("unlink of {}", path.display())),
    }
}

/// Removes an empty directory; it is well where there is none.
pub fn remove_dir(path: &Path) -> Result<(), SysError> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.call(|| format!("rmdir of {}", path.display())),
    }
}
