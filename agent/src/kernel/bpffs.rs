//! bpffs: directories, pins and symlinks; nothing else can stand there, and no name may hold a dot.

use std::{fs, io, mem::MaybeUninit, os::unix::fs::symlink, path::Path};

use rustix::{
    fs::{Mode, OFlags, RawDir},
    io::Errno,
};

use super::{Call as _, SysError, fault};

/// `BPF_FS_MAGIC`
const MAGIC: u64 = 0xcafe_4a11;
/// `ST_RDONLY`
const READ_ONLY: u64 = 1;

/// What the directory is mounted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// bpffs, as it must be, by its device number.
    Bpffs(u64),
    /// bpffs that can't be written: links can't even be opened there.
    ReadOnly,
    /// Some other file system: pins can't be made there.
    Other,
}

/// Looks whether a directory is on bpffs.
pub fn mount(dir: &Path) -> Result<Mount, SysError> {
    let stat = rustix::fs::statfs(dir).call(|| format!("statfs of {}", dir.display()))?;
    if stat.f_type as u64 & 0xffff_ffff != MAGIC {
        return Ok(Mount::Other);
    }
    if stat.f_flags as u64 & READ_ONLY != 0 {
        return Ok(Mount::ReadOnly);
    }
    let meta = rustix::fs::stat(dir).call(|| format!("stat of {}", dir.display()))?;
    Ok(Mount::Bpffs(meta.st_dev))
}

/// The names in a directory, sorted; none where there is no directory.
pub fn list(dir: &Path) -> Result<Vec<String>, SysError> {
    let named = || format!("read of {}", dir.display());
    let fd = match rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        fd => fd.call(named)?,
    };
    // Directories here are small and read often: std's reader takes 32 KiB and one more call for each.
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry.call(named)?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory and those above it; says whether it was not there.
pub fn make_dir(dir: &Path) -> Result<bool, SysError> {
    let made = match fault::point(|| "mkdir").and_then(|()| fs::create_dir(dir)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir),
        made => made,
    };
    made.map(|()| true).call(|| format!("mkdir of {}", dir.display()))
}

/// What a symlink says; nothing where there is none.
pub fn read_note(path: &Path) -> Result<Option<String>, SysError> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).call(|| format!("readlink of {}", path.display())),
    }
}

/// Makes a symlink whose target is the text.
pub fn make_note(path: &Path, text: &str) -> Result<(), SysError> {
    fault::point(|| "symlink").and_then(|()| symlink(text, path)).call(|| format!("symlink at {}", path.display()))
}

/// Makes something at a path where something is, in one step: whoever looks finds the old or the new. It is made at
/// `staging`, on the same bpffs, and renamed over the old.
pub fn replace(path: &Path, staging: &Path, make: impl FnOnce(&Path) -> Result<(), SysError>) -> Result<(), SysError> {
    remove(staging)?;
    make(staging)?;
    rename(staging, path)
}

/// `rename(2)`: what was at `to` is gone in the same step.
pub fn rename(from: &Path, to: &Path) -> Result<(), SysError> {
    fault::point(|| "rename")
        .and_then(|()| fs::rename(from, to))
        .call(|| format!("rename of {} to {}", from.display(), to.display()))
}

/// Removes a pin or a symlink; it is well where there is none.
pub fn remove(path: &Path) -> Result<(), SysError> {
    match fault::point(|| "unlink").and_then(|()| fs::remove_file(path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.call(|| format!("unlink of {}", path.display())),
    }
}

/// Removes an empty directory; it is well where there is none.
pub fn remove_dir(path: &Path) -> Result<(), SysError> {
    match fault::point(|| "rmdir").and_then(|()| fs::remove_dir(path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.call(|| format!("rmdir of {}", path.display())),
    }
}
