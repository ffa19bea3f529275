//! Cgroups: the node's cgroup v2 root, and the cgroups below it.

use std::{
    fs, io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use sockeye_crds::node::CgroupMode;

use super::{Call as _, Fd, SysError};
use crate::model::kernel::Cgroup;

/// `CGROUP2_SUPER_MAGIC`
const MAGIC: u64 = 0x6367_7270;

/// The node's cgroup root.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its path in this process's mount namespace.
    pub path: PathBuf,
    /// Whether cgroup v1 controllers are mounted too.
    pub mode: CgroupMode,
    /// The opened root, to which cgroups' paths are relative: [`Dir`](super::bpffs::Dir) says what whole paths cost.
    fd: Fd,
    /// The device of its file system. A directory on another device is no cgroup v2 directory.
    device: u64,
}

/// Why no cgroup root was found.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// mountinfo can't be read.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// There is no cgroup v2 mount at or below the given path.
    #[error(
        "no cgroup v2 is mounted at or below {0}: mount it there (type cgroup2), or name another path with \
         --cgroup-root"
    )]
    NotCgroup2(PathBuf),
    /// The machine has no cgroup v2 mount.
    #[error("no cgroup v2 is mounted on this machine: mount it (type cgroup2), or name a path with --cgroup-root")]
    NotMounted,
}

impl Root {
    /// Finds the node's cgroup root.
    ///
    /// If `given` is a cgroup v2 directory, it is the root; otherwise the cgroup v2 mount below it is (on a hybrid host
    /// /sys/fs/cgroup holds v1 controllers and the v2 tree). Without `given` the root is the cgroup2 mount with the
    /// outermost root: a container sees its own cgroup mounted as "/" and the host's, if at all, as "/../..".
    pub fn find(given: Option<&Path>) -> Result<Self, RootError> {
        let text = fs::read_to_string("/proc/self/mountinfo").call(|| "read of /proc/self/mountinfo")?;
        let mounts: Vec<MountLine<'_>> = text.lines().filter_map(MountLine::parse).collect();
        let mode = if mounts.iter().any(|m| m.fs_type == "cgroup") { CgroupMode::Hybrid } else { CgroupMode::Unified };
        let v2 = || mounts.iter().filter(|m| m.fs_type == "cgroup2");
        let path = match given {
            Some(given) if is_cgroup2(given)? => given.to_owned(),
            Some(given) => v2()
                .map(|m| PathBuf::from(unescape(m.mount_point)))
                .find(|p| p.starts_with(given))
                .ok_or_else(|| RootError::NotCgroup2(given.to_owned()))?,
            None => v2()
                .max_by_key(|m| outermost(m.root))
                .map(|m| PathBuf::from(unescape(m.mount_point)))
                .ok_or(RootError::NotMounted)?,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).call(|| format!("open of {}", path.display()))?;
        let device = rustix::fs::fstat(&fd).call(|| format!("fstat of {}", path.display()))?.st_dev;
        Ok(Self { path, mode, fd: fd.into(), device })
    }

    /// The directory of a cgroup, by its path below the root.
    pub fn join(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// Looks up a cgroup by its path below the root. The error `InvalidInput` means that it is no cgroup v2 directory.
    pub fn cgroup(&self, path: &str) -> Result<Cgroup, SysError> {
        let named = || format!("stat of {}", self.join(path).display());
        let stat = rustix::fs::statat(&*self.fd, relative(path), AtFlags::empty()).call(named)?;
        if stat.st_dev != self.device || !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a cgroup v2 directory")).call(named);
        }
        if relative(path) == "." {
            // The root stays open when it is removed, and then has no files.
            rustix::fs::statat(&*self.fd, "cgroup.procs", AtFlags::empty()).call(named)?;
        }
        Ok(Cgroup { id: stat.st_ino, path: path.to_owned() })
    }

    /// The names of a cgroup's children; none if the cgroup does not exist (any more).
    pub fn children(&self, path: &str) -> Result<Vec<String>, SysError> {
        let dir = self.join(path);
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                // cgroupfs returns file types with the names, without a further call.
                if entry.file_type()?.is_dir() {
                    names.extend(entry.file_name().into_string());
                }
            }
            Ok(names)
        };
        match read() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
            names => names.call(|| format!("list of {}", dir.display())),
        }
    }

    /// Returns whether any process is in a cgroup or below it (`populated` in cgroup.events). A cgroup that is gone has
    /// none.
    pub fn is_populated(&self, path: &str) -> Result<bool, SysError> {
        let events = self.join(path).join("cgroup.events");
        match fs::read_to_string(&events) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            Err(error) => Err(error).call(|| format!("read of {}", events.display())),
        }
    }

    /// The paths of a cgroup and of all cgroups below it. Cgroups that are removed during the walk are left out.
    pub fn below(&self, path: &str) -> Vec<String> {
        let mut found = vec![path.to_owned()];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let names = self.children(&path).unwrap_or_default().into_iter();
            found.extend(names.map(|name| format!("{}/{name}", path.trim_end_matches('/'))));
        }
        found
    }

    /// Opens a cgroup, to attach to it or to query it.
    pub fn open(&self, path: &str) -> Result<OwnedFd, SysError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&*self.fd, relative(path), flags, Mode::empty());
        opened.call(|| format!("open of {}", self.join(path).display()))
    }
}

/// The path as the kernel walks it from the opened root.
fn relative(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        rest => rest,
    }
}

/// The ID of an opened cgroup.
pub fn id(cgroup: BorrowedFd<'_>) -> Result<u64, SysError> {
    Ok(rustix::fs::fstat(cgroup).call(|| "fstat of a cgroup")?.st_ino)
}

fn is_cgroup2(dir: &Path) -> Result<bool, SysError> {
    let stat = rustix::fs::statfs(dir).call(|| format!("statfs of {}", dir.display()))?;
    Ok(stat.f_type as u64 & 0xffff_ffff == MAGIC)
}

/// The sort key of a mount's root: more steps up are further out, and "/" is further out than a path below it.
fn outermost(root: &str) -> (usize, std::cmp::Reverse<usize>) {
    let up = root.split('/').filter(|part| *part == "..").count();
    (up, std::cmp::Reverse(root.len()))
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
struct MountLine<'a> {
    root: &'a str,
    mount_point: &'a str,
    fs_type: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ').skip(3);
        Some(Self { root: fields.next()?, mount_point: fields.next()?, fs_type: tail.split(' ').next()? })
    }
}

/// Decodes the octal escapes of mountinfo: space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_with_the_outermost_root_is_chosen() {
        let mut roots = ["/", "/../../..", "/kubepods/pod1", "/.."];
        roots.sort_by_key(|root| outermost(root));
        assert_eq!(roots, ["/kubepods/pod1", "/", "/..", "/../../.."]);
    }

    #[test]
    fn a_mountinfo_line_is_parsed() {
        let line = "35 24 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = MountLine::parse(line).unwrap();
        assert_eq!((mount.root, mount.mount_point, mount.fs_type), ("/", "/sys/fs/cgroup/unified", "cgroup2"));
        assert_eq!(unescape("/a\\040b"), "/a b");
    }

    #[test]
    fn the_root_of_this_machine_is_found() {
        let root = Root::find(None).unwrap();
        let top = root.cgroup("/").unwrap();
        assert!(top.id > 0);
        assert!(root.cgroup("/no-such-cgroup").unwrap_err().is_not_found());
    }
}
