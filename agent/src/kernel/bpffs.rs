//! bpffs: directories, pins and symlinks; nothing else can stand there, and no name may hold a dot.

use std::{
    borrow::Cow,
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RawDir},
    io::Errno,
};

use super::{Call as _, Fd, SysError, bpf, fault};

/// `BPF_FS_MAGIC`
const MAGIC: u64 = 0xcafe_4a11;
/// `ST_RDONLY`
const READ_ONLY: u64 = 1;

/// What a directory is on.
#[derive(Debug)]
pub enum Mount {
    /// bpffs, as it must be, by its device number.
    Bpffs(u64, Dir),
    /// bpffs that can't be written: links can't even be opened there.
    ReadOnly,
    /// Some other file system: pins can't be made there.
    Other,
}

/// Looks what a directory is on.
pub fn mount(path: &Path) -> Result<Mount, SysError> {
    let named = || format!("look at {}", path.display());
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

/// A directory of bpffs, from which things are named.
///
/// Open, because the way to it leads through sysfs, where each name of a path is checked anew under locks
/// (`kernfs_dop_revalidate`): with the whole path a call takes three times as long. Not for longer than a look or a plan:
/// meanwhile its bpffs can't be unmounted.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

/// No directory: things are named by their whole paths.
pub const ANYWHERE: Dir = Dir { path: PathBuf::new(), fd: None };

impl Dir {
    /// The directory at that path, opened where there is one. That it can't be opened does not say that there is none.
    pub fn at(path: &Path) -> Result<Self, SysError> {
        let fd = match open(path) {
            Err(Errno::NOENT) => None,
            fd => Some(fd.call(|| format!("open of {}", path.display()))?),
        };
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Whether there was one.
    pub const fn is_there(&self) -> bool {
        self.fd.is_some()
    }

    /// Where the walk to a name begins, and what is left of it.
    fn walk<'a>(&'a self, name: &'a Path) -> (BorrowedFd<'a>, Cow<'a, Path>) {
        match &self.fd {
            Some(fd) => (fd.as_fd(), name.into()),
            None => (CWD, self.path.join(name).into()),
        }
    }

    /// As errors tell it.
    fn show(&self, call: &str, name: &Path) -> String {
        format!("{call} {}", self.path.join(name).display())
    }

    /// The names in a directory, sorted; none where there is no directory.
    pub fn list(&self, name: &Path) -> Result<Vec<String>, SysError> {
        let named = || self.show("read of", name);
        let (from, rest) = self.walk(name);
        let fd = match rustix::fs::openat(from, &*rest, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
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
    pub fn make_dir(&self, name: &Path) -> Result<bool, SysError> {
        let (from, rest) = self.walk(name);
        let made = fault::point(|| "mkdir").and_then(|()| Ok(rustix::fs::mkdirat(from, &*rest, Mode::from(0o777))?));
        let made = match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(self.path.join(name)),
            made => made,
        };
        made.map(|()| true).call(|| self.show("mkdir of", name))
    }

    /// What a symlink says; nothing where there is none.
    pub fn read_note(&self, name: &Path) -> Result<Option<String>, SysError> {
        let (from, rest) = self.walk(name);
        match rustix::fs::readlinkat(from, &*rest, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).call(|| self.show("readlink of", name)),
        }
    }

    /// Makes a symlink whose target is the text.
    pub fn make_note(&self, name: &Path, text: &str) -> Result<(), SysError> {
        let (from, rest) = self.walk(name);
        let made = fault::point(|| "symlink").and_then(|()| Ok(rustix::fs::symlinkat(text, from, &*rest)?));
        made.call(|| self.show("symlink at", name))
    }

    /// Pins an object.
    pub fn pin(&self, name: &Path, object: BorrowedFd<'_>) -> Result<(), SysError> {
        let (from, rest) = self.walk_of_bpf(name);
        bpf::obj_pin(object, from, &rest).call(|| self.show("BPF_OBJ_PIN at", name))
    }

    /// Opens what is pinned.
    pub fn get(&self, name: &Path) -> Result<Fd, SysError> {
        let (from, rest) = self.walk_of_bpf(name);
        bpf::obj_get(from, &rest).map(Fd::from).call(|| self.show("BPF_OBJ_GET of", name))
    }

    /// bpf(2) takes a directory to begin from since 6.5.
    fn walk_of_bpf<'a>(&'a self, name: &'a Path) -> (Option<BorrowedFd<'a>>, Cow<'a, Path>) {
        match &self.fd {
            Some(fd) if bpf::takes_directories() => (Some(fd.as_fd()), name.into()),
            _ => (None, self.path.join(name).into()),
        }
    }

    /// Makes something where something is, in one step: whoever looks finds the old or the new. It is made at `staging`, on the
    /// same bpffs, and renamed over the old.
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
        renamed.call(|| self.show("rename to", name))
    }

    /// Removes a pin or a symlink; it is well where there is none.
    pub fn remove(&self, name: &Path) -> Result<(), SysError> {
        self.unlink("unlink", name, AtFlags::empty())
    }

    /// Removes an empty directory; it is well where there is none.
    pub fn remove_dir(&self, name: &Path) -> Result<(), SysError> {
        self.unlink("rmdir", name, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, call: &str, name: &Path, flags: AtFlags) -> Result<(), SysError> {
        let (from, rest) = self.walk(name);
        match fault::point(|| call).and_then(|()| Ok(rustix::fs::unlinkat(from, &*rest, flags)?)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => answer.call(|| self.show(&format!("{call} of"), name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_opened_is_not_taken_for_absent() {
        let made = tempfile::tempdir().unwrap();
        let path = |name: &str| made.path().join(name);
        fs::write(path("file"), "").unwrap();
        assert!(Dir::at(made.path()).unwrap().is_there());
        assert!(!Dir::at(&path("absent")).unwrap().is_there());
        assert!(Dir::at(&path("file")).is_err());
    }
}
