//! bpffs: the file system of pins. It holds directories, pins and symlinks and nothing else, and no name in it contains
//! a dot.

use std::{
    borrow::Cow,
    fs::DirBuilder,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir},
    io::Errno,
};

use super::{Call as _, Fd, SysError, bpf, fault};

/// `BPF_FS_MAGIC`
const MAGIC: u64 = 0xcafe_4a11;
/// `ST_RDONLY`
const READ_ONLY: u64 = 1;
/// The mode of a directory: whoever may write it may put pins into it.
const DIRECTORY_MODE: u32 = 0o755;

/// The file system that a directory is on.
#[derive(Debug)]
pub enum Mount {
    /// bpffs, with its device number and the opened directory.
    Bpffs(u64, Dir),
    /// A read-only bpffs, where the kernel refuses even to open links.
    ReadOnly,
    /// Another file system, which can't hold pins.
    Other,
}

/// Tells which file system a directory is on.
pub fn mount(path: &Path) -> Result<Mount, SysError> {
    let named = || format!("statfs of {}", path.display());
    let fd = open(path).call(named)?;
    let stat = rustix::fs::fstatfs(&fd).call(named)?;
    if stat.f_type as u64 & 0xffff_ffff != MAGIC {
        return Ok(Mount::Other);
    }
    if stat.f_flags as u64 & READ_ONLY != 0 {
        return Ok(Mount::ReadOnly);
    }
    let device = rustix::fs::fstat(&fd).call(named)?.st_dev;
    Ok(Mount::Bpffs(device, Dir { path: path.to_owned(), fd: Some(fd) }))
}

fn open(directory: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// An opened directory of bpffs. All names are relative to it.
///
/// A whole path leads through sysfs, where the kernel revalidates each name under locks (`kernfs_dop_revalidate`): a
/// call then takes three times as long. Keep a `Dir` no longer than one observation or one plan, because while it is
/// open nobody can unmount the bpffs.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

/// What has a name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub kind: EntryKind,
    /// The user that owns it.
    pub uid: u32,
    /// Its permissions.
    pub mode: u32,
}

/// The kinds of entries on bpffs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A symlink.
    Note,
    /// A pinned object.
    Pin,
}

/// No directory: each name is a whole path.
pub const WHOLE_PATHS: Dir = Dir { path: PathBuf::new(), fd: None };

impl Dir {
    /// Opens the directory at a path, if it exists. Fails if it may exist and can't be opened.
    pub fn at(path: &Path) -> Result<Self, SysError> {
        let fd = match open(path) {
            Err(Errno::NOENT) => None,
            fd => Some(fd.call(|| format!("open of {}", path.display()))?),
        };
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Opens a directory in this one, if it exists.
    pub fn dir(&self, name: &Path) -> Result<Self, SysError> {
        let (from, rest) = self.walk(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(from, &*rest, flags, Mode::empty()) {
            Err(Errno::NOENT) => None,
            fd => Some(fd.call(|| self.describe("open of", name))?),
        };
        Ok(Self { path: self.path.join(name), fd })
    }

    /// Returns whether the directory existed when it was opened.
    pub const fn exists(&self) -> bool {
        self.fd.is_some()
    }

    /// The descriptor from which the kernel walks to a name, and the path from there.
    fn walk<'a>(&'a self, name: &'a Path) -> (BorrowedFd<'a>, Cow<'a, Path>) {
        match &self.fd {
            Some(fd) => (fd.as_fd(), name.into()),
            None => (CWD, self.path.join(name).into()),
        }
    }

    /// The call and the whole path, for errors.
    fn describe(&self, call: &str, name: &Path) -> String {
        format!("{call} {}", self.path.join(name).display())
    }

    /// The names in a directory, sorted; none if the directory does not exist.
    pub fn list(&self, name: &Path) -> Result<Vec<String>, SysError> {
        let named = || self.describe("list of", name);
        let (from, rest) = self.walk(name);
        let fd = match rustix::fs::openat(from, &*rest, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            fd => fd.call(named)?,
        };
        // These directories are small and often read: std's reader allocates 32 KiB and makes one more call for each.
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

    /// Creates a directory and its parents, which only their owner may write; returns whether it is new.
    pub fn make_dir(&self, name: &Path) -> Result<bool, SysError> {
        let (from, rest) = self.walk(name);
        let mode = Mode::from(DIRECTORY_MODE);
        let made = fault::point(|| "mkdir").and_then(|()| Ok(rustix::fs::mkdirat(from, &*rest, mode)?));
        let made = match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(self.path.join(name))
            }
            made => made,
        };
        made.map(|()| true).call(|| self.describe("mkdir of", name))
    }

    /// Reads the target of a symlink; `None` if there is none.
    pub fn read_note(&self, name: &Path) -> Result<Option<String>, SysError> {
        let (from, rest) = self.walk(name);
        match rustix::fs::readlinkat(from, &*rest, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).call(|| self.describe("readlink of", name)),
        }
    }

    /// Returns whether something has that name.
    pub fn contains(&self, name: &Path) -> Result<bool, SysError> {
        Ok(self.entry(name)?.is_some())
    }

    /// Returns what has that name, if anything.
    pub fn entry(&self, name: &Path) -> Result<Option<Entry>, SysError> {
        let (from, rest) = self.walk(name);
        let stat = match rustix::fs::statat(from, &*rest, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.call(|| self.describe("stat of", name))?,
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => EntryKind::Note,
            _ => EntryKind::Pin,
        };
        Ok(Some(Entry { kind, uid: stat.st_uid, mode: stat.st_mode & 0o7777 }))
    }

    /// Creates a symlink whose target is the text.
    pub fn make_note(&self, name: &Path, text: &str) -> Result<(), SysError> {
        let (from, rest) = self.walk(name);
        let made = fault::point(|| "symlink").and_then(|()| Ok(rustix::fs::symlinkat(text, from, &*rest)?));
        made.call(|| self.describe("symlink at", name))
    }

    /// Pins an object.
    pub fn pin(&self, name: &Path, object: BorrowedFd<'_>) -> Result<(), SysError> {
        let (from, rest) = self.walk_for_bpf(name);
        bpf::obj_pin(object, from, &rest).call(|| self.describe("BPF_OBJ_PIN at", name))
    }

    /// Opens a pinned object.
    pub fn get(&self, name: &Path) -> Result<Fd, SysError> {
        let (from, rest) = self.walk_for_bpf(name);
        bpf::obj_get(from, &rest).map(Fd::from).call(|| self.describe("BPF_OBJ_GET of", name))
    }

    /// Walks as [`walk`](Self::walk) does, for bpf(2), which accepts a directory since 6.5.
    fn walk_for_bpf<'a>(&'a self, name: &'a Path) -> (Option<BorrowedFd<'a>>, Cow<'a, Path>) {
        match &self.fd {
            Some(fd) if bpf::takes_directories() => (Some(fd.as_fd()), name.into()),
            _ => (None, self.path.join(name).into()),
        }
    }

    /// Replaces a pin or a symlink atomically: `make` makes the new one at `staging`, on the same bpffs, and a rename
    /// puts it in place.
    pub fn replace(
        &self,
        name: &Path,
        staging: &Path,
        make: impl FnOnce(&Path) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        self.remove(staging)?;
        make(staging)?;
        let ((from, old), (to, new)) = (self.walk(staging), self.walk(name));
        let renamed = fault::point(|| "rename").and_then(|()| Ok(rustix::fs::renameat(from, &*old, to, &*new)?));
        renamed.call(|| self.describe("rename to", name))
    }

    /// Removes a pin or a symlink. A missing one is no error.
    pub fn remove(&self, name: &Path) -> Result<(), SysError> {
        self.unlink("unlink", name, AtFlags::empty())
    }

    /// Removes an empty directory. A missing one is no error.
    pub fn remove_dir(&self, name: &Path) -> Result<(), SysError> {
        self.unlink("rmdir", name, AtFlags::REMOVEDIR)
    }

    /// Removes a directory unless something is in it. A missing one is no error.
    pub fn remove_dir_if_empty(&self, name: &Path) -> Result<(), SysError> {
        match self.remove_dir(name) {
            Err(error) if error.errno() == Some(libc::ENOTEMPTY) => Ok(()),
            removed => removed,
        }
    }

    fn unlink(&self, call: &str, name: &Path, flags: AtFlags) -> Result<(), SysError> {
        let (from, rest) = self.walk(name);
        match fault::point(|| call).and_then(|()| Ok(rustix::fs::unlinkat(from, &*rest, flags)?)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer.call(|| self.describe(&format!("{call} of"), name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_that_can_not_be_opened_is_not_taken_for_missing() {
        let made = tempfile::tempdir().unwrap();
        let path = |name: &str| made.path().join(name);
        fs::write(path("file"), "").unwrap();
        assert!(Dir::at(made.path()).unwrap().exists());
        assert!(!Dir::at(&path("missing")).unwrap().exists());
        assert!(Dir::at(&path("file")).is_err());
    }

    #[test]
    fn a_directory_is_removed_only_if_nothing_is_in_it() {
        let made = tempfile::tempdir().unwrap();
        let (dir, inner) = (Dir::at(made.path()).unwrap(), Path::new("inner"));
        dir.make_dir(inner).unwrap();
        dir.make_note(&inner.join("note"), "text").unwrap();
        dir.remove_dir_if_empty(inner).unwrap();
        assert!(dir.contains(&inner.join("note")).unwrap());
        dir.remove(&inner.join("note")).unwrap();
        dir.remove_dir_if_empty(inner).unwrap();
        assert!(!dir.contains(inner).unwrap());
        dir.remove_dir_if_empty(inner).unwrap();
    }
}
