//! sockeye's directory on bpffs: whose it is, and the version of the layout of what is in it. Does IO.

use std::path::Path;

use crate::{
    kernel::{
        SysError,
        bpffs::{Dir, Entry, EntryKind},
    },
    node::layout::{self, DIRECTORY},
};

/// Permissions of others to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Returns why the directory, if it exists, is not to be used: others than this process' user may have put pins there.
pub fn distrust(bpffs: &Dir) -> Result<Option<String>, SysError> {
    let own = rustix::process::geteuid().as_raw();
    Ok(match bpffs.entry(Path::new(DIRECTORY))? {
        Some(Entry { kind: EntryKind::Note | EntryKind::Pin, .. }) => {
            Some("is no directory: remove it, and the agent makes one".to_owned())
        }
        Some(Entry { kind: EntryKind::Directory, uid, mode }) if uid != own || mode & WRITABLE_BY_OTHERS != 0 => {
            Some(format!(
                "belongs to user {uid} and has mode {mode:04o}, so that others than user {own} may have put pins \
                 there: look at what is in it; if all of that is sockeye's, make it user {own}'s with mode 0755 \
                 (chown, chmod), and if not, remove it"
            ))
        }
        _ => None,
    })
}

/// Returns the names of the homes whose layout is of another version, so that this agent must not touch them.
pub fn older_homes(bpffs: &Dir) -> Result<Vec<String>, SysError> {
    if bpffs.read_note(&layout::version())?.as_deref() == Some(layout::VERSION) {
        return Ok(Vec::new());
    }
    // Other names are the notes on the whole node.
    let names = bpffs.list(Path::new(DIRECTORY))?.into_iter();
    Ok(names.filter(|name| !name.starts_with('_')).collect())
}

/// Notes the version of the layout; before there is a home.
pub fn mark(bpffs: &Dir) -> Result<(), SysError> {
    let note = layout::version();
    match bpffs.read_note(&note)? {
        Some(version) if version == layout::VERSION => return Ok(()),
        Some(_) => bpffs.remove(&note)?,
        None => drop(bpffs.make_dir(Path::new(DIRECTORY))?),
    }
    match bpffs.make_note(&note, layout::VERSION) {
        Err(error) if error.already_exists() => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_directory_that_others_may_write_is_not_used() {
        let made = tempfile::tempdir().unwrap();
        let (dir, path) = (Dir::at(made.path()).unwrap(), made.path().join(DIRECTORY));
        assert_eq!(distrust(&dir).unwrap(), None, "there is none yet");
        dir.make_dir(Path::new(DIRECTORY)).unwrap();
        for (mode, is_trusted) in [(0o755, true), (0o700, true), (0o1755, true), (0o775, false), (0o757, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let why = distrust(&dir).unwrap();
            assert_eq!(why.is_none(), is_trusted, "{mode:o}: {why:?}");
            assert!(why.is_none_or(|why| why.contains(&format!("mode {mode:04o}"))));
        }
        fs::remove_dir(&path).unwrap();
        dir.make_note(Path::new(DIRECTORY), "/tmp").unwrap();
        assert!(
            distrust(&dir).unwrap().is_some_and(|why| why.contains("is no directory")),
            "a symlink leads elsewhere"
        );
    }

    #[test]
    fn homes_without_the_note_are_of_an_older_layout() {
        let made = tempfile::tempdir().unwrap();
        let dir = Dir::at(made.path()).unwrap();
        assert_eq!(older_homes(&dir).unwrap(), Vec::<String>::new());
        dir.make_dir(&Path::new(DIRECTORY).join("tcp-events")).unwrap();
        dir.make_note(&layout::suspension(), "drill").unwrap();
        assert_eq!(older_homes(&dir).unwrap(), ["tcp-events"]);
        dir.make_note(&layout::version(), "0").unwrap();
        assert_eq!(older_homes(&dir).unwrap(), ["tcp-events"]);
        for _ in 0..2 {
            mark(&dir).unwrap();
            assert_eq!(older_homes(&dir).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn the_note_can_be_written_before_any_home() {
        let made = tempfile::tempdir().unwrap();
        let dir = Dir::at(made.path()).unwrap();
        mark(&dir).unwrap();
        assert_eq!(dir.read_note(&layout::version()).unwrap().as_deref(), Some(layout::VERSION));
        assert_eq!(distrust(&dir).unwrap(), None);
    }
}
